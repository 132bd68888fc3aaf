"""Resize, Upsample, DepthToSpace, SpaceToDepth and Expand: where each channel goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.build import FLOAT, NEWEST, Net
from support.claims import expect, ops
from support.ways import BOTH, Step, forward, linear, scaling, uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = (2, 3, 4, 5)
directions = pytest.mark.parametrize("direction", BOTH)


def resized(
    opset: int,
    scales: Sequence[float] | None = None,
    sizes: Sequence[int] | None = None,
    **attrs: Any,  # noqa: ANN401 - attributes
) -> Step:
    """Resize or Upsample as `opset` writes it."""

    def step(net: Net, x: str) -> str:
        if opset < 9:
            return net.node("Upsample", x, name="grow", scales=[float(f) for f in scales or ()], **attrs)
        factors = [] if scales is None else [net.init(np.array(scales), elem=FLOAT)]
        if opset < 11:
            return net.node("Upsample" if opset < 10 else "Resize", x, *factors, name="grow", **attrs)
        empty = "" if opset >= 13 else net.init(np.zeros(0), elem=FLOAT)
        operands = [empty, *(factors or [empty]), *([net.ints(*sizes)] if sizes is not None else [])]
        return net.node("Resize", x, *operands, name="grow", **attrs)

    return step


@directions
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 13, 18, 19, NEWEST])
def test_every_version(direction: str, opset: int, mode: str) -> None:
    made = resized(opset, (1, 1, 2, 2), mode=mode)
    result = expect(BOTH[direction](made, SIZE, (2, 3, 8, 10), opset=opset).model(), folded={"bn"})
    assert "grow" in result.folds[0].through


@directions
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "how", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
)
def test_every_way_to_interpolate(direction: str, mode: str, how: str) -> None:
    opset = 19 if how == "half_pixel_symmetric" else 13
    made = resized(opset, sizes=(2, 3, 7, 3), mode=mode, coordinate_transformation_mode=how)
    expect(BOTH[direction](made, SIZE, (2, 3, 7, 3), opset=opset).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("outside", [0, 1])
def test_cubic_weights(direction: str, outside: int) -> None:
    made = resized(13, (1, 1, 1.5, 0.5), mode="cubic", exclude_outside=outside, cubic_coeff_a=-0.5)
    expect(BOTH[direction](made, SIZE, (2, 3, 6, 2), opset=13).model(), folded={"bn"})


@directions
def test_a_value_from_outside_of_the_image(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        roi = net.init(np.array([0, 0, -0.5, 0, 1, 1, 1.5, 1]))
        how: dict[str, Any] = {
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 2.0,
        }
        return net.node("Resize", x, roi, "", net.ints(2, 3, 6, 5), mode="linear", name="crop", **how)

    net = BOTH[direction](step, SIZE, (2, 3, 6, 5), opset=13)
    expect(net.model(), folded=set(), kept={"bn": "BNF014"}, values=False, runtime=False)


@directions
@pytest.mark.parametrize(
    ("opset", "factor", "channels"), [(7, 2.0, 6), (9, 1.4, 4), (10, 2.0, 6), (13, 2.0, 6)]
)
def test_resized_channels(direction: str, opset: int, factor: float, channels: int) -> None:
    made = resized(opset, (1, factor, 1, 1), mode="nearest")
    net = BOTH[direction](made, SIZE, (2, channels, 4, 5), opset=opset)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
@pytest.mark.parametrize("opset", [7, 9, 10, 13])
def test_as_many_channels_but_others(direction: str, opset: int) -> None:
    """floor(3 * 1.3) is 3 again, but channel 2 is not read any more."""
    attrs: dict[str, Any] = (
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} if opset >= 11 else {}
    )
    made = resized(opset, (1, 1.3, 2, 2), mode="nearest", **attrs)
    net = BOTH[direction](made, SIZE, (2, 3, 8, 10), opset=opset)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_only_some_axes(direction: str, policy: str) -> None:
    axes = [-2, -1] if policy == "stretch" else [2, 3]  # onnxruntime 1.31 mistakes negative ones for others
    made = resized(18, sizes=(8, 10), axes=axes, mode="nearest", keep_aspect_ratio_policy=policy)
    expect(BOTH[direction](made, SIZE, (2, 3, 8, 10), opset=18).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_a_common_factor_may_reach_the_channels(direction: str, policy: str) -> None:
    """Asked for are 3 of 3 channels, but 11 of 10 rows: 1.1 times 3 channels are 3 again."""
    made = resized(18, sizes=(3, 11, 11), axes=[1, 2, 3], mode="nearest", keep_aspect_ratio_policy=policy)
    behind = (1, 3, 11, 11) if policy == "not_smaller" else (1, 3, 10, 10)
    net = BOTH[direction](made, (1, 3, 10, 10), behind, opset=18)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@directions
def test_any_rank(direction: str) -> None:
    expect(BOTH[direction](resized(13, (1, 1, 3)), (2, 3, 4), (2, 3, 12)).model(), folded={"bn"})
    made = resized(13, (1, 1, 1, 2, 2))
    expect(BOTH[direction](made, (1, 2, 2, 2, 2), (1, 2, 2, 4, 4)).model(), folded={"bn"})


@directions
def test_channels_last(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        y = net.node("Transpose", x, perm=[0, 2, 3, 1])
        y = resized(13, (1, 2, 2, 1))(net, y)
        return net.node("Transpose", y, perm=[0, 3, 1, 2])

    expect(BOTH[direction](step, SIZE, (2, 3, 8, 10)).model(), folded={"bn"})


@directions
def test_sizes_that_are_computed(direction: str) -> None:
    """Torch's interpolate computes the sizes from the Shape of its input, which no map changes."""

    def step(net: Net, x: str) -> str:
        shape = net.node("Shape", x)
        start = net.node("Slice", shape, net.ints(0), net.ints(2), net.ints(0))
        sizes = net.node("Concat", start, net.ints(8, 10), axis=0)
        return net.node("Resize", x, "", "", sizes, mode="nearest", name="grow")

    net = BOTH[direction](step, ("n", 3, 4, 5), (2, 3, 8, 10))
    expect(net.model(), folded={"bn"})


