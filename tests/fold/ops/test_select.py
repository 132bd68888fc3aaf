"""Slice and Gather: which channels are left, in which order, and how often."""

from __future__ import annotations

import numpy as np
import pytest
from support.build import Net, Numbers
from support.claims import expect, ops
from support.ways import BOTH, Step, linear, uniform

INT64 = 7
LAST, FIRST = 2**63 - 1, -(2**63)
directions = pytest.mark.parametrize("direction", BOTH)


def cut(
    starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None, opset: int
) -> Step:
    def step(net: Net, x: str) -> str:
        if opset < 10:
            if axes is None:
                return net.node("Slice", x, name="cut", starts=starts, ends=ends)
            return net.node("Slice", x, name="cut", starts=starts, ends=ends, axes=axes)
        operands = [net.ints(*starts), net.ints(*ends)]
        operands += [net.ints(*axes)] if axes is not None else [""] if steps is not None else []
        operands += [net.ints(*steps)] if steps is not None else []
        return net.node("Slice", x, *operands, name="cut")

    return step


# start, end, step, and how many of five channels are left
BOUNDS = [
    (1, 4, 1, 3), (0, 5, 1, 5), (0, LAST, 1, 5), (-3, LAST, 1, 3), (-2, -1, 1, 1), (FIRST, 2, 1, 2),
    (0, 5, 2, 3), (1, 99, 3, 2), (4, 0, -1, 4), (4, FIRST, -1, 5), (-1, -6, -1, 5), (-1, -5, -1, 4),
    (99, 0, -2, 2), (3, FIRST, -2, 2), (-99, FIRST, -1, 1), (-99, -99, -2, 1), (-99, 99, 1, 5),
]  # fmt: skip


VERSIONS = [(opset, b) for opset in (7, 9, 10, 11, 13) for b in BOUNDS if opset >= 10 or b[2] == 1]


@directions
@pytest.mark.parametrize(("opset", "bounds"), VERSIONS)
def test_slices_of_the_channels(direction: str, opset: int, bounds: tuple[int, int, int, int]) -> None:
    start, end, step, left = bounds
    made = cut([start], [end], [1], None if step == 1 and opset != 11 else [step], opset)
    expect(BOTH[direction](made, (2, 5, 3, 4), (2, left, 3, 4), opset=opset).model(), folded={"bn"})


