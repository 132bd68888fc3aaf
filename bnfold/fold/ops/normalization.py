"""InstanceNormalization, GroupNormalization and LayerNormalization end in a scale and a bias of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.changes import Change, SetWeight
from bnfold.fold.operator import Absorbed, Operator, Outcome, Refused
from bnfold.fold.ops.weights import (
    addend,
    checked,
    fits,
    goes_along,
    operand,
    wrong_axis,
)
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node


_SCALE_PER_CHANNEL_SINCE = 21
_NEWER = f"export with opset {_SCALE_PER_CHANNEL_SINCE} or later"


def per_channel(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """InstanceNormalization, and GroupNormalization since opset 21: `[C]` along axis 1."""
    return _absorb(node, affine, 1, draft)


def layer(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """LayerNormalization over the last axis alone."""
    source = node.inputs[0]
    shape = draft.shape(source) if source is not None else None
    axis = node.int_attribute("axis", -1)
    if shape is None:
        evidence = f"the rank of what LayerNormalization {node.label!r} reads is not known"
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, "export with known shapes"),))
    if axis % len(shape) != len(shape) - 1:
        evidence = (
            f"LayerNormalization {node.label!r} has a scale for each entry of axes {axis % len(shape)} to "
            f"{len(shape) - 1}, not for each channel"
        )
        return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))
    return _absorb(node, affine, len(shape) - 1, draft)


def _absorb(node: Node, affine: Affine, axis: int, draft: Draft) -> Outcome:
    scale = operand(node, 1, "scale", draft)
    if isinstance(scale, Refused):
        return scale
    if len(scale.dims) != 1 or not fits(affine, axis, scale.dims[0]):
        if (
            node.op == "GroupNormalization"
            and node.opset < _SCALE_PER_CHANNEL_SINCE
            and goes_along(affine, axis)
        ):
            evidence = (
                f"GroupNormalization {node.label!r} has a scale for each group, not each channel, in opset "
                f"{node.opset}"
            )
            return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, _NEWER),))
        return wrong_axis(node, affine, axis)
    affine = affine.on(axis, scale.dims[0])
    changes: tuple[Change, ...] = (SetWeight(node, 1, scale.scaled(affine.scale)),)
    if draft.weight(node, 2) is None:
        name, old, dtype = f"{scale.name}_bias", np.zeros(affine.dims), scale.dtype
    else:
        bias = addend(node, 2, "bias", draft)
        if isinstance(bias, Refused):
            return bias
        name, old, dtype = bias.name, bias.float64(), bias.dtype
    verified = checked((*changes, SetWeight(node, 2, Weight.dense(name, affine(old), dtype))))
    return verified if isinstance(verified, Refused) else Absorbed(verified)


PER_CHANNEL = Operator(per_channel, summary="takes it in: two become one")
LAYER = Operator(layer, summary="takes it in: two become one")
