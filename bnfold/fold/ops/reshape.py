"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: the elements stay, the channel axis moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.axes import through_reshape
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Shape

_ALLOW_ZERO = "allowzero"


def _lost(node: Node, why: str) -> Refused:
    evidence = f"the channel axis cannot be followed through {node.op} {node.label!r}: {why}"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))


def reshape(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Follow the flat order of the elements."""
    source, result = node.inputs[0], node.outputs[0]
    here = draft.shape(source) if source is not None else None
    there = draft.shape(result) if result is not None else None
    if here is None or there is None:
        return _lost(node, "its input or output shape is unknown")
    # An unknown dimension is still equal to itself where the target copies it.
    here = tuple(f"\0{i}" if d is None else d for i, d in enumerate(here))
    there = tuple(_copied(node, here, i, draft) if d is None else d for i, d in enumerate(there))
    carried = through_reshape(affine, there, here)
    if carried is None:
        return _lost(node, f"from {_text(here)} to {_text(there)} an index no longer belongs to one channel")
    return Carried(((0, carried),))


def transpose(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Output axis `i` is input axis `perm[i]`."""
    perm = node.ints_attribute("perm")
    if perm is None:
        source = node.inputs[0]
        shape = draft.shape(source) if source is not None else None
        if shape is None:
            return _lost(node, "its rank is unknown and it has no perm")
        perm = tuple(reversed(range(len(shape))))
    if affine.axis >= len(perm):
        return _lost(node, f"its output has no axis {affine.axis}")
    return Carried(((0, affine.on_axis(perm[affine.axis])),))


def _copied(node: Node, here: Shape, axis: int, draft: Draft) -> int | str | None:
    """What the target of a Reshape says about an output dimension that shape inference left open."""
    if node.op != "Reshape" or node.int_attribute(_ALLOW_ZERO, 0):
        return None
    target = draft.weight(node, 1)
    if not isinstance(target, Weight) or target.source is None:
        return None
    entries = target.source.array().reshape(-1)
    return here[axis] if axis < min(len(here), len(entries)) and entries[axis] == 0 else None


def _text(shape: Shape) -> str:
    return "[" + ", ".join("?" if d is None or str(d).startswith("\0") else str(d) for d in shape) + "]"


RESHAPE = Operator(reshape)
TRANSPOSE = Operator(transpose)
