"""Pad: mirrored values commute with any map, a constant `u` must become one and the same constant.

Backward, `scale pad(z, u) + shift = pad(scale z + shift, scale u + shift)`, if `scale u + shift` is the
same for all channels. Forward, `pad(scale x + shift, u) = scale pad(x, (u - shift) / scale) + shift`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.changes import Change, SetOperator, SetWeight
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import attribute_value, checked, no_room, operand
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine, Values
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_INPUTS_SINCE = 11
_BEFORE = "put the normalization before the pad"
_BEHIND = "put the normalization behind the layer that follows the pad"


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """The constant goes where the values go."""
    return _through(node, affine, draft, forward=False)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The constant goes back to where the values now stay."""
    return no_room(node, position) if position else _through(node, affine, draft, forward=True)


def _through(node: Node, affine: Affine, draft: Draft, *, forward: bool) -> Outcome:
    refused = _padded_channels(node, affine, draft)
    if refused is not None:
        return refused
    found = node.attribute("mode")
    if (found is not None and found.s != b"constant") or 0 in affine.dims:
        return Carried(((0, affine),))
    constant = _constant(node, draft)
    if isinstance(constant, Refused):
        return constant
    old, dtype_source = constant
    by_channel: Values = (old - affine.shift) / affine.scale if forward else old * affine.scale + affine.shift
    moved = np.reshape(by_channel, -1)
    if not np.isfinite(moved).all() or (moved != moved[0]).any():
        evidence = (
            f"Pad {node.label!r} fills with {old:g}, which would have to differ from channel to channel"
        )
        return Refused((Reason(Code.ZERO_PADDING, node.label, evidence, _BEHIND if forward else _BEFORE),))
    if moved[0] == old:
        return Carried(((0, affine),))
    if node.opset < _INPUTS_SINCE:
        value = attribute_value(node, "value", float(moved[0]), draft)
        if isinstance(value, Refused):
            return value
        return Carried(((0, affine),), (SetOperator(node, "Pad", {"value": value}),))
    if dtype_source is None:
        evidence = (
            f"Pad {node.label!r} has no input for its constant, which would have to become {moved[0]:g}"
        )
        hint = "give it its constant, 0, as input 2"
        return Refused((Reason(Code.ZERO_PADDING, node.label, evidence, hint),))
    change: tuple[Change, ...] = (
        SetWeight(
            node, 2, Weight.dense(dtype_source.name, moved[:1].reshape(dtype_source.dims), dtype_source.dtype)
        ),
    )
    verified = checked(change)
    return verified if isinstance(verified, Refused) else Carried(((0, affine),), verified)


def _padded_channels(node: Node, affine: Affine, draft: Draft) -> Refused | None:
    """Why what is padded may not be a channel like the others."""
    for axis in affine.axes:
        pads = _pads_of_axis(node, axis, draft)
        if pads is None:
            evidence = f"whether Pad {node.label!r} pads the normalized axis {axis} is not known"
            hint = "export with constant pads and known shapes"
            return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, hint),))
        if any(pads):
            evidence = f"Pad {node.label!r} pads the normalized axis {axis}"
            return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    return None


def _constant(node: Node, draft: Draft) -> tuple[float, Weight | None] | Refused:
    if node.opset < _INPUTS_SINCE:
        return draft.float_attribute(node, "value", 0.0), None
    if draft.weight(node, 2) is None:
        return 0.0, None
    found = operand(node, 2, "constant", draft)
    if isinstance(found, Refused):
        return found
    return float(found.float64().reshape(-1)[0]), found


def _pads_of_axis(node: Node, axis: int, draft: Draft) -> tuple[int, int] | None:
    """How much is padded before and behind one axis; None when that cannot be told."""
    if node.opset < _INPUTS_SINCE:
        listed: tuple[int | None, ...] | None = node.ints_attribute("pads") or node.ints_attribute("paddings")
        axes: tuple[int | None, ...] | None = None
    else:
        listed = draft.integers(node, 1)
        axes = draft.integers(node, 3)
        if axes is None and len(node.inputs) > 3 and node.inputs[3] is not None:  # noqa: PLR2004  # data, pads, value, axes
            return None
    if axes is not None:
        source = node.inputs[0]
        shape = draft.shape(source) if source is not None else None
        if shape is None or None in axes:
            # Pads of some axes do not tell the rank, from which negative axes count.
            return None
        places = [i for i, each in enumerate(axes) if each is not None and each % len(shape) == axis]
        if not places:
            return 0, 0
        (place,), half = places[:1], len(axes)
    else:
        place, half = axis, 0 if listed is None else len(listed) // 2
    if listed is None or len(listed) != 2 * half or place >= half:
        return None
    before, behind = listed[place], listed[place + half]
    return None if before is None or behind is None else (before, behind)


OPERATOR = Operator(backward, forward, summary="passes it on where the padding can follow")
