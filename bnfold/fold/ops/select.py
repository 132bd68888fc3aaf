"""Slice and Gather: some indices of an axis, perhaps of the channel axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.axes import MOST_CHANNELS
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Shape

_SLICE_INPUTS_SINCE = 10


def slice_backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """What is cut off may keep its values: nobody reads it."""
    shape = _shape(node, draft)
    chosen = None if shape is None else _sliced(node, affine.axis, shape, draft)
    return _backward(node, affine, affine.axis, shape, chosen)


def slice_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The map of the channels that are left."""
    if position:
        return no_room(node, position)
    shape = _shape(node, draft)
    chosen = None if shape is None else _sliced(node, affine.axis, shape, draft)
    return _forward(node, affine, affine.axis, shape, chosen)


def gather_backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """The same for a list of indices."""
    shape, indices = _shape(node, draft), _indices(node, draft)
    if shape is None or indices is None:
        return _unknown(node)
    axis = node.int_attribute("axis", 0) % len(shape)
    if axis <= affine.axis < axis + indices.ndim:
        if indices.ndim != 1:
            return _unknown(node)
        return _backward(node, affine, axis, shape, indices % _size(shape, axis))
    moved = affine.axis if affine.axis < axis else affine.axis - indices.ndim + 1
    return Carried(((0, affine.on_axis(moved)),))


def gather_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, along the data flow."""
    shape, indices = _shape(node, draft), _indices(node, draft)
    if position or shape is None or indices is None:
        return _unknown(node)
    axis = node.int_attribute("axis", 0) % len(shape)
    if axis == affine.axis:
        if indices.ndim != 1:
            return _unknown(node)
        return _forward(node, affine, axis, shape, indices % _size(shape, axis))
    moved = affine.axis if affine.axis < axis else affine.axis + indices.ndim - 1
    return Carried(((0, affine.on_axis(moved)),))


def _backward(
    node: Node, affine: Affine, axis: int, shape: Shape | None, chosen: NDArray[np.intp] | None
) -> Outcome:
    """Embed the map of the chosen channels; one chosen twice must be asked for the same both times."""
    size = 0 if shape is None else _size(shape, axis)
    if chosen is None or not size or affine.size not in (1, len(chosen)):
        return _unknown(node)
    if affine.size == 1:
        return Carried(((0, affine.expanded(len(chosen)).embedded(chosen, size)),))
    whole = affine.embedded(chosen, size)
    again = whole.take(chosen, axis)
    if not all(
        np.array_equal(a, b) for a, b in zip(again.vectors, affine.expanded(len(chosen)).vectors, strict=True)
    ):
        evidence = (
            f"{node.op} {node.label!r} reads a channel twice, and each reading is normalized differently"
        )
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    return Carried(((0, whole.on_axis(axis)),))


def _forward(
    node: Node, affine: Affine, axis: int, shape: Shape | None, chosen: NDArray[np.intp] | None
) -> Outcome:
    if affine.size == 1:
        return Carried(((0, affine),))
    if chosen is None or shape is None or _size(shape, axis) != affine.size:
        return _unknown(node)
    return Carried(((0, affine.take(chosen, axis)),))


def _sliced(node: Node, axis: int, shape: Shape, draft: Draft) -> NDArray[np.intp] | None:
    """The indices of `axis` that a Slice keeps; None when that cannot be told."""
    size = _size(shape, axis)
    if not size:
        return None
    operands: list[tuple[int, ...] | None]
    if node.opset < _SLICE_INPUTS_SINCE:
        operands = [node.ints_attribute(name) for name in ("starts", "ends", "axes")] + [None]
    else:
        operands = []
        for position in range(1, 5):
            found = draft.weight(node, position)
            if found is not None and not (isinstance(found, Weight) and found.source is not None):
                return None
            operands.append(_integers(found))
    starts, ends, axes, steps = operands
    if starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if 0 in steps or not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    for start, end, each, step in zip(starts, ends, axes, steps, strict=True):
        if each % len(shape) == axis:
            return np.array(_kept(start, end, step, size), np.intp)
    return np.arange(size)


def _kept(start: int, end: int, step: int, size: int) -> range:
    """Bounds count from the back when negative and are clamped to the axis (ONNX Slice, version 10).

    NumPy clamps otherwise where the step is negative: there a start before the axis keeps nothing, in ONNX
    element 0.
    """
    first, last = (0, size) if step > 0 else (-1, size - 1)
    start, end = (i + size if i < 0 else i for i in (start, end))
    return range(min(max(start, 0), last), min(max(end, first), last), step)


def _indices(node: Node, draft: Draft) -> NDArray[np.intp] | None:
    found = draft.weight(node, 1)
    if not isinstance(found, Weight) or found.source is None:
        return None
    return np.asarray(found.source.array(), np.intp)


def _integers(found: Weight | None) -> tuple[int, ...] | None:
    if found is None or found.source is None:
        return None
    return tuple(int(v) for v in found.source.array().reshape(-1))


def _shape(node: Node, draft: Draft) -> Shape | None:
    source = node.inputs[0]
    return draft.shape(source) if source is not None else None


def _size(shape: Shape, axis: int) -> int:
    """The number of entries of an axis, 0 when it is not known."""
    size = shape[axis] if axis < len(shape) else None
    return size if isinstance(size, int) and size <= MOST_CHANNELS else 0


def _unknown(node: Node) -> Refused:
    evidence = f"which channels {node.op} {node.label!r} reads is not known before the model runs"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))


SLICE = Operator(slice_backward, slice_forward, summary="passes each branch its part")
GATHER = Operator(gather_backward, gather_forward, summary="passes each branch its part")
