"""Matrix products in float64 through BLAS. ONNX Operators.md, Gemm-13 and MatMul-13."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bnfold.verification.truth.call import Array, Call


def gemm(call: Call) -> tuple[Array]:
    """Gemm: alpha * A' @ B' + beta * C, with C broadcast to `[M, N]`."""
    a, b, c = call.tensor(0), call.tensor(1), call.optional(2)
    left = a.T if call.integer("transA", 0) else a
    right = b.T if call.integer("transB", 0) else b
    y = call.number("alpha", 1.0) * (left @ right)
    if c is not None:
        y = y + call.number("beta", 1.0) * c
    return (y.astype(a.dtype, copy=False),)


def matmul(call: Call) -> tuple[Array]:
    """MatMul with NumPy's broadcasting."""
    return (np.asarray(np.matmul(call.tensor(0), call.tensor(1))),)