# --- DepthToSpace and SpaceToDepth ------------------------------------------------------------------------


def deep(mode: str | None) -> Step:
    def step(net: Net, x: str) -> str:
        attrs: dict[str, Any] = {} if mode is None else {"mode": mode}
        return net.node("DepthToSpace", x, blocksize=2, name="d2s", **attrs)

    return step


@pytest.mark.parametrize(
    ("opset", "mode"), [(9, None), (11, "DCR"), (11, "CRD"), (13, "DCR"), (13, "CRD"), (13, None)]
)
def test_depth_to_space_backward(opset: int, mode: str | None) -> None:
    net = BOTH["backward"](deep(mode), (2, 12, 2, 3), (2, 3, 4, 6), opset=opset)
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv", "DepthToSpace"]


def blocks(mode: str, channels: int = 3) -> dict[str, Any]:
    """The same statistics for the four channels that make one."""
    rng = np.random.default_rng(0)
    owner = np.arange(4 * channels) // 4 if mode == "CRD" else np.arange(4 * channels) % channels
    drawn = {
        "scale": rng.normal(size=channels),
        "bias": rng.normal(size=channels),
        "mean": rng.normal(size=channels),
    }
    return {name: values[owner] for name, values in drawn.items()} | {"var": np.ones(4 * channels)}


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_forward(mode: str) -> None:
    net = forward(deep(mode), (2, 12, 2, 3), (2, 3, 4, 6), stats=blocks(mode))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize(("mode", "other"), [("DCR", "CRD"), ("CRD", "DCR")])
def test_depth_to_space_of_channels_with_different_maps(mode: str, other: str) -> None:
    """What would be one block in the other order is none in this."""
    net = forward(deep(mode), (2, 12, 2, 3), (2, 3, 4, 6), stats=blocks(other))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize("opset", [7, 13])
def test_space_to_depth_forward(opset: int) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("SpaceToDepth", x, blocksize=2)

    expect(forward(step, (2, 3, 4, 6), (2, 12, 2, 3), opset=opset).model(), folded={"bn"})


