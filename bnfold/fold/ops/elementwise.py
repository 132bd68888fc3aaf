"""Add, Sub, Mul and Div by a constant that is the same for a whole channel: an affine map of their own.

They dissolve in the map behind them, as Neg does. Which axis a constant speaks about follows from
broadcasting (right-aligned; up to opset 6 by attributes) and from the rank of the other operand, which must
be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine, Values
from bnfold.fold.changes import Bypass, Dissolve, SetWeight
from bnfold.fold.operator import Carried, Choice, Operator, Outcome, Refused
from bnfold.fold.ops.weights import addend, along, checked, no_room, not_constant
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import FLOATS, Weight
from bnfold.model.constants import NotConstant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.fold.draft import Draft
    from bnfold.model.integers import Shape
    from bnfold.model.view import Node

_HOW = {
    "Add": "adds {1} to {0}",
    "Div": "divides {0} by {1}",
    "Mul": "multiplies {0} by {1}",
    "Sub": "subtracts {1} from {0}",
}

OPS = frozenset({"Add", "Sub", "Mul", "Div", "Neg"})

_NOT_PER_CHANNEL = (Code.NO_LINEAR_NEIGHBOUR, Code.CHANNEL_AXIS)
_BINARY = 2
_NUMPY_BROADCAST = 7  # the opset since which shapes align on the right without attributes


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Compose both maps and take the node out."""
    lifted = step(node, draft)
    if isinstance(lifted, Refused):
        spread = _spread(node, affine, draft) if lifted.reasons[0].code in _NOT_PER_CHANNEL else None
        return spread or lifted
    position, own = lifted
    if not _nested(own, affine):
        return _across(node, own, affine)
    return Carried(((position, affine.after(own)),), (Dissolve(node, position),))


def _spread(node: Node, affine: Affine, draft: Draft) -> Outcome | None:
    """`scale (a + b) + shift`: both terms are scaled, and one of them, no matter which, is shifted."""
    if node.op not in {"Add", "Sub"} or len(node.inputs) != _BINARY or node.opset < _NUMPY_BROADCAST:
        return None
    shapes = [draft.shape(v) if v is not None else None for v in node.inputs]
    if not all(shape is not None and _has_channels(shape, shapes, affine) for shape in shapes):
        return None
    constant = next((i for i in (0, 1) if isinstance(draft.weight(node, i), Weight)), None)
    if constant is not None:
        return _scaled_constant(node, constant, affine, draft)
    return Choice((
        Carried(((0, affine), (1, affine.scaling))),
        Carried(((0, affine.scaling), (1, affine if node.op == "Add" else _opposite(affine)))),
    ))  # fmt: skip


def _opposite(affine: Affine) -> Affine:
    """The map with the opposite shift."""
    return Affine(affine.axes, np.zeros_like(affine.scale), affine.scale, -affine.shift)


