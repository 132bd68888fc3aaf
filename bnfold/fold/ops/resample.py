"""Resize, Upsample, DepthToSpace, SpaceToDepth, Expand and Tile: values are repeated, moved or averaged.

The interpolation weights of a Resize sum to one, so that it commutes with any map per channel, as long as it
neither resizes the channel axis nor fills in values from outside of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.axes import MOST_CHANNELS
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import along, fits, goes_along, no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.integers import Shape
    from bnfold.model.view import Node

_RESIZE_BY_SIZES_SINCE = 11
_TILE_BY_REPEATS_SINCE = 6
_SHAPES = "export with known shapes"


def resize(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Resize and Upsample, in either direction."""
    mode = node.attribute("coordinate_transformation_mode")
    if mode is not None and mode.s == b"tf_crop_and_resize":
        evidence = f"Resize {node.label!r} fills in a value of its own outside of the image"
        return Refused((Reason(Code.ZERO_PADDING, node.label, evidence),))
    before, _ = _shapes(node, draft)
    for axis in affine.axes:
        if before is None or len(before) <= axis:
            return _lost(node, "its shapes are not known", _SHAPES)
        if not _leaves_alone(node, axis, before, draft):
            return _lost(node, f"it is not known to leave axis {axis} alone", "export with constant scales")
    return Carried(((0, affine),))


def _leaves_alone(node: Node, axis: int, before: Shape, draft: Draft) -> bool:
    """Whether the factor of an axis is 1. Equal sizes do not say so: 3 entries times 1.3 are 3 as well."""
    rank = len(before)
    axes = [a % rank for a in node.ints_attribute("axes") or range(rank)]
    if axis not in axes:
        return True
    factors = node.attribute("scales")
    if factors is not None:
        return len(factors.floats) == rank and factors.floats[axis] == 1
    by_inputs = node.op == "Resize" and node.opset >= _RESIZE_BY_SIZES_SINCE
    found = draft.weight(node, 2 if by_inputs else 1)
    if isinstance(found, Weight) and found.dims == (len(axes),):
        return bool(found.float64()[axes.index(axis)] == 1)
    # Factors are left out where sizes are given; they may still be common to all axes.
    given = found is not None and not (isinstance(found, Weight) and found.dims == (0,))
    policy = node.attribute("keep_aspect_ratio_policy")
    if given or not by_inputs or (policy is not None and policy.s != b"stretch"):
        return False
    _, behind = _shapes(node, draft)
    return behind is not None and isinstance(before[axis], int) and before[axis] == behind[axis]


def resize_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, along the data flow."""
    return no_room(node, position) if position else resize(node, affine, draft)


def depth_to_space(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: each output channel is made of `blocksize ** 2` input channels."""
    _, behind = _shapes(node, draft)
    return _repeated(node, affine, _channels(behind, node.int_attribute("blocksize", 1)))


