"""Concat and Split: along the channels each branch has its part of the map, along another axis all of it."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.axes import MOST_CHANNELS
from bnfold.fold.changes import Change, SetWeight
from bnfold.fold.operator import Carried, Choice, Operator, Outcome, Refused
from bnfold.fold.ops.weights import checked, no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import FLOATS, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Value

_DEFAULT_AXES = {"Concat": 1, "Split": 0}  # Concat's was given up in opset 4


def concat(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: every branch takes its part; a constant branch is rewritten."""
    parts = _parts(node, node.inputs, affine, draft)
    if isinstance(parts, Refused):
        return parts
    edges: list[tuple[int, Affine]] = []
    changes: list[Change] = []
    for position, part in enumerate(parts):
        constant = draft.weight(node, position)
        if isinstance(constant, Weight) and constant.dtype in FLOATS:
            values = part.on_tensor(constant.float64())
            changes.append(SetWeight(node, position, Weight.dense(constant.name, values, constant.dtype)))
        else:
            edges.append((position, part))
    verified = checked(tuple(changes))
    return verified if isinstance(verified, Refused) else Carried(tuple(edges), verified)


def concat_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: the readers get a map that leaves the other branches as they are."""
    return concat_join(node, {position: affine}, draft)


def concat_join(node: Node, arrivals: Mapping[int, Affine], draft: Draft) -> Outcome:
    """The same where several branches are normalized, or all."""
    position, first = next(iter(arrivals.items()))
    axis = _axis(node, node.inputs[position], draft)
    if axis is None:
        return _unknown(node)
    same = len(arrivals) == len(node.inputs) and all(first.equals(other) for other in arrivals.values())
    if same and axis not in first.axes:
        return Carried(((0, first),))
    if any(affine.axes and axis not in affine.axes for affine in arrivals.values()):
        evidence = (
            f"Concat {node.label!r} joins, along axis {axis}, tensors of the same channels that are not "
            "normalized alike"
        )
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    sizes = [_size(value, axis, draft) for value in node.inputs]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or sum(known) > MOST_CHANNELS:
        return _unknown(node)
    parts = [affine.embedded(axis, _places(known, i), sum(known)) for i, affine in arrivals.items()]
    return Carried(((0, reduce(Affine.after, parts)),))


def split(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Backward: the other parts keep their values, or, where nobody reads them, take the map as well."""
    axis = _axis(node, node.inputs[0], draft)
    others = [v for i, v in enumerate(node.outputs) if i != position and v is not None]
    read = any(v.is_output or draft.readers(v) for v in others)
    whole = [Carried(((0, affine),))] if not read and (axis is None or axis not in affine.axes) else []
    if axis is not None and affine.axes and axis not in affine.axes:
        if whole:
            return whole[0]
        evidence = (
            f"Split {node.label!r} cuts along axis {axis}: its other parts have the same channels, and are "
            "read without the normalization"
        )
        return Refused((Reason(Code.SEVERAL_CONSUMERS, node.label, evidence),))
    sizes = [] if axis is None else [_size(value, axis, draft) for value in node.outputs]
    known = [size for size in sizes if size is not None]
    if axis is None or len(known) < len(sizes) or sum(known) > MOST_CHANNELS:
        return Choice(tuple(whole)) if whole else _unknown(node)
    apart = affine.embedded(axis, _places(known, position), sum(known))
    return Choice((*whole, Carried(((0, apart),))))


def _places(sizes: Sequence[int], position: int) -> NDArray[np.intp]:
    """The indices along the axis that belong to a branch."""
    start = sum(sizes[:position])
    return np.arange(start, start + sizes[position])


def split_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: every output has its part of the map."""
    if position:
        return no_room(node, position)
    parts = _parts(node, node.outputs, affine, draft)
    if isinstance(parts, Refused):
        return parts
    return Carried(tuple((i, part) for i, part in enumerate(parts) if node.outputs[i] is not None))


def _parts(node: Node, values: list[Value | None], affine: Affine, draft: Draft) -> list[Affine] | Refused:
    axis = _axis(node, values[0] if node.op == "Concat" else node.inputs[0], draft)
    if not affine.axes or (axis is not None and axis not in affine.axes):
        return [affine] * len(values)
    if axis is None:
        return _unknown(node)
    parts, start = [], 0
    for value in values:
        size = _size(value, axis, draft)
        if size is None:
            return _unknown(node)
        parts.append(affine.take(axis, np.arange(start, start + size)))
        start += size
    return parts if start == affine.dims[affine.axes.index(axis)] else _unknown(node)


def _axis(node: Node, value: Value | None, draft: Draft) -> int | None:
    """The axis that is joined or cut, counted from the front."""
    axis = node.int_attribute("axis", _DEFAULT_AXES[node.op])
    if axis >= 0:
        return axis
    shape = draft.shape(value) if value is not None else None
    return None if shape is None or axis + len(shape) < 0 else axis + len(shape)


def _size(value: Value | None, axis: int, draft: Draft) -> int | None:
    shape = draft.shape(value) if value is not None else None
    size = shape[axis] if shape is not None and axis < len(shape) else None
    return size if isinstance(size, int) and size <= MOST_CHANNELS else None


def _unknown(node: Node) -> Refused:
    evidence = f"how many channels each branch of {node.op} {node.label!r} has is not known"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, "export with known shapes"),))


CONCAT = Operator(concat, concat_forward, join=concat_join, summary="passes each branch its part")
SPLIT = Operator(forward=split_forward, backward_of=split, summary="passes each branch its part")
