"""Parallel linear branches of one tensor that are summed become one Conv.

A sum of convolutions of `x` with the same stride and the same output grid is one convolution: each kernel
lies at its own offset inside the largest. A normalization of `x`, or `x` itself, is a convolution with one
tap, the centre (Ding et al. 2021, RepVGG). What a constant per channel does to a branch before the sum
belongs to the branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.changes import Dissolve, Drop, SetWeight
from bnfold.fold.operator import Refused
from bnfold.fold.ops import elementwise
from bnfold.fold.weight import FLOATS, Stored, Weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Value

SUMS = frozenset({"Add", "Sub"})


@dataclass(frozen=True)
class Branch:
    """A linear map from `source`: a convolution, or one tap, followed by a map per channel.

    Attributes:
        source: the tensor it starts from.
        conv: the Conv; None for a branch with one tap of weight 1.
        after: what happens to each output channel afterwards; None for nothing.
        nodes: all nodes of the branch, the Conv included.
        normalizations: those among them that are BatchNormalizations.
    """

    source: Value
    conv: Node | None
    after: Affine | None
    nodes: tuple[Node, ...]
    normalizations: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Merge:
    """Two branches and the sum that joins them, as one Conv.

    Attributes:
        into: the Conv that stays.
        sum: the Add or Sub that goes.
        nodes: the other nodes that go.
        normalizations: the BatchNormalizations among them.
        changes: all that has to change.
    """

    into: Node
    sum: Node
    nodes: tuple[Node, ...]
    normalizations: tuple[Node, ...]
    changes: tuple[Change, ...]


def find(node: Node, movable: Callable[[Node], Affine | None], draft: Draft) -> Merge | None:
    """The merge that an Add or Sub allows, if there is one.

    Args:
        node: the candidate.
        movable: the map of a normalization that found no producer to go to, None for any other node.
        draft: the graph as it is now.
    """
    if node.op not in SUMS or len(node.inputs) != 2 or node.refers_to_caller:  # noqa: PLR2004  # a sum of two
        return None
    left, right = node.inputs
    if left is None or right is None or left is right or node.outputs[0] is None:
        return None
    if any(isinstance(draft.weight(node, position), Weight) for position in (0, 1)):
        # A step of a branch, at most; to walk up from each step of a long chain would take its square.
        return None
    for one in _branches(left, node, movable, draft):
        for other in _branches(right, node, movable, draft):
            if one.source is other.source and (one.conv is not None or other.conv is not None):
                signed = _negated(other) if node.op == "Sub" else other
                return _merged(node, one, signed, draft)
    return None


def _branches(
    value: Value, consumer: Node, movable: Callable[[Node], Affine | None], draft: Draft
) -> Iterator[Branch]:
    """The readings of `value` as a branch, longest last: the tensor itself, then what lies before it."""
    yield Branch(value, None, None, ())
    after: Affine | None = None
    nodes: tuple[Node, ...] = ()
    while draft.free_edge(value) is None and value.producer is not None:
        node = value.producer
        if node.graph is not consumer.graph or node.outputs[0] is not value or node.refers_to_caller:
            return
        source = node.inputs[0] if node.inputs else None
        if node.op == "Conv" and source is not None:
            yield Branch(source, node, after, (*nodes, node))
            return
        normalization = movable(node)
        if normalization is not None and source is not None:
            own = normalization
            yield Branch(source, None, own if after is None else after.after(own), (*nodes, node), (node,))
            return
        if node.op not in elementwise.OPS:
            return
        step = elementwise.step(node, draft)
        if isinstance(step, Refused):
            return
        position, own = step
        if own.axes not in ((), (1,)):
            return
        after = own if after is None else after.after(own)
        nodes = (*nodes, node)
        following = node.inputs[position]
        if following is None:
            return
        value = following


def _negated(branch: Branch) -> Branch:
    minus = Affine.uniform(-1.0)
    return replace(branch, after=minus if branch.after is None else minus.after(branch.after))


@dataclass(frozen=True)
class _Kernel:
    """A convolution by its numbers: `weight [M, C/group, k...]`, `bias [M]`, both float64."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    group: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def taps(self) -> tuple[int, ...]:
        return self.weight.shape[2:]


def _merged(node: Node, one: Branch, other: Branch, draft: Draft) -> Merge | None:
    kernels = [_kernel(branch, draft) for branch in (one, other)]
    if any(b.conv is not None and k is None for b, k in zip((one, other), kernels, strict=True)):
        return None
    for branch, large, rest, small in (
        (one, kernels[0], other, kernels[1]),
        (other, kernels[1], one, kernels[0]),
    ):
        if large is None:
            continue
        joined = _with_tap(large, rest, draft) if small is None else _with_kernel(large, small)
        if joined is not None:
            return _build(node, branch, rest, joined, draft)
    return None


