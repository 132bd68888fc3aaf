"""ConvTranspose: weight `[C, M/group, k...]`; column `j` of group `g` is output channel `g * M/group + j`."""

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
    """Scale the output channels, group by group."""
    weight = operand(node, 1, "weight", draft)
    if isinstance(weight, Refused):
        return weight
    groups = node.int_attribute("group", 1)
    if len(weight.dims) < 3 or groups < 1 or weight.dims[0] % groups:  # noqa: PLR2004  # one spatial axis at least
        raise ModelError(
            f"ConvTranspose {node.label!r}: weight {weight.name!r} is {list(weight.dims)}, groups {groups}"
        )
    if affine.axis != 1:
        return wrong_axis(node, affine, 1)
    inputs, columns, *kernel = weight.dims
    channels = groups * columns
    same_channels(node, affine, channels)
    factor = affine.expanded(channels).scale.reshape(groups, 1, columns, *(1,) * len(kernel))
    view = (groups, inputs // groups, columns, *kernel)
    bias = bias_change(node, affine, channels, weight, draft)
    if isinstance(bias, Refused):
        return bias
    changes = checked((SetWeight(node, 1, weight.scaled(factor, view)), *bias))
    return changes if isinstance(changes, Refused) else Absorbed(changes)


OPERATOR = Operator(backward, linear=True)
