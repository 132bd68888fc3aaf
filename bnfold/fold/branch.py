"""A branch of a sum: from a tensor through one layer, or none, and constants to the sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.fold.affine import Affine
from bnfold.fold.operator import Refused
from bnfold.fold.ops import elementwise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Value

LAYERS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Branch:
    """A linear map from `source`: a layer, or nothing but the tensor itself, followed by a map per channel.

    Attributes:
        source: the tensor it starts from.
        layer: the Conv, Gemm or MatMul; None for a branch that has none.
        after: what happens to each output channel afterwards; None for nothing.
        nodes: all nodes of the branch, the layer included, from the sum upwards.
        normalizations: those among them that are BatchNormalizations.
    """

    source: Value
    layer: Node | None
    after: Affine | None
    nodes: tuple[Node, ...]
    normalizations: tuple[Node, ...] = ()

    def map_along(self, axis: int, size: int) -> Affine | None:
        """What happens to each of `size` channels along `axis`; None where that is not what happens."""
        after = self.after or Affine.uniform()
        return after.on(axis, size) if after.axes in ((), (axis,)) and after.dims in ((), (size,)) else None


def branches(
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
        if node.op in LAYERS and source is not None:
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
        after = own if after is None else after.after(own)
        nodes = (*nodes, node)
        following = node.inputs[position]
        if following is None:
            return
        value = following
