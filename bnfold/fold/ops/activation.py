"""Relu, LeakyRelu, PRelu and Clip: a positive scale passes, a shift does not.

`f(scale x) = scale f(x)` for every f that is linear on either side of zero, if the scale is not negative.
PRelu with a positive slope `a` lets a negative scale through too: `s PRelu_a(z) = PRelu_1/a(s a z)`.
Clip bends at its bounds instead, which move along: only a map that is the same for all channels passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.operator import Carried, Change, Operator, Outcome, Refused, SetOperator, SetWeight
from bnfold.fold.ops.weights import attribute_value, checked, no_room, operand
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Vector
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_BOUNDS_ARE_INPUTS_SINCE = 11
_SLOPE_BROADCASTS_SINCE = 7


def rectifier(node: Node, affine: Affine, _draft: Draft) -> Outcome:
    """Relu and LeakyRelu, in either direction."""
    refused = _shifted(node, affine) or _negative(node, affine)
    return refused or Carried(((0, affine),))


def rectifier_forward(node: Node, _position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, along the data flow."""
    return rectifier(node, affine, draft)


def prelu(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: where the scale is negative the slope is inverted."""
    return _prelu(node, affine, draft)


def prelu_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: the same exchange, `PRelu_a(s x) = s a PRelu_1/a(x)`."""
    return no_room(node, position) if position else _prelu(node, affine, draft)


def _prelu(node: Node, affine: Affine, draft: Draft) -> Outcome:
    shifted = _shifted(node, affine)
    if shifted is not None:
        return shifted
    if not (affine.scale < 0).any():
        return Carried(((0, affine),))
    slope = operand(node, 1, "slope", draft)
    if isinstance(slope, Refused):
        return slope
    source = node.inputs[0]
    shape = draft.shape(source) if source is not None else None
    per_channel = None if shape is None else _per_channel(node, slope, affine, len(shape))
    if shape is None or per_channel is None:
        evidence = (
            f"the slope of {node.label!r} does not go along the normalized axis, and a scale is negative"
        )
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    full = affine.expanded(affine.size)
    turned = full.scale < 0
    if (per_channel[turned] <= 0).any():
        evidence = f"a scale is negative where the slope of {node.label!r} is not positive"
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    values = np.where(turned, 1.0 / np.where(turned, per_channel, 1.0), per_channel)
    scale = np.where(turned, full.scale * per_channel, full.scale)
    trailing = len(shape) - affine.axis - 1 if node.opset >= _SLOPE_BROADCASTS_SINCE else 0
    new = Weight.dense(slope.name, values.reshape(-1, *(1,) * trailing), slope.dtype)
    changes = checked((SetWeight(node, 1, new),))
    if isinstance(changes, Refused):
        return changes
    return Carried(((0, scaling(affine.axis, scale)),), changes)


def _per_channel(node: Node, slope: Weight, affine: Affine, rank: int) -> Vector | None:
    """The slope of each channel, if it varies along no other axis."""
    dims = (1,) * (rank - len(slope.dims)) + slope.dims
    if node.opset < _SLOPE_BROADCASTS_SINCE:
        # Either one slope for all channels, or one for each index of axis 1, whatever the rank.
        if affine.axis != 1 or len(slope.dims) > 1:
            return None
        dims = (1, *(slope.dims or (1,)), *(1,) * (rank - 2))
    if len(dims) != rank or any(d != 1 for i, d in enumerate(dims) if i != affine.axis):
        return None
    if dims[affine.axis] not in (1, affine.size):
        return None
    return np.broadcast_to(slope.float64().reshape(-1), (affine.size,))


def clip(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: the bounds go where the values go."""
    return _clip(node, affine, draft, forward=False) if affine.size else Carried(((0, affine),))


def clip_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: the bounds go back to where the values now stay."""
    if position:
        return no_room(node, position)
    return _clip(node, affine, draft, forward=True) if affine.size else Carried(((0, affine),))


def _clip(node: Node, affine: Affine, draft: Draft, *, forward: bool) -> Outcome:
    scale, shift = affine.scale, affine.shift
    if (scale <= 0).any() or (scale != scale[0]).any() or (shift != shift[0]).any():
        evidence = (
            f"the bounds of Clip {node.label!r} are the same for all channels, the normalization is not"
        )
        return Refused((Reason(Code.SIGN, node.label, evidence),))

    def moved(bound: Vector) -> Vector:
        values: Vector = (bound - shift[0]) / scale[0] if forward else bound * scale[0] + shift[0]
        return values

    if node.opset < _BOUNDS_ARE_INPUTS_SINCE:
        bounds: dict[str, int | float] = {}
        for name in ("min", "max"):
            found = node.attribute(name)
            if found is None:
                continue
            value = attribute_value(node, name, float(moved(np.array(found.f))), draft)
            if isinstance(value, Refused):
                return value
            bounds[name] = value
        return Carried(((0, affine),), (SetOperator(node, "Clip", bounds),))
    changes: list[Change] = []
    for position in (1, 2):
        if draft.weight(node, position) is None:
            continue
        bound = operand(node, position, "bound", draft)
        if isinstance(bound, Refused):
            return bound
        changes.append(
            SetWeight(node, position, Weight.dense(bound.name, moved(bound.float64()), bound.dtype))
        )
    verified = checked(tuple(changes))
    return verified if isinstance(verified, Refused) else Carried(((0, affine),), verified)


def scaling(axis: int, scale: Vector) -> Affine:
    """The map that only scales."""
    return Affine(axis, np.zeros(1), scale, np.zeros(1))


def _shifted(node: Node, affine: Affine) -> Refused | None:
    if not affine.shift.any():
        return None
    evidence = f"{node.op} {node.label!r} bends at zero, and the normalization shifts"
    return Refused((Reason(Code.SIGN, node.label, evidence),))


def _negative(node: Node, affine: Affine) -> Refused | None:
    if not (affine.scale < 0).any():
        return None
    channel = int(np.argmin(affine.scale))
    evidence = f"{node.op} {node.label!r} bends at zero, and the scale of channel {channel} is negative"
    return Refused((Reason(Code.SIGN, node.label, evidence),))


RECTIFIER = Operator(rectifier, rectifier_forward, summary="passes on a positive scale, no shift")
PRELU = Operator(prelu, prelu_forward, summary="passes on a positive scale, no shift")
CLIP = Operator(clip, clip_forward, summary="passes on a positive scale, no shift")
