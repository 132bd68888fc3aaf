"""Relu, LeakyRelu, PRelu and Clip: a positive scale passes, a shift does not.

`f(scale x) = scale f(x)` for every f that is linear on either side of zero, if the scale is not negative.
PRelu with a positive slope `a` lets a negative scale through too: `s PRelu_a(z) = PRelu_1/a(s a z)`.
Clip bends at its bounds instead, which move along: only a map that is the same for all channels passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.changes import Change, SetOperator, SetWeight
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import attribute_value, checked, goes_along, lowest, no_room, operand
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Values
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
    slopes = None if shape is None else _slopes(node, slope, len(shape))
    if not affine.axes and slopes is not None:
        affine = affine.spread(slopes.axes, slopes.dims)
    if (
        shape is None
        or slopes is None
        or not set(slopes.axes) <= set(affine.axes)
        or (node.opset < _SLOPE_BROADCASTS_SINCE and not goes_along(affine, 1))
    ):
        evidence = (
            f"the scale of {lowest(affine)} is negative, and the slopes of PRelu {node.label!r} do not go "
            "along the normalized axis"
        )
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    both = slopes.spread(affine.axes, affine.dims)
    turned = np.broadcast_to(affine.scale < 0, affine.dims)
    if (both.scale[turned] <= 0).any():
        channel = lowest(scaling(affine.axes, np.where(both.scale > 0, np.inf, affine.scale)))
        evidence = (
            f"the scale of {channel} is negative, and the slope of PRelu {node.label!r} there is not positive"
        )
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    values = np.where(turned, 1.0 / np.where(turned, both.scale, 1.0), both.scale)
    moved = scaling(affine.axes, np.where(turned, affine.scale * both.scale, affine.scale))
    new = Weight.dense(slope.name, _stored(node, values, affine.axes, len(shape)), slope.dtype)
    changes = checked((SetWeight(node, 1, new),))
    return changes if isinstance(changes, Refused) else Carried(((0, moved),), changes)


def _slopes(node: Node, slope: Weight, rank: int) -> Affine | None:
    """The slopes as scales along the axes where they differ; None if they do not broadcast."""
    dims = (1,) * (rank - len(slope.dims)) + slope.dims
    if node.opset < _SLOPE_BROADCASTS_SINCE:
        # Either one slope for all channels, or one for each index of axis 1, whatever the rank.
        if len(slope.dims) > 1:
            return None
        dims = (1, *(slope.dims or (1,)), *(1,) * (rank - 2))
    if len(dims) != rank:
        return None
    axes = tuple(axis for axis, size in enumerate(dims) if size != 1)
    return scaling(axes, slope.float64().reshape([dims[axis] for axis in axes]))


def _stored(node: Node, values: Values, axes: tuple[int, ...], rank: int) -> Values:
    """The slopes in the shape in which PRelu broadcasts them."""
    if node.opset < _SLOPE_BROADCASTS_SINCE:
        return values.reshape(-1)
    lengths = dict(zip(axes, values.shape, strict=True))
    return values.reshape([lengths.get(axis, 1) for axis in range(axes[0] if axes else rank - 1, rank)])


def clip(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: the bounds go where the values go."""
    return Carried(((0, affine),)) if 0 in affine.dims else _clip(node, affine, draft, forward=False)


def clip_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: the bounds go back to where the values now stay."""
    if position:
        return no_room(node, position)
    if affine.shift.any() and _cuts(node, draft):
        # What it cuts to, say zero, would be a difference of two larger numbers, each of them rounded.
        evidence = f"Clip {node.label!r} bends at its bounds, and what it cuts to would cancel with a shift"
        return Refused((Reason(Code.SIGN, node.label, evidence),))
    return Carried(((0, affine),)) if 0 in affine.dims else _clip(node, affine, draft, forward=True)


def _cuts(node: Node, draft: Draft) -> bool:
    if node.opset < _BOUNDS_ARE_INPUTS_SINCE:
        return any(node.attribute(name) is not None for name in ("min", "max"))
    return any(draft.weight(node, position) is not None for position in (1, 2))


def _not_of_bounds(node: Node, affine: Affine) -> Refused | None:
    """Why the bounds, which all channels share, cannot follow the map."""
    scale, shift = affine.scale.reshape(-1), affine.shift.reshape(-1)
    if (scale <= 0).any():
        what = "negative" if (scale < 0).any() else "zero"
        evidence = f"Clip {node.label!r} bends at its bounds, and the scale of {lowest(affine)} is {what}"
    elif (scale != scale[0]).any() or (shift != shift[0]).any():
        which = "scales" if (scale != scale[0]).any() else "shifts"
        evidence = f"Clip {node.label!r} has the same bounds for all channels, but their {which} differ"
    else:
        return None
    return Refused((Reason(Code.SIGN, node.label, evidence),))


def _clip(node: Node, affine: Affine, draft: Draft, *, forward: bool) -> Outcome:
    scale, shift = affine.scale.reshape(-1), affine.shift.reshape(-1)
    refused = _not_of_bounds(node, affine)
    if refused is not None:
        return refused

    def moved(bound: Values) -> Values:
        values: Values = (bound - shift[0]) / scale[0] if forward else bound * scale[0] + shift[0]
        return values

    if node.opset < _BOUNDS_ARE_INPUTS_SINCE:
        bounds: dict[str, int | float] = {}
        for name in ("min", "max"):
            if node.attribute(name) is None:
                continue
            old = draft.float_attribute(node, name, 0.0)
            value = attribute_value(node, name, float(moved(np.array(old))), draft)
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


def scaling(axes: tuple[int, ...], scale: Values) -> Affine:
    """The map that only scales."""
    return Affine(axes, np.zeros_like(scale), scale, np.zeros_like(scale))


def _shifted(node: Node, affine: Affine) -> Refused | None:
    if not affine.shift.any():
        return None
    evidence = f"{node.op} {node.label!r} bends at zero, and the normalization shifts"
    return Refused((Reason(Code.SIGN, node.label, evidence),))


def _negative(node: Node, affine: Affine) -> Refused | None:
    if not (affine.scale < 0).any():
        return None
    evidence = f"{node.op} {node.label!r} bends at zero, and the scale of {lowest(affine)} is negative"
    return Refused((Reason(Code.SIGN, node.label, evidence),))


RECTIFIER = Operator(rectifier, rectifier_forward, summary="passes on a positive scale, no shift")
PRELU = Operator(prelu, prelu_forward, summary="passes on a positive scale, no shift")
CLIP = Operator(clip, clip_forward, summary="passes on a positive scale, no shift")
