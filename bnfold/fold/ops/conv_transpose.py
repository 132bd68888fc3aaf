"""ConvTranspose: weight `[C, M/group, k...]`; column `j` of group `g` is output channel `g * M/group + j`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import ModelError
from bnfold.fold.changes import Change, SetWeight
from bnfold.fold.operator import Absorbed, Operator, Outcome, Refused
from bnfold.fold.ops.weights import (
    bias_change,
    checked,
    fits,
    goes_along,
    no_room,
    operand,
    ordered_sum,
    same_channels,
    shift_by,
    wrong_axis,
)
from bnfold.fold.reasons import Code, Reason

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
    if not goes_along(affine, 1):
        return wrong_axis(node, affine, 1)
    inputs, columns, *kernel = weight.dims
    channels = groups * columns
    same_channels(node, affine, channels)
    factor = affine.on(1, channels).scale.reshape(groups, 1, columns, *(1,) * len(kernel))
    view = (groups, inputs // groups, columns, *kernel)
    scaled = weight.scaled(factor, view)
    bias = bias_change(node, affine, channels, scaled, draft)
    if isinstance(bias, Refused):
        return bias
    changes = checked((SetWeight(node, 1, scaled), *bias))
    return changes if isinstance(changes, Refused) else Absorbed(changes)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Scale the input channels; a shift only where every output gets every tap."""
    if position != 0:
        return no_room(node, position)
    weight = operand(node, 1, "weight", draft)
    if isinstance(weight, Refused):
        return weight
    groups = node.int_attribute("group", 1)
    inputs, columns, *kernel = weight.dims
    if not fits(affine, 1, inputs) or groups < 1 or inputs % groups:
        return wrong_axis(node, affine, 1, "input")
    affine = affine.on(1, inputs)
    shift = affine.shift
    scaled = weight.scaled(affine.scale.reshape(-1, *(1,) * (len(weight.dims) - 1)))
    changes: tuple[Change, ...] = (SetWeight(node, 1, scaled),)
    if shift.any():
        if not _is_even(node, kernel):
            evidence = (
                f"not every output of ConvTranspose {node.label!r} gets every tap, so its shift is uneven"
            )
            return Refused((Reason(Code.ZERO_PADDING, node.label, evidence),))
        taps = ordered_sum(weight.float64().reshape(groups, inputs // groups, columns, -1))
        gained = ordered_sum(np.moveaxis(taps * shift.reshape(groups, -1, 1), 1, 2)).reshape(-1)
        bias = bias_change(node, shift_by(gained), groups * columns, scaled, draft)
        if isinstance(bias, Refused):
            return bias
        changes += bias
    verified = checked(changes)
    return verified if isinstance(verified, Refused) else Absorbed(verified)


def _is_even(node: Node, kernel: list[int]) -> bool:
    """Whether every output gets every tap: at stride 1, and without the borders, which get but some.

    Output `i` gets input `i + begin - k * dilation` by tap `k`: it must exist for the first and last of both.
    """
    if node.attribute("output_shape") is not None or any(
        s != 1 for s in node.ints_attribute("strides") or ()
    ):
        return False
    mode = node.attribute("auto_pad")
    if mode is not None and mode.s not in {b"NOTSET", b"VALID", b""} and any(k != 1 for k in kernel):
        return False
    rank = len(kernel)
    pads = node.ints_attribute("pads") or (0,) * (2 * rank)
    longer = node.ints_attribute("output_padding") or (0,) * rank
    dilations = node.ints_attribute("dilations") or (1,) * rank
    return all(
        pads[axis] >= reach and pads[axis + rank] - longer[axis] >= reach
        for axis, reach in enumerate((k - 1) * d for k, d in zip(kernel, dilations, strict=True))
    )


OPERATOR = Operator(
    backward,
    forward,
    linear=True,
    summary="takes it in: any rank, stride, groups; padding only keeps out a shift that comes from before",
)
