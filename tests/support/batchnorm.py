"""Batch normalization as its formulas are printed, in plain float64 NumPy; and exact rounding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Random arguments of one batch normalization."""

    x: Array
    scale: Array
    bias: Array
    mean: Array
    var: Array
    axis: int

    @property
    def parameters(self) -> tuple[Array, Array, Array, Array]:
        return self.scale, self.bias, self.mean, self.var


def make_case(
    shape: tuple[int, ...],
    axis: int = 1,
    *,
    dtype: DTypeLike = np.float64,
    scale_dtype: DTypeLike | None = None,
    mean_dtype: DTypeLike | None = None,
    seed: int = 0,
) -> Case:
    """Draw a case: x off centre, scales of both signs; the other dtypes follow the one before."""
    rng = np.random.default_rng(seed)
    channels = 1 if len(shape) == 1 else shape[axis]
    t1 = dtype if scale_dtype is None else scale_dtype
    t2 = t1 if mean_dtype is None else mean_dtype
    return Case(
        x=(rng.standard_normal(shape) * 3 + 1).astype(dtype),
        scale=(rng.uniform(0.5, 2, channels) * rng.choice([-1.0, 1.0], channels)).astype(t1),
        bias=rng.standard_normal(channels).astype(t1),
        mean=rng.standard_normal(channels).astype(t2),
        var=rng.uniform(0.1, 4, channels).astype(t2),
        axis=axis,
    )


def others(rank: int, axis: int) -> tuple[int, ...]:
    """All axes but the channel axis; a one-dimensional tensor is one channel."""
    return (0,) if rank == 1 else tuple(i for i in range(rank) if i != axis % rank)


def along(values: Array, rank: int, axis: int) -> Array:
    """Per-channel values in float64, shaped to broadcast."""
    wide = values.astype(np.float64)
    return wide if rank == 1 else np.expand_dims(wide, others(rank, axis))


def mean_of(x: Array, axis: int) -> Array:
    return np.atleast_1d(np.mean(x.astype(np.float64), axis=others(x.ndim, axis)))


def var_of(x: Array, axis: int) -> Array:
    return np.atleast_1d(np.var(x.astype(np.float64), axis=others(x.ndim, axis)))


def normalized(x: Array, *parameters: Array, epsilon: float, axis: int) -> Array:
    """Take scale, bias, mean and var, in that order."""
    s, b, m, v = (along(p, x.ndim, axis) for p in parameters)
    return (x.astype(np.float64) - m) / np.sqrt(v + epsilon) * s + b


def exact_moments(values: Array) -> tuple[Fraction, Fraction]:
    """Mean and biased variance of one channel in rational arithmetic."""
    exact = [Fraction(float(v)) for v in values.ravel()]
    mean = sum(exact, Fraction(0)) / len(exact)
    return mean, sum(((v - mean) ** 2 for v in exact), Fraction(0)) / len(exact)


def nearest_bfloat16(value: float) -> float:
    """Round one normal float64 to bfloat16's eight significant bits, ties to even, in rational arithmetic."""
    if value == 0 or not np.isfinite(value):
        return value
    _, exponent = np.frexp(value)
    unit = Fraction(2) ** (int(exponent) - 8)
    return float(round(Fraction(value) / unit) * unit)  # round() of a Fraction takes ties to even


def rounded(values: Array, dtype: np.dtype[Any]) -> Array:
    """Round float64 to `dtype` once."""
    if dtype.name == "bfloat16":
        flat = [nearest_bfloat16(float(v)) for v in values.ravel()]
        return np.array(flat, np.float64).reshape(values.shape).astype(dtype)
    return values.astype(dtype)
