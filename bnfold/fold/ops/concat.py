"""Concat and Split: along the channels each branch has its part of the map, along another axis all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.axes import MOST_CHANNELS
from bnfold.fold.operator import Carried, Change, Operator, Outcome, Refused, SetWeight
from bnfold.fold.ops.weights import checked, no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import FLOATS, Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
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
            along = (-1, *(1,) * (len(constant.dims) - part.axis - 1))
            values = part.on_values(constant.float64(), along)
            changes.append(SetWeight(node, position, Weight.dense(constant.name, values, constant.dtype)))
        else:
            edges.append((position, part))
    verified = checked(tuple(changes))
    return verified if isinstance(verified, Refused) else Carried(tuple(edges), verified)


def concat_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: the readers get a map that leaves the other branches as they are."""
    axis = _axis(node, node.inputs[position], draft)
    if axis is None or axis != affine.axis:
        evidence = (
            f"the other branches of Concat {node.label!r} carry the same channels without the normalization"
        )
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    sizes = [_size(value, axis, draft) for value in node.inputs]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return _unknown(node)
    start = sum(known[:position])
    whole = affine.expanded(known[position]).embedded(np.arange(start, start + known[position]), sum(known))
    return Carried(((0, whole),))


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
    if axis is None:
        return _unknown(node)
    if axis != affine.axis:
        return [affine] * len(values)
    parts, start = [], 0
    for value in values:
        size = _size(value, axis, draft)
        if size is None:
            return _unknown(node)
        parts.append(affine.take(np.arange(start, start + size), axis) if affine.size != 1 else affine)
        start += size
    return parts if affine.size in (1, start) else _unknown(node)


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
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, "run shape inference first"),))


CONCAT = Operator(concat, concat_forward, summary="passes each branch its part")
SPLIT = Operator(forward=split_forward, summary="passes each branch its part")
