"""Rounding float64 to a narrower dtype, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.runtime.arguments import BFLOAT16

if TYPE_CHECKING:
    import numpy.typing as npt

    from bnfold.runtime.results import Float64Array


def store(values: Float64Array, out: npt.NDArray[Any]) -> None:
    """Write float64 values into `out`, rounded to its dtype to nearest, ties to even.

    ml_dtypes converts float64 to bfloat16 by way of float32, which rounds twice and is wrong next to
    a tie (1 + 2^-8 + 2^-40 becomes 1). Rounding to odd on the way keeps the information that the value
    was not exactly on the tie (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved
    algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008).
    """
    out[...] = _odd_float32(values) if out.dtype == BFLOAT16 else values


def rounded(values: Float64Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a copy of float64 values in `dtype`; see `store`."""
    out = np.empty(values.shape, dtype)
    store(values, out)
    return out


def _odd_float32(values: Float64Array) -> npt.NDArray[np.float32]:
    nearest = values.astype(np.float32)
    inexact = nearest != values  # true for NaN too, which one more bit leaves NaN
    bits = nearest.view(np.uint32)
    bits -= inexact & (np.abs(nearest) > np.abs(values))  # truncate towards zero
    bits |= inexact
    return nearest
