"""Channels that a Reshape has split go along several axes: which operators pass that on, and which end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.build import NEWEST, Net
from support.claims import expect, ops
from support.ways import BOTH, Stats, Step, backward, forward, linear, positive, scaling, turning, uniform

if TYPE_CHECKING:
    from collections.abc import Callable

directions = pytest.mark.parametrize("direction", BOTH)
Target = tuple[int, ...]
INT64 = 7


def repeated(channels: int, apart: int) -> Stats:
    """The statistics of `apart` channels, each for as many neighbours."""
    rng = np.random.default_rng(0)
    draws = {"scale": rng.normal(size=apart), "bias": rng.normal(size=apart), "mean": rng.normal(size=apart)}
    return {name: np.repeat(values, channels // apart) for name, values in draws.items()} | {
        "var": np.ones(channels)
    }


def shuffled(
    apart: Target, perm: Target, joined: Target, between: Callable[[Net, str], str] | None = None
) -> Step:
    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(*apart))
        y = net.node("Transpose", y, perm=list(perm))
        y = between(net, y) if between else y
        return net.node("Reshape", y, net.ints(*joined))

    return step


# --- shuffles ---------------------------------------------------------------------------------------------


@directions
@pytest.mark.parametrize("batch", ["n", 2])
@pytest.mark.parametrize(("space", "apart", "joined"), [
    ((), (-1, 3, 4), (-1, 12)),
    ((), (0, 3, -1), (0, -1)),
    ((5,), (-1, 3, 4, 5), (-1, 12, 5)),
    ((5,), (0, 3, 4, -1), (0, -1, 5)),
    ((4, 3), (0, 3, -1, 4, 3), (0, 12, 4, 3)),
    ((2, 3, 2), (-1, 3, 4, 2, 3, 2), (-1, 12, 2, 3, 2)),
])  # fmt: skip
def test_any_rank(direction: str, space: Target, apart: Target, joined: Target, batch: int | str) -> None:
    perm = (0, 2, 1, *range(3, 3 + len(space)))
    net = BOTH[direction](shuffled(apart, perm, joined), (batch, 12, *space), (2, 12, *space))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [7, 13, 14, 21, NEWEST])
def test_every_version(direction: str, opset: int) -> None:
    step = shuffled((2, 2, 3, 4), (0, 2, 1, 3), (2, 6, 4))
    expect(BOTH[direction](step, (2, 6, 4), (2, 6, 4), opset=opset).model(), folded={"bn"})


@directions
def test_an_unknown_image(direction: str) -> None:
    """The image is copied by zeros and stays behind the channels."""

    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(0, 2, 3, -1))
        y = net.node("Reshape", net.node("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 6, -1))
        return net.node("Relu", y)

    net = BOTH[direction](step, ("n", 6, "h", "w"), (2, 6, 4), stats=scaling(6))
    expect(net.model(), folded={"bn"})


@directions
def test_a_target_made_of_the_shape(direction: str) -> None:
    """As PyTorch writes `view(b, groups, c // groups, h, w)`: the batch is read from the tensor."""

    def step(net: Net, x: str) -> str:
        batch = net.node("Gather", net.node("Shape", x), net.ints(0), axis=0)
        y = net.node("Reshape", x, net.node("Concat", batch, net.ints(2, 3, 4, 3), axis=0))
        y = net.node("Transpose", y, perm=[0, 2, 1, 3, 4])
        return net.node("Reshape", y, net.node("Concat", batch, net.ints(-1, 4, 3), axis=0))

    expect(BOTH[direction](step, ("n", 6, 4, 3), (2, 6, 4, 3)).model(), folded={"bn"})


@directions
def test_allowzero(direction: str) -> None:
    """Zeros that mean zero are none here; the rest is read as it stands."""

    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(2, 2, 3, 4), allowzero=1)
        y = net.node("Transpose", y, perm=[0, 2, 1, 3])
        return net.node("Reshape", y, net.ints(-1, 6, 4), allowzero=1)

    expect(BOTH[direction](step, (2, 6, 4), (2, 6, 4)).model(), folded={"bn"})


@directions
def test_two_shuffles(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        y = shuffled((0, 2, 6, 3), (0, 2, 1, 3), (0, 12, 3))(net, x)
        return shuffled((0, 3, 4, 3), (0, 2, 1, 3), (0, 12, 3))(net, y)

    expect(BOTH[direction](step, (2, 12, 3), (2, 12, 3)).model(), folded={"bn"})


@directions
def test_channels_in_three_parts(direction: str) -> None:
    step = shuffled((0, 2, 3, 2, 5), (0, 3, 1, 2, 4), (0, 12, 5))
    expect(BOTH[direction](step, (2, 12, 5), (2, 12, 5)).model(), folded={"bn"})


@directions
def test_apart_by_two_steps_and_joined_by_two(direction: str) -> None:
    """Never all in one Reshape, and an axis of one entry comes and goes."""

    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(2, 2, 6, 5))
        y = net.node("Reshape", y, net.ints(2, 2, 3, 2, 5))
        y = net.node("Unsqueeze", net.node("Transpose", y, perm=[0, 3, 2, 1, 4]), net.ints(2))
        y = net.node("Squeeze", y, net.ints(-4))
        y = net.node("Reshape", y, net.ints(2, 6, 2, 5))
        return net.node("Reshape", y, net.ints(2, 12, 5))

    expect(BOTH[direction](step, (2, 12, 5), (2, 12, 5)).model(), folded={"bn"})


@directions
def test_groups_of_one(direction: str) -> None:
    for apart in ((2, 1, 6, 4), (2, 6, 1, 4)):
        step = shuffled(apart, (0, 2, 1, 3), (2, 6, 4))
        expect(BOTH[direction](step, (2, 6, 4), (2, 6, 4)).model(), folded={"bn"})


@directions
@pytest.mark.parametrize(("apart", "perm", "joined"), [
    ((2, 2, 3, 4, 3), (0, 2, 3, 1, 4), (2, 6, 4, 3)),  # the channels joined with the rows
    ((2, 2, 3, 4, 3), (0, 3, 2, 1, 4), (2, 6, 4, 3)),
    ((2, 3, 4, 6), (0, 2, 1, 3), (2, 6, 4, 3)),  # four parts of which none is whole channels
    ((3, 2, 2, 4, 3), (1, 2, 0, 3, 4), (2, 6, 4, 3)),  # batch and channels together
])  # fmt: skip
def test_channels_that_are_mixed(direction: str, apart: Target, perm: Target, joined: Target) -> None:
    """All sizes agree, and yet an index behind belongs to several channels before."""
    net = BOTH[direction](shuffled(apart, perm, joined), (2, 6, 4, 3), (2, 6, 4, 3))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_an_unknown_size_between_the_parts() -> None:
    """`[n, g, c, t]` to `[n, g, t * c]`: how many indices belong to a channel depends on t."""

    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(0, 2, 3, -1))
        y = net.node("Transpose", y, perm=[0, 1, 3, 2])
        return net.node("Reshape", y, net.ints(0, 2, -1))

    size, behind = (2, 6, "t"), (2, 2, 6)
    feeds = {"x": np.ones((2, 6, 2), np.float32)}
    expect(forward(step, size, behind).model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)
    # Backward each group has one map for all its channels.
    expect(backward(step, size, behind).model(), folded={"bn"})


# --- operators between ------------------------------------------------------------------------------------

APART, PERM, JOINED = (2, 2, 3, 4, 4), (0, 2, 1, 3, 4), (2, 6, 4, 4)


def around(between: Callable[[Net, str], str], joined: Target = JOINED) -> Step:
    return shuffled(APART, PERM, joined, between)


def constant(*dims: int) -> Callable[[Net, str], str]:
    return lambda net, x: net.node("Mul", x, net.init(net.draw(*dims)))


def sliced(axis: int, start: int) -> Callable[[Net, str], str]:
    return lambda net, x: net.node("Slice", x, net.ints(start), net.ints(99), net.ints(axis))


def padded(axis: int, first: int, last: int, **attrs: str) -> Callable[[Net, str], str]:
    pads = [0] * 10
    pads[axis], pads[axis + 5] = first, last
    return lambda net, x: net.node("Pad", x, net.ints(*pads), **attrs)


PASSED: dict[str, tuple[Callable[[Net, str], str], Callable[[int], Stats] | None, Target]] = {
    "identity": (lambda net, x: net.node("Identity", x), None, JOINED),
    "dropout": (lambda net, x: net.node("Dropout", x), None, JOINED),
    "relu": (lambda net, x: net.node("Relu", x), scaling, JOINED),
    "leaky": (lambda net, x: net.node("LeakyRelu", x, alpha=-0.5), scaling, JOINED),
    "prelu": (lambda net, x: net.node("PRelu", x, net.init([[[0.5]]])), turning, JOINED),
    "prelu by group": (
        lambda net, x: net.node("PRelu", x, net.init(net.draw(3, 2, 1, 1, low=0.25, high=2.0))), turning,
        JOINED,
    ),
    "clip": (
        lambda net, x: net.node("Clip", x, net.init(-0.5), net.init(0.75)),
        lambda channels: uniform(channels, bias=0.0, mean=0.0), JOINED,
    ),
    "cast": (lambda net, x: net.node("Cast", x, to=1), None, JOINED),
    "factor": (constant(), None, JOINED),
    "factor of a part": (constant(3, 1, 1, 1), None, JOINED),
    "factor of the other part": (constant(2, 1, 1), None, JOINED),
    "pad": (padded(4, 1, 0, mode="edge"), None, (2, 6, 4, 5)),
    "zeros": (padded(4, 1, 0), scaling, (2, 6, 4, 5)),
    "slice": (sliced(-1, 1), None, (2, 6, 4, 3)),
    "slice of a part": (sliced(1, 1), None, (2, 4, 4, 4)),
    "slice of the other part": (sliced(2, 1), None, (2, 3, 4, 4)),
    "gather": (lambda net, x: net.node("Gather", x, net.init([2, 0, -2], elem=INT64), axis=1), None, JOINED),
    "index": (lambda net, x: net.node("Gather", x, net.init(1, elem=INT64), axis=2), None, (2, 3, 4, 4)),
    "mean": (lambda net, x: net.node("ReduceMean", x, axes=[3, -1], keepdims=1), None, (2, 6, 1, 1)),
    "mean of the batch": (lambda net, x: net.node("ReduceMean", x, axes=[0], keepdims=0), None, (1, 6, 4, 4)),
    "transpose": (lambda net, x: net.node("Transpose", x, perm=[0, 1, 2, 4, 3]), None, JOINED),
    "expand": (lambda net, x: net.node("Expand", x, net.ints(2, 2, 3, 2, 4, 4)), None, (4, 6, 4, 4)),
    "max": (
        lambda net, x: net.node(
            "Unsqueeze",
            net.node("MaxPool", net.node("Reshape", x, net.ints(6, 2, 4, 4)), kernel_shape=[2, 2]),
            net.ints(0),
        ), positive, (2, 6, 3, 3),
    ),
}  # fmt: skip


@directions
@pytest.mark.parametrize("between", PASSED)
def test_what_passes_them_on(direction: str, between: str) -> None:
    step, stats, behind = PASSED[between]
    channels = behind[1] if direction == "backward" else 6
    if between == "index" and direction == "backward":
        # Where an axis is gone one map holds for all its entries, and the Reshape before is asked for that.
        channels = 3
    net = BOTH[direction](around(step, behind), (2, 6, 4, 4), behind, stats=stats and stats(channels))
    result = expect(net.model(), folded={"bn"})
    assert len(result.folds[0].into) == 1


ENDED: dict[str, tuple[Callable[[Net, str], str], Callable[[int], Stats] | None, str]] = {
    "relu": (lambda net, x: net.node("Relu", x), positive, "BNF018"),
    "a negative scale": (lambda net, x: net.node("Relu", x), turning, "BNF018"),
    "prelu": (lambda net, x: net.node("PRelu", x, net.init([[[-0.5]]])), turning, "BNF018"),
    "a slope along the rows": (
        lambda net, x: net.node("PRelu", x, net.init(net.draw(4, 1, low=0.25, high=2.0))), turning, "BNF018",
    ),
    "clip": (lambda net, x: net.node("Clip", x, net.init(-0.5), net.init(0.75)), positive, "BNF018"),
    "zeros": (padded(4, 1, -1), positive, "BNF014"),
    "padded groups": (padded(1, 1, -1, mode="edge"), None, "BNF023"),
    "a factor along the rows": (constant(4, 1), None, "BNF023"),
    "a mean of a part": (
        lambda net, x: net.node("Expand", net.node("ReduceMean", x, axes=[1]), net.ints(2, 3, 2, 4, 4)), None,
        "BNF023",
    ),
    "a convolution of the parts": (
        lambda net, x: net.node("Conv", x, net.init(net.draw(3, 3, 1, 1, 1))), None, "BNF023",
    ),
    "one transposed": (
        lambda net, x: net.node("ConvTranspose", x, net.init(net.draw(3, 3, 1, 1, 1))), None, "BNF023",
    ),
    "a product": (lambda net, x: net.node("MatMul", x, net.init(net.draw(4, 4))), None, "BNF023"),
    "a resized part": (
        lambda net, x: net.node("Resize", x, "", net.init([1.0, 1.0, 2.0, 1.0, 1.0])), None, "BNF023",
    ),
}  # fmt: skip


@directions
@pytest.mark.parametrize("between", ENDED)
def test_what_ends_them(direction: str, between: str) -> None:
    step, stats, code = ENDED[between]
    net = BOTH[direction](around(step), (2, 6, 4, 4), JOINED, stats=stats and stats(6))
    if between == "a resized part":
        net = BOTH[direction](around(step, (2, 12, 4, 4)), (2, 6, 4, 4), (2, 12, 4, 4))
    expect(net.model(), folded=set(), kept={"bn": code})


def test_a_normalization_between_has_channels_of_its_own() -> None:
    """On `[2, 3, 2, 4, 4]` the inner one goes along axis 1; the outer one goes along axes 1 and 2."""

    def between(net: Net, x: str) -> str:
        return net.bn(x, 3, name="inner")

    net = backward(around(between), (2, 6, 4, 4), JOINED)
    expect(net.model(), folded={"bn", "inner"})
    net = forward(around(between), (2, 6, 4, 4), JOINED)
    expect(net.model(), folded={"bn", "inner"})


def test_a_residual_around_the_parts() -> None:
    """Both terms are split the same way, and each takes its map from where it comes."""
    net = Net()
    x = net.input("x", 2, 3, 4, 4)
    parts = [net.node("Reshape", linear(net, x, 3, 6, 4, name=n), net.ints(*APART)) for n in ("a", "b")]
    y = net.node("Transpose", net.node("Add", *parts), perm=list(PERM))
    net.output(net.bn(net.node("Reshape", y, net.ints(*JOINED)), 6, name="bn"))
    result = expect(net.model(), folded={"bn"}, merge=False)
    assert set(result.folds[0].into) == {"a", "b"}


def test_a_sum_of_the_parts_with_themselves() -> None:
    """Forward both terms are normalized alike; backward one tensor would have to take two maps."""

    def between(net: Net, x: str) -> str:
        return net.node("Add", x, net.node("Identity", x))

    expect(forward(around(between), (2, 6, 4, 4), JOINED).model(), folded={"bn"})
    expect(backward(around(between), (2, 6, 4, 4), JOINED).model(), folded=set(), kept={"bn": "BNF010"})


def test_a_residual_that_is_broadcast_over_a_part() -> None:
    net = Net()
    x = net.input("x", 2, 3, 4, 4)
    one = net.node("Reshape", linear(net, x, 3, 6, 4), net.ints(*APART))
    other = net.node("Reshape", linear(net, x, 3, 3, 4, name="b"), net.ints(2, 1, 3, 4, 4))
    y = net.node("Transpose", net.node("Add", one, other), perm=list(PERM))
    net.output(net.bn(net.node("Reshape", y, net.ints(*JOINED)), 6, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"}, merge=False)


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@directions
def test_joined_and_split_along_each_axis(direction: str, axis: int) -> None:
    """Split and Concat put back together: along a part of the channels each branch has its own part."""

    def between(net: Net, x: str) -> str:
        size = (2, 3, 2, 4, 4)[axis]
        net.node("Split", x, net.ints(1, size - 1), out=["low", "high"], axis=axis)
        return net.node("Concat", net.node("Identity", "low"), "high", axis=axis)

    net = BOTH[direction](around(between), (2, 6, 4, 4), JOINED)
    if direction == "forward":
        assert ops(expect(net.model(), folded={"bn"}).model)[-1] == "Conv"
    else:
        # Both branches come back to one layer, each without the other.
        expect(net.model(), folded=set(), kept={"bn": "BNF010"})


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_constant_beside_the_parts(axis: int) -> None:
    def between(net: Net, x: str) -> str:
        shape = [2, 3, 2, 4, 4]
        shape[axis] = 1
        return net.node("Concat", net.init(net.draw(*shape)), x, axis=axis)

    behind = [(2, 8, 4, 4), (2, 9, 4, 4), (2, 6, 5, 4)][axis - 1]
    expect(backward(around(between, behind), (2, 6, 4, 4), behind).model(), folded={"bn"})
    code = {} if axis < 3 else {"bn": "BNF023"}
    net = forward(around(between, behind), (2, 6, 4, 4), behind)
    expect(net.model(), folded={"bn"} - set(code), kept=code)


# --- parts that never rejoin ------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1])
def test_means_of_groups(keep: int) -> None:
    """Group-wise pooling: the channels stay apart until a Gemm."""
    net = Net()
    y = net.node("Reshape", net.bn(net.input("x", "n", 6, 4, 3), 6, name="bn"), net.ints(0, 2, 3, 12))
    y = net.node("ReduceMean", y, axes=[3], keepdims=keep)
    net.output(linear(net, net.node("Flatten", y), 6, 4, 2))
    expect(net.model(), folded={"bn"})


def test_a_mean_over_the_groups() -> None:
    """It mixes channels, unless they are normalized alike."""
    for stats, kept in ((None, {"bn": "BNF023"}), (repeated(6, 3), {"bn": "BNF023"}), (repeated(6, 2), {})):
        net = Net()
        y = net.bn(net.input("x", 2, 6, 4, 3), 6, name="bn", stats=stats)
        y = net.node("ReduceMean", net.node("Reshape", y, net.ints(2, 2, 3, 4, 3)), axes=[2], keepdims=0)
        net.output(linear(net, y, 2, 4, 4))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_a_mean_over_the_groups_backward() -> None:
    """Every channel of a group takes the map of its mean."""
    net = Net()
    y = net.node("Reshape", linear(net, net.input("x", 2, 3, 4, 3), 3, 6, 4), net.ints(2, 2, 3, 4, 3))
    y = net.node("ReduceMean", y, axes=[2], keepdims=0)
    net.output(net.bn(y, 2, name="bn"))
    expect(net.model(), folded={"bn"})


def test_heads_of_attention() -> None:
    """`[n, c, t]` to heads and back to features: the layer that follows takes the map in."""
    net = Net()
    y = net.bn(net.input("x", "n", 6, "t"), 6, name="bn")
    y = net.node("Transpose", net.node("Reshape", y, net.ints(0, 2, 3, -1)), perm=[0, 1, 3, 2])
    net.output(net.node("MatMul", y, net.init(net.draw(3, 4))), shape=(None,) * 4)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    y = net.bn(net.input("x", "n", 6, "t"), 6, name="bn", stats=repeated(6, 1))
    y = net.node("Transpose", net.node("Reshape", y, net.ints(0, 2, 3, -1)), perm=[0, 1, 3, 2])
    net.output(net.node("MatMul", y, net.init(net.draw(3, 4))), shape=(None,) * 4)
    expect(net.model(), folded={"bn"})


def test_the_same_statistics_for_all_pass_any_reshape() -> None:
    step = shuffled((3, 4, 2, 6), (1, 0, 3, 2), (2, 6, 4, 3))
    for make in BOTH.values():
        expect(make(step, (2, 6, 4, 3), (2, 6, 4, 3), stats=uniform(6)).model(), folded={"bn"})


# --- depth and space --------------------------------------------------------------------------------------

DEPTH: dict[str, tuple[Target, Target]] = {
    "CRD": ((0, 3, 2, 2, 4, 5), (0, 1, 4, 2, 5, 3)),
    "DCR": ((0, 2, 2, 3, 4, 5), (0, 3, 4, 1, 5, 2)),
}


@pytest.mark.parametrize("mode", DEPTH)
def test_depth_to_space_spelled_out(mode: str) -> None:
    apart, perm = DEPTH[mode]
    step = shuffled(apart, perm, (0, 3, 8, 10))
    expect(backward(step, ("n", 12, 4, 5), (2, 3, 8, 10)).model(), folded={"bn"})
    alike = repeated(12, 3)
    if mode == "DCR":
        alike = {name: np.tile(np.asarray(v)[::4], 4) for name, v in alike.items()}
    expect(forward(step, ("n", 12, 4, 5), (2, 3, 8, 10), stats=alike).model(), folded={"bn"})
    net = forward(step, ("n", 12, 4, 5), (2, 3, 8, 10))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize("perm", [(0, 3, 5, 1, 2, 4), (0, 1, 3, 5, 2, 4)])
def test_space_to_depth_spelled_out(perm: Target) -> None:
    step = shuffled((0, 3, 4, 2, 5, 2), perm, (0, 12, 4, 5))
    expect(forward(step, ("n", 3, 8, 10), (2, 12, 4, 5)).model(), folded={"bn"})
    alike = repeated(12, 3)
    if perm[1] != 1:
        alike = {name: np.tile(np.asarray(v)[::4], 4) for name, v in alike.items()}
    expect(backward(step, ("n", 3, 8, 10), (2, 12, 4, 5), stats=alike).model(), folded={"bn"})
    net = backward(step, ("n", 3, 8, 10), (2, 12, 4, 5))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def focus(net: Net, x: str) -> str:
    """YOLO's: every other row and column."""
    parts = []
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        y = net.node("Slice", x, net.ints(row), net.ints(2**63 - 1), net.ints(2), net.ints(2))
        parts.append(net.node("Slice", y, net.ints(column), net.ints(2**63 - 1), net.ints(3), net.ints(2)))
    return net.node("Concat", *parts, axis=1)


def test_focus() -> None:
    """Forward the four parts meet again, each with the whole map; backward one layer would need four maps."""
    net = forward(focus, ("n", 3, 8, 10), (2, 12, 4, 5))
    assert ops(expect(net.model(), folded={"bn"}).model)[-2:] == ["Concat", "Conv"]
    expect(backward(focus, ("n", 3, 8, 10), (2, 12, 4, 5)).model(), folded=set(), kept={"bn": "BNF010"})


def test_focus_with_one_part_that_is_bent() -> None:
    def step(net: Net, x: str) -> str:
        net.output(net.node("Sigmoid", net.node("Slice", x, net.ints(0), net.ints(1), net.ints(2))))
        return focus(net, x)

    net = forward(step, (2, 3, 8, 10), (2, 12, 4, 5))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})
