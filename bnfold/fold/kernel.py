"""Convolutions by their numbers, and how two become one.

Where two kernels read the same places of the input, each lies at its own offset inside the larger one. A
tensor that goes by itself into the sum is a convolution with one tap, the centre.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.changes import SetWeight
from bnfold.fold.weight import FLOATS, Stored, Weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.fold.branch import Branch
    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.model.integers import Shape
    from bnfold.model.view import Node


@dataclass(frozen=True)
class Kernel:
    """A convolution by its numbers: `weight [M, C/group, k...]`, `bias [M]`, both float64; input `sizes`."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    group: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    sizes: Shape

    def places(self, axis: int) -> int | None:
        """How many results there are along a spatial axis; None where the size of the input is not known."""
        size = self.sizes[axis]
        if not isinstance(size, int):
            return None
        extent = (self.taps[axis] - 1) * self.dilations[axis] + 1
        return (size + self.begins[axis] + self.ends[axis] - extent) // self.strides[axis] + 1

    @property
    def taps(self) -> tuple[int, ...]:
        """The size of the kernel along each axis."""
        return self.weight.shape[2:]


def of_branch(branch: Branch, draft: Draft) -> Kernel | None:
    """The numbers of a branch's Conv with what comes after it, or None when they are not all known."""
    conv = branch.layer
    if conv is None or conv.op != "Conv":
        return None
    weight, bias = draft.weight(conv, 1), draft.weight(conv, 2)
    if not isinstance(weight, Stored) or weight.dtype not in FLOATS or len(weight.dims) < 3:  # noqa: PLR2004  # one spatial axis
        return None
    if bias is not None and not isinstance(bias, Weight):
        return None
    rank = len(weight.dims) - 2
    strides = conv.ints_attribute("strides") or (1,) * rank
    dilations = conv.ints_attribute("dilations") or (1,) * rank
    if not len(strides) == len(dilations) == rank:
        return None
    shape = draft.shape(branch.source)
    sizes = shape[2:] if shape is not None and len(shape) == rank + 2 else (None,) * rank
    pads = _pads(conv, weight.dims[2:], strides, dilations, sizes)
    if pads is None:
        return None
    channels = weight.dims[0]
    after = branch.map_along(1, channels)
    if after is None:
        return None
    old = np.zeros(channels) if bias is None else bias.float64()
    return Kernel(
        weight=weight.float64() * after.scale.reshape(-1, *(1,) * (rank + 1)),
        bias=np.broadcast_to(after(old), (channels,)),
        group=conv.int_attribute("group", 1),
        strides=strides,
        dilations=dilations,
        begins=pads[:rank],
        ends=pads[rank:],
        sizes=sizes,
    )


def _pads(
    conv: Node, taps: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], sizes: Shape
) -> tuple[int, ...] | None:
    """Begins and ends; None where auto_pad makes them depend on a size of the input that is not known."""
    found = conv.attribute("auto_pad")
    mode = b"NOTSET" if found is None else found.s
    if mode in {b"NOTSET", b""}:
        pads = conv.ints_attribute("pads") or (0,) * (2 * len(taps))
        return pads if len(pads) == 2 * len(taps) else None
    if mode == b"VALID":
        return (0,) * (2 * len(taps))
    totals = []
    for k, stride, dilation, size in zip(taps, strides, dilations, sizes, strict=True):
        extent = (k - 1) * dilation + 1
        if stride == 1:
            totals.append(extent - 1)
        elif isinstance(size, int):
            totals.append(max((-(-size // stride) - 1) * stride + extent - size, 0))
        else:
            return None
    first = [t // 2 if mode == b"SAME_UPPER" else t - t // 2 for t in totals]
    return (*first, *(t - f for t, f in zip(totals, first, strict=True)))


def with_kernel(large: Kernel, small: Kernel) -> Kernel | None:
    """The smaller kernel laid into the larger one, where both read the same places of the input."""
    if (
        large.strides != small.strides
        or large.group != small.group
        or large.weight.shape[:2] != small.weight.shape[:2]
    ):
        return None
    offsets = []
    for axis, (wide, narrow) in enumerate(zip(large.taps, small.taps, strict=True)):
        step = large.dilations[axis]
        if narrow != 1 and small.dilations[axis] != step:
            return None
        offset, rest = divmod(large.begins[axis] - small.begins[axis], step)
        behind = wide - narrow - offset
        if rest or offset < 0 or behind < 0:
            return None
        places = large.places(axis)
        alike = large.ends[axis] - small.ends[axis] == behind * step
        if not alike and (places is None or places != small.places(axis)):
            return None
        offsets.append(slice(offset, offset + narrow))
    weight = large.weight.copy()
    weight[(slice(None), slice(None), *offsets)] += small.weight
    return replace(large, weight=weight, bias=large.bias + small.bias)


def with_tap(large: Kernel, tap: Branch, draft: Draft) -> Kernel | None:
    """The input itself, or a normalization of it, as one more weight where the same pixel is read."""
    channels, per_group = large.weight.shape[:2]
    shape = draft.shape(tap.source)
    if per_group * large.group != channels or any(s != 1 for s in large.strides):
        return None
    if shape is None or len(shape) != large.weight.ndim or shape[1] not in (channels, None):
        return None
    centre = []
    for axis, taps in enumerate(large.taps):
        index, rest = divmod(large.begins[axis], large.dilations[axis])
        if (
            rest
            or index >= taps
            or large.begins[axis] + large.ends[axis] != (taps - 1) * large.dilations[axis]
        ):
            return None
        centre.append(index)
    after = tap.map_along(1, channels)
    if after is None:
        return None
    weight = large.weight.copy()
    own = np.arange(channels)
    weight[(own, own % per_group, *centre)] += after.scale
    return replace(large, weight=weight, bias=large.bias + after.shift)


def changes(branch: Branch, kernel: Kernel, draft: Draft) -> tuple[Change, ...] | None:
    """What makes the Conv of a branch compute `kernel`; None when it cannot."""
    conv = branch.layer
    old = draft.weight(conv, 1) if conv is not None else None
    if conv is None or not isinstance(old, Weight):
        return None
    bias = draft.weight(conv, 2)
    named = bias.name if isinstance(bias, Weight) else f"{old.name}_bias"
    return (
        SetWeight(conv, 1, Weight.dense(old.name, kernel.weight, old.dtype)),
        SetWeight(conv, 2, Weight.dense(named, kernel.bias, old.dtype)),
    )
