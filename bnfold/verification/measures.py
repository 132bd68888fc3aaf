"""How close a result is to a reference, in the measures that engineers of each field know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# Smallest normal number of float32 and bfloat16; below it values do not lie closer together.
TINY = 2.0**-126
_CLASSIFIER_RANK = 2


@dataclass(frozen=True, slots=True)
class Closeness:
    """How close a result is to its reference, over the elements that are finite in both.

    Attributes:
        relative_l2: Euclidean norm of the difference by that of the reference.
        sqnr_db: signal to quantization noise ratio in dB, `-20 log10(relative_l2)`; None without a
            difference.
        cosine: cosine similarity.
        ulp_p50: median difference, in units in the last place of the output's type at the reference.
        ulp_p99: what 99 % of the differences do not exceed.
        ulp_max: the largest.
        top1: share of the rows of a `[N, classes]` output whose largest value stands at the reference's
            place; None for other outputs.
    """

    relative_l2: float | None
    sqnr_db: float | None
    cosine: float | None
    ulp_p50: float | None
    ulp_p99: float | None
    ulp_max: float | None
    top1: float | None


def closeness(reference: Array, result: Array, eps: float, tiny: float = TINY) -> Closeness | None:
    """Measure a result.

    Args:
        reference: float64.
        result: float64, the same shape.
        eps: spacing of the output's type relative to 1.
        tiny: its smallest normal number.

    Returns:
        None where the shapes differ or nothing is finite. Every number is finite, or None where undefined.
    """
    if reference.shape != result.shape:
        return None
    finite = np.isfinite(reference) & np.isfinite(result)
    if not finite.any():
        return None
    a, b = reference[finite], result[finite]
    # Squares of float64 overflow from 1e154 on.
    size = max(float(np.max(np.abs(a))), float(np.max(np.abs(b)))) or 1.0
    signal, other, noise = (float(np.linalg.norm(part / size)) for part in (a, b, b - a))
    relative = noise / signal if signal else None
    ulps = np.abs(b - a) / spacing(a, eps, tiny)
    median, most = (float(value) for value in np.quantile(ulps, (0.5, 0.99)))
    return Closeness(
        relative_l2=_number(relative),
        sqnr_db=_number(-20 * np.log10(relative)) if relative else None,
        cosine=_number(float(np.dot(a / size, b / size)) / (signal * other)) if signal and other else None,
        ulp_p50=_number(median),
        ulp_p99=_number(most),
        ulp_max=_number(float(ulps.max())),
        top1=_top1(reference, result, finite),
    )


def spacing(values: Array, eps: float, tiny: float = TINY) -> Array:
    """The unit in the last place at each value, of a type with this `eps` and smallest normal number."""
    _, exponent = np.frexp(np.maximum(np.abs(values), tiny))
    return np.asarray(np.ldexp(eps, exponent - 1))


def _top1(reference: Array, result: Array, finite: Array) -> float | None:
    if reference.ndim != _CLASSIFIER_RANK or reference.shape[1] < 2:  # noqa: PLR2004  # one class is no choice
        return None
    rows = finite.all(axis=1)
    if not rows.any():
        return None
    return float(np.mean(reference[rows].argmax(axis=1) == result[rows].argmax(axis=1)))


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
