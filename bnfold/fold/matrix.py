"""Products with a constant matrix by their numbers, and how two become one.

`x V + x W = x (V + W)`. A tensor that goes by itself into the sum is a product with the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.affine import Affine
from bnfold.fold.changes import SetOperator, SetWeight
from bnfold.fold.operator import Absorbed
from bnfold.fold.ops import matmul
from bnfold.fold.weight import FLOATS, Stored, Weight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.fold.branch import Branch
    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft

_MATRIX = 2
_LARGEST = 1 << 24  # entries; the sum is kept in float64
_UNIDIRECTIONAL_BROADCAST = 7  # the opset since which C of a Gemm broadcasts without an attribute


@dataclass(frozen=True)
class Matrix:
    """`x @ weight + bias`, float64.

    Attributes:
        weight: `[K, N]`.
        bias: `[N]`.
        feature: the axis of the result that has the columns.
        turned: whether x is transposed first.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    feature: int
    turned: bool


def of_branch(branch: Branch, draft: Draft) -> Matrix | None:
    """The numbers of a branch's Gemm or MatMul with what comes after it; None when they are not all known."""
    node = branch.layer
    if node is None or node.op not in {"Gemm", "MatMul"}:
        return None
    weight, shape = draft.weight(node, 1), draft.shape(branch.source)
    if not isinstance(weight, Stored) or weight.dtype not in FLOATS or len(weight.dims) != _MATRIX:
        return None
    if math.prod(weight.dims) > _LARGEST:
        return None
    if node.op == "Gemm":
        columns = weight.dims[0 if node.int_attribute("transB", 0) else 1]
        values = weight.float64().T if node.int_attribute("transB", 0) else weight.float64()
        values = values * node.float_attribute("alpha", 1.0)
        added, feature = draft.weight(node, 2), 1
        if added is not None and not isinstance(added, Weight):
            return None
        if added is not None and added.dims not in ((), (1,), (columns,), (1, columns), (1, 1)):
            return None
        old = np.zeros(1) if added is None else added.float64().reshape(-1)
        old = old * node.float_attribute("beta", 1.0)
    else:
        if shape is None or len(shape) < _MATRIX:
            return None
        columns, values, old, feature = weight.dims[1], weight.float64(), np.zeros(1), len(shape) - 1
    after = branch.map_along(feature, columns)
    if after is None:
        return None
    bias = np.broadcast_to(after(np.broadcast_to(old, (columns,))), (columns,))
    return Matrix(values * after.scale, bias, feature, bool(node.int_attribute("transA", 0)))


def with_matrix(one: Matrix, other: Matrix) -> Matrix | None:
    """Their sum."""
    alike = (one.weight.shape, one.feature, one.turned) == (other.weight.shape, other.feature, other.turned)
    return replace(one, weight=one.weight + other.weight, bias=one.bias + other.bias) if alike else None


def with_tap(matrix: Matrix, tap: Branch, draft: Draft) -> Matrix | None:
    """The input itself, or a normalization of it, as a diagonal more."""
    rows, columns = matrix.weight.shape
    shape, after = draft.shape(tap.source), tap.map_along(matrix.feature, columns)
    if matrix.turned or rows != columns or after is None:
        return None
    if shape is None or len(shape) != matrix.feature + 1 or shape[-1] not in (columns, None):
        return None
    return replace(matrix, weight=matrix.weight + np.diag(after.scale), bias=matrix.bias + after.shift)


def changes(branch: Branch, matrix: Matrix, draft: Draft) -> tuple[Change, ...] | None:
    """What makes the layer of a branch compute `matrix`; None when it cannot."""
    node = branch.layer
    if node is None:
        return None
    old, added = draft.weight(node, 1), draft.weight(node, 2)
    if not isinstance(old, Weight):
        return None
    values = matrix.weight.T if node.int_attribute("transB", 0) and node.op == "Gemm" else matrix.weight
    weight = SetWeight(node, 1, Weight.dense(old.name, values, old.dtype))
    if node.op == "MatMul":
        shift = Affine.along(matrix.feature, np.zeros(1), np.ones(1), matrix.bias)
        gained = matmul.backward(node, shift, draft) if matrix.bias.any() else Absorbed(())
        # What is stored last counts.
        return (*gained.changes, weight) if isinstance(gained, Absorbed) else None
    attributes: dict[str, int | float] = {
        name: 1.0 for name in ("alpha", "beta") if node.float_attribute(name, 1.0) != 1.0
    }
    if node.opset < _UNIDIRECTIONAL_BROADCAST:
        attributes["broadcast"] = 1
    operator: tuple[Change, ...] = (SetOperator(node, "Gemm", attributes),) if attributes else ()
    if added is None and not matrix.bias.any():
        return (*operator, weight)
    named = added.name if isinstance(added, Weight) else f"{old.name}_bias"
    return (*operator, weight, SetWeight(node, 2, Weight.dense(named, matrix.bias, old.dtype)))
