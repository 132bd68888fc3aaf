"""Pools and means over positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.build import NEWEST, Attribute, Net
from support.claims import expect
from support.ways import (
    BOTH,
    Step,
    backward,
    forward,
    linear,
    negative_in_one,
    positive,
    scaling,
    shifting_in_one,
    turning,
    uniform,
    zero_in_one,
)

if TYPE_CHECKING:
    from support.ways import Maker

SIZE = (2, 4, 5, 6)
directions = pytest.mark.parametrize("direction", BOTH)


def node(op: str, **attrs: Attribute) -> Step:
    return lambda net, x: net.node(op, x, name="pool", **attrs)


# --- the maximum ------------------------------------------------------------------------------------------


@directions
@pytest.mark.parametrize("stats", [positive, scaling, shifting_in_one, uniform, zero_in_one])
def test_a_positive_scale_and_any_shift_pass_a_maximum(direction: str, stats: Maker) -> None:
    pool = node("MaxPool", kernel_shape=[2, 3], strides=[2, 1])
    expect(BOTH[direction](pool, SIZE, (2, 4, 2, 4), stats=stats(4)).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("stats", [turning, negative_in_one, lambda c: uniform(c, scale=-0.5)])
def test_a_negative_scale_does_not(direction: str, stats: Maker) -> None:
    pool = node("MaxPool", kernel_shape=[2, 3], strides=[2, 1])
    net = BOTH[direction](pool, SIZE, (2, 4, 2, 4), stats=stats(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})


@directions
@pytest.mark.parametrize(
    ("attrs", "behind"),
    [
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, (2, 4, 5, 6)),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, (2, 4, 3, 3)),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"}, (2, 4, 5, 6)),
        ({"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, (2, 4, 3, 3)),
        ({"kernel_shape": [2, 2], "dilations": [2, 3]}, (2, 4, 3, 3)),
    ],
)
def test_padding_of_a_maximum_is_minus_infinity(
    direction: str, attrs: dict[str, Any], behind: tuple[int, ...]
) -> None:
    expect(BOTH[direction](node("MaxPool", **attrs), SIZE, behind, stats=positive(4)).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [7, 8, 10, 11, 12, 22])
def test_every_version_of_a_maximum(direction: str, opset: int) -> None:
    pool = node("MaxPool", kernel_shape=[2, 2])
    net = BOTH[direction](pool, SIZE, (2, 4, 4, 5), stats=positive(4), opset=opset)
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("read", ["output", "node", "nobody"])
def test_the_indices_of_a_maximum(direction: str, read: str) -> None:
    def step(net: Net, x: str) -> str:
        net.node("MaxPool", x, out=["y", "where"], kernel_shape=[2, 2])
        if read == "output":
            net.output("where", elem=7)
        elif read == "node":
            net.output(net.node("Cast", "where", to=1))
        return "y"

    # Channel 0 disappears, so that every value is as large as another and the place says nothing.
    net = BOTH[direction](step, SIZE, (2, 4, 4, 5), stats=zero_in_one(4))
    if read == "nobody":
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF019"})


@directions
@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool"])
@pytest.mark.parametrize("size", [(2, 4, 5), (2, 4, 5, 6), (1, 4, 2, 3, 2)], ids=len)
def test_global_pools(direction: str, op: str, size: tuple[int, ...]) -> None:
    behind = (*size[:2], *(1,) * (len(size) - 2))
    expect(BOTH[direction](node(op), size, behind, stats=positive(4)).model(), folded={"bn"})
    stats = negative_in_one(4)
    net = BOTH[direction](node(op), size, behind, stats=stats)
    if op == "GlobalAveragePool":
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF018"})


# --- the average ------------------------------------------------------------------------------------------

PADDED: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({"pads": [1, 1, 1, 1]}, (2, 4, 5, 6)),
    ({"pads": [0, 0, 0, 1]}, (2, 4, 3, 5)),
    ({"auto_pad": "SAME_UPPER"}, (2, 4, 5, 6)),
    ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (2, 4, 3, 3)),
]
NOT_PADDED: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({}, (2, 4, 3, 4)),
    ({"pads": [0, 0, 0, 0]}, (2, 4, 3, 4)),
    ({"auto_pad": "VALID"}, (2, 4, 3, 4)),
    ({"strides": [2, 3]}, (2, 4, 2, 2)),
]


@directions
@pytest.mark.parametrize(("attrs", "behind"), NOT_PADDED)
@pytest.mark.parametrize("counted", [0, 1])
def test_an_average_of_the_image_alone(
    direction: str, attrs: dict[str, Any], behind: tuple[int, ...], counted: int
) -> None:
    pool = node("AveragePool", kernel_shape=[3, 3], count_include_pad=counted, **attrs)
    expect(BOTH[direction](pool, SIZE, behind).model(), folded={"bn"})


@directions
@pytest.mark.parametrize(("attrs", "behind"), PADDED)
def test_padding_that_is_not_counted(direction: str, attrs: dict[str, Any], behind: tuple[int, ...]) -> None:
    pool = node("AveragePool", kernel_shape=[3, 3], **attrs)
    expect(BOTH[direction](pool, SIZE, behind).model(), folded={"bn"})


@directions
@pytest.mark.parametrize(("attrs", "behind"), PADDED)
def test_padding_that_is_counted(direction: str, attrs: dict[str, Any], behind: tuple[int, ...]) -> None:
    pool = node("AveragePool", kernel_shape=[3, 3], count_include_pad=1, **attrs)
    for stats in (positive(4), shifting_in_one(4)):
        net = BOTH[direction](pool, SIZE, behind, stats=stats)
        expect(net.model(), folded=set(), kept={"bn": "BNF014"})
    expect(BOTH[direction](pool, SIZE, behind, stats=turning(4)).model(), folded={"bn"})


@directions
def test_a_window_that_hangs_over(direction: str) -> None:
    """ceil_mode: what lies behind the image is not counted, whatever count_include_pad says of pads."""
    for counted in (0, 1):
        attrs = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": counted}
        pool = node("AveragePool", **attrs)
        expect(BOTH[direction](pool, SIZE, (2, 4, 3, 3), opset=19).model(), folded={"bn"})
        pool = node("AveragePool", **attrs, pads=[0, 1, 0, 0])
        kept = {"bn": "BNF014"} if counted else {}
        net = BOTH[direction](pool, SIZE, (2, 4, 3, 4), opset=19)
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@directions
@pytest.mark.parametrize("opset", [7, 10, 11, 19, 22])
def test_every_version_of_an_average(direction: str, opset: int) -> None:
    pool = node("AveragePool", kernel_shape=[2, 2], pads=[1, 0, 1, 0])
    expect(BOTH[direction](pool, SIZE, (2, 4, 6, 5), opset=opset).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("size", [(2, 4, 5), (1, 4, 3, 3, 3)], ids=len)
def test_other_ranks(direction: str, op: str, size: tuple[int, ...]) -> None:
    pool = node(op, kernel_shape=[2] * (len(size) - 2))
    behind = (*size[:2], *(d - 1 for d in size[2:]))
    expect(BOTH[direction](pool, size, behind, stats=positive(4)).model(), folded={"bn"})


@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_a_pool_over_the_channels(op: str) -> None:
    """Channels last when the pool comes: it mixes them, though there are as many as rows."""
    net = Net()
    y = linear(net, net.input("x", 2, 3, 4, 4), 3, 4, 4)
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    y = net.node(op, y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="pool")
    net.output(net.bn(net.node("Transpose", y, perm=[0, 3, 1, 2]), 4, name="bn", stats=positive(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"])
def test_forward_a_pool_over_the_channels(op: str) -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 4, 4, 4), 4, name="bn", stats=positive(4))
    attrs: dict[str, Any] = {} if op.startswith("Global") else {"kernel_shape": [3, 3], "pads": [1] * 4}
    y = net.node(op, net.node("Transpose", y, perm=[0, 2, 3, 1]), name="pool", **attrs)
    net.output(linear(net, y, 4, 3, 4))
    result = expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    assert result.kept[0].reason.blocking == "pool"


@pytest.mark.parametrize(("move", "folds"), [([0, 1, 3, 2], True), ([0, 2, 3, 1], False)])
@pytest.mark.parametrize("op", ["AveragePool", "MaxPool"])
def test_a_pool_of_moved_positions(op: str, move: list[int], folds: bool) -> None:
    """Rows and columns may change places before a pool, rows and channels may not."""
    for make in BOTH.values():

        def step(net: Net, x: str) -> str:
            y = net.node(op, net.node("Transpose", x, perm=move), kernel_shape=[3, 3], pads=[1] * 4)
            return net.node("Transpose", y, perm=[move.index(axis) for axis in range(4)])

        kept = {} if folds else {"bn": "BNF023"}
        net = make(step, (2, 4, 4, 4), (2, 4, 4, 4), stats=positive(4))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


# --- the mean ---------------------------------------------------------------------------------------------


def mean(opset: int, axes: list[int] | None, keepdims: int | None, **attrs: Attribute) -> Step:
    def step(net: Net, x: str) -> str:
        given = attrs | ({} if keepdims is None else {"keepdims": keepdims})
        if opset >= 18:
            operands = [] if axes is None else [net.init(np.array(axes, np.int64), elem=7)]
            return net.node("ReduceMean", x, *operands, name="mean", **given)
        return net.node("ReduceMean", x, name="mean", **(given if axes is None else given | {"axes": axes}))

    return step


@directions
@pytest.mark.parametrize("axes", [[2, 3], [3], [-1, -2], [-2]])
@pytest.mark.parametrize("keepdims", [None, 0, 1])
@pytest.mark.parametrize("opset", [7, 11, 13, 18, NEWEST])
def test_a_mean_of_positions(direction: str, opset: int, keepdims: int | None, axes: list[int]) -> None:
    if opset < 11:
        axes = [a % 4 for a in axes]
    reduced = {a % 4 for a in axes}
    behind = tuple(1 if i in reduced else d for i, d in enumerate(SIZE) if keepdims != 0 or i not in reduced)
    net = BOTH[direction](mean(opset, axes, keepdims), SIZE, behind, opset=opset)
    expect(net.model(), folded={"bn"})


@directions
def test_a_mean_over_the_batch(direction: str) -> None:
    expect(BOTH[direction](mean(13, [0], 1), SIZE, (1, 4, 5, 6)).model(), folded={"bn"})


def test_a_mean_that_takes_the_batch_away_backward() -> None:
    """What the normalization calls axis 1 was axis 2, with as many rows as there are channels."""
    net = backward(mean(13, [0], 0), (2, 4, 4, 6), (4, 4, 6))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_a_mean_that_takes_the_batch_away_forward() -> None:
    net = forward(mean(13, [0], 0), (2, 4, 4), (4, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    y = net.node("ReduceMean", net.bn(net.input("x", 2, 4, 5), 4, name="bn"), axes=[0], keepdims=0)
    net.output(linear(net, net.node("Transpose", y), 4, 3, 2))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("axes", [[1], [-3], [1, 2, 3]])
def test_a_mean_over_the_channels(direction: str, opset: int, axes: list[int]) -> None:
    """Forward they mix; backward there is one map for all of them."""
    behind = tuple(1 if i in {a % 4 for a in axes} else d for i, d in enumerate((2, 3, 3, 3)))
    net = BOTH[direction](mean(opset, axes, 1), (2, 3, 3, 3), behind, opset=opset)
    if direction == "backward":
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
@pytest.mark.parametrize(("opset", "axes"), [(13, None), (18, None), (18, [])])
def test_a_mean_over_everything(direction: str, opset: int, axes: list[int] | None) -> None:
    net = BOTH[direction](mean(opset, axes, 1), SIZE, (1, 1, 1, 1), opset=opset)
    if direction == "backward":
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
@pytest.mark.parametrize("axes", [None, []])
def test_a_mean_over_nothing(direction: str, axes: list[int] | None) -> None:
    net = BOTH[direction](mean(18, axes, 0, noop_with_empty_axes=1), SIZE, SIZE, opset=18)
    expect(net.model(), folded={"bn"})


@directions
def test_axes_that_are_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("ReduceMean", x, net.input("axes", 1, elem=7), name="mean")

    net = BOTH[direction](step, SIZE, (2, 4, 5, 1), opset=18)
    feeds = {"x": np.ones((2, 3 if direction == "backward" else 4, 5, 6), np.float32), "axes": np.array([3])}
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


# --- sums and extremes of positions -----------------------------------------------------------------------


def reduction(op: str, opset: int, axes: list[int], keepdims: int = 1) -> Step:
    def step(net: Net, x: str) -> str:
        if opset >= (13 if op == "ReduceSum" else 18):
            return net.node(op, x, net.ints(*axes), name="reduce", keepdims=keepdims)
        return net.node(op, x, name="reduce", axes=axes, keepdims=keepdims)

    return step


@directions
@pytest.mark.parametrize("axes", [[2, 3], [3], [0, 2], [-1]])
@pytest.mark.parametrize("opset", [11, 13, 17, 18, NEWEST])
def test_a_sum_adds_the_shift_up(direction: str, opset: int, axes: list[int]) -> None:
    reduced = {a % 4 for a in axes}
    behind = tuple(1 if i in reduced else d for i, d in enumerate(SIZE))
    net = BOTH[direction](reduction("ReduceSum", opset, axes), SIZE, behind, opset=opset)
    expect(net.model(), folded={"bn"})


@directions
def test_a_sum_of_an_unknown_number_of_entries(direction: str) -> None:
    """A scale needs no count, a shift does."""
    for size, stats, folds in (
        ((2, 4, 5, "w"), positive(4), False),
        ((2, 4, 5, "w"), turning(4), True),
        (("n", 4, 5, 6), positive(4), True),
    ):
        net = BOTH[direction](reduction("ReduceSum", 13, [3]), size, (2, 4, 5, 1), stats=stats)
        kept = {} if folds else {"bn": "BNF023"}
        result = expect(net.model(), folded={"bn"} - set(kept), kept=kept)
        assert folds or "how many entries" in result.kept[0].reason.evidence


@directions
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("opset", [13, 18])
def test_an_extreme_of_positions(direction: str, opset: int, op: str) -> None:
    made = reduction(op, opset, [2, -1], keepdims=0)
    for stats in (positive(4), scaling(4), zero_in_one(4)):
        net = BOTH[direction](made, SIZE, (2, 4), stats=stats, opset=opset)
        expect(net.model(), folded={"bn"})
    net = BOTH[direction](made, SIZE, (2, 4), stats=negative_in_one(4), opset=opset)
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})


@directions
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceSum"])
def test_a_reduction_of_the_channels(direction: str, op: str) -> None:
    net = BOTH[direction](reduction(op, 13, [1]), (2, 3, 4, 4), (2, 1, 4, 4), stats=positive(3))
    if direction == "backward":
        net = BOTH[direction](reduction(op, 13, [1]), (2, 3, 4, 4), (2, 1, 4, 4), stats=positive(1))
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})