def _scaled_constant(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """A constant that differs from place to place stays, scaled; the other term takes the whole map."""
    found = addend(node, position, "constant", draft)
    if isinstance(found, Refused):
        return found
    weight = Weight.dense(found.name, affine.scaling.on_tensor(found.float64()), found.dtype)
    changes = checked((SetWeight(node, position, weight),))
    if isinstance(changes, Refused):
        return changes
    # With the constant first, `c - x`: the shift comes with the opposite sign.
    flip = node.op == "Sub" and position == 0
    other = _opposite(affine) if flip else affine
    return Carried(((1 - position, other),), changes)


def _has_channels(shape: Shape, shapes: list[Shape | None], affine: Affine) -> bool:
    """Whether a term has the rank of the sum and all of its channels, so that it is not broadcast to them."""
    same_rank = all(other is not None and len(other) == len(shape) for other in shapes)
    own = zip(affine.axes, affine.dims, strict=True)
    return same_rank and all(axis < len(shape) and shape[axis] == size for axis, size in own)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Compose both maps, and leave it to the readers of the result."""
    lifted = step(node, draft)
    if isinstance(lifted, Refused):
        return lifted
    runtime, own = lifted
    if runtime != position:
        return no_room(node, position)
    if not _nested(own, affine):
        return _across(node, own, affine)
    return Carried(((0, own.after(affine)),), (Bypass(node, position),))


def join(node: Node, arrivals: Mapping[int, Affine], draft: Draft) -> Outcome:
    """A sum of two normalized terms: `s a + t + s b + u = s (a + b) + (t + u)`."""
    one, other = (arrivals[position] for position in (0, 1))
    shapes = [draft.shape(v) if v is not None else None for v in node.inputs]
    same = one.axes == other.axes and one.dims == other.dims and np.array_equal(one.scale, other.scale)
    fit = all(shape is not None and _has_channels(shape, shapes, one) for shape in shapes)
    if node.op not in {"Add", "Sub"} or node.opset < _NUMPY_BROADCAST or not same or not fit:
        if node.inputs[0] is node.inputs[1]:
            how = _HOW[node.op].format("the normalized tensor", "itself")
            return _refused(node, f"{node.op} {node.label!r} {how}")
        how = _HOW[node.op].format("a normalized tensor", "another, which is not normalized alike")
        return _refused(node, f"{node.op} {node.label!r} {how}")
    shift = one.shift + other.shift if node.op == "Add" else one.shift - other.shift
    return Carried(((0, Affine(one.axes, np.zeros_like(one.scale), one.scale, shift)),))


def _nested(own: Affine, affine: Affine) -> bool:
    """Whether one of two maps goes along no axis that the other does not."""
    return set(own.axes) <= set(affine.axes) or not affine.axes


def _across(node: Node, own: Affine, affine: Affine) -> Refused:
    evidence = (
        f"the constant of {node.op} {node.label!r} goes along {along(own)}, the normalization along "
        f"{along(affine)}"
    )
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))


def step(node: Node, draft: Draft) -> tuple[int, Affine] | Refused:
    """The runtime operand's position and the map that the node applies to it."""
    if node.refers_to_caller:
        return _refused(node, f"an attribute of {node.op} {node.label!r} is given by the caller")
    return (0, Affine.uniform(-1.0)) if node.op == "Neg" else _with_constant(node, draft)


def _with_constant(node: Node, draft: Draft) -> tuple[int, Affine] | Refused:
    constants = [draft.weight(node, i) for i in (0, 1)] if len(node.inputs) > 1 else []
    known = [i for i, c in enumerate(constants) if isinstance(c, Weight)]
    if len(known) != 1:
        for found in constants:
            if isinstance(found, NotConstant) and found.kind == "overridable":
                return Refused((not_constant(node, "constant", found),))
        return _refused(node, _of_two(node, len(known)))
    position = 1 - known[0]
    constant = constants[known[0]]
    source = node.inputs[position]
    if not isinstance(constant, Weight) or source is None or constant.dtype not in FLOATS:
        return _refused(node, f"the constant of {node.op} {node.label!r} is no floating-point tensor")
    if node.op == "Div" and position == 1:
        return _refused(node, f"Div {node.label!r} divides a constant by the tensor, which is not affine")
    shape = draft.shape(source)
    if shape is None:
        return _unknown(
            node, f"{node.op} {node.label!r} reads {source.name!r}, of which the rank is not known"
        )
    axis = _axis(node, constant, position, shape)
    if isinstance(axis, Refused):
        return axis
    values = constant.float64().reshape(-1)
    own = _map(node.op, position, values, axis)
    if not own.is_finite:
        return Refused((
            Reason(
                Code.NON_FINITE, constant.name, f"the constant of {node.op} {node.label!r} is not finite"
            ),
        ))  # fmt: skip
    return position, own


def _of_two(node: Node, constants: int) -> str:
    """What the node does with two tensors of which neither is a constant, or both are."""
    one, other = (v.name if v is not None else "" for v in (*node.inputs, None, None)[:2])
    if one == other:
        how = _HOW[node.op].format(repr(one), "itself")
        return f"{node.op} {node.label!r} {how}"
    how = _HOW[node.op].format(repr(one), repr(other))
    which = "both are constants" if constants else "neither is a constant"
    return f"{node.op} {node.label!r} {how}, and {which}"


def _map(op: str, position: int, values: Values, axis: int) -> Affine:
    zero, one = np.zeros(1), np.ones(1)
    if op == "Add":
        return Affine.along(axis, zero, one, values)
    if op == "Sub" and position == 0:
        return Affine.along(axis, values, one, zero)
    if op == "Sub":
        return Affine.along(axis, values, -one, zero)
    if op == "Mul":
        return Affine.along(axis, zero, values, zero)
    with np.errstate(divide="ignore"):
        return Affine.along(axis, zero, 1.0 / values, zero)


def _axis(node: Node, constant: Weight, position: int, shape: Shape) -> int | Refused:
    """The axis of the runtime operand along which the constant varies; 0 when it does not vary."""
    dims = constant.dims
    offset = len(shape) - len(dims)
    if node.opset < _NUMPY_BROADCAST:
        if not node.int_attribute("broadcast", 0) and len(dims) != len(shape):
            return _refused(
                node, f"{node.op} {node.label!r} does not broadcast, but its operands differ in rank"
            )
        if node.int_attribute("broadcast", 0) and position == 1:
            return _refused(node, f"{node.op} {node.label!r} broadcasts the tensor to its constant")
        offset = node.int_attribute("axis", offset)
        offset += len(shape) if offset < 0 else 0
    if offset < 0:
        return _refused(node, f"the constant of {node.op} {node.label!r} has more dimensions than the tensor")
    varying = [i for i, d in enumerate(dims) if d != 1]
    if not varying:
        return 0
    if len(varying) > 1:
        return _refused(node, f"the constant of {node.op} {node.label!r} varies along {len(varying)} axes")
    axis = offset + varying[0]
    if axis >= len(shape) or shape[axis] != dims[varying[0]]:
        return _unknown(
            node,
            f"the constant of {node.op} {node.label!r} has {dims[varying[0]]} entries, and axis {axis} of "
            "the tensor is not known to have as many",
        )
    return axis


def _unknown(node: Node, why: str) -> Refused:
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, why, "export with known shapes"),))


def _refused(node: Node, why: str) -> Refused:
    return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, why),))


OPERATOR = Operator(
    backward,
    forward,
    join=join,
    summary="takes a constant per channel into the map, and passes it on",
)
