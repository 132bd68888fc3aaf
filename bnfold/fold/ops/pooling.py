"""Pools and reductions over positions: each output of a channel is made of inputs of that channel alone.

A maximum keeps its place under a scale that is not negative, whatever the shift, since padding counts as
minus infinity. A mean commutes with any map, unless zeros from the padding are averaged in. A sum of `n`
entries makes `n` times the shift.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import lowest, no_room
from bnfold.fold.reasons import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_FIRST_SPATIAL = 2
_AXES_ARE_INPUTS_SINCE = {"ReduceMax": 18, "ReduceMean": 18, "ReduceMin": 18, "ReduceSum": 13}


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


def reduced(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """ReduceMean, ReduceSum and the extremes, backward: the axes that were taken away come back."""
    kept = _kept_axes(node, draft)
    if kept is None or any(axis >= len(kept) or kept[axis] is None for axis in affine.axes):
        return _unknown_axes(node)
    before = affine.with_axes([axis for i in affine.axes if (axis := kept[i]) is not None])
    return _through(node, before, draft, forward=False)


def reduced_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, forward: the axes before the channels may go."""
    if position:
        return no_room(node, position)
    kept = _kept_axes(node, draft)
    if kept is None or not set(affine.axes) <= set(kept):
        return _unknown_axes(node)
    behind = affine.with_axes([kept.index(axis) for axis in affine.axes])
    return _through(node, behind, draft, forward=True)


def _through(node: Node, affine: Affine, draft: Draft, *, forward: bool) -> Outcome:
    """What the reduction itself does to the map."""
    if node.op in {"ReduceMax", "ReduceMin"} and (affine.scale < 0).any():
        evidence = f"{node.op} {node.label!r} takes an extreme, and the scale of {lowest(affine)} is negative"
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    if node.op != "ReduceSum" or not affine.shift.any():
        return Carried(((0, affine),))
    count = _count(node, draft)
    if not count:
        evidence = f"how many entries ReduceSum {node.label!r} adds up, and with each the shift, is not known"
        hint = "export with known shapes"
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, hint),))
    shift = affine.shift * count if forward else affine.shift / count
    return Carried(((0, Affine(affine.axes, np.zeros(affine.dims), affine.scale, shift)),))


def _count(node: Node, draft: Draft) -> int | None:
    """How many entries are reduced to one."""
    source = node.inputs[0]
    shape = draft.shape(source) if source is not None else None
    gone = _reduced_axes(node, draft)
    if shape is None or gone is None:
        return None
    sizes = [dim for dim, goes in zip(shape, gone, strict=True) if goes]
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


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
    # Where ceil_mode lets a window hang over the end, only what lies inside counts, pads included.
    return (mode is not None and mode.s.startswith(b"SAME")) or any(node.ints_attribute("pads") or ())


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
    axes: tuple[int | None, ...] | None = node.ints_attribute("axes")
    if node.opset >= _AXES_ARE_INPUTS_SINCE[node.op]:
        axes = draft.integers(node, 1)
        if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
            return None
        if not axes and node.int_attribute("noop_with_empty_axes", 0):
            return [False] * len(shape)
    if axes is not None and None in axes:
        return None
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
REDUCE_MEAN = Operator(
    reduced, reduced_forward, summary="passes it on, a shift only where no padding is counted"
)
REDUCE_SUM = Operator(
    reduced, reduced_forward, summary="passes it on, a shift only where it is known how many are added up"
)
REDUCE_EXTREME = Operator(reduced, reduced_forward, summary="passes on a positive scale, and any shift")