@pytest.mark.parametrize(("stats", "folds"), [("DCR", True), ("CRD", False)])
def test_space_to_depth_backward(stats: str, folds: bool) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("SpaceToDepth", x, blocksize=2)

    net = BOTH["backward"](step, (2, 3, 4, 6), (2, 12, 2, 3), stats=blocks(stats))
    kept = {} if folds else {"bn": "BNF023"}
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@pytest.mark.parametrize(("direction", "op", "size", "behind"), [
    ("backward", "DepthToSpace", (2, 2, 2, 16), (2, 4, 4, 4)),
    ("forward", "DepthToSpace", (2, 16, 1, 16), (2, 32, 2, 4)),
    ("backward", "SpaceToDepth", (2, 8, 2, 1), (2, 4, 1, 4)),
    ("forward", "SpaceToDepth", (2, 4, 2, 4), (2, 2, 1, 16)),
])  # fmt: skip
def test_blocks_of_another_axis(
    direction: str, op: str, size: tuple[int, ...], behind: tuple[int, ...]
) -> None:
    """What the block takes for channels are columns, as many as there are channels that are normalized."""

    def step(net: Net, x: str) -> str:
        y = net.node(op, net.node("Transpose", x, perm=[0, 3, 1, 2]), blocksize=2, name="blocks")
        return net.node("Transpose", y, perm=[0, 2, 3, 1])

    result = expect(BOTH[direction](step, size, behind).model(), folded=set(), kept={"bn": "BNF023"})
    assert result.kept[0].reason.blocking == "blocks"


@directions
@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
def test_one_map_for_all_channels_passes_any_block(direction: str, op: str) -> None:

    def step(net: Net, x: str) -> str:
        return net.node(op, x, blocksize=2, **({"mode": "CRD"} if op == "DepthToSpace" else {}))

    before, behind = (12, 3) if op == "DepthToSpace" else (3, 12)
    net = BOTH[direction](
        step,
        ("n", before, 4, 6),
        (2, behind, 2, 3),
        stats=uniform(behind if direction == "backward" else before),
    )
    expect(net.model(), folded={"bn"})


@directions
def test_pixel_shuffle_spelled_out(direction: str) -> None:
    """Reshape, Transpose, Reshape: the channel axis is split, moved and merged with the positions."""

    def step(net: Net, x: str) -> str:
        y = net.node("Reshape", x, net.ints(2, 3, 2, 2, 2, 3))
        y = net.node("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
        return net.node("Reshape", y, net.ints(2, 3, 4, 6))

    stats = None if direction == "backward" else blocks("CRD")
    expect(BOTH[direction](step, (2, 12, 2, 3), (2, 3, 4, 6), stats=stats).model(), folded={"bn"})
    if direction == "forward":
        net = forward(step, (2, 12, 2, 3), (2, 3, 4, 6))
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})


# --- Expand -----------------------------------------------------------------------------------------------


def expanded(*shape: int) -> Step:
    def step(net: Net, x: str) -> str:
        return net.node("Expand", x, net.ints(*shape), name="expand")

    return step


@directions
@pytest.mark.parametrize("target", [(2, 3, 4, 5), (1, 1, 4, 5), (4, 5), (1,), (2, 1, 4, 1)])
@pytest.mark.parametrize("opset", [8, 13])
def test_expanded_positions(direction: str, opset: int, target: tuple[int, ...]) -> None:
    behind = np.broadcast_shapes((2, 3, 1, 1), target)
    net = BOTH[direction](expanded(*target), (2, 3, 1, 1), behind, opset=opset)
    expect(net.model(), folded={"bn"})


@directions
def test_an_expanded_channel(direction: str) -> None:
    """One channel becomes three: backward each would want its own map."""
    net = BOTH[direction](expanded(1, 3, 1, 1), (2, 1, 4, 5), (2, 3, 4, 5))
    if direction == "forward":
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_an_axis_in_front() -> None:
    """The channels are axis 2 of the result, and Transpose brings them back."""
    net = Net()
    y = net.node("Expand", net.bn(net.input("x", 2, 3, 4), 3, name="bn"), net.ints(2, 2, 3, 4))
    net.output(linear(net, net.node("Transpose", y, perm=[1, 2, 0, 3]), 3, 4, 4))
    expect(net.model(), folded={"bn"})


