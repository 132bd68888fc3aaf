"""Parallel linear branches of one tensor that are summed become one layer.

A sum of convolutions of `x` with the same stride and the same output grid is one convolution
(`bnfold.fold.kernel`), a sum of matrix products one product (`bnfold.fold.matrix`). A normalization of `x`,
or `x` itself, joins either (Ding et al. 2021, RepVGG), or another normalization of `x`. What a constant per
channel does to a branch before the sum belongs to the branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bnfold.fold import kernel, lift, matrix
from bnfold.fold.affine import Affine
from bnfold.fold.branch import Branch, branches
from bnfold.fold.changes import Dissolve, Drop, SetWeight
from bnfold.fold.operator import Refused
from bnfold.fold.ops.weights import checked
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

SUMS = frozenset({"Add", "Sub"})


@dataclass(frozen=True)
class Merge:
    """Two branches and the sum that joins them, as one layer or one normalization.

    Attributes:
        into: the layer or normalization that stays.
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
    for one in branches(left, node, movable, draft):
        for other in branches(right, node, movable, draft):
            if one.source is other.source and (_does_something(one) or _does_something(other)):
                signed = _negated(other) if node.op == "Sub" else other
                return _merged(node, one, signed, draft)
    return None


def _negated(branch: Branch) -> Branch:
    minus = Affine.uniform(-1.0)
    return replace(branch, after=minus if branch.after is None else minus.after(branch.after))


def _merged(node: Node, one: Branch, other: Branch, draft: Draft) -> Merge | None:
    for kept, gone in ((one, other), (other, one)):
        joined = _joined(kept, gone, draft)
        if joined is not None:
            return _build(node, kept, gone, joined, draft)
    return None


def _joined(kept: Branch, gone: Branch, draft: Draft) -> tuple[Change, ...] | None:
    """What makes the end of `kept` compute what both branches do; None when it cannot."""
    if kept.layer is None:
        return _normalized(kept, gone, draft) if kept.normalizations and gone.layer is None else None
    if kept.layer.op == "Conv":
        large, small = kernel.of_branch(kept, draft), kernel.of_branch(gone, draft)
        if large is None or (gone.layer is not None and small is None):
            return None
        whole = kernel.with_kernel(large, small) if small else kernel.with_tap(large, gone, draft)
        return None if whole is None else kernel.changes(kept, whole, draft)
    left, right = matrix.of_branch(kept, draft), matrix.of_branch(gone, draft)
    if left is None or (gone.layer is not None and right is None):
        return None
    total = matrix.with_matrix(left, right) if right else matrix.with_tap(left, gone, draft)
    return None if total is None else matrix.changes(kept, total, draft)


def _normalized(kept: Branch, gone: Branch, draft: Draft) -> tuple[Change, ...] | None:
    """A normalization of a tensor and the tensor itself, or two normalizations: one that does both."""
    node = kept.nodes[-1]
    scale, bias, deviation = draft.weight(node, 1), draft.weight(node, 2), lift.deviation(node, draft)
    if not isinstance(scale, Weight) or not isinstance(bias, Weight) or deviation is None:
        return None
    first, second = (branch.map_along(1, scale.dims[0]) for branch in (kept, gone))
    if first is None or second is None:
        return None
    # Both at the mean, which stays.
    middle = first(first.center) + second(first.center)
    return (
        SetWeight(node, 1, Weight.dense(scale.name, (first.scale + second.scale) * deviation, scale.dtype)),
        SetWeight(node, 2, Weight.dense(bias.name, middle, bias.dtype)),
    )


def _does_something(branch: Branch) -> bool:
    return branch.layer is not None or bool(branch.normalizations)


def _build(node: Node, kept: Branch, gone: Branch, stored: tuple[Change, ...], draft: Draft) -> Merge | None:
    """The changes that leave the end of `kept`, as `stored` makes it, for both branches and their sum."""
    if any(len(draft.uses(value)) > 1 for each in gone.nodes for value in each.outputs if value is not None):
        # Somebody asks for its shape, perhaps before the one that stays.
        return None
    if isinstance(checked(stored), Refused):
        return None
    changes = list(stored)
    # From the sum upwards: what stands between it and the layer goes too.
    end = kept.nodes[0].outputs[0]
    changes.append(Dissolve(node, 0 if node.inputs[0] is end else 1))
    changes.extend(Dissolve(step, _runtime_input(step, draft)) for step in kept.nodes[:-1])
    changes.extend(Drop(each) for each in gone.nodes)
    if draft.clash(changes) is not None:
        return None
    return Merge(kept.nodes[-1], node, (*kept.nodes[:-1], *gone.nodes), gone.normalizations, tuple(changes))


def _runtime_input(node: Node, draft: Draft) -> int:
    return 1 if isinstance(draft.weight(node, 0), Weight) else 0
