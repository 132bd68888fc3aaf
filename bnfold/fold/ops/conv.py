"""Conv: weight `[M, C/group, k...]`, one output channel for each index of the first axis.

`scale * (conv(x, W) + b - center) + bias = conv(x, scale W) + ((b - center) * scale + bias)`, whatever
the rank, padding, stride or groups: padding concerns the input, the affine map the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.errors import ModelError
from bnfold.fold.operator import Absorbed, Operator, Outcome, Refused, SetWeight
from bnfold.fold.ops.weights import bias_change, checked, operand, same_channels, wrong_axis

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Scale the output channels."""
    weight = operand(node, 1, "weight", draft)
    if isinstance(weight, Refused):
        return weight
    if len(weight.dims) < 3:  # noqa: PLR2004  # [M, C, one spatial axis] at least
        raise ModelError(f"Conv {node.label!r}: its weight {weight.name!r} has shape {list(weight.dims)}")
    if affine.axis != 1:
        return wrong_axis(node, affine, 1)
    channels = weight.dims[0]
    same_channels(node, affine, channels)
    factor = affine.expanded(channels).scale.reshape(-1, *(1,) * (len(weight.dims) - 1))
    bias = bias_change(node, affine, channels, weight, draft)
    if isinstance(bias, Refused):
        return bias
    changes = checked((SetWeight(node, 1, weight.scaled(factor)), *bias))
    return changes if isinstance(changes, Refused) else Absorbed(changes)


OPERATOR = Operator(backward, linear=True, ignores_attributes=True)