def depth_to_space_forward(node: Node, _position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: all input channels of an output channel must have the same map."""
    before, _ = _shapes(node, draft)
    inputs = _channels(before)
    blocks = node.int_attribute("blocksize", 1) ** 2
    return _merged(node, affine, inputs // blocks if inputs % blocks == 0 else 0)


def space_to_depth(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: all output channels of an input channel must have the same map."""
    before, _ = _shapes(node, draft)
    return _merged(node, affine, _channels(before, node.int_attribute("blocksize", 1)))


def space_to_depth_forward(node: Node, _position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: each input channel is spread over `blocksize ** 2` output channels."""
    before, _ = _shapes(node, draft)
    return _repeated(node, affine, _channels(before, node.int_attribute("blocksize", 1)))


def expand(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: the axis of the output that the input has as well."""
    before, behind = _shapes(node, draft)
    if before is None or behind is None:
        return _lost(node, "its shapes are not known", _SHAPES)
    return _expanded(node, affine, before, behind)


def expand_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: the same axis, counted from the right."""
    before, behind = _shapes(node, draft)
    if position or before is None or behind is None:
        return _lost(node, "its shapes are not known", _SHAPES)
    return _expanded(node, affine, behind, before)


def _expanded(node: Node, affine: Affine, there: Shape, here: Shape) -> Outcome:
    """The map on `there`, given that on `here`; axes are counted from the right."""
    moved = [axis + len(there) - len(here) for axis in affine.axes]
    for axis, other in zip(affine.axes, moved, strict=True):
        if other < 0 or not isinstance(here[axis], int) or here[axis] != there[other]:
            return _lost(node, "it repeats the normalized axis")
    return Carried(((0, affine.with_axes(moved)),))


def tile(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: all repetitions of a channel must have the same map."""
    affine = affine.reduced()
    repeats = draft.integers(node, 1) if node.opset >= _TILE_BY_REPEATS_SINCE else None
    before, _ = _shapes(node, draft)
    for axis, size in zip(affine.axes, affine.dims, strict=True):
        times = repeats[axis] if repeats is not None and axis < len(repeats) else None
        if times == 1:
            continue
        single = before[axis] if before is not None and axis < len(before) else None
        if times is None or not isinstance(single, int) or single * times != size:
            return _lost(node, "how often it repeats the normalized axis is not known")
        one = affine.take(axis, np.arange(single))
        if not one.take(axis, np.arange(size) % single).equals(affine):
            return _lost(node, "it repeats channels, and each repetition is normalized differently")
        affine = one
    return Carried(((0, affine),))


def tile_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: every repetition has the map."""
    if position:
        return no_room(node, position)
    affine = affine.reduced()
    repeats = draft.integers(node, 1) if node.opset >= _TILE_BY_REPEATS_SINCE else None
    for axis, size in zip(affine.axes, affine.dims, strict=True):
        times = repeats[axis] if repeats is not None and axis < len(repeats) else None
        if times is None or size * times > MOST_CHANNELS:
            return _lost(node, "how often it repeats the normalized axis is not known")
        affine = affine.take(axis, np.arange(size * times) % size)
    return Carried(((0, affine),))


def _blocks(node: Node, channels: int) -> np.typing.NDArray[np.intp]:
    """For every deep channel the flat channel it belongs to."""
    blocks = node.int_attribute("blocksize", 1) ** 2
    mode = node.attribute("mode")
    deep = np.arange(channels * blocks)
    return deep // blocks if mode is not None and mode.s == b"CRD" else deep % channels


def _repeated(node: Node, affine: Affine, channels: int) -> Outcome:
    """The map of the deep channels, given that of the flat ones."""
    if not affine.axes:
        return Carried(((0, affine),))
    if not channels or not fits(affine, 1, channels):
        return _lost(node, _channels_or_axis(affine), _SHAPES if goes_along(affine, 1) else "")
    return Carried(((0, affine.take(1, _blocks(node, channels))),))


def _merged(node: Node, affine: Affine, channels: int) -> Outcome:
    """The map of the flat channels, if all deep channels of each agree."""
    if not affine.axes:
        return Carried(((0, affine),))
    owner = _blocks(node, channels)
    if not channels or not fits(affine, 1, len(owner)):
        return _lost(node, _channels_or_axis(affine), _SHAPES if goes_along(affine, 1) else "")
    flat = affine.take(1, np.unique(owner, return_index=True)[1])
    if not flat.take(1, owner).equals(affine):
        return _lost(node, "it joins channels that are normalized differently")
    return Carried(((0, flat),))


def _shapes(node: Node, draft: Draft) -> tuple[Shape | None, Shape | None]:
    source, result = node.inputs[0], node.outputs[0]
    return (
        draft.shape(source) if source is not None else None,
        draft.shape(result) if result is not None else None,
    )


def _channels(shape: Shape | None, block: int = 1) -> int:
    """The number of channels, 0 when it is unknown or, with those of a whole block, too large."""
    size = shape[1] if shape is not None and len(shape) > 1 else None
    return size if isinstance(size, int) and size * block**2 <= MOST_CHANNELS else 0


def _channels_or_axis(affine: Affine) -> str:
    """Why channels cannot be moved between depth and space."""
    return (
        "its number of channels is not known" if goes_along(affine, 1) else f"{along(affine)} is normalized"
    )


def _lost(node: Node, why: str, hint: str = "") -> Refused:
    evidence = f"the channel axis cannot be followed through {node.op} {node.label!r}: {why}"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, hint),))


RESIZE = Operator(resize, resize_forward, summary="passes it on where nothing is filled in")
DEPTH_TO_SPACE = Operator(
    depth_to_space, depth_to_space_forward, summary="passes it on where each index belongs to one channel"
)
SPACE_TO_DEPTH = Operator(
    space_to_depth, space_to_depth_forward, summary="passes it on where each index belongs to one channel"
)
EXPAND = Operator(expand, expand_forward, summary="passes it on where each index belongs to one channel")
TILE = Operator(tile, tile_forward, summary="passes it on where each index belongs to one channel")
