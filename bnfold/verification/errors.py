"""The size of a difference between two results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Error:
    """Root mean square and largest absolute value of a difference."""

    rms: float = 0.0
    max: float = 0.0

    @staticmethod
    def of(difference: Array) -> Error:
        """Measure a difference; of no elements it is zero."""
        if difference.size == 0:
            return Error()
        largest = float(np.max(np.abs(difference)))
        if largest == 0.0 or not np.isfinite(largest):
            return Error(largest, largest)
        # Squares of float64 overflow from 1e154 on.
        return Error(float(np.sqrt(np.mean(np.square(np.abs(difference) / largest)))) * largest, largest)

    def beyond(self, other: Error) -> Error:
        """The larger of two, each part by itself."""
        return Error(max(self.rms, other.rms), max(self.max, other.max))


def difference(old: Array, new: Array) -> Error:
    """The difference of two float64 results; infinite where their shapes or non-finite values differ."""
    if old.shape != new.shape:
        return Error(float("inf"), float("inf"))
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, new - old)
    return Error.of(gap) if np.isfinite(gap).all() else Error(float("inf"), float("inf"))
