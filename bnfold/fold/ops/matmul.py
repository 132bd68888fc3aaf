"""MatMul by a constant matrix, on either side: columns of the right factor, rows of the left one.

MatMul has no bias. Where the product is a plain matrix the node becomes a Gemm; elsewhere one Add
takes the place of the BatchNormalization.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.changes import AppendNode, Change, SetOperator, SetWeight
from bnfold.fold.operator import Absorbed, Operator, Outcome, Refused
from bnfold.fold.ops.weights import (
    checked,
    fits,
    goes_along,
    new_bias,
    operand,
    ordered_sum,
    same_channels,
    wrong_axis,
)
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Stored, Weight
from bnfold.model.constants import NotConstant

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_MATRIX = 2
_NUMPY_BROADCAST = 7  # the opset since which Add broadcasts without attributes


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Scale the columns of a constant right factor, or the rows of a constant left one."""
    side = (
        0
        if isinstance(draft.weight(node, 1), NotConstant) and isinstance(draft.weight(node, 0), Weight)
        else 1
    )
    weight = operand(node, side, "left factor" if side == 0 else "right factor", draft)
    if isinstance(weight, Refused):
        return weight
    other = node.inputs[1 - side]
    shape = draft.shape(other) if other is not None else None
    if shape is None or len(weight.dims) < _MATRIX or len(shape) < _MATRIX:
        return _unknown_rank(node)
    rank = max(len(shape), len(weight.dims))
    feature = rank - 1 if side == 1 else rank - 2
    if not goes_along(affine, feature):
        return wrong_axis(node, affine, feature)
    features = weight.dims[-1] if side == 1 else weight.dims[-2]
    same_channels(node, affine, features)
    affine = affine.on(feature, features)
    along = (-1,) if side == 1 else (-1, 1)
    factor = affine.scale.reshape((1,) * (len(weight.dims) - len(along)) + along)
    scaled = weight.scaled(factor)
    changes: tuple[Change, ...] = (SetWeight(node, side, scaled),)
    shift = affine(np.zeros(features))
    if shift.any():
        bias = Weight.dense(f"{weight.name}_bias", shift.reshape(along), weight.dtype)
        reason = bias.check()
        if reason is not None:
            return Refused((reason,))
        as_gemm = rank == _MATRIX and side == 1
        if as_gemm and isinstance(counted := new_bias(node, shift, None, scaled, draft), Refused):
            return counted
        gained = _gain_bias(node, bias, rank, as_gemm=as_gemm)
        if isinstance(gained, Refused):
            return gained
        changes += gained
    verified = checked(changes)
    return verified if isinstance(verified, Refused) else Absorbed(verified)


def forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """Scale the side of the constant factor that is summed over; the shift is added behind."""
    side = 1 - position
    weight = operand(node, side, "left factor" if side == 0 else "right factor", draft)
    if isinstance(weight, Refused):
        return weight
    source = node.inputs[position]
    shape = draft.shape(source) if source is not None else None
    if shape is None or len(weight.dims) < _MATRIX or len(shape) < _MATRIX:
        return _unknown_rank(node)
    summed = len(shape) - 1 if side == 1 else len(shape) - 2
    length = weight.dims[-2] if side == 1 else weight.dims[-1]
    if not fits(affine, summed, length):
        return wrong_axis(node, affine, summed, "input")
    affine = affine.on(summed, length)
    along = (-1, 1) if side == 1 else (-1,)
    factor = affine.scale.reshape((1,) * (len(weight.dims) - len(along)) + along)
    scaled = weight.scaled(factor)
    changes: tuple[Change, ...] = (SetWeight(node, side, scaled),)
    if affine.shift.any():
        products = weight.float64() * affine.shift.reshape(along)
        gained = ordered_sum(np.swapaxes(products, -1, -2) if side == 1 else products)
        bias = Weight.dense(
            f"{weight.name}_bias", gained[..., None, :] if side == 1 else gained[..., None], weight.dtype
        )
        if side == 1 and len(weight.dims) == _MATRIX:
            bias = Weight.dense(bias.name, gained, weight.dtype)
        reason = bias.check()
        if reason is not None:
            return Refused((reason,))
        rank = max(len(shape), len(weight.dims))
        as_gemm = rank == _MATRIX and side == 1
        if as_gemm and isinstance(counted := new_bias(node, gained, None, scaled, draft), Refused):
            return counted
        added = _gain_bias(node, bias, rank, as_gemm=as_gemm)
        if isinstance(added, Refused):
            return added
        changes += added
    verified = checked(changes)
    return verified if isinstance(verified, Refused) else Absorbed(verified)


def _unknown_rank(node: Node) -> Refused:
    return Refused((
        Reason(
            Code.CHANNEL_AXIS,
            node.label,
            f"the rank of the product of MatMul {node.label!r} is not known to be 2 or more, "
            "so its feature axis cannot be told from the normalized one",
            "export with known ranks, or run shape inference first",
        ),
    ))  # fmt: skip


def _gain_bias(node: Node, bias: Stored, rank: int, *, as_gemm: bool) -> tuple[Change, ...] | Refused:
    attributes: dict[str, int | float] = {"broadcast": 1} if node.opset < _NUMPY_BROADCAST else {}
    if as_gemm:
        return (SetOperator(node, "Gemm", attributes), SetWeight(node, 2, bias))
    if attributes and bias.dims[1:] == (1,):
        # One value for each row: dimensions of 1 are not expanded yet, but an axis can be named.
        bias = Weight.dense(bias.name, bias.float64().reshape(-1), bias.dtype)
        attributes["axis"] = rank - 2
    if attributes and len(bias.dims) > 1:
        evidence = f"Add broadcasts no batch of shifts behind MatMul {node.label!r} before opset 7"
        return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, evidence),))
    return (AppendNode(node, "Add", bias, attributes),)


OPERATOR = Operator(
    backward,
    forward,
    linear=True,
    summary="takes it in, and where it needs a bias becomes a Gemm or gains an Add",
)
