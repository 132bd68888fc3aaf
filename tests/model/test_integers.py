"""Integers computed from shapes: what is known of them is what onnxruntime computes."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.build import Net
from support.claims import session

from bnfold.model.edits import Scope
from bnfold.model.shapes import known
from bnfold.model.store import open_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

INT64, INT32 = TensorProto.INT64, TensorProto.INT32
SIZES = {"n": 3, "h": 7}


def whole(net: Net) -> ModelProto:
    """A model that returns all it computes from the shape of `x`, `[n, 6, h, 5]`."""
    for node in net.nodes:
        cast = next((a.i for a in node.attribute if a.name == "to"), INT64)
        net.output(*node.output, elem=TensorProto.BOOL if node.op_type == "Equal" else cast)
    model = helper.make_model(
        net.graph(), opset_imports=[helper.make_opsetid("", net.opset)], ir_version=net.ir
    )
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model


def agrees(model: ModelProto) -> dict[str, Any]:
    """Each entry that is said to be known is the one that onnxruntime computes, for several sizes."""
    found = {
        name: held for (scope, name), held in known(open_model(model)).integers.items() if scope == Scope()
    }
    for sizes in ((3, 7), (1, 1), (2, 9)):
        x = np.zeros((sizes[0], 6, sizes[1], 5), np.float32)
        values = session(model).run(None, {"x": x})
        for info, value in zip(model.graph.output, values, strict=True):
            held = found.get(info.name)
            if held is None:
                continue
            assert held.shape == value.shape, info.name
            for entry, truth in zip(held.reshape(-1), value.reshape(-1), strict=True):
                assert entry is None or entry == truth, (info.name, held, value)
    return found


def build(step: Callable[[Net, str], str], opset: int = 17) -> dict[str, Any]:
    net = Net(opset)
    shape = net.node("Shape", net.input("x", "n", 6, "h", 5))
    result = step(net, shape)
    return {"result": agrees(whole(net)).get(result)}


def cut(net: Net, x: str, start: int, end: int, step: int) -> str:
    return net.node("Slice", x, net.ints(start), net.ints(end), net.ints(0), net.ints(step))


CASES: dict[str, tuple[Callable[[Net, str], str], list[int | None] | None]] = {
    "known in part": (lambda net, s: net.node("Identity", s), [None, 6, None, 5]),
    "one entry": (lambda net, s: net.node("Gather", s, net.ints(1)), [6]),
    "an entry from behind": (lambda net, s: net.node("Gather", s, net.ints(-1, 0)), [5, None]),
    "half": (lambda net, s: net.node("Div", s, net.ints(2)), [None, 3, None, 2]),
    "towards zero": (
        lambda net, s: net.node("Div", net.node("Sub", s, net.ints(8)), net.ints(2)), [None, -1, None, -1],
    ),
    "by zero": (lambda net, s: net.node("Mul", s, net.ints(0)), [None, 0, None, 0]),
    "some": (lambda net, s: cut(net, s, 1, 99, 2), [6, 5]),
    "from behind": (lambda net, s: cut(net, s, -1, -99, -2), [5, 6]),
    "joined": (lambda net, s: net.node("Concat", s, net.ints(7), axis=0), [None, 6, None, 5, 7]),
    "a table": (
        lambda net, s: net.node("Transpose", net.node("Reshape", s, net.ints(-1, 2)), perm=[1, 0]),
        [None, None, 6, 5],
    ),
    "the larger": (lambda net, s: net.node("Max", s, net.ints(6)), [None, 6, None, 6]),
    "the smallest": (lambda net, s: net.node("Min", s, net.ints(6), net.ints(5)), [None, 5, None, 5]),
    "the opposite": (lambda net, s: net.node("Neg", s), [None, -6, None, -5]),
    "another type": (
        lambda net, s: net.node("Cast", net.node("Cast", s, to=INT32), to=INT64), [None, 6, None, 5],
    ),
    "not through floats": (
        lambda net, s: net.node("Cast", net.node("Cast", s, to=TensorProto.FLOAT), to=INT64), None,
    ),
    "chosen": (
        lambda net, s: net.node(
            "Where", net.node("Equal", net.ints(-1, 4, -1, 4), net.ints(-1)), s, net.ints(4)
        ),
        [None, 4, None, 4],
    ),
    "an axis more and less": (
        lambda net, s: net.node("Squeeze", net.node("Unsqueeze", s, net.ints(0)), net.ints(0)),
        [None, 6, None, 5],
    ),
    "from a start": (lambda net, _s: net.node("Shape", "x", start=-3, end=2), [6]),
    "a filled one": (
        lambda net, s: net.node(
            "ConstantOfShape", net.node("Sub", net.node("Gather", s, net.ints(1)), net.ints(4)),
            value=helper.make_tensor("v", INT64, [1], [9]),
        ),
        [9, 9],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_known(name: str) -> None:
    step, expected = CASES[name]
    found = build(step)["result"]
    assert (None if found is None else found.reshape(-1).tolist()) == expected


def test_a_size() -> None:
    assert build(lambda net, _s: net.node("Size", "x"))["result"].tolist() is None


def test_what_is_beyond_int32_is_not_known() -> None:
    huge = build(lambda net, s: net.node("Mul", s, net.ints(1 << 40)))["result"]
    assert huge.tolist() == [None, None, None, None]


def test_a_vector_too_long_to_speak_of_axes() -> None:
    def step(net: Net, _s: str) -> str:
        long = helper.make_tensor("v", INT64, [1], [9])
        return net.node("ConstantOfShape", net.ints(1000), value=long)

    assert build(step)["result"] is None


def random_model(seed: int) -> ModelProto:
    """Arithmetic on the shape of a tensor, step by step from what there is."""
    random = Random(seed)  # noqa: S311 - no secret
    net = Net(17)
    pool = [(net.node("Shape", net.input("x", "n", 6, "h", 5)), 4)]
    for _ in range(random.randrange(2, 12)):
        name, length = random.choice(pool)
        kind = random.randrange(8)
        if kind == 0:
            picked = [random.randrange(-length, length) for _ in range(random.randrange(1, 4))]
            pool.append((net.node("Gather", name, net.ints(*picked)), len(picked)))
        elif kind in (1, 2):
            op = random.choice(("Add", "Sub", "Mul", "Div", "Min", "Max"))
            low = 1 if op == "Div" else -3
            numbers = [random.randrange(low, 4) for _ in range(random.choice((1, length)))]
            pool.append((net.node(op, name, net.ints(*numbers)), length))
        elif kind == 3:
            other, more = random.choice(pool)
            pool.append((net.node("Concat", name, other, axis=0), length + more))
        elif kind == 4:
            start, step = random.randrange(-length, length), random.choice((1, 1, 2, -1))
            end = random.randrange(-9, 9)
            left = len(np.arange(length)[_bounds(start, end, step, length)])
            if left:
                bounds = [net.ints(v) for v in (start, end, 0, step)]
                pool.append((net.node("Slice", name, *bounds), left))
        elif kind == 5:
            same = [other for other, other_length in pool if other_length == length]
            pool.append((net.node(random.choice(("Add", "Sub", "Mul")), name, random.choice(same)), length))
        elif kind == 6:
            pool.append((net.node("Neg", name), length))
        else:
            cast = net.node("Squeeze", net.node("Unsqueeze", name, net.ints(0)), net.ints(0))
            pool.append((cast, length))
    return whole(net)


def _bounds(start: int, end: int, step: int, length: int) -> slice:
    """ONNX counts from behind only once."""
    first = start + length if start < 0 else start
    last = end + length if end < 0 else end
    if step > 0:
        return slice(min(max(first, 0), length), min(max(last, 0), length), step)
    last = min(max(last, -1), length - 1)
    return slice(min(max(first, 0), length - 1), None if last < 0 else last, step)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_arithmetic(first: int) -> None:
    for seed in range(first, first + 50):
        agrees(random_model(seed))
