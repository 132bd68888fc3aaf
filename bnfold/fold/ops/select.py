"""Slice and Gather: some indices of an axis, perhaps of the channel axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import ModelError
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
    from bnfold.model.integers import Shape
    from bnfold.model.view import Node

_SLICE_INPUTS_SINCE = 10


def slice_backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """What is cut off may keep its values, or take the map as well: nobody reads it."""
    shape = _shape(node, draft)
    if not affine.axes:
        axes = range(len(shape)) if shape is not None else ()
        cuts = [(axis, _sliced(node, axis, shape, draft)) for axis in axes if shape is not None]
        return _anywhere(node, affine, shape, cuts)
    cut = _cut_axes(node, shape, draft)
    outcome: Outcome = Carried(((0, affine),))
    for axis in affine.axes if cut is None else [a for a in affine.axes if a in cut]:
        if isinstance(outcome, Carried):
            chosen = None if shape is None else _sliced(node, axis, shape, draft)
            outcome = _embedded(node, outcome.edges[0][1], axis, shape, chosen)
    return outcome if isinstance(outcome, Carried) else _same_for_all(affine) or outcome


def slice_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The map of the channels that are left."""
    if position:
        return no_room(node, position)
    shape = _shape(node, draft)
    cut = _cut_axes(node, shape, draft)
    for axis, size in zip(affine.axes, affine.dims, strict=True):
        if cut is not None and axis not in cut:
            continue
        chosen = None if shape is None else _sliced(node, axis, shape, draft)
        if chosen is None or shape is None or _size(shape, axis) != size:
            return _same_for_all(affine) or _unknown(node)
        affine = affine.take(axis, chosen)
    return Carried(((0, affine),))


def gather_backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """The same for a list of indices; which they are counts only along the axis they are taken from."""
    shape, indices = _shape(node, draft), _indices(node, draft)
    axis, rank = _gathered(node, shape, draft)
    affine = affine if indices is not None else affine.reduced()
    size = 0 if shape is None or axis is None else _size(shape, axis)
    chosen = indices.reshape(-1) % size if indices is not None and size else None
    if not affine.axes:
        return _anywhere(node, affine, shape, [] if axis is None else [(axis, chosen)])
    if axis is None or rank is None:
        return _unknown(node)
    ours = [a for a in affine.axes if axis <= a < axis + rank]
    if not ours:
        return Carried(((0, affine.with_axes([a if a < axis else a - rank + 1 for a in affine.axes])),))
    return _embedded(node, affine, axis, shape, chosen) if rank == 1 else _unknown(node)


def gather_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, along the data flow."""
    if position:
        return no_room(node, position)
    shape, indices = _shape(node, draft), _indices(node, draft)
    axis, rank = _gathered(node, shape, draft)
    affine = affine if indices is not None else affine.reduced()
    if not affine.axes:
        return Carried(((0, affine),))
    if axis is None or rank is None:
        return _unknown(node)
    if axis not in affine.axes:
        return Carried(((0, affine.with_axes([a if a < axis else a + rank - 1 for a in affine.axes])),))
    size = 0 if shape is None else _size(shape, axis)
    if indices is None or size != affine.dims[affine.axes.index(axis)] or not size:
        return _unknown(node)
    return Carried(((0, affine.take(axis, indices % size)),))


def _gathered(node: Node, shape: Shape | None, draft: Draft) -> tuple[int | None, int | None]:
    """The axis that a Gather reads from, and the rank of its indices, each None where it is not known.

    Raises:
        ModelError: there is no such axis.
    """
    axis = node.int_attribute("axis", 0)
    if shape is not None and not -len(shape) <= axis < len(shape):
        raise ModelError(
            f"the model is invalid: Gather {node.label!r} takes from axis {axis} of {len(shape)} axes"
        )
    known = axis if axis >= 0 else None if shape is None else axis + len(shape)
    source = node.inputs[1]
    dims = draft.shape(source) if source is not None else None
    found = _indices(node, draft)
    return known, found.ndim if found is not None else None if dims is None else len(dims)


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
    cut = _cut_axes(node, shape, draft)
    if not size or cut is None:
        return None
    if axis not in cut:
        return np.arange(size)
    place = cut.index(axis)
    bounds = []
    for position in (1, 2, 4):
        entries = _operand(node, position, draft) if _given(node, position) else (1,) * len(cut)
        entry = entries[place] if entries is not None and len(entries) == len(cut) else None
        if entry is None:
            return None
        bounds.append(entry)
    start, end, step = bounds
    return np.array(_kept(start, end, step, size), np.intp) if step else None


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


def _same_for_all(affine: Affine) -> Carried | None:
    """One map for the whole tensor passes, whatever is chosen of it."""
    affine = affine.reduced()
    return None if affine.axes else Carried(((0, affine),))


def _cut_axes(node: Node, shape: Shape | None, draft: Draft) -> tuple[int, ...] | None:
    """The axes that a Slice has bounds for, counted from the front, in their order; None when not known."""
    axes = _operand(node, 3, draft)
    if axes is None and not _given(node, 3):
        starts, ends = (_operand(node, position, draft) for position in (1, 2))
        bounds = starts if starts is not None else ends
        axes = None if bounds is None else tuple(range(len(bounds)))
    if axes is None or (shape is None and any(axis is not None and axis < 0 for axis in axes)):
        return None
    known = tuple(
        axis if axis >= 0 or shape is None else axis + len(shape) for axis in axes if axis is not None
    )
    return known if len(known) == len(axes) else None


_ATTRIBUTES = {1: "starts", 2: "ends", 3: "axes"}  # the operands up to opset 9


def _operand(node: Node, position: int, draft: Draft) -> tuple[int | None, ...] | None:
    """The entries of an operand of a Slice, as far as they are known; None when it is left out."""
    if node.opset < _SLICE_INPUTS_SINCE:
        return node.ints_attribute(_ATTRIBUTES[position]) if position in _ATTRIBUTES else None
    return draft.integers(node, position)


def _given(node: Node, position: int) -> bool:
    """Whether a Slice has an operand."""
    if node.opset < _SLICE_INPUTS_SINCE:
        return position in _ATTRIBUTES and node.attribute(_ATTRIBUTES[position]) is not None
    return position < len(node.inputs) and node.inputs[position] is not None


def _shape(node: Node, draft: Draft) -> Shape | None:
    source = node.inputs[0]
    return draft.shape(source) if source is not None else None


def _size(shape: Shape, axis: int) -> int:
    """The number of entries of an axis, 0 when it is not known."""
    size = shape[axis] if axis < len(shape) else None
    return size if isinstance(size, int) and size <= MOST_CHANNELS else 0


def _unknown(node: Node) -> Refused:
    what = "indices" if node.op == "Gather" else "bounds"
    evidence = f"which channels {node.op} {node.label!r} reads is not known before the model runs"
    hint = f"export with constant {what} and known shapes"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, hint),))


SLICE = Operator(slice_backward, slice_forward, summary="passes each branch its part")
GATHER = Operator(gather_backward, gather_forward, summary="passes each branch its part")
