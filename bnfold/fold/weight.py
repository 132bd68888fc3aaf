"""A constant operand of a node, and the one stored form that most have: a tensor, folded by a recipe.

A recipe is evaluated in float64, block by block, and rounded once.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from bnfold.fold.reasons import Code, Reason
from bnfold.model.dtypes import DATA_TYPES, ELEMENT_TYPES, raw_size, to_raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bnfold.model.constants import Constant

FLOATS = tuple(np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))

_LARGE_INPUT = 2.0**64
_RELEASE = 4 << 20  # bytes of a mapped tensor that are read before their pages are given back
_BITS_OF_A_BYTE = 8
_BLOCK = 1 << 16  # elements; the float64 temporaries of a block stay inside a cache of 1 MB


@dataclass(frozen=True, eq=False)
class Weight(ABC):
    """A constant operand, however it is stored: a tensor (`Stored`), or integers behind a DequantizeLinear.

    Attributes:
        name: the tensor it stems from, as the model names it.
        dtype: what the node that reads it sees; one of `FLOATS` when it is the result of a fold.
        dims: its shape.
        source: the model's own constant; None when it is computed here.
    """

    name: str
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    source: Constant | None

    @staticmethod
    def of(constant: Constant) -> Stored:
        """The model's own constant, unchanged."""
        return Stored(constant.name, constant.dtype, constant.dims, constant, constant.dims)

    @staticmethod
    def dense(name: str, values: NDArray[np.float64], dtype: np.dtype[Any]) -> Stored:
        """A small tensor given by its float64 values."""
        return Stored(name, dtype, values.shape, None, values.shape, values=values)

    @abstractmethod
    def float64(self) -> NDArray[np.float64]:
        """The unrounded values, shape `dims`; meant for biases and statistics, not for large weights."""

    @abstractmethod
    def scaled(self, factor: NDArray[np.float64], view: tuple[int, ...] | None = None) -> Weight:
        """This weight times `factor`, which broadcasts against `view` (by default against `dims`)."""

    @abstractmethod
    def check(self) -> Reason | None:
        """Why what would be stored does not stand for the exact values; None when it does."""


