"""Pad: mirrored values commute with any map, a constant must stay one constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import DOUBLE, FLOAT16, NEWEST, Net
from support.claims import expect, initializers
from support.ways import (
    BOTH,
    Stats,
    Step,
    linear,
    positive,
    scaling,
    shifting_in_one,
    turning,
    uniform,
    zero_in_one,
)

import bnfold

SIZE = (2, 4, 3, 5)
AROUND = [0, 0, 1, 2, 0, 0, 0, 1]
BEHIND = (2, 4, 4, 8)
directions = pytest.mark.parametrize("direction", BOTH)


def padded(
    opset: int,
    pads: list[int],
    value: float | None = None,
    mode: str | None = None,
    axes: list[int] | None = None,
) -> Step:
    def step(net: Net, x: str) -> str:
        attrs: dict[str, Any] = {} if mode is None else {"mode": mode}
        if opset < 11:
            return net.node(
                "Pad", x, pads=pads, name="pad", **attrs | ({} if value is None else {"value": value})
            )
        constant = [net.init(np.array(value))] if value is not None else [""] if axes is not None else []
        listed = [net.ints(*axes)] if axes is not None else []
        return net.node("Pad", x, net.ints(*pads), *constant, *listed, name="pad", **attrs)

    return step


@directions
@pytest.mark.parametrize(
    ("mode", "opset"), [(m, o) for m in ("reflect", "edge") for o in (7, 11, 13, 18)] + [("wrap", 19)]
)
def test_mirrored_values_take_any_map(direction: str, mode: str, opset: int) -> None:
    net = BOTH[direction](padded(opset, AROUND, mode=mode), SIZE, BEHIND, opset=opset)
    result = expect(net.model(), folded={"bn"})
    assert "pad" in result.folds[0].through


@directions
@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18, NEWEST])
@pytest.mark.parametrize("value", [None, 0.0])
@pytest.mark.parametrize("mode", [None, "constant"])
def test_zeros_take_a_scale(direction: str, mode: str | None, value: float | None, opset: int) -> None:
    pad = padded(opset, AROUND, value, mode)
    expect(BOTH[direction](pad, SIZE, BEHIND, stats=turning(4), opset=opset).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [10, 11])
@pytest.mark.parametrize("stats", [positive(4), shifting_in_one(4)])
def test_zeros_do_not_take_a_shift(direction: str, stats: Stats, opset: int) -> None:
    net = BOTH[direction](padded(opset, AROUND, 0.0), SIZE, BEHIND, stats=stats, opset=opset)
    expect(net.model(), folded=set(), kept={"bn": "BNF014"})


@directions
@pytest.mark.parametrize("opset", [10, 11, 18])
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_a_constant_moves_with_a_uniform_map(direction: str, value: float, opset: int) -> None:
    net = BOTH[direction](
        padded(opset, AROUND, value), SIZE, BEHIND, stats=uniform(4, scale=-0.75), opset=opset
    )
    expect(net.model(), folded={"bn"})


def test_the_moved_constant() -> None:
    """`scale * u + shift` backward, and `(u - shift) / scale` forward."""
    stats = {**uniform(4, scale=2.0, bias=0.5, mean=0.0), "var": np.full(4, 1 - np.float64(np.float32(1e-5)))}
    for direction, moved in (("backward", 3.5), ("forward", 0.5)):
        result = expect(
            BOTH[direction](padded(13, AROUND, 1.5), SIZE, BEHIND, stats=stats).model(), folded={"bn"}
        )
        (found,) = (w for w in initializers(result.model).values() if w.shape == ())
        assert abs(found - moved) < 1e-4


@directions
@pytest.mark.parametrize("stats", [scaling(4), turning(4), positive(4)])
def test_a_constant_that_would_differ_from_channel_to_channel(direction: str, stats: Stats) -> None:
    net = BOTH[direction](padded(13, AROUND, 1.5), SIZE, BEHIND, stats=stats)
    expect(net.model(), folded=set(), kept={"bn": "BNF014"})


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_channel_that_disappears(value: float) -> None:
    """Backward its constant becomes 0; forward no constant can become one under a scale of 0."""
    net = BOTH["backward"](padded(13, AROUND, 0.0), SIZE, BEHIND, stats=zero_in_one(4))
    expect(net.model(), folded={"bn"})
    net = BOTH["forward"](padded(13, AROUND, value), SIZE, BEHIND, stats=zero_in_one(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF014"})


@directions
def test_a_constant_that_is_left_out_cannot_become_another(direction: str) -> None:
    net = BOTH[direction](padded(13, AROUND), SIZE, BEHIND, stats=uniform(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF014"})


@directions
def test_a_constant_that_is_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Pad", x, net.ints(*AROUND), net.input("u"), name="pad")

    net = BOTH[direction](step, SIZE, BEHIND, stats=uniform(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


@directions
def test_pads_that_are_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Pad", x, net.input("pads", 8, elem=7), name="pad", mode="edge")

    net = BOTH[direction](step, SIZE, BEHIND)
    feeds = {
        "x": np.ones((2, 3 if direction == "backward" else 4, 3, 5), np.float32),
        "pads": np.array(AROUND),
    }
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


@directions
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("opset", [10, 13])
def test_padded_channels(direction: str, mode: str, opset: int) -> None:
    pad = padded(opset, [0, 1, 0, 0, 0, 0, 0, 0], mode=mode)
    net = BOTH[direction](
        pad, SIZE, (2, 5, 3, 5), stats=scaling(5 if direction == "backward" else 4), opset=opset
    )
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
def test_as_many_channels_but_others(direction: str) -> None:
    """One is added in front and one is cut off behind."""
    net = BOTH[direction](padded(13, [0, 1, 0, 0, 0, -1, 0, 0], mode="edge"), SIZE, SIZE)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
@pytest.mark.parametrize(("axes", "pads", "behind"), [
    ([2, 3], [1, 2, 0, 1], BEHIND), ([-1], [2, 1], (2, 4, 3, 8)), ([3, 1], [2, 0, 1, 0], (2, 4, 3, 8)),
])  # fmt: skip
def test_named_axes(direction: str, axes: list[int], pads: list[int], behind: tuple[int, ...]) -> None:
    net = BOTH[direction](padded(18, pads, mode="edge", axes=axes), SIZE, behind, opset=18)
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("axes", [[1], [-3], [-1, -3]])
def test_named_axes_with_the_channels(direction: str, axes: list[int]) -> None:
    pads = [1, -1] if len(axes) == 1 else [0, 1, 0, -1]
    net = BOTH[direction](padded(18, pads, mode="edge", axes=axes), SIZE, SIZE, opset=18)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
def test_axes_that_are_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        axes = net.input("axes", 1, elem=7)
        return net.node("Pad", x, net.ints(1, 1), "", axes, name="pad", mode="edge")

    net = BOTH[direction](step, SIZE, (2, 4, 3, 7), opset=18)
    feeds = {"x": np.ones((2, 3 if direction == "backward" else 4, 3, 5), np.float32), "axes": np.array([3])}
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


@directions
def test_only_cut_off(direction: str) -> None:
    """Negative pads with an unread constant; a scale passes, and so does a shift that is mirrored."""
    pads = [0, 0, 0, -1, 0, 0, 0, -1]
    expect(BOTH[direction](padded(13, pads), SIZE, (2, 4, 3, 3), stats=turning(4)).model(), folded={"bn"})
    expect(BOTH[direction](padded(13, pads, mode="edge"), SIZE, (2, 4, 3, 3)).model(), folded={"bn"})


@directions
def test_the_batch(direction: str) -> None:
    net = BOTH[direction](padded(13, [1, 0, 0, 0, 0, 0, 0, 0], mode="edge"), SIZE, (3, 4, 3, 5))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("size", [(2, 4, 3), (1, 4, 2, 2, 3)], ids=len)
def test_any_rank(direction: str, size: tuple[int, ...]) -> None:
    pads = [0] * 2 * len(size)
    pads[-1] = 1
    net = BOTH[direction](padded(13, pads, mode="edge"), size, (*size[:-1], size[-1] + 1))
    expect(net.model(), folded={"bn"})


@directions
def test_a_constant_that_overflows(direction: str) -> None:
    scale = 4.0 if direction == "backward" else 0.125
    net = BOTH[direction](
        padded(13, AROUND, 30000.0), SIZE, BEHIND, stats=uniform(4, scale, 0.0, 0.0), elem=FLOAT16
    )
    expect(net.model(), folded=set(), kept={"bn": "BNF017"})


@directions
def test_an_attribute_cannot_hold_the_constant_of_a_double(direction: str) -> None:
    for opset, kept in ((10, {"bn": "BNF017"}), (11, {})):
        pad = padded(opset, AROUND, 1.5)
        net = BOTH[direction](pad, SIZE, BEHIND, stats=uniform(4), opset=opset, elem=DOUBLE)
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_a_pad_before_a_convolution_lets_the_shift_through() -> None:
    """A padded Conv takes no shift; a mirrored Pad before an unpadded one does."""
    net = Net()
    y = net.bn(net.input("x", 1, 3, 5, 5), 3, name="bn")
    y = net.node("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    net.output(net.conv(y, 3, 4))
    expect(net.model(), folded={"bn"})


def test_the_normalized_tensor_as_constant() -> None:
    net = Net()
    y = net.node("Reshape", net.bn(net.input("x", 1, 1), 1, name="bn"), net.init(np.zeros(0), elem=7))
    y = net.node("Pad", net.input("other", 2, 3), net.ints(0, 1, 0, 1), y)
    net.output(linear(net, y, 5, 2, 2))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_the_value_of_an_old_pad_is_rounded_once() -> None:
    """It is an attribute and holds float32; two normalizations behind it must not round it twice."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        drawn = np.concatenate([rng.normal(size=1), rng.uniform(0.5, 2.0, 2), rng.normal(size=2)])
        value, *rest = drawn.astype(np.float32).astype(np.float64)
        scales, shifts = rest[:2], rest[2:]
        net = Net(10)
        y = net.node("Conv", net.input("x", 1, 3, 4, 4), net.init(net.draw(2, 3, 1, 1)))
        y = net.node("Pad", y, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=float(value))
        for k in range(2):
            stats = {"scale": np.full(2, scales[k]), "bias": np.full(2, shifts[k]), "mean": np.zeros(2)}
            y = net.bn(y, 2, stats=stats | {"var": np.ones(2)}, epsilon=0.0)
        net.output(y, shape=[1, 2, 6, 6])
        model = bnfold.optimize(net.model(), verify=False).model
        (pad,) = (n for n in model.graph.node if n.op_type == "Pad")
        (stored,) = (a.f for a in pad.attribute if a.name == "value")
        assert stored == np.float32((value * scales[0] + shifts[0]) * scales[1] + shifts[1])
