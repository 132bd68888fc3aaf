"""Gemm: `Y = alpha * A' B' + beta * C` with `Y` of shape `[M, N]`; the channels are the columns of `B'`.

Backward, `scale * (Y - center) + bias` is `alpha * A' (B' * scale) + (scale * (beta * C - center) + bias)`:
alpha stays and beta becomes 1. C may be absent, a scalar, `[N]`, `[1, N]`, `[M, 1]` or `[M, N]`.

Forward, with the channels along the rows of B': `B' * scale`, and `beta * C` gains `alpha * shift B'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import ModelError
from bnfold.fold.changes import Change, SetOperator, SetWeight
from bnfold.fold.operator import Absorbed, Operator, Outcome, Refused
from bnfold.fold.ops.weights import (
    addend,
    checked,
    fits,
    goes_along,
    new_bias,
    no_room,
    operand,
    ordered_sum,
    same_channels,
    shift_by,
    wrong_axis,
)

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.fold.weight import Weight
    from bnfold.model.view import Node

_UNIDIRECTIONAL_BROADCAST = 7  # the opset since which C broadcasts without an attribute


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Scale the columns of B'."""
    weight = operand(node, 1, "B", draft)
    if isinstance(weight, Refused):
        return weight
    if len(weight.dims) != 2:  # noqa: PLR2004  # a matrix
        raise ModelError(f"Gemm {node.label!r}: its B {weight.name!r} has shape {list(weight.dims)}")
    if not goes_along(affine, 1):
        return wrong_axis(node, affine, 1)
    column_axis = 0 if node.int_attribute("transB", 0) else 1
    columns = weight.dims[column_axis]
    same_channels(node, affine, columns)
    affine = affine.on(1, columns)
    factor = affine.scale.reshape((-1, 1) if column_axis == 0 else (1, -1))
    scaled = weight.scaled(factor)
    new_c = _new_c(node, affine, scaled, draft)
    if isinstance(new_c, Refused):
        return new_c
    changes = checked((SetWeight(node, 1, scaled), *new_c))
    return changes if isinstance(changes, Refused) else Absorbed(changes)


def _new_c(node: Node, affine: Affine, weight: Weight, draft: Draft) -> tuple[Change, ...] | Refused:
    beta = node.float_attribute("beta", 1.0)
    old = addend(node, 2, "C", draft) if draft.weight(node, 2) is not None else None
    if isinstance(old, Refused):
        return old
    if old is None:
        if not affine.shift.any():
            return ()
        new = affine(np.zeros(affine.dims))
    else:
        if len(old.dims) > 2 or (old.dims and old.dims[-1] not in (1, *affine.dims)):  # noqa: PLR2004  # a matrix
            raise ModelError(f"Gemm {node.label!r}: its C {old.name!r} has shape {list(old.dims)}")
        new = affine(beta * old.float64())
    attributes: dict[str, int | float] = {}
    if beta != 1.0:
        attributes["beta"] = 1.0
    if node.opset < _UNIDIRECTIONAL_BROADCAST:
        attributes["broadcast"] = 1
    operator = (SetOperator(node, "Gemm", attributes),) if attributes else ()
    stored = new_bias(node, new, old, weight, draft)
    return stored if isinstance(stored, Refused) else (*operator, SetWeight(node, 2, stored))


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Scale the rows of B'; the shift becomes part of C."""
    if position != 0:
        return no_room(node, position)
    weight = operand(node, 1, "B", draft)
    if isinstance(weight, Refused):
        return weight
    if len(weight.dims) != 2:  # noqa: PLR2004  # a matrix
        raise ModelError(f"Gemm {node.label!r}: its B {weight.name!r} has shape {list(weight.dims)}")
    features = 0 if node.int_attribute("transA", 0) else 1
    row_axis = 1 if node.int_attribute("transB", 0) else 0
    rows, columns = weight.dims[row_axis], weight.dims[1 - row_axis]
    if not fits(affine, features, rows):
        return wrong_axis(node, affine, features, "input")
    affine = affine.on(features, rows)
    along = (-1, 1) if row_axis == 0 else (1, -1)
    scaled = weight.scaled(affine.scale.reshape(along))
    changes: tuple[Change, ...] = (SetWeight(node, 1, scaled),)
    if affine.shift.any():
        products = weight.float64() * affine.shift.reshape(along)
        gained = ordered_sum(products.T if row_axis == 0 else products)
        gained *= node.float_attribute("alpha", 1.0)
        new_c = _new_c(node, shift_by(gained).on(1, columns), scaled, draft)
        if isinstance(new_c, Refused):
            return new_c
        changes += new_c
    verified = checked(changes)
    return verified if isinstance(verified, Refused) else Absorbed(verified)


OPERATOR = Operator(
    backward, forward, linear=True, summary="takes it in: any alpha, beta, transA, transB and shape of C"
)
