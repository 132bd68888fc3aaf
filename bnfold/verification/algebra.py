"""Half-ulp check of stored weights: the fold's algebra, before any model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# The expectation is itself computed in float64 by four or five operations (sqrt, divide, multiply, subtract,
# add), each rounded by half an ulp, so two computations of it may differ by about that many ulp.
FLOAT64_ULP = 8.0
HALF = 0.5


@dataclass(frozen=True, slots=True)
class AlgebraFinding:
    """A stored weight that is not its exact value rounded once.

    Attributes:
        index: where the worst value is.
        expected: its float64 value.
        stored: what was stored.
        ulps: the distance, in units in the last place of the stored dtype.
        count: how many values are off.
    """

    index: tuple[int, ...]
    expected: float
    stored: float
    ulps: float
    count: int

    def __str__(self) -> str:
        return (
            f"{self.count} stored values are not their float64 value rounded once; worst at "
            f"{list(self.index)}: expected {self.expected!r}, stored {self.stored!r}, "
            f"{self.ulps:.3g} ulp apart"
        )


def check_algebra(expected: Array, stored: Array) -> AlgebraFinding | None:
    """Compare stored weights with the float64 values they were rounded from.

    Args:
        expected: float64, the fold's result before rounding.
        stored: float16, bfloat16, float32, float64 or any integer type, the same shape.

    Returns:
        None when every |stored - expected| is at most half an ulp of the stored dtype at that value (for
        float64: `FLOAT64_ULP`), else the worst one. An ulp is the distance between the two neighbours of the
        stored dtype that enclose the expected value: below the normal range the smallest subnormal, among
        integers 1.
    """
    if expected.shape != stored.shape:
        return AlgebraFinding((), float("nan"), float("nan"), float("inf"), max(stored.size, 1))
    wide = stored.astype(np.float64)
    if stored.dtype.name.startswith(("int", "uint")):
        distance = np.abs(wide - expected)
        return _finding(expected, wide, distance, ~(distance <= HALF))
    info = ml_dtypes.finfo(stored.dtype)  # type: ignore[no-untyped-call]  # untyped in ml_dtypes
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.maximum(np.abs(expected), float(info.smallest_normal))))
        # log2 may round up to the next integer just below a power of two.
        exponent = np.where(np.exp2(exponent) > np.abs(expected), exponent - 1, exponent)
        exponent = np.maximum(exponent, np.log2(float(info.smallest_normal)))
        ulp = np.exp2(exponent) * float(info.eps)
        distance = np.abs(wide - expected) / ulp
        if stored.dtype == np.float64:
            bad = ~(distance <= FLOAT64_ULP)
        else:
            # Below a power of two values lie half as far apart, so half an ulp reaches the second neighbour.
            bad = ~(distance <= HALF) | _has_nearer_neighbour(expected, stored)
    return _finding(expected, wide, distance, bad)


def _finding(expected: Array, stored: Array, distance: Array, bad: Array) -> AlgebraFinding | None:
    if not bad.any():
        return None
    worst = int(np.argmax(np.where(np.isnan(distance), np.inf, distance)))
    place = tuple(int(at) for at in np.unravel_index(worst, stored.shape))
    return AlgebraFinding(
        place,
        float(expected.flat[worst]),
        float(stored.flat[worst]),
        float(distance.flat[worst]),
        int(bad.sum()),
    )


def _has_nearer_neighbour(expected: Array, stored: Array) -> Array:
    own = np.abs(stored.astype(np.float64) - expected)
    beside = [np.nextafter(stored, stored.dtype.type(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    return np.asarray((np.abs(beside[0] - expected) < own) | (np.abs(beside[1] - expected) < own))
