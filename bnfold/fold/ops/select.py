"""Slice and Gather: some indices of an axis, perhaps of the channel axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.axes import MOST_CHANNELS
from bnfold.fold.operator import Carried, Choice, Operator, Outcome, Refused
from bnfold.fold.ops.weights import no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Shape

_SLICE_INPUTS_SINCE = 10


def slice_backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """What is cut off may keep its values, or take the map as well: nobody reads it."""
    shape = _shape(node, draft)
    if not affine.axes:
        axes = range(len(shape)) if shape is not None else ()
        cuts = [(axis, _sliced(node, axis, shape, draft)) for axis in axes if shape is not None]
        return _anywhere(node, affine, shape, cuts)
    outcome: Outcome = Carried(((0, affine),))
    for axis in affine.axes:
        if isinstance(outcome, Carried):
            chosen = None if shape is None else _sliced(node, axis, shape, draft)
            outcome = _embedded(node, outcome.edges[0][1], axis, shape, chosen)
    return outcome


def slice_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The map of the channels that are left."""
    if position:
        return no_room(node, position)
    shape = _shape(node, draft)
    for axis, size in zip(affine.axes, affine.dims, strict=True):
        chosen = None if shape is None else _sliced(node, axis, shape, draft)
        if chosen is None or shape is None or _size(shape, axis) != size:
            return _unknown(node)
        affine = affine.take(axis, chosen)
    return Carried(((0, affine),))


def gather_backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """The same for a list of indices."""
    shape, indices = _shape(node, draft), _indices(node, draft)
    if shape is None or indices is None:
        return _unknown(node)
    axis = node.int_attribute("axis", 0) % len(shape)
    ours = [a for a in affine.axes if axis <= a < axis + indices.ndim]
    moved = [a if a < axis else a - indices.ndim + 1 for a in affine.axes if a not in ours]
    size = _size(shape, axis)
    chosen = indices.reshape(-1) % size if size else None
    if not affine.axes:
        return _anywhere(node, affine, shape, [(axis, chosen)])
    if not ours:
        return Carried(((0, affine.with_axes(moved)),))
    if indices.ndim != 1:
        return _unknown(node)
    return _embedded(node, affine, axis, shape, chosen)


def gather_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, along the data flow."""
    shape, indices = _shape(node, draft), _indices(node, draft)
    if position or shape is None or indices is None:
        return _unknown(node)
    axis = node.int_attribute("axis", 0) % len(shape)
    if axis in affine.axes:
        size = _size(shape, axis)
        if size != affine.dims[affine.axes.index(axis)] or not size:
            return _unknown(node)
        indices = indices % size
    return Carried(((0, affine.take(axis, indices)),))


def _anywhere(
    node: Node, affine: Affine, shape: Shape | None, cuts: Sequence[tuple[int, NDArray[np.intp] | None]]
) -> Choice:
    """One map for all that is read: of the whole input, or, where others read the rest, of that alone."""
    options = [Carried(((0, affine),))]
    for axis, chosen in cuts:
        if chosen is not None and shape is not None and len(chosen) != shape[axis]:
            apart = _embedded(node, affine, axis, shape, chosen)
            options += [apart] if isinstance(apart, Carried) else []
    return Choice(tuple(options))


def _embedded(
    node: Node, affine: Affine, axis: int, shape: Shape | None, chosen: NDArray[np.intp] | None
) -> Carried | Refused:
    """Embed the map of the chosen indices; one chosen twice must be asked for the same both times."""
    size = 0 if shape is None else _size(shape, axis)
    own = dict(zip(affine.axes, affine.dims, strict=True)).get(axis)
    if chosen is None or not size or own not in (None, len(chosen)):
        return _unknown(node)
    whole = affine.embedded(axis, chosen, size)
    if own is not None and not whole.take(axis, chosen).equals(affine):
        evidence = (
            f"{node.op} {node.label!r} reads a channel twice, and each reading is normalized differently"
        )
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    return Carried(((0, whole),))


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
