"""Normalizations that an exporter spelled out: chains of Sub, Mul, Div and Add with constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.fold.operator import Refused
from bnfold.fold.ops import elementwise
from bnfold.fold.search import Site

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node


@dataclass(frozen=True)
class Chain:
    """Constant arithmetic that scales and shifts channel by channel, and the node it starts behind."""

    site: Site
    head: Node | None


def spelled_out(node: Node, draft: Draft) -> Chain | None:
    """The chain of constant arithmetic that ends at `node`, if it does what a normalization does."""
    result = node.outputs[0]
    if result is None:
        return None
    uses = draft.readers(result)
    if len(uses) == 1 and _is_step(uses[0].node, draft):
        return None
    ops: list[str] = []
    scales = shifts = False
    current: Node | None = node
    first = None
    while current is not None and current.op in elementwise.OPS and current not in draft.removed:
        step = elementwise.step(current, draft)
        if isinstance(step, Refused):
            break
        position, affine = step
        first = first or (position, affine)
        ops.append(current.op)
        scales = scales or (current.op in {"Mul", "Div"} and affine.axes != ())
        shifts = shifts or current.op in {"Add", "Sub"}
        source = current.inputs[position]
        current = source.producer if source is not None else None
        if source is None or draft.free_edge(source) is not None:
            break
    if first is None or not (scales and shifts):
        return None
    return Chain(Site(node, first[0], first[1], "+".join(reversed(ops))), current)


def _is_step(node: Node, draft: Draft) -> bool:
    return node.op in elementwise.OPS and not isinstance(elementwise.step(node, draft), Refused)