@dataclass(frozen=True, eq=False)
class Stored(Weight):
    """A tensor: `source`, or `source * factor`, or plain values.

    Attributes:
        source: the model's own constant, None when `values` holds everything.
        view: a shape of the same size as `dims` in which `factor` broadcasts.
        factor: float64, of the rank of `view`; None leaves the source as it is.
        values: float64 of shape `dims`; only when there is no source.
    """

    view: tuple[int, ...]
    factor: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None

    def float64(self) -> NDArray[np.float64]:
        """The unrounded values, shape `dims`; meant for biases and statistics, not for large weights."""
        if self.values is not None:
            return self.values
        values = self._source().array().astype(np.float64)
        if self.factor is not None:
            values = (values.reshape(self.view) * self.factor).reshape(self.dims)
        return values

    def scaled(self, factor: NDArray[np.float64], view: tuple[int, ...] | None = None) -> Stored:
        """This weight times `factor`, which broadcasts against `view` (by default against `dims`)."""
        view = view or self.dims
        if self.values is not None or (self.factor is not None and self.view != view):
            values = (self.float64().reshape(view) * factor).reshape(self.dims)
            return Weight.dense(self.name, values, self.dtype)
        combined = factor if self.factor is None else self.factor * factor
        return replace(self, view=view, factor=combined)

    @property
    def key(self) -> bytes:
        """Equal for two weights that hold the same values, so that they can share one initializer."""
        digest = hashlib.sha256(repr((self.dtype.name, self.dims, self.view)).encode())
        digest.update(repr(id(self.source)).encode() if self.source is not None else b"-")
        for part in (self.factor, self.values):
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.digest()

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensor."""
        return raw_size(ELEMENT_TYPES[DATA_TYPES[self.dtype]], self.dims)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The rounded values in storage order, a bounded piece at a time."""
        for exact in self.exact_blocks():
            yield round_to(exact, self.dtype).reshape(-1)

    def chunks(self) -> Iterator[NDArray[Any] | memoryview]:
        """The same as the bytes of a file, where narrow integers share one."""
        element = ELEMENT_TYPES[DATA_TYPES[self.dtype]]
        if element.bits >= _BITS_OF_A_BYTE:
            yield from self.blocks()
        else:
            yield to_raw(element, np.concatenate([np.zeros(0, self.dtype), *self.blocks()]))

    def exact_blocks(self) -> Iterator[NDArray[np.float64]]:
        """The unrounded values in storage order, flat or not, a bounded piece at a time."""
        if self.values is not None:
            yield self.values
            return
        if self.factor is None:
            flat = self._source().array().reshape(-1)
            for start in range(0, flat.size, _BLOCK):
                yield flat[start : start + _BLOCK].astype(np.float64)
            return
        for part, factor in self._pieces():
            yield np.multiply(part, factor, dtype=np.float64)

    def check(self) -> Reason | None:
        """Why the rounded tensor would not stand for the exact one: not finite, overflow, underflow.

        A product below the smallest normal number loses digits. That matters only where the
        largest of its group (one scale factor's reach) lies there too: beside a normal number the
        loss is at most half of that number's own unit in the last place. Nor does it matter for a channel
        that is dead anyway, whose sum stays below the smallest normal for every input up to 2^64.
        """
        if is_integer(self.dtype):
            return self._check_integers()
        if self.dtype not in FLOATS:
            return Reason(
                Code.MIXED_DTYPES, self.name, f"the tensor holds {self.dtype.name}, which takes no fold"
            )
        limits = ml_dtypes.finfo(self.dtype)  # type: ignore[no-untyped-call]  # ml_dtypes types it by halves
        tiny, largest = float(limits.smallest_normal), float(limits.max)
        # Half a unit in the last place above the largest value is where rounding becomes infinity.
        overflow = largest + 2.0 ** (limits.maxexp - limits.nmant - 2)
        peak = self._peaks()
        if np.isnan(peak).any():
            return non_finite(self.name)
        if (peak >= overflow).any():
            return Reason(
                Code.DTYPE_RANGE,
                self.name,
                f"a folded value reaches {peak.max():.3g}, beyond the {largest:.3g} of {self.dtype.name}",
                "export this layer in float32",
            )
        if self.factor is not None and (lost := self._sunken(peak, tiny, largest)).any():
            return Reason(
                Code.DTYPE_RANGE,
                self.name,
                f"a folded channel shrinks to {peak[lost].max():.3g}, below the smallest normal "
                f"{tiny:.3g} of {self.dtype.name}",
                "export this layer in float32",
            )
        return None

    def _check_integers(self) -> Reason | None:
        if self.values is None:
            return None  # the model's own integers
        limits = ml_dtypes.iinfo(self.dtype)  # type: ignore[no-untyped-call]  # ml_dtypes types it by halves
        exact = self.values
        if not np.isfinite(exact).all():
            return non_finite(self.name)
        rounded = np.rint(exact)
        if ((rounded >= float(limits.min)) & (rounded <= float(limits.max))).all():
            return None
        farthest = exact.flat[int(np.argmax(np.abs(exact)))]
        return Reason(
            Code.DTYPE_RANGE,
            self.name,
            f"a folded integer would be {farthest:.6g}, which {self.dtype.name} does not hold",
            "fold the float model before quantizing it",
        )

    def _sunken(self, peak: NDArray[np.float64], tiny: float, largest: float) -> NDArray[np.bool_]:
        """Which scale factors push their weights below the normal range, though they still count."""
        taps = max(1, int(np.prod(self.dims, dtype=np.int64)) // max(1, peak.size))
        return (peak < tiny) & (peak * taps * min(largest, _LARGE_INPUT) > tiny)

    def _source(self) -> Constant:
        if self.source is None:
            raise AssertionError("a weight holds a source or values")
        return self.source

    def _pieces(self) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
        """Slices of the source along the first axis of `view`, each with its slice of the factor."""
        if self.factor is None:
            raise AssertionError("only a scaled weight comes in pieces")
        source = self._source()
        array = source.array().reshape(self.view)
        rows = self.view[0] if self.view else 1
        if not self.view or array.size == 0:
            yield array, self.factor
            return
        step = max(1, _BLOCK // max(1, array.size // rows))
        held = 0
        for start in range(0, rows, step):
            part = array[start : start + step]
            yield part, self.factor[start : start + step] if self.factor.shape[0] == rows else self.factor
            held += part.nbytes
            if held >= _RELEASE:
                source.release()
                held = 0
        source.release()

    def _peaks(self) -> NDArray[np.float64]:
        """The largest magnitude each scale factor produces (each element, when there is none).

        NaN where the source itself is not finite.
        """
        if self.factor is None or self.values is not None:
            return np.abs(self.float64())
        if self._source().array().size == 0:
            return np.zeros(1)
        peaks = np.zeros(self.factor.shape)
        row = 0
        for part, factor in self._pieces():
            shared = tuple(i for i, n in enumerate(factor.shape) if n == 1)
            # The extremes of bfloat16 come slowly; float32 holds all its values.
            wide = part.astype(np.float32) if part.dtype == ml_dtypes.bfloat16 else part
            high = np.maximum(
                wide.max(axis=shared, keepdims=True), np.negative(wide.min(axis=shared, keepdims=True))
            )
            high = high.astype(np.float64)
            here = np.where(np.isfinite(high), np.abs(high * factor), np.nan)
            if self.factor.shape and self.factor.shape[0] > 1:
                peaks[row : row + len(here)] = here
                row += len(here)
            else:
                peaks = np.maximum(peaks, here)
        return peaks


def non_finite(name: str) -> Reason:
    """The reason for a tensor that holds NaN or infinity."""
    return Reason(
        Code.NON_FINITE,
        name,
        f"the tensor {name!r} holds NaN or infinity",
        "repair the weights and export again",
    )


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Whether it holds integers, those of 2 and 4 bits included."""
    return dtype.name.startswith(("int", "uint"))


def round_to(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round float64 to `dtype` (an integer type, too) once, to nearest, ties to even.

    bfloat16 goes through a float32 rounded to odd: through one rounded to nearest, a value
    beside a tie would be rounded twice (Boldo and Melquiond 2008).
    """
    with np.errstate(over="ignore", under="ignore"):
        if is_integer(dtype):
            return np.rint(values).astype(dtype)
        if dtype != ml_dtypes.bfloat16:
            return values.astype(dtype)
        single = values.astype(np.float32)
        inexact = single.astype(np.float64) != values
        even = (single.view(np.uint32) & 1) == 0
        toward = np.where(values > single.astype(np.float64), np.inf, -np.inf).astype(np.float32)
        odd = np.where(inexact & even & np.isfinite(single), np.nextafter(single, toward), single)
        return odd.astype(dtype)
