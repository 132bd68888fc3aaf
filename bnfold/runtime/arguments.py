"""What the arguments of batch normalization must look like, and how a tensor divides into channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# ONNX BatchNormalization-15, type constraints T, T1 and T2.
FLOAT_DTYPES = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor seen as `[outer, channels, inner]`: what lies before, on and after the channel axis.

    Attributes:
        outer: product of the axes before the channel axis.
        channels: C, the number of channels.
        inner: product of the axes after the channel axis; 1 for channels-last.
    """

    outer: int
    channels: int
    inner: int

    @property
    def count(self) -> int:
        """How many values one channel has."""
        return self.outer * self.inner

    @property
    def shape(self) -> tuple[int, int, int]:
        """The three-dimensional shape."""
        return (self.outer, self.channels, self.inner)

    def tiles(self, size: int) -> Iterator[tuple[slice, slice, slice]]:
        """Boxes of at most `size` values, in memory order, that cover the tensor once."""
        inner = max(1, min(self.inner, size))
        channels = max(1, min(self.channels, size // inner))
        outer = max(1, size // (inner * channels))
        for o in range(0, self.outer, outer):
            for c in range(0, self.channels, channels):
                for i in range(0, self.inner, inner):
                    yield slice(o, o + outer), slice(c, c + channels), slice(i, i + inner)


def layout_of(shape: tuple[int, ...], axis: int) -> Layout:
    """Divide a shape at its channel axis.

    Args:
        shape: the shape of x. A one-dimensional x of size N is N values of one channel (ONNX
            BatchNormalization-15, input X); either axis is then accepted.
        axis: 1, or the last axis (-1 or rank - 1).

    Raises:
        UsageError: a scalar, or an axis that is neither 1 nor the last.
    """
    rank = len(shape)
    if rank == 0:
        raise UsageError("x is a scalar; batch normalization needs at least one axis")
    if axis not in {1, -1, rank - 1}:
        raise UsageError(
            f"axis={axis} with x of shape {shape}: the channel axis is 1, or -1 for channels-last"
        )
    if rank == 1:
        return Layout(outer=shape[0], channels=1, inner=1)
    at = axis % rank
    return Layout(outer=math.prod(shape[:at]), channels=shape[at], inner=math.prod(shape[at + 1 :]))


def check_host(arrays: Mapping[str, object]) -> None:
    """Refuse what is no NumPy array of a float type that ONNX gives BatchNormalization.

    Raises:
        UsageError: names the argument.
    """
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
            raise UsageError(f"{name} is a {kind}; the NumPy backend takes numpy.ndarray")
        if array.dtype not in FLOAT_DTYPES:
            raise UsageError(
                f"{name} has dtype {array.dtype}; expected one of {', '.join(map(str, FLOAT_DTYPES))}"
            )


def check_per_channel(shapes: Mapping[str, tuple[int, ...]], layout: Layout) -> None:
    """Refuse a parameter or statistic whose shape is not `[C]`.

    Raises:
        UsageError: names the argument.
    """
    for name, shape in shapes.items():
        if tuple(shape) != (layout.channels,):
            raise UsageError(f"{name} has shape {tuple(shape)}; x has {layout.channels} channel(s)")


def check_same_dtype(first: str, first_dtype: object, second: str, second_dtype: object) -> None:
    """Refuse two arguments that share a type in ONNX's signature (T1: scale, bias; T2: mean, var).

    Raises:
        UsageError: names both arguments.
    """
    if first_dtype != second_dtype:
        raise UsageError(f"{first} is {first_dtype} and {second} is {second_dtype}; they share one dtype")


def check_trainable(layout: Layout, *, unbiased: bool) -> None:
    """Refuse to take statistics of too few values.

    Raises:
        UsageError: no value in a channel, or one where the unbiased variance divides by N - 1.
    """
    if layout.count == 0:
        raise UsageError("x holds no values: an empty batch has no mean; skip it, or use infer")
    if unbiased and layout.count == 1:
        raise UsageError("one value per channel has no unbiased variance; use a larger batch")


def check_epsilon(epsilon: float) -> float:
    """Refuse an epsilon that is no finite number.

    A negative one passes: ONNX sets no bound, and `var + epsilon` may be positive all the same.

    Raises:
        UsageError: NaN or infinite.
    """
    if not math.isfinite(epsilon):
        raise UsageError(f"epsilon={epsilon} is not finite")
    return float(epsilon)


def check_momentum(momentum: float) -> float:
    """Refuse a momentum that makes no average.

    Raises:
        UsageError: outside 0 to 1.
    """
    if not 0.0 <= momentum <= 1.0:
        raise UsageError(f"momentum={momentum} is not in [0, 1]")
    return float(momentum)
