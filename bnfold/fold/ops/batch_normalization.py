"""A BatchNormalization that stays can take a later map in.

`scale' = scale s` and `bias' = (bias - center) s + b`; mean, variance and epsilon stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.changes import SetWeight
from bnfold.fold.lift import of_node
from bnfold.fold.operator import Absorbed, Operator, Outcome, Refused
from bnfold.fold.ops.weights import (
    checked,
    fits,
    goes_along,
    no_room,
    operand,
    same_channels,
    wrong_axis,
)
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_CHANNELS = 1


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Scale gamma and move beta; mean, variance and epsilon stay."""
    lifted = of_node(node, draft)
    if isinstance(lifted, Refused):
        return lifted
    if not goes_along(affine, _CHANNELS):
        return wrong_axis(node, affine, _CHANNELS)
    scale = operand(node, 1, "scale", draft)
    bias = operand(node, 2, "bias", draft)
    if isinstance(scale, Refused):
        return scale
    if isinstance(bias, Refused):
        return bias
    same_channels(node, affine, scale.dims[0])
    changes = checked((
        SetWeight(node, 1, scale.scaled(affine.on(_CHANNELS, scale.dims[0]).scale)),
        SetWeight(node, 2, Weight.dense(bias.name, affine(bias.float64()), bias.dtype)),
    ))  # fmt: skip
    return changes if isinstance(changes, Refused) else Absorbed(changes)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Take an earlier map in: gamma times its scale, and beta moved by what it does to the mean."""
    if position != 0:
        return no_room(node, position)
    lifted = of_node(node, draft)
    if isinstance(lifted, Refused):
        return lifted
    scale = operand(node, 1, "scale", draft)
    bias = operand(node, 2, "bias", draft)
    if isinstance(scale, Refused):
        return scale
    if isinstance(bias, Refused):
        return bias
    if not fits(affine, _CHANNELS, scale.dims[0]):
        return wrong_axis(node, affine, _CHANNELS, "input")
    # (affine(x) - mean) g + beta = (x - mean) (scale g) + ((affine(mean) - mean) g + beta)
    moved = (affine(lifted.center) - lifted.center) * lifted.scale + bias.float64()
    changes = checked((
        SetWeight(node, 1, scale.scaled(affine.on(_CHANNELS, scale.dims[0]).scale)),
        SetWeight(node, 2, Weight.dense(bias.name, moved, bias.dtype)),
    ))  # fmt: skip
    return changes if isinstance(changes, Refused) else Absorbed(changes)


OPERATOR = Operator(backward, forward, summary="takes it in: two become one")
