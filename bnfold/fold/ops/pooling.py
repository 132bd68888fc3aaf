"""Pools and means over positions: each output of a channel is made of inputs of that channel alone.

A maximum keeps its place under a scale that is not negative, whatever the shift, since padding counts as
minus infinity. A mean commutes with any map, unless zeros from the padding are averaged in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import lowest, no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_FIRST_SPATIAL = 2
_REDUCE_AXES_ARE_INPUTS_SINCE = 18


def maximum(node: Node, affine: Affine, _draft: Draft) -> Outcome:
    """MaxPool and GlobalMaxPool."""
    if any(v is not None and (v.is_output or v.uses) for v in node.outputs[1:]):
        evidence = f"the indices that {node.op} {node.label!r} returns are read"
        return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, evidence),))
    if (affine.scale < 0).any():
        evidence = f"{node.op} {node.label!r} takes a maximum, and the scale of {lowest(affine)} is negative"
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    return _spatial(node, affine) or Carried(((0, affine),))


def average(node: Node, affine: Affine, _draft: Draft) -> Outcome:
    """AveragePool and GlobalAveragePool."""
    if node.op == "AveragePool" and affine.shift.any() and _averages_padding(node):
        evidence = (
            f"{node.op} {node.label!r} averages zeros of its padding in, which the shift does not reach"
        )
        return Refused((Reason(Code.ZERO_PADDING, node.label, evidence),))
    return _spatial(node, affine) or Carried(((0, affine),))


def mean(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """ReduceMean, backward: the axes it took away come back."""
    kept = _kept_axes(node, draft)
    if kept is None or any(axis >= len(kept) or kept[axis] is None for axis in affine.axes):
        return _unknown_axes(node)
    return Carried(((0, affine.with_axes([axis for i in affine.axes if (axis := kept[i]) is not None])),))


def mean_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """ReduceMean, forward: the axes before the channels may go."""
    if position:
        return no_room(node, position)
    kept = _kept_axes(node, draft)
    if kept is None or not set(affine.axes) <= set(kept):
        return _unknown_axes(node)
    return Carried(((0, affine.with_axes([kept.index(axis) for axis in affine.axes])),))


def _kept_axes(node: Node, draft: Draft) -> list[int | None] | None:
    """For every output axis which input axis it is, None for a reduced one; None when that is not known."""
    reduced = _reduced_axes(node, draft)
    if reduced is None:
        return None
    keep = node.int_attribute("keepdims", 1)
    return [None if gone else axis for axis, gone in enumerate(reduced) if keep or not gone]


def _averages_padding(node: Node) -> bool:
    if not node.int_attribute("count_include_pad", 0):
        return False
    mode = node.attribute("auto_pad")
    same = mode is not None and mode.s.startswith(b"SAME")
    return same or any(node.ints_attribute("pads") or ()) or bool(node.int_attribute("ceil_mode", 0))


def _spatial(node: Node, affine: Affine) -> Refused | None:
    mixed = [axis for axis in affine.axes if axis >= _FIRST_SPATIAL]
    if not mixed:
        return None
    evidence = f"{node.op} {node.label!r} mixes the entries of axis {mixed[0]}, which is normalized"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))


def _reduced_axes(node: Node, draft: Draft) -> list[bool] | None:
    """For every input axis, whether it is reduced; None when that is not known."""
    source = node.inputs[0]
    shape = draft.shape(source) if source is not None else None
    if shape is None:
        return None
    axes = node.ints_attribute("axes")
    if node.opset >= _REDUCE_AXES_ARE_INPUTS_SINCE:
        found = draft.weight(node, 1)
        if found is not None and not (isinstance(found, Weight) and found.source is not None):
            return None
        axes = (
            tuple(int(a) for a in found.source.array().reshape(-1))
            if isinstance(found, Weight) and found.source
            else None
        )
        if not axes and node.int_attribute("noop_with_empty_axes", 0):
            return [False] * len(shape)
    if not axes:
        return [True] * len(shape)
    return [i in axes or i - len(shape) in axes for i in range(len(shape))]


def _unknown_axes(node: Node) -> Refused:
    evidence = f"{node.op} {node.label!r} reduces the normalized axis, or its axes are not known"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))


def _both(rule: Callable[[Node, Affine, Draft], Outcome], summary: str) -> Operator:
    """An operator with one data input and the same rule in both directions."""
    return Operator(rule, lambda node, _position, affine, draft: rule(node, affine, draft), summary=summary)


MAX_POOL = _both(maximum, "passes on a positive scale, and any shift")
AVERAGE_POOL = _both(average, "passes it on, a shift only where no padding is counted")
REDUCE_MEAN = Operator(mean, mean_forward, summary="passes it on, a shift only where no padding is counted")
