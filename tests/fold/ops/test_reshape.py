"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: an index belongs to one channel, or it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.build import NEWEST, Attribute, Net
from support.claims import expect, ops
from support.ways import BOTH, Step, backward, forward

if TYPE_CHECKING:
    from collections.abc import Sequence

Shape = tuple[int, ...]
directions = pytest.mark.parametrize("direction", BOTH)


def reshaped(*target: int, **attrs: Attribute) -> Step:
    return lambda net, x: net.node("Reshape", x, net.ints(*target), name="reshape", **attrs)


# --- Reshape ----------------------------------------------------------------------------------------------

KEPT: list[tuple[Shape, Shape, Shape]] = [
    ((2, 4, 3, 5), (2, 4, 15), (2, 4, 15)),
    ((2, 4, 3, 5), (0, 0, -1), (2, 4, 15)),
    ((2, 4, 15), (2, 4, 3, 5), (2, 4, 3, 5)),
    ((2, 4, 15), (-1, 4, 5, 3), (2, 4, 5, 3)),
    ((2, 4), (2, 4, 1, 1), (2, 4, 1, 1)),
    ((2, 4, 1, 1), (0, -1), (2, 4)),
    ((2, 4, 4, 4), (2, 4, 16), (2, 4, 16)),
    ((4, 4, 4), (4, 4, 2, 2), (4, 4, 2, 2)),
    ((2, 4, 1, 1, 1), (2, 4), (2, 4)),
]


@directions
@pytest.mark.parametrize(("size", "target", "behind"), KEPT)
def test_the_axis_is_still_there(direction: str, size: Shape, target: Shape, behind: Shape) -> None:
    expect(BOTH[direction](reshaped(*target), size, behind).model(), folded={"bn"})


LOST: list[tuple[Shape, Shape]] = [
    ((2, 4, 3, 5), (2, 3, 4, 5)),  # the same axes in another order
    ((2, 4, 4), (4, 4, 2)),
    ((2, 4, 6), (2, 6, 4)),
    ((3, 4, 2), (2, 4, 3)),  # axis 1 has the same size and other elements
    ((2, 3, 4), (3, 4, 2)),
    ((2, 6, 5), (2, 10, 3)),
]


