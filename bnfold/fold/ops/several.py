"""Sum, Mean, Max and Min of any number of tensors.

`s sum(x) + t` scales every term and shifts one of them, no matter which; a mean, and where the scale is not
negative a maximum or minimum, commutes with the map: every term takes all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.changes import SetWeight
from bnfold.fold.operator import Carried, Choice, Operator, Outcome, Refused
from bnfold.fold.ops.weights import addend, checked, lowest
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_EXTREMES = frozenset({"Max", "Min"})
_MOST_CHOICES = 16  # terms that are asked to take the shift; to ask each of many takes the square


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Every term takes its part; a constant one is rewritten."""
    refused = _unlike(node, affine, draft) or _negative(node, affine)
    if refused is not None:
        return refused
    if node.op != "Sum" or len(node.inputs) == 1:
        return _each(node, [affine] * len(node.inputs), draft)
    if not affine.shift.any():
        return _each(node, [affine.scaling] * len(node.inputs), draft)
    options: list[Carried] = []
    for place in range(min(len(node.inputs), _MOST_CHOICES)):
        maps = [affine if i == place else affine.scaling for i in range(len(node.inputs))]
        option = _each(node, maps, draft)
        if isinstance(option, Refused):
            return option
        options.append(option)
    return Choice(tuple(options))


def _each(node: Node, maps: Sequence[Affine], draft: Draft) -> Carried | Refused:
    edges: list[tuple[int, Affine]] = []
    changes: list[Change] = []
    for position, affine in enumerate(maps):
        if not isinstance(draft.weight(node, position), Weight):
            edges.append((position, affine))
            continue
        found = addend(node, position, "constant", draft)
        if isinstance(found, Refused):
            return found
        weight = Weight.dense(found.name, affine.on_tensor(found.float64()), found.dtype)
        changes.append(SetWeight(node, position, weight))
    verified = checked(tuple(changes))
    return verified if isinstance(verified, Refused) else Carried(tuple(edges), verified)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """A single term is all there is; another one has no map to go with it."""
    return join(node, {position: affine}, draft)


def join(node: Node, arrivals: Mapping[int, Affine], draft: Draft) -> Outcome:
    """All terms come without their maps, which must scale alike, and but for a sum or mean shift alike."""
    first, *others = arrivals.values()
    if len(arrivals) < len(node.inputs):
        evidence = f"{node.op} {node.label!r} joins it with tensors that are not normalized"
        return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, evidence),))
    refused = _unlike(node, first, draft) or _negative(node, first)
    if refused is not None:
        return refused
    if node.op in _EXTREMES:
        same = all(first.equals(other) for other in others)
    else:
        same = all(
            first.axes == other.axes and first.dims == other.dims and np.array_equal(first.scale, other.scale)
            for other in others
        )
    if not same:
        evidence = f"{node.op} {node.label!r} joins tensors that are normalized differently"
        return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, evidence),))
    if node.op in _EXTREMES or not others:
        return Carried(((0, first),))
    shift = sum((other.shift for other in others), first.shift)
    shift = shift / len(arrivals) if node.op == "Mean" else shift
    return Carried(((0, Affine(first.axes, np.zeros(first.dims), first.scale, shift)),))


def _negative(node: Node, affine: Affine) -> Refused | None:
    if node.op not in _EXTREMES or not (affine.scale < 0).any():
        return None
    evidence = f"{node.op} {node.label!r} takes an extreme, and the scale of {lowest(affine)} is negative"
    return Refused((Reason(Code.SIGN, node.label, evidence),))


def _unlike(node: Node, affine: Affine, draft: Draft) -> Refused | None:
    """Why a term is not known to have the rank of the result and all of its channels."""
    shapes = [draft.shape(value) if value is not None else None for value in node.inputs]
    rank = max((len(shape) for shape in shapes if shape is not None), default=0)
    own = list(zip(affine.axes, affine.dims, strict=True))
    for shape in shapes:
        if shape is None or len(shape) != rank or any(axis >= rank or shape[axis] != n for axis, n in own):
            evidence = f"a term of {node.op} {node.label!r} is not known to have all channels of the result"
            return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    return None


SUM = Operator(backward, forward, join=join, summary="passes it on where every term takes its part")
EXTREME = Operator(
    backward, forward, join=join, summary="passes on a positive scale where every term takes all of the map"
)
