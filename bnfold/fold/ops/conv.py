"""Conv: weight `[M, C/group, k...]`, one output channel for each index of the first axis.

Backward, `scale * (conv(x, W) + b - center) + bias = conv(x, scale W) + ((b - center) * scale + bias)`,
whatever the rank, padding, stride or groups: padding concerns the input, the affine map the output.

Forward, `conv(scale x + shift, W) + b = conv(x, W scale) + (b + sum over c, k of W[:, c, k] shift[c])`, where
`c` counts within the group of the output channel. The shift reaches every tap only where no zero is padded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """Scale the output channels."""
    weight = operand(node, 1, "weight", draft)
    if isinstance(weight, Refused):
        return weight
    if len(weight.dims) < 3:  # noqa: PLR2004  # [M, C, one spatial axis] at least
        raise ModelError(f"Conv {node.label!r}: its weight {weight.name!r} has shape {list(weight.dims)}")
    if not goes_along(affine, 1):
        return wrong_axis(node, affine, 1)
    channels = weight.dims[0]
    same_channels(node, affine, channels)
    factor = affine.on(1, channels).scale.reshape(-1, *(1,) * (len(weight.dims) - 1))
    scaled = weight.scaled(factor)
    bias = bias_change(node, affine, channels, scaled, draft)
    if isinstance(bias, Refused):
        return bias
    changes = checked((SetWeight(node, 1, scaled), *bias))
    return changes if isinstance(changes, Refused) else Absorbed(changes)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Scale the input channels; the shift becomes part of the bias."""
    if position != 0:
        return no_room(node, position)
    weight = operand(node, 1, "weight", draft)
    if isinstance(weight, Refused):
        return weight
    if len(weight.dims) < 3:  # noqa: PLR2004  # [M, C, one spatial axis] at least
        raise ModelError(f"Conv {node.label!r}: its weight {weight.name!r} has shape {list(weight.dims)}")
    channels, inputs, *kernel = weight.dims
    groups = node.int_attribute("group", 1)
    if groups < 1 or channels % groups or not fits(affine, 1, groups * inputs):
        return wrong_axis(node, affine, 1, "input")
    affine = affine.on(1, groups * inputs)
    shift = affine.shift
    if shift.any() and (padding := _padding(node, kernel, draft)) is not None:
        return Refused((padding,))
    view = (groups, channels // groups, inputs, *kernel)
    ones = (1,) * len(kernel)
    scaled = weight.scaled(affine.scale.reshape(groups, 1, inputs, *ones), view)
    changes: tuple[Change, ...] = (SetWeight(node, 1, scaled),)
    if shift.any():
        taps = ordered_sum(weight.float64().reshape(groups, channels // groups, inputs, -1))
        gained = ordered_sum(taps * shift.reshape(groups, 1, inputs)).reshape(-1)
        bias = bias_change(node, shift_by(gained), channels, scaled, draft)
        if isinstance(bias, Refused):
            return bias
        changes += bias
    verified = checked(changes)
    return verified if isinstance(verified, Refused) else Absorbed(verified)


def _padding(node: Node, kernel: list[int], draft: Draft) -> Reason | None:
    """The zeros around the input, if there are any: they are not shifted."""
    mode = node.attribute("auto_pad")
    name = mode.s if mode is not None else b"NOTSET"
    pads = node.ints_attribute("pads") or ()
    if name in {b"NOTSET", b""}:
        padded = any(pads)
    elif name == b"VALID":
        padded = False
    else:
        padded = _same_pads(node, kernel, draft)
    if not padded:
        return None
    return Reason(
        Code.ZERO_PADDING,
        node.label,
        f"{node.op} {node.label!r} pads its input with zeros, which the normalization's shift does not reach",
        "put the normalization behind the convolution, or pad before the normalization",
    )


def _same_pads(node: Node, kernel: list[int], draft: Draft) -> bool:
    """Whether SAME_UPPER or SAME_LOWER pads anything; an unknown size counts as padded."""
    source = node.inputs[0]
    shape = draft.shape(source) if source is not None else None
    sizes = shape[2:] if shape is not None else (None,) * len(kernel)
    strides = node.ints_attribute("strides") or (1,) * len(kernel)
    dilations = node.ints_attribute("dilations") or (1,) * len(kernel)
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=False):
        extent = (taps - 1) * dilation + 1
        if extent <= stride and extent == 1:
            continue
        if not isinstance(size, int) or (-(-size // stride) - 1) * stride + extent > size:
            return True
    return False


OPERATOR = Operator(
    backward,
    forward,
    linear=True,
    ignores_attributes=True,
    summary="takes it in: any rank, stride, groups; padding only keeps out a shift that comes from before",
)
