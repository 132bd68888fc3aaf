"""Gemm as a consumer: the rows of B' are scaled, and C takes the shift."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from support.build import FLOAT16, Attribute, Net
from support.claims import expect, initializers, ops
from support.ways import turning

ROWS, FEATURES, OUT = 4, 3, 5
C_SHAPES: dict[str, tuple[int, ...] | None] = {
    "absent": None, "empty": None, "scalar": (), "[1]": (1,), "[N]": (OUT,), "[1,N]": (1, OUT),
    "[M,1]": (ROWS, 1), "[1,1]": (1, 1), "[M,N]": (ROWS, OUT),
}  # fmt: skip


def gemm(net: Net, y: str, kind: str, trans_b: int = 0, **attrs: Attribute) -> str:
    w = net.init(net.draw(*((OUT, FEATURES) if trans_b else (FEATURES, OUT))), "w")
    shape = C_SHAPES[kind]
    c = [] if kind == "absent" else [""] if shape is None else [net.init(net.draw(*shape), "c")]
    return net.node("Gemm", y, w, *c, name="gemm", transB=trans_b, **attrs)


@pytest.mark.parametrize("kind", C_SHAPES)
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -1.5), (2.0, 0.0), (0.0, 2.0), (-1.0, 1.0)])
def test_every_c_and_every_factor(kind: str, trans_b: int, alpha: float, beta: float) -> None:
    net = Net()
    y = net.bn(net.input("x", ROWS, FEATURES), FEATURES, name="bn")
    net.output(gemm(net, y, kind, trans_b, alpha=alpha, beta=beta))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Gemm"]


@pytest.mark.parametrize("kind", ["absent", "[M,N]"])
@pytest.mark.parametrize(("alpha", "trans_b"), list(product([1.0, -0.5], [0, 1])))
def test_a_scale_leaves_c_alone(kind: str, alpha: float, trans_b: int) -> None:
    net = Net()
    y = net.bn(net.input("x", ROWS, FEATURES), FEATURES, name="bn", stats=turning(FEATURES))
    net.output(gemm(net, y, kind, trans_b, alpha=alpha, beta=0.5))
    found = initializers(expect(net.model(), folded={"bn"}).model)
    assert set(found) == ({"w"} if kind == "absent" else {"w", "c"})


@pytest.mark.parametrize("trans_b", [0, 1])
def test_the_transposed_input_has_its_features_in_front(trans_b: int) -> None:
    """transA: what is normalized along axis 1 are the rows, not what is summed over."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", FEATURES, FEATURES), FEATURES, name="bn"))
    net.output(gemm(net, y, "[N]", trans_b, transA=1))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", FEATURES, FEATURES), FEATURES, name="bn"))
    net.output(gemm(net, y, "[N]", trans_b, transA=1))
    expect(net.model(), folded={"bn"})
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", FEATURES, FEATURES), FEATURES, name="bn"))
    net.output(gemm(net, y, "[N]", trans_b))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize("opset", [6, 7, 9, 11, 13])
def test_every_version(opset: int) -> None:
    for shape in ((OUT,), (ROWS, OUT)):
        net = Net(opset)
        y = net.bn(net.input("x", ROWS, FEATURES), FEATURES, name="bn")
        c = net.init(net.draw(*shape))
        attrs: dict[str, Any] = {"broadcast": int(len(shape) == 1)} if opset < 7 else {}
        net.output(net.node("Gemm", y, net.init(net.draw(FEATURES, OUT)), c, beta=0.5, **attrs))
        expect(net.model(), folded={"bn"})


def test_an_unknown_number_of_rows() -> None:
    net = Net()
    y = net.bn(net.input("x", "n", FEATURES), FEATURES, name="bn")
    net.output(gemm(net, y, "absent"))
    expect(net.model(), folded={"bn"})


def test_operands_that_are_computed() -> None:
    for which, stats, code in (("w", None, "BNF012"), ("c", None, "BNF012"), ("c", turning(FEATURES), None)):
        net = Net()
        y = net.node("Identity", net.bn(net.input("x", ROWS, FEATURES), FEATURES, name="bn", stats=stats))
        w = net.input("w", FEATURES, OUT) if which == "w" else net.init(net.draw(FEATURES, OUT))
        c = net.input("c", OUT) if which == "c" else net.init(net.draw(OUT))
        net.output(net.node("Gemm", y, w, c))
        kept = {} if code is None else {"bn": code}
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@pytest.mark.parametrize("position", [1, 2])
def test_the_normalized_tensor_as_another_operand(position: int) -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 3, 3), 3, name="bn"))
    others = [net.init(net.draw(3, 3)), net.init(net.draw(3, 3))]
    net.output(net.node("Gemm", *(*others[:position], y, *others[position:])))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_flattened_channels() -> None:
    """The classifier behind a normalization: one map for the positions of a channel."""
    net = Net()
    y = net.node("Flatten", net.node("Dropout", net.bn(net.input("x", "n", 3, 2, 2), 3, name="bn")))
    net.output(net.node("Gemm", y, net.init(net.draw(5, 12)), net.init(net.draw(5)), transB=1))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["Dropout", "Flatten", "Gemm"]


def test_an_overflow_of_the_new_c() -> None:
    net = Net(elem=FLOAT16)
    stats = {"bias": np.full(FEATURES, 3e4), "scale": np.ones(FEATURES), "var": np.ones(FEATURES)}
    y = net.node("Identity", net.bn(net.input("x", ROWS, FEATURES), FEATURES, name="bn", stats=stats))
    net.output(net.node("Gemm", y, net.init(np.full((FEATURES, OUT), 2.0)), net.init(np.zeros(OUT))))
    expect(net.model(), folded=set(), kept={"bn": "BNF017"})


@pytest.mark.parametrize("kind", ["absent", "[N]", "[M,1]", "[M,N]"])
@pytest.mark.parametrize(("alpha", "trans_b"), list(product([0.5, -2.0], [0, 1])))
def test_a_transposed_input_with_a_factor(kind: str, alpha: float, trans_b: int) -> None:
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", ROWS, FEATURES), FEATURES, name="bn"))
    net.output(gemm(net, y, kind, trans_b, transA=1, alpha=alpha, beta=-0.5))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Transpose", "Gemm"]


@pytest.mark.parametrize(("axis", "kept"), [(1, {}), (2, {"bn": "BNF023"})])
def test_flattened_with_the_batch(axis: int, kept: dict[str, str]) -> None:
    """With the channels among the rows, nothing that is summed over is one of them."""
    net = Net()
    y = net.node("Flatten", net.bn(net.input("x", 2, 3, 2, 2), 3, name="bn"), axis=axis)
    net.output(net.node("Gemm", y, net.init(net.draw(12 if axis == 1 else 4, 5)), net.init(net.draw(5))))
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)