def test_an_axis_in_front_backward() -> None:
    """Axis 1 of the result is axis 0 of the tensor that is expanded: its rows."""
    net = Net()
    y = linear(net, net.input("x", 3, 4), 4, 5, 2)
    net.output(net.bn(net.node("Expand", y, net.ints(2, 3, 5)), 3, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize(("channels", "folds"), [(3, True), (1, False)])
def test_a_shape_that_is_computed(channels: int, folds: bool) -> None:
    """The normalization says that three channels come out; whether they went in is known."""
    net = BOTH["backward"](
        lambda net, x: net.node("Expand", x, net.input("shape", 4, elem=7)), (2, channels, 1, 1), (2, 3, 4, 5)
    )
    feeds = {"x": np.ones((2, 3, 1, 1), np.float32), "shape": np.array([1, 3, 4, 5])}
    kept = {} if folds else {"bn": "BNF023"}
    expect(net.model(), folded={"bn"} - set(kept), kept=kept, feeds=feeds)


def test_a_uniform_map_needs_no_axis_of_its_own() -> None:
    net = BOTH["backward"](deep("DCR"), (2, 12, 2, 3), (2, 3, 4, 6), stats=uniform(3))
    expect(net.model(), folded={"bn"})


def test_an_axis_in_front_and_no_transpose() -> None:
    """Three channels, but the Conv reads the three rows of the batch as such."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 3, 3, 4), 3, name="bn"))
    net.output(linear(net, net.node("Expand", y, net.ints(2, 3, 3, 4)), 3, 4, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize(("length", "kept"), [(4, {}), ("rank", {"bn": "BNF023"})])
def test_forward_a_shape_that_is_computed(length: int | str, kept: dict[str, str]) -> None:
    """Axes count from the right: without the rank of the result nobody knows where the channels are."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 3, 1, 1), 3, name="bn", stats=scaling(3)))
    y = net.node("Expand", y, net.input("shape", length, elem=7), name="expand")
    y = net.node("Transpose", y, perm=[0, 2, 3, 1])
    net.output(net.node("MatMul", y, net.init(net.draw(3, 4))), shape=(None,) * 4)
    feeds = {"x": np.ones((2, 3, 1, 1), np.float32), "shape": np.array([1, 3, 4, 5])}
    result = expect(net.model(), folded={"bn"} - set(kept), kept=kept, feeds=feeds)
    assert [r.reason.blocking for r in result.kept] == ["expand"] * len(kept)


# --- Tile -------------------------------------------------------------------------------------------------


def tiled(*repeats: int) -> Step:
    return lambda net, x: net.node("Tile", x, net.ints(*repeats), name="tile")


@directions
@pytest.mark.parametrize("opset", [6, 13, NEWEST])
@pytest.mark.parametrize("repeats", [(1, 1, 2, 3), (2, 1, 1, 1), (1, 1, 1, 1)])
def test_positions_that_are_repeated(direction: str, repeats: tuple[int, ...], opset: int) -> None:
    behind = [size * times for size, times in zip((2, 4, 3, 5), repeats, strict=True)]
    net = BOTH[direction](tiled(*repeats), (2, 4, 3, 5), behind, opset=opset)
    expect(net.model(), folded={"bn"})


def test_channels_that_are_repeated_forward() -> None:
    expect(BOTH["forward"](tiled(1, 3, 1, 1), (2, 4, 3, 5), (2, 12, 3, 5)).model(), folded={"bn"})


def test_channels_that_are_repeated_backward() -> None:
    """Each repetition must have the same map."""
    net = BOTH["backward"](tiled(1, 2, 1, 1), (2, 3, 4, 5), (2, 6, 4, 5))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    rng = np.random.default_rng(5)
    once = {"scale": rng.normal(size=3), "bias": rng.normal(size=3), "mean": rng.normal(size=3)}
    stats = {name: np.tile(values, 2) for name, values in once.items()} | {"var": np.ones(6)}
    net = BOTH["backward"](tiled(1, 2, 1, 1), (2, 3, 4, 5), (2, 6, 4, 5), stats=stats)
    expect(net.model(), folded={"bn"})


@directions
def test_repeats_that_are_computed(direction: str) -> None:
    """What counts is that of the channels."""

    def step(net: Net, x: str) -> str:
        times = net.input("times", 1, elem=7)
        order = [net.ints(1), times] if channels else [times, net.ints(1)]
        return net.node("Tile", x, net.node("Concat", *order, net.ints(1, 1), axis=0), name="tile")

    channels = True
    feeds = {"x": np.ones((2, 3 if direction == "backward" else 4, 3, 5), np.float32), "times": np.array([1])}
    net = BOTH[direction](step, (2, 4, 3, 5), (2, 4, 3, 5))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"}, feeds=feeds)