@directions
@pytest.mark.parametrize(("size", "behind"), LOST)
def test_the_axis_is_lost(direction: str, size: Shape, behind: Shape) -> None:
    expect(BOTH[direction](reshaped(*behind), size, behind).model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize(
    ("size", "behind"),
    [((2, 12, 5), (2, 3, 20)), ((2, 6, 4), (2, 3, 2, 4)), ((2, 8), (2, 4, 2)), ((4, 4, 2), (4, 2, 4))],
)
def test_channels_that_are_split(size: Shape, behind: Shape) -> None:
    """Backward each part of a channel gets its map; forward one index would belong to several."""
    expect(backward(reshaped(*behind), size, behind).model(), folded={"bn"})
    expect(forward(reshaped(*behind), size, behind).model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize(
    ("size", "behind"), [((2, 3, 4), (2, 12)), ((2, 3, 2, 4), (2, 6, 4)), ((2, 4, 2), (2, 8))]
)
def test_channels_that_are_merged_with_what_follows(size: Shape, behind: Shape) -> None:
    """The other way round."""
    expect(forward(reshaped(*behind), size, behind).model(), folded={"bn"})
    expect(backward(reshaped(*behind), size, behind).model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize("batch", ["n", 2])
def test_an_unknown_batch(batch: str | int) -> None:
    size, behind = (batch, 4, 3, 5), (2, 4, 15)
    for direction, make in BOTH.items():
        for target in ((0, 4, 15), (0, 4, -1), (-1, 4, 15), (0, 0, -1)):
            result = expect(make(reshaped(*target), size, behind).model(), folded={"bn"})
            assert "reshape" in result.folds[0].through, (direction, target)


def test_a_batch_that_takes_positions_in() -> None:
    """[n, 4, 15] as [-1, 4, 5]: axis 1 has four entries again, but three of them make one channel."""
    for make in BOTH.values():
        net = make(reshaped(-1, 4, 5), ("n", 4, 15), (6, 4, 5))
        feeds = {"x": np.ones((2, 3 if make is backward else 4, 15), np.float32)}
        expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


def test_a_batch_that_takes_channels_in() -> None:
    """Group normalization spelled out, and what torch does for a BatchNorm1d over time: [n * t, c]."""
    for make in BOTH.values():
        net = make(reshaped(-1, 4), ("n", 6, 4), (12, 4))
        feeds = {"x": np.ones((2, 3 if make is backward else 6, 4), np.float32)}
        expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


@directions
def test_a_target_that_is_computed(direction: str) -> None:
    """Its rank is known from what follows, its order is not."""

    def step(net: Net, x: str) -> str:
        return net.node("Reshape", x, net.input("target", 3, elem=7), name="reshape")

    net = BOTH[direction](step, (2, 4, 3, 5), (2, 4, 15))
    channels = 3 if direction == "backward" else 4
    feeds = {"x": np.ones((2, channels, 3, 5), np.float32), "target": np.array([2, 4, 15])}
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


@directions
def test_allowzero_without_zeros(direction: str) -> None:
    net = BOTH[direction](reshaped(2, 4, 15, allowzero=1), (2, 4, 3, 5), (2, 4, 15))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [7, 13, 14, 19, 21, NEWEST])
def test_every_version_of_reshape(direction: str, opset: int) -> None:
    net = BOTH[direction](reshaped(2, 4, -1), (2, 4, 3, 5), (2, 4, 15), opset=opset)
    expect(net.model(), folded={"bn"})


# --- Flatten ----------------------------------------------------------------------------------------------


def flat(axis: int | None) -> Step:
    if axis is None:
        return lambda net, x: net.node("Flatten", x, name="flat")
    return lambda net, x: net.node("Flatten", x, name="flat", axis=axis)


@pytest.mark.parametrize("axis", [None, 1, -3])
def test_flattened_before_a_gemm(axis: int | None) -> None:
    net = forward(flat(axis), ("n", 4, 3, 5), (2, 60), opset=13)
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Identity", "Flatten", "Gemm"]


@pytest.mark.parametrize("axis", [None, 1])
def test_flattened_before_the_normalization(axis: int | None) -> None:
    """Each position has statistics of its own: the weights before have only one for each channel."""
    net = backward(flat(axis), (2, 4, 3, 5), (2, 60))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    expect(backward(flat(axis), (2, 4, 1, 1), (2, 4)).model(), folded={"bn"})


@directions
def test_flattened_at_another_axis(direction: str) -> None:
    size, behind = (2, 4, 3, 5), (8, 15)
    expect(BOTH[direction](flat(2), size, behind).model(), folded=set(), kept={"bn": "BNF023"})
    expect(
        BOTH[direction](flat(0), size, (1, 120)).model(), folded={"bn"} if direction == "forward" else set()
    )


def test_flattened_into_the_rows() -> None:
    """All in one column: the channels are rows of what a Gemm with transA sums over."""
    net = Net()
    y = net.node("Flatten", net.bn(net.input("x", 2, 4, 3), 4, name="bn"), axis=3)
    net.output(net.node("Gemm", y, net.init(net.draw(24, 5)), net.init(net.draw(5)), transA=1))
    expect(net.model(), folded={"bn"})


# --- Squeeze and Unsqueeze --------------------------------------------------------------------------------


def with_axes(op: str, opset: int, axes: Sequence[int] | None) -> Step:
    def step(net: Net, x: str) -> str:
        if axes is None:
            return net.node(op, x, name="step")
        if opset >= 13:
            return net.node(op, x, net.ints(*axes), name="step")
        return net.node(op, x, name="step", axes=list(axes))

    return step


@directions
@pytest.mark.parametrize("opset", [7, 11, 13, 21])
@pytest.mark.parametrize(("size", "axes", "behind"), [
    ((2, 4, 3, 1), [3], (2, 4, 3)), ((2, 4, 1, 1), [2, 3], (2, 4)), ((2, 4, 1, 3), [2], (2, 4, 3)),
    ((2, 4, 1), None, (2, 4)),
])  # fmt: skip
def test_squeezed_positions(
    direction: str, opset: int, size: Shape, axes: list[int] | None, behind: Shape
) -> None:
    expect(
        BOTH[direction](with_axes("Squeeze", opset, axes), size, behind, opset=opset).model(), folded={"bn"}
    )


@directions
@pytest.mark.parametrize("opset", [11, 13])
def test_squeezed_from_the_back(direction: str, opset: int) -> None:
    step = with_axes("Squeeze", opset, [-1, -2])
    expect(BOTH[direction](step, (2, 4, 1, 1), (2, 4), opset=opset).model(), folded={"bn"})


def test_a_squeezed_batch() -> None:
    """The channels become axis 0: no more the axis of the normalization, nor that of a Gemm."""
    net = backward(with_axes("Squeeze", 13, [0]), (1, 4, 4), (4, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = forward(with_axes("Squeeze", 13, [0]), (1, 4, 4), (4, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    y = net.node("Squeeze", net.bn(net.input("x", 1, 4, 5), 4, name="bn"), net.ints(0))
    net.output(net.node("MatMul", net.init(net.draw(3, 4)), y))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [7, 11, 13, 21])
@pytest.mark.parametrize(("size", "axes", "behind"), [
    ((2, 4), [2], (2, 4, 1)), ((2, 4), [2, 3], (2, 4, 1, 1)), ((2, 4, 3), [2], (2, 4, 1, 3)),
])  # fmt: skip
def test_unsqueezed_positions(
    direction: str, opset: int, size: Shape, axes: list[int], behind: Shape
) -> None:
    step = with_axes("Unsqueeze", opset, axes)
    expect(BOTH[direction](step, size, behind, opset=opset).model(), folded={"bn"})


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_before_the_channels(axis: int) -> None:
    """Now axis 1 is the batch, or the new axis of one entry."""
    behind = (1, 4, 4, 3) if axis == 0 else (4, 1, 4, 3)
    net = forward(with_axes("Unsqueeze", 13, [axis]), (4, 4, 3), behind)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    # Backward: what is axis 1 behind it is the batch before; one map for one channel fits any axis.
    net = backward(with_axes("Unsqueeze", 13, [axis]), (4, 4, 3), behind)
    kept = {"bn": "BNF023"} if axis == 0 else {}
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)
    if axis == 0:
        net = backward(with_axes("Unsqueeze", 13, [axis]), (4, 4, 3), behind)
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})


# --- Transpose --------------------------------------------------------------------------------------------


def moved(*perm: int) -> Step:
    if not perm:
        return lambda net, x: net.node("Transpose", x, name="move")
    return lambda net, x: net.node("Transpose", x, name="move", perm=list(perm))


@directions
@pytest.mark.parametrize(("size", "perm"), [
    ((2, 4, 3, 5), (0, 1, 3, 2)), ((4, 4, 4, 4), (2, 1, 0, 3)), ((2, 4, 3), (2, 1, 0)), ((2, 4, 3), ()),
    ((1, 2, 2, 3, 2), (4, 1, 2, 0, 3)),
])  # fmt: skip
def test_the_channels_stay_in_their_place(direction: str, size: Shape, perm: Shape) -> None:
    behind = tuple(size[i] for i in perm or range(len(size))[::-1])
    expect(BOTH[direction](moved(*perm), size, behind).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("perm", [(0, 2, 1, 3), (1, 0, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)])
def test_the_channels_move_away(direction: str, perm: Shape) -> None:
    """All sizes are equal, and yet it is another axis that is normalized or summed."""
    net = BOTH[direction](moved(*perm), (4, 4, 4, 4), (4, 4, 4, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
def test_there_and_back(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        y = net.node("Identity", net.node("Transpose", x, perm=[0, 2, 3, 1]))
        return net.node("Transpose", y, perm=[0, 3, 1, 2])

    expect(BOTH[direction](step, (4, 4, 4, 4), (4, 4, 4, 4)).model(), folded={"bn"})


@directions
def test_there_and_further(direction: str) -> None:
    """A second step in the same direction does not bring the channels back."""

    def step(net: Net, x: str) -> str:
        y = net.node("Transpose", x, perm=[0, 2, 3, 1])
        return net.node("Transpose", y, perm=[0, 2, 3, 1])

    net = BOTH[direction](step, (4, 4, 4, 4), (4, 4, 4, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_channels_last_before_a_matmul() -> None:
    """Attention over pixels: the sum is along the channels."""
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 2, 4, 3, 5), 4, name="bn"), perm=[0, 2, 3, 1])
    net.output(net.node("MatMul", y, net.init(net.draw(4, 6))))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Transpose", "MatMul", "Add"]


# --- together ---------------------------------------------------------------------------------------------


@directions
@pytest.mark.parametrize("batch", [2, "n"])
@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle(direction: str, groups: int, batch: int | str) -> None:
    """ShuffleNet; the channels come out in another order, and so does the map."""

    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(-1 if batch == "n" else 2, groups, 6 // groups, 4, 3))
        y = net.node("Transpose", y, perm=[0, 2, 1, 3, 4])
        return net.node("Reshape", y, net.ints(-1 if batch == "n" else 2, 6, 4, 3))

    expect(BOTH[direction](step, (batch, 6, 4, 3), (2, 6, 4, 3)).model(), folded={"bn"})


@directions
def test_a_reshape_that_undoes_another(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(2, 4, 15))
        y = net.node("Unsqueeze", y, net.ints(2))
        y = net.node("Squeeze", y, net.ints(2))
        return net.node("Reshape", y, net.ints(2, 4, 5, 3))

    expect(BOTH[direction](step, (2, 4, 3, 5), (2, 4, 5, 3)).model(), folded={"bn"})