@directions
def test_a_negative_axis(direction: str) -> None:
    made = cut([1], [4], [-3], None, 13)
    expect(BOTH[direction](made, (2, 5, 5, 5), (2, 3, 5, 5)).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("axis", [0, 2, 3, -1])
def test_other_axes_do_not_matter(direction: str, axis: int) -> None:
    size = [4, 4, 4, 4]
    size[axis] = 2
    made = cut([1], [-1], [axis], None, 13)
    expect(BOTH[direction](made, (4, 4, 4, 4), size).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [9, 10])
def test_several_axes_and_none_named(direction: str, opset: int) -> None:
    made = cut([0, 1], [1, 3], None, None, opset)
    expect(BOTH[direction](made, (2, 4, 4, 4), (1, 2, 4, 4), opset=opset).model(), folded={"bn"})
    made = cut([1, 0], [3, 1], [3, 1], None, opset)
    expect(BOTH[direction](made, (2, 4, 4, 4), (2, 1, 4, 2), opset=opset).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("size", [(3, 5), (3, 5, 2), (1, 5, 2, 2, 2)], ids=len)
def test_any_rank(direction: str, size: tuple[int, ...]) -> None:
    made = cut([3], [0], [1], [-1], 13)
    expect(BOTH[direction](made, size, (size[0], 3, *size[2:])).model(), folded={"bn"})


@directions
def test_bounds_that_are_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        start = net.input("start", 1, elem=INT64)
        return net.node("Slice", x, start, net.ints(4), net.ints(1), name="cut")

    net = BOTH[direction](step, (2, 5, 3, 4), (2, 3, 3, 4))
    feeds = {"x": np.ones((2, 3 if direction == "backward" else 5, 3, 4), np.float32), "start": np.array([1])}
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


def test_the_channels_cut_off_are_free() -> None:
    """Two slices of one tensor: each changes the channels of its own reader alone."""
    net = Net()
    y = linear(net, net.input("x", 1, 3, 4, 4), 3, 4, 4)
    low, high = (net.node("Slice", y, net.ints(a), net.ints(a + 2), net.ints(1)) for a in (0, 2))
    net.output(net.bn(low, 2, name="low"), net.bn(high, 2, name="high"))
    assert ops(expect(net.model(), folded={"low", "high"}).model) == ["Conv", "Slice", "Slice"]


def parted(axis: int, *bounds: tuple[int, int]) -> tuple[Net, list[str]]:
    """Slices of what a layer with four channels computes."""
    net = Net()
    y = linear(net, net.input("x", 1, 3, 4, 4), 3, 4, 4, name="layer")
    return net, [net.node("Slice", y, net.ints(a), net.ints(b), net.ints(axis)) for a, b in bounds]


def test_channels_that_another_slice_reads_too() -> None:
    net, (low, high) = parted(1, (0, 2), (1, 4))
    net.output(net.bn(low, 2, name="bn"), net.node("Sigmoid", high))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


def test_channels_that_another_slice_reads_too_and_that_do_not_change() -> None:
    """Scale 1 and no shift where both read."""
    net, (low, high) = parted(1, (0, 2), (1, 4))
    stats = {"scale": [2.0, 1.0], "bias": [0.5, 0.0], "mean": [0.0, 0.0], "var": [1.0, 1.0]}
    net.output(net.bn(low, 2, name="bn", stats=stats, epsilon=0.0), net.node("Sigmoid", high))
    expect(net.model(), folded={"bn"})


def test_slices_along_another_axis() -> None:
    net, (low, high) = parted(2, (0, 2), (2, 4))
    net.output(net.bn(low, 4, name="bn"), net.node("Sigmoid", high))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


@pytest.mark.parametrize("op", ["Sigmoid", "Identity", "Relu", "Shape"])
def test_a_slice_of_a_tensor_that_is_read_whole(op: str) -> None:
    net, (low, _) = parted(1, (0, 2), (2, 4))
    net.output(net.bn(low, 2, name="bn"))
    net.output(net.node(op, net.nodes[0].output[0]), elem=INT64 if op == "Shape" else None)
    expect(net.model(), folded={"bn"} if op == "Shape" else set())


def test_a_slice_of_a_graph_output() -> None:
    net, (low, high) = parted(1, (0, 2), (2, 4))
    net.output(net.nodes[0].output[0], net.bn(low, 2, name="bn"), net.node("Sigmoid", high))
    expect(net.model(), folded=set(), kept={"bn": "BNF011"})


def test_a_slice_a_gather_and_a_split_of_one_tensor() -> None:
    net, (low,) = parted(1, (0, 1))
    y = net.nodes[0].output[0]
    net.node("Split", y, net.ints(1, 1, 2), out=["p0", "p1", "p2"], axis=1)
    gathered = net.node("Gather", y, net.init([3, -2], elem=INT64), axis=1)
    net.output(net.node("Neg", low), net.bn("p1", 1, name="bn"), net.node("Neg", gathered))
    expect(net.model(), folded={"bn"})


def test_one_channel_of_several_readers() -> None:
    """One map for all that is read goes to that channel alone."""
    net, (low, high) = parted(1, (1, 2), (2, 4))
    net.output(net.bn(low, 1, name="bn"), net.node("Sigmoid", high))
    expect(net.model(), folded={"bn"})


def test_one_index_of_several_readers() -> None:
    net = Net()
    y = linear(net, net.input("x", 1, 3, 4, 4), 3, 4, 4)
    one, two = (net.node("Gather", y, net.init(i, elem=INT64), axis=1) for i in (1, -1))
    y = net.node("Unsqueeze", one, net.ints(1))
    net.output(net.bn(y, 1, name="bn"), net.node("Sigmoid", two))
    expect(net.model(), folded={"bn"})


def test_more_readers_than_are_asked() -> None:
    net = Net()
    y = linear(net, net.input("x", 1, 3, 2, 2), 3, 80, 4)
    parts = [net.node("Slice", y, net.ints(i), net.ints(i + 1), net.ints(1)) for i in range(80)]
    net.output(net.bn(parts[0], 1, name="bn"), *(net.node("Neg", p) for p in parts[1:]))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


def test_two_slices_of_a_normalization() -> None:
    net = Net()
    y = net.bn(net.input("x", 1, 4, 4, 4), 4, name="bn")
    parts = [net.node("Slice", y, net.ints(a), net.ints(b), net.ints(1)) for a, b in ((0, 3), (1, 4))]
    net.output(*(linear(net, p, 3, 2, 4) for p in parts))
    expect(net.model(), folded={"bn"})


# --- Gather -----------------------------------------------------------------------------------------------

INDICES = {"permuted": [3, 0, 2, 1], "some": [2, 0], "negative": [-1, 1, -4], "twice": [1, 1, 3], "one": [2]}


def chosen(indices: Numbers, axis: int, elem: int = INT64) -> Step:
    def step(net: Net, x: str) -> str:
        return net.node("Gather", x, net.init(np.array(indices), elem=elem), name="chosen", axis=axis)

    return step


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("kind", INDICES)
def test_a_gather_of_channels_forward(kind: str, axis: int) -> None:
    indices = INDICES[kind]
    made = chosen(indices, axis)
    expect(BOTH["forward"](made, (2, 4, 3, 4), (2, len(indices), 3, 4)).model(), folded={"bn"})


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("kind", INDICES)
def test_a_gather_of_channels_backward(kind: str, axis: int) -> None:
    """A channel that is read twice must be asked for the same thing twice."""
    indices = INDICES[kind]
    net = BOTH["backward"](chosen(indices, axis), (2, 4, 3, 4), (2, len(indices), 3, 4))
    if kind == "twice":
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    else:
        expect(net.model(), folded={"bn"})


def test_a_channel_read_twice_with_the_same_map() -> None:
    net = BOTH["backward"](chosen([1, 1, 3], 1), (2, 4, 3, 4), (2, 3, 3, 4), stats=uniform(3))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("elem", [6, 7], ids=["int32", "int64"])
@pytest.mark.parametrize("axis", [0, 2, 3])
def test_a_gather_along_another_axis(direction: str, axis: int, elem: int) -> None:
    size = [3, 3, 3, 3]
    size[axis] = 4
    expect(BOTH[direction](chosen([2, 0, 0, 1], axis, elem), (3, 3, 3, 3), size).model(), folded={"bn"})


@directions
def test_a_scalar_index_takes_an_axis_away(direction: str) -> None:
    expect(BOTH[direction](chosen(1, 3), (2, 4, 3, 4), (2, 4, 3)).model(), folded={"bn"})
    expect(BOTH[direction](chosen(1, 2), (2, 4, 3, 4), (2, 4, 4)).model(), folded={"bn"})


def test_a_scalar_index_before_the_channels() -> None:
    """Axis 0 goes, and what the normalization calls axis 1 was axis 2; or the channels become axis 0."""
    net = BOTH["backward"](chosen(0, 0), (2, 4, 3, 4), (4, 3, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    y = net.node("Gather", net.bn(net.input("x", 2, 4, 3), 4, name="bn"), net.init(1, elem=INT64), axis=0)
    y = net.node("MatMul", net.node("Transpose", y, perm=[1, 0]), net.init(net.draw(4, 5)))
    net.output(y)
    expect(net.model(), folded={"bn"})


def test_a_scalar_index_of_the_channels() -> None:
    net = Net()
    y = net.node("Gather", net.bn(net.input("x", 2, 4, 3, 5), 4, name="bn"), net.init(1, elem=INT64), axis=1)
    net.output(linear(net, y, 3, 2, 3))
    expect(net.model(), folded={"bn"})


@directions
def test_indices_of_two_dimensions_behind_the_channels(direction: str) -> None:
    made = chosen([[0, 2], [1, 1]], 2)
    expect(BOTH[direction](made, (2, 4, 3), (2, 4, 2, 2)).model(), folded={"bn"})


def test_indices_of_two_dimensions_before_the_channels() -> None:
    """The channels move back by one, out of the sight of what follows, unless it is moved there too."""
    net = Net()
    y = net.node(
        "Gather",
        net.bn(net.input("x", 2, 4, 3), 4, name="bn"),
        net.init([[0, 1], [1, 0]], elem=INT64),
        axis=0,
    )
    net.output(linear(net, net.node("Transpose", y, perm=[0, 2, 1, 3]), 4, 2, 4))
    expect(net.model(), folded={"bn"})


@directions
def test_indices_of_two_dimensions_of_the_channels(direction: str) -> None:
    made = chosen([[0, 2], [1, 3]], 1)
    net = BOTH[direction](made, (2, 4, 3), (2, 2, 2, 3))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_indices_that_are_computed() -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 4, 3), 4, name="bn")
    y = net.node("Gather", net.node("Identity", y), net.input("i", 4, elem=INT64), axis=1)
    net.output(linear(net, y, 4, 2, 3))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
