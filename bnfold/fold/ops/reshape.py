"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: the elements stay, the channel axis moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.axes import completed, through_reshape
from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import no_room, not_constant
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight
from bnfold.model.constants import NotConstant

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.integers import Shape
    from bnfold.model.view import Node

_ALLOW_ZERO = "allowzero"
_SHAPES = "export with known shapes"
_UNNAMED = ("\0", "unk__")  # how dimensions start that inference, or we, had to name


def _lost(node: Node, why: str, hint: str = "") -> Refused:
    evidence = f"the channel axis cannot be followed through {node.op} {node.label!r}: {why}"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence, hint),))


def reshape(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: follow the flat order of the elements from the output to the input."""
    return _reshaped(node, affine, draft, forward=False)


def reshape_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same from the input to the output."""
    return no_room(node, position) if position else _reshaped(node, affine, draft, forward=True)


def _reshaped(node: Node, affine: Affine, draft: Draft, *, forward: bool) -> Outcome:
    affine = affine.reduced()
    if not affine.axes:
        return Carried(((0, affine),))
    target = draft.weight(node, 1) if node.op == "Reshape" else None
    if isinstance(target, NotConstant) and target.kind == "overridable":
        return Refused((not_constant(node, "shape", target),))
    shapes = _shapes(node, draft)
    if isinstance(shapes, Refused):
        return shapes
    before, behind = shapes
    carried = through_reshape(affine, *((before, behind) if forward else (behind, before)))
    if carried is not None:
        return Carried(((0, carried),))
    sizes = f"from {_text(before)} to {_text(behind)}"
    if "?" in sizes:
        return _lost(node, f"no more is known than that it goes {sizes}", _SHAPES)
    return _lost(node, f"{sizes} an index no longer belongs to one channel")


def transpose(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Backward: output axis `i` is input axis `perm[i]`."""
    perm = _perm(node, draft)
    if perm is None or any(axis >= len(perm) for axis in affine.axes):
        return _lost(node, "its rank is not known, and it has no perm", _SHAPES)
    return Carried(((0, affine.with_axes([perm[axis] for axis in affine.axes])),))


def transpose_forward(node: Node, _position: int, affine: Affine, draft: Draft) -> Outcome:
    """Forward: input axis `perm[i]` is output axis `i`."""
    perm = _perm(node, draft)
    if perm is None or not set(affine.axes) <= set(perm):
        return _lost(node, "its rank is not known, and it has no perm", _SHAPES)
    return Carried(((0, affine.with_axes([perm.index(axis) for axis in affine.axes])),))


def _perm(node: Node, draft: Draft) -> tuple[int, ...] | None:
    perm = node.ints_attribute("perm")
    if perm is not None:
        return perm
    source = node.inputs[0]
    shape = draft.shape(source) if source is not None else None
    return None if shape is None else tuple(reversed(range(len(shape))))


def _shapes(node: Node, draft: Draft) -> tuple[Shape, Shape] | Refused:
    """Input and output shape, with what the operator says about dimensions that inference leaves open."""
    source, result = node.inputs[0], node.outputs[0]
    before = draft.shape(source) if source is not None else None
    behind = draft.shape(result) if result is not None else None
    if before is None or behind is None:
        return _lost(node, "its input or output shape is not known", _SHAPES)
    # An unknown dimension is still equal to itself where the target copies it.
    before = tuple(f"\0{i}" if d is None else d for i, d in enumerate(before))
    behind = tuple(_copied(node, before, i, draft) if d is None else d for i, d in enumerate(behind))
    return before, completed(behind, before)


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
    return "[" + ", ".join("?" if d is None or str(d).startswith(_UNNAMED) else str(d) for d in shape) + "]"


RESHAPE = Operator(reshape, reshape_forward, summary="passes it on where each index belongs to one channel")
TRANSPOSE = Operator(
    transpose, transpose_forward, summary="passes it on where each index belongs to one channel"
)
