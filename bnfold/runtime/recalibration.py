"""Population statistics, taken exactly from a stream of batches instead of a moving average."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import UsageError
from bnfold.runtime.arguments import check_host, layout_of
from bnfold.runtime.conventions import ConventionName, convention_named
from bnfold.runtime.numpy_backend import moments

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from bnfold.runtime.results import Float64Array


@dataclass(frozen=True, slots=True, eq=False)
class Recalibration:
    """Statistics of everything seen so far; a value, so two can be taken in parallel and merged.

    Attributes:
        count: how many values every channel has had.
        mean: their mean, float64, shape `[C]`.
        m2: the sum of their squared deviations from the mean, float64, shape `[C]`.
    """

    count: int
    mean: Float64Array
    m2: Float64Array

    @classmethod
    def of(cls, x: npt.NDArray[Any], *, axis: int = 1) -> Recalibration:
        """Take the statistics of one batch; an empty batch counts nothing and changes nothing.

        Args:
            x: activations, any rank from 1 and any float dtype.
            axis: the channel axis, 1 or -1.

        Raises:
            UsageError: as `bnfold.runtime.train`.
        """
        check_host({"x": x})
        layout = layout_of(x.shape, axis)
        if layout.count == 0:
            return cls(0, np.zeros(layout.channels), np.zeros(layout.channels))
        with np.errstate(all="ignore"):
            batch = moments(x, layout)
        return cls(layout.count, batch.mean, batch.m2)

    def merge(self, other: Recalibration) -> Recalibration:
        """Join two disjoint sets of values.

        Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        Stanford STAN-CS-79-773, 1979, eq. 2.1.

        Raises:
            UsageError: different numbers of channels.
        """
        if self.mean.shape != other.mean.shape:
            raise UsageError(
                f"a batch of {other.mean.size} channel(s) after batches of {self.mean.size} channel(s)"
            )
        # An empty side must not bring its zeros into the other's NaN or infinity.
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        count = self.count + other.count
        with np.errstate(all="ignore"):
            apart = other.mean - self.mean
            return Recalibration(
                count,
                self.mean + apart * (other.count / count),
                self.m2 + other.m2 + apart * apart * (self.count * (other.count / count)),
            )

    def var(self, *, convention: ConventionName = "onnx") -> Float64Array:
        """Return the population variance, shape `[C]`; divided by N - 1 in the PyTorch convention.

        Raises:
            UsageError: nothing has been seen, or one value with N - 1.
        """
        divisor = self.count - convention_named(convention).unbiased
        if divisor < 1:
            raise UsageError(
                f"{self.count} value(s) per channel have no variance in {convention!r} convention"
            )
        var: Float64Array = self.m2 / divisor
        return var


def recalibrate(batches: Iterable[npt.NDArray[Any]], *, axis: int = 1) -> Recalibration:
    """Take the statistics of a stream of batches, one batch in memory at a time.

    The result is that of one batch holding everything, up to float64 rounding, however the stream is cut.

    Args:
        batches: activations in front of one batch normalization, as `Recalibration.of` takes them.
        axis: the channel axis, 1 or -1.

    Raises:
        UsageError: no batch at all, or as `Recalibration.of` and `Recalibration.merge`.
    """
    parts = (Recalibration.of(x, axis=axis) for x in batches)
    first = next(parts, None)
    if first is None:
        raise UsageError("no batch to take statistics of")
    return reduce(Recalibration.merge, parts, first)
