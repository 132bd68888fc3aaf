"""Pooling in float64: one pass per kernel tap over strided views.

ONNX Operators.md, MaxPool-22, AveragePool-22, LpPool-22 and the global forms.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bnfold.verification.truth.windows import Geometry, geometry

if TYPE_CHECKING:
    from bnfold.verification.truth.call import Array, Call


def max_pool(call: Call) -> tuple[Array, ...]:
    """MaxPool: x `[N, C, *spatial]` -> values, and flat indices (int64) into x when the node names them."""
    x = call.tensor(0)
    window = geometry(call, x.shape[2:], call.integers("kernel_shape", ()))
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = window.pad(x, lowest)
    y = np.full((*x.shape[:2], *window.out), lowest, dtype=x.dtype)
    if call.outputs == 1:
        for tap in window.taps():
            np.maximum(y, window.view(padded, tap), out=y)
        return (y,)
    places = window.pad(_flat_indices(x, column_major=bool(call.integer("storage_order", 0))), -1)
    where = np.full(y.shape, -1, dtype=np.int64)
    for tap in window.taps():
        seen, place = window.view(padded, tap), window.view(places, tap)
        better = ((seen > y) | (where < 0)) & (place >= 0)
        y, where = np.where(better, seen, y), np.where(better, place, where)
    return y, where


def _flat_indices(x: Array, *, column_major: bool) -> Array:
    spatial = x.shape[2:]
    flat = np.arange(math.prod(spatial)).reshape(spatial, order="F" if column_major else "C")
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(spatial))
    return np.asarray(planes * math.prod(spatial) + flat)


def average_pool(call: Call) -> tuple[Array]:
    """AveragePool: x `[N, C, *spatial]` -> mean of each window."""
    x = call.tensor(0)
    window = geometry(call, x.shape[2:], call.integers("kernel_shape", ()))
    total = _summed(window.pad(x, 0.0), window)
    padding_counts = bool(call.integer("count_include_pad", 0))
    return (total / _window_sizes(x.shape[2:], window, padding_counts=padding_counts),)


def lp_pool(call: Call) -> tuple[Array]:
    """LpPool: x `[N, C, *spatial]` -> (sum |x|^p)^(1/p) of each window."""
    x, p = call.tensor(0), call.number("p", 2)
    window = geometry(call, x.shape[2:], call.integers("kernel_shape", ()))
    return (_summed(window.pad(np.abs(x) ** p, 0.0), window) ** (1.0 / p),)


def _summed(padded: Array, window: Geometry) -> Array:
    total = np.zeros((*padded.shape[:2], *window.out))
    for tap in window.taps():
        total += window.view(padded, tap)
    return total


def _window_sizes(spatial: tuple[int, ...], window: Geometry, *, padding_counts: bool) -> Array:
    """How many elements each window averages. Cells that ceil_mode adds beyond the padding never count."""
    sizes: Array = np.ones(())
    for axis, size in enumerate(spatial):
        first, last = (-window.begin[axis], size + window.end[axis]) if padding_counts else (0, size)
        starts = np.arange(window.out[axis]) * window.strides[axis] - window.begin[axis]
        cells = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        sizes = np.multiply.outer(sizes, ((cells >= first) & (cells < last)).sum(axis=1))
    return sizes


def global_average_pool(call: Call) -> tuple[Array]:
    """GlobalAveragePool: x `[N, C, *spatial]` -> `[N, C, 1, ...]`."""
    x = call.tensor(0)
    return (x.mean(axis=tuple(range(2, x.ndim)), keepdims=True),)


def global_max_pool(call: Call) -> tuple[Array]:
    """GlobalMaxPool: x `[N, C, *spatial]` -> `[N, C, 1, ...]`."""
    x = call.tensor(0)
    return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)