def _build(node: Node, kept: Branch, gone: Branch, kernel: _Kernel, draft: Draft) -> Merge | None:
    """The changes that leave `kept`'s Conv with `kernel` in the place of both branches and their sum."""
    conv = kept.nodes[-1]
    old, bias = draft.weight(conv, 1), draft.weight(conv, 2)
    if not isinstance(old, Weight):
        return None
    if any(len(draft.uses(value)) > 1 for each in gone.nodes for value in each.outputs if value is not None):
        # Somebody asks for its shape, perhaps before the Conv that stays.
        return None
    named = bias.name if isinstance(bias, Weight) else f"{old.name}_bias"
    weights = (Weight.dense(old.name, kernel.weight, old.dtype), Weight.dense(named, kernel.bias, old.dtype))
    if any(weight.check() is not None for weight in weights):
        return None
    changes: list[Change] = [SetWeight(conv, i, weight) for i, weight in enumerate(weights, start=1)]
    # From the sum upwards: what stands between it and the Conv goes too.
    end = kept.nodes[0].outputs[0]
    changes.append(Dissolve(node, 0 if node.inputs[0] is end else 1))
    changes.extend(Dissolve(step, _runtime_input(step, draft)) for step in kept.nodes[:-1])
    changes.extend(Drop(each) for each in gone.nodes)
    if draft.clash(changes) is not None:
        return None
    return Merge(conv, node, (*kept.nodes[:-1], *gone.nodes), gone.normalizations, tuple(changes))


def _runtime_input(node: Node, draft: Draft) -> int:
    return 1 if isinstance(draft.weight(node, 0), Weight) else 0


def _kernel(branch: Branch, draft: Draft) -> _Kernel | None:
    """The numbers of a branch's Conv with what comes after it, or None when they are not all known."""
    conv = branch.conv
    if conv is None:
        return None
    weight, bias = draft.weight(conv, 1), draft.weight(conv, 2)
    if not isinstance(weight, Stored) or weight.dtype not in FLOATS or len(weight.dims) < 3:  # noqa: PLR2004  # one spatial axis
        return None
    if bias is not None and not isinstance(bias, Weight):
        return None
    rank = len(weight.dims) - 2
    strides = conv.ints_attribute("strides") or (1,) * rank
    dilations = conv.ints_attribute("dilations") or (1,) * rank
    pads = _pads(conv, weight.dims[2:], strides, dilations)
    if pads is None or not len(strides) == len(dilations) == rank:
        return None
    channels = weight.dims[0]
    after = branch.after or Affine.uniform()
    if after.dims not in ((), (channels,)):
        return None
    old = np.zeros(channels) if bias is None else bias.float64()
    return _Kernel(
        weight=weight.float64() * after.on(1, channels).scale.reshape(-1, *(1,) * (rank + 1)),
        bias=np.broadcast_to(after(old), (channels,)),
        group=conv.int_attribute("group", 1),
        strides=strides,
        dilations=dilations,
        begins=pads[:rank],
        ends=pads[rank:],
    )


def _pads(
    conv: Node, taps: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Begins and ends; None where auto_pad makes them depend on the size of the input."""
    found = conv.attribute("auto_pad")
    mode = b"NOTSET" if found is None else found.s
    if mode in {b"NOTSET", b""}:
        pads = conv.ints_attribute("pads") or (0,) * (2 * len(taps))
        return pads if len(pads) == 2 * len(taps) else None
    if mode == b"VALID":
        return (0,) * (2 * len(taps))
    if any(stride != 1 for stride in strides):
        return None
    totals = [(k - 1) * d for k, d in zip(taps, dilations, strict=True)]
    first = [t // 2 if mode == b"SAME_UPPER" else t - t // 2 for t in totals]
    return (*first, *(t - f for t, f in zip(totals, first, strict=True)))


def _with_kernel(large: _Kernel, small: _Kernel) -> _Kernel | None:
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
        if rest or offset < 0 or behind < 0 or large.ends[axis] - small.ends[axis] != behind * step:
            return None
        offsets.append(slice(offset, offset + narrow))
    weight = large.weight.copy()
    weight[(slice(None), slice(None), *offsets)] += small.weight
    return replace(large, weight=weight, bias=large.bias + small.bias)


def _with_tap(large: _Kernel, tap: Branch, draft: Draft) -> _Kernel | None:
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
    after = tap.after or Affine.uniform()
    if after.dims not in ((), (channels,)):
        return None
    after = after.on(1, channels)
    weight = large.weight.copy()
    own = np.arange(channels)
    weight[(own, own % per_group, *centre)] += after.scale
    return replace(large, weight=weight, bias=large.bias + after.shift)
