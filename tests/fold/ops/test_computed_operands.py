"""Bounds, indices and pads that the model computes: what counts is only what they say about the channels."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper
from support.build import FLOAT, Net
from support.claims import expect
from support.ways import BOTH, linear

import bnfold

INT64 = 7
SIZE = (2, 6, 4, 5)
directions = pytest.mark.parametrize("direction", BOTH)


def given(net: Net, name: str, *shape: int) -> str:
    """Integers that the caller gives."""
    return net.input(name, *shape, elem=INT64)


def feeds_of(net: Net, **values: list[int]) -> dict[str, np.ndarray]:
    x = next(i for i in net.inputs if i.name == "x")
    dims = [d.dim_value or 3 for d in x.type.tensor_type.shape.dim]
    drawn = {"x": np.random.default_rng(1).normal(size=dims).astype(np.float32)}
    return drawn | {name: np.array(value, np.int64) for name, value in values.items()}


# --- another axis than the channels' ----------------------------------------------------------------------


@directions
@pytest.mark.parametrize("axis", [2, -1])
def test_bounds_of_another_axis_may_be_computed(direction: str, axis: int) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Slice", x, given(net, "start", 1), net.ints(9), net.ints(axis), name="cut")

    net = BOTH[direction](step, SIZE, SIZE)
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, start=[1]))


@directions
def test_bounds_of_the_channels_may_not(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Slice", x, given(net, "start", 2), net.ints(9, 9), net.ints(2, 1), name="cut")

    net = BOTH[direction](step, SIZE, SIZE)
    # whichever it takes, the layers behind or before must get six channels
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds_of(net, start=[1, 0]))


@directions
def test_axes_that_are_computed_may_be_any(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Slice", x, net.ints(1), net.ints(9), given(net, "axes", 1), name="cut")

    net = BOTH[direction](step, SIZE, SIZE)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds_of(net, axes=[3]))


@directions
def test_without_axes_the_first_ones_are_cut(direction: str) -> None:
    """One pair of bounds cuts the batch, two pairs cut the channels too."""

    def step(net: Net, x: str) -> str:
        return net.node("Slice", x, given(net, "start", count), net.ints(*[9] * count), name="cut")

    count = 1
    net = BOTH[direction](step, SIZE, SIZE)
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, start=[1]))
    count = 2
    net = BOTH[direction](step, SIZE, SIZE)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds_of(net, start=[1, 0]))


@directions
@pytest.mark.parametrize("axis", [0, 2, -1])
def test_indices_of_another_axis_may_be_computed(direction: str, axis: int) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Gather", x, given(net, "i", 3), axis=axis, name="chosen")

    behind = [*SIZE]
    behind[axis] = 3
    net = BOTH[direction](step, SIZE, behind)
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, i=[1, -1, 0]))


@directions
def test_indices_of_the_channels_may_not(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Gather", x, given(net, "i", 6), axis=1, name="chosen")

    net = BOTH[direction](step, SIZE, SIZE)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds_of(net, i=[1, -1, 0, 2, 3, 4]))


@directions
def test_a_computed_index_takes_an_axis_away(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Gather", x, given(net, "i"), axis=2, name="chosen")

    net = BOTH[direction](step, SIZE, (2, 6, 5))
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, i=[1]) | {"i": np.array(1)})


@directions
def test_one_map_for_all_channels_passes_any_choice(direction: str) -> None:
    same = {k: np.full(6, v) for k, v in {"scale": 0.5, "bias": 0.25, "mean": -1.0, "var": 2.0}.items()}

    def step(net: Net, x: str) -> str:
        return net.node("Gather", x, given(net, "i", 6), axis=1, name="chosen")

    net = BOTH[direction](step, SIZE, SIZE, stats=same)
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, i=[1, -1, 0, 2, 2, 4]))


@directions
def test_one_map_for_all_channels_passes_any_bounds(direction: str) -> None:
    same = {k: np.full(6, v) for k, v in {"scale": 0.5, "bias": 0.25, "mean": -1.0, "var": 2.0}.items()}

    def step(net: Net, x: str) -> str:
        return net.node("Slice", x, given(net, "start", 1), net.ints(9), net.ints(1), name="cut")

    net = BOTH[direction](step, SIZE, SIZE, stats=same)
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, start=[0]))


@directions
@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_pads_of_other_axes_may_be_computed(direction: str, mode: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Pad", x, given(net, "pads", 4), "", net.ints(2, -1), mode=mode, name="pad")

    net = BOTH[direction](step, SIZE, SIZE, opset=18)
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net, pads=[1, 2, 0, 1]))


@directions
def test_pads_of_the_channels_may_not(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Pad", x, given(net, "pads", 4), "", net.ints(2, 1), mode="edge", name="pad")

    net = BOTH[direction](step, SIZE, SIZE, opset=18)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds_of(net, pads=[1, 0, 0, 0]))


@directions
def test_pads_that_are_known_in_part(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        some = net.node("Concat", net.ints(0, 0), given(net, "pads", 2), net.ints(0, 0, 1, 1), axis=0)
        return net.node("Pad", x, some, mode="edge", name="pad")

    net = BOTH[direction](step, SIZE, SIZE)
    # the inference of onnx does not follow what it knows in part
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds_of(net, pads=[1, 2]))


@directions
def test_sizes_of_parts_of_another_axis_may_be_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        parts = ["low", "high"]
        net.node("Split", x, given(net, "sizes", 2), out=parts, axis=2, name="split")
        return net.node("Concat", "high", "low", axis=2)

    net = BOTH[direction](step, SIZE, SIZE)
    if direction == "forward":
        expect(net.model(), folded={"bn"}, feeds=feeds_of(net, sizes=[1, 3]))
    else:
        # each part asks for the whole, and neither waits for the other
        expect(net.model(), folded=set(), kept={"bn": "BNF010"}, feeds=feeds_of(net, sizes=[1, 3]))


# --- sizes that the model reads from its tensors ----------------------------------------------------------


def half(net: Net, x: str) -> str:
    """`x.shape[1] // 2`, as exporters write it."""
    size = net.node("Gather", net.node("Shape", x), net.ints(1), axis=0)
    return net.node("Div", size, net.ints(2))


@directions
@pytest.mark.parametrize("batch", [2, "n"])
def test_half_of_the_channels(direction: str, batch: int | str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Slice", x, net.ints(0), half(net, x), net.ints(1), name="cut")

    net = BOTH[direction](step, (batch, 6, 4, 5), (2, 3, 4, 5))
    expect(net.model(), folded={"bn"})


@directions
def test_half_of_an_unknown_axis_after_the_channels(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        size = net.node("Gather", net.node("Shape", x), net.ints(2), axis=0)
        end = net.node("Div", size, net.ints(2))
        return net.node("Slice", x, net.ints(0), end, net.ints(2), name="cut")

    net = BOTH[direction](step, (2, 6, "h", 5), (2, 6, 2, 5))
    expect(net.model(), folded={"bn"}, feeds=feeds_of(net))


def test_parts_of_halves() -> None:
    """Each size is known only once the one before is."""
    net = Net()
    y = linear(net, net.input("x", "n", 3, 4, 4), 3, 16, 4)
    for _ in range(3):
        y = net.node("Slice", y, net.ints(0), half(net, y), net.ints(1))
    net.output(net.bn(y, 2, name="bn"), shape=(None,) * 4)
    expect(net.model(), folded={"bn"})


def test_two_halves_that_are_joined() -> None:
    net = Net()
    y = net.bn(net.input("x", "n", 6, 4, 4), 6, name="bn")
    middle = half(net, y)
    low = net.node("Slice", y, net.ints(0), middle, net.ints(1))
    high = net.node("Slice", y, middle, net.ints(99), net.ints(1))
    net.output(linear(net, net.node("Concat", high, low, axis=1), 6, 2, 4), shape=(None,) * 4)
    expect(net.model(), folded={"bn"})


def test_a_size_by_which_the_model_was_declared_wrongly() -> None:
    """What a model says of its own tensors decides nothing."""
    net = Net()
    y = linear(net, net.input("x", 2, 3, 4, "w"), 3, 4, 4)
    y = net.node("Reshape", y, given(net, "to", 4), out="reshaped")
    net.infos.append(helper.make_tensor_value_info("reshaped", FLOAT, [2, 4, 4, 4]))
    net.output(net.bn(y, 4, name="bn"), shape=(None,) * 4)
    expect(
        net.model(),
        folded=set(),
        kept={"bn": "BNF023"},
        feeds=feeds_of(net, to=[4, 4, 3, 2]),
    )


def test_an_output_that_was_declared_wrongly() -> None:
    """Nor does what it says of its outputs: here half of six channels, where the caller asks for four."""
    net = Net()
    x = net.input("x", 2, 3, 4, 4)
    shaped = net.node("Reshape", x, given(net, "to", 4))
    y = linear(net, x, 3, 6, 4, name="layer")
    start = half(net, shaped)
    net.output(shaped, shape=[4, 6, 2, 2])
    net.output(
        net.bn(net.node("Slice", y, start, net.ints(99), net.ints(1)), 3, name="bn"), shape=(None,) * 4
    )
    # the declared six make it 3, 4 and 5; the four that there are would make it 2, 3, 4 and 5
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = bnfold.optimize(model, verify=False)
    assert [str(kept.code) for kept in result.kept] == ["BNF023"]


def test_a_body_that_hides_a_size_of_the_graph_around_it() -> None:
    """Of two integers with one name the inner one counts; of those that are not hidden the outer one."""
    net = Net()
    x = net.input("x", 2, 3, 4, 4)
    y = linear(net, x, 3, 6, 4, name="layer")
    net.node("Add", half(net, y), net.ints(1), out="size")
    net.output(net.node("Cast", "size", to=INT64), elem=INT64, shape=[1])
    net.input("condition", elem=9)
    bodies = {}
    for which, end in (("then", "size"), ("else", "own")):
        inner = Net(prefix=which)
        z = inner.node("Conv", "x", inner.init(inner.draw(6, 3, 1, 1)), name=f"{which}_layer")
        if end == "own":
            inner.node("Sub", inner.ints(5), inner.ints(1), out="own")
        z = inner.node("Slice", z, inner.ints(0), end, inner.ints(1))
        inner.output(inner.bn(z, 4, name=f"{which}_bn"), shape=[2, 4, 4, 4])
        bodies[f"{which}_branch"] = inner.graph(which)
    net.output(net.node("If", "condition", **bodies), shape=[2, 4, 4, 4])
    for condition in (True, False):
        feeds = feeds_of(net) | {"condition": np.array(condition)}
        expect(net.model(), folded={"then_bn", "else_bn"}, feeds=feeds)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_a_size_that_the_body_of_a_loop_declares_of_what_changes(mode: str) -> None:
    """Five by five it is declared, and was before the first iteration; each adds a row and a column."""
    body = Net(prefix="body")
    for name, elem in (("i", INT64), ("go", 9)):
        body.input(name, elem=elem)
    x = body.input("state", 1, 4, 5, 5)
    wide, narrow = (
        body.node("Conv", x, body.init(body.draw(4, 4, k, k)), auto_pad=mode, strides=[2, 2]) for k in (3, 2)
    )
    y = body.bn(body.node("Add", wide, narrow), 4, name="bn")
    longer = body.node("Pad", x, body.ints(0, 0, 0, 0, 0, 0, 1, 1))
    body.output(body.node("Identity", "go"), elem=9, shape=[])
    body.output(longer, shape=[1, 4, None, None])
    body.output(body.node("GlobalAveragePool", y), shape=[1, 4, 1, 1])
    net = Net()
    x = net.input("x", 1, 4, "h", "w")
    net.node("Loop", net.ints(3), "", x, out=["last", "means"], body=body.graph("body"))
    net.output("last", shape=[1, 4, None, None])
    net.output("means", shape=[None, 1, 4, 1, 1])
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 4, 5, 5)).astype(np.float32)}
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    expect(model, folded={"bn"}, feeds=feeds)


# --- operands that the caller may replace -----------------------------------------------------------------


def overridable(net: Net, *values: int) -> str:
    net.input("operand", len(values), elem=INT64)
    return net.ints(*values, name="operand")


def test_a_shape_that_the_caller_may_replace() -> None:
    """By default the channels stay where they are, but the caller may ask for another shape."""
    net = Net(ir=8)
    y = linear(net, net.input("x", 1, 3, 4, 4), 3, 4, 4)
    y = net.node("Reshape", y, overridable(net, 1, 4, 4, 4))
    net.output(net.bn(y, 4, name="bn"), shape=(None,) * 4)
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rng = np.random.default_rng(2)
    feeds = {"x": rng.normal(size=(1, 3, 4, 4)).astype(np.float32), "operand": np.array([4, 4, 2, 2])}
    expect(model, folded=set(), kept={"bn": "BNF022"}, feeds=feeds)
    expect(model, folded={"bn"}, freeze=True, feeds={"x": feeds["x"]})


def test_sizes_of_parts_that_the_caller_may_replace() -> None:
    net = Net(ir=8)
    y = linear(net, net.input("x", 1, 3, 4, 4), 3, 4, 4)
    net.node("Split", y, overridable(net, 2, 2), out=["low", "high"], axis=1)
    joined = net.node("Concat", "high", "low", axis=1)
    net.output(net.bn(joined, 4, name="bn"), shape=(None,) * 4)
    model = helper.make_model(net.graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rng = np.random.default_rng(2)
    feeds = {"x": rng.normal(size=(1, 3, 4, 4)).astype(np.float32), "operand": np.array([1, 3])}
    expect(model, folded=set(), kept={"bn": "BNF023"}, feeds=feeds)
