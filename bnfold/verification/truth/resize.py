"""Resize and Upsample in float64: interpolation is separable, so each axis is one small matrix.

ONNX Operators.md, Resize-19 (and Resize-10, Upsample-7 and 9, which know asymmetric coordinates alone).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bnfold.verification.truth.call import Array, Call, TruthUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WITH_ROI = 11


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to resize: input and output size, scale, and the part of the input that is looked at."""

    size: int
    out: int
    scale: float
    start: float
    end: float


def upsample(call: Call) -> tuple[Array]:
    """Upsample: scales are an attribute up to opset 8 and an input in opset 9."""
    x = call.tensor(0)
    scales = (
        call.tensor(1) if len(call.inputs) > 1 else np.asarray(call.attributes["scales"], dtype=np.float32)
    )
    return (_resized(call, x, _scaled(x.shape, [float(s) for s in scales]), "asymmetric", "floor"),)


def resize(call: Call) -> tuple[Array]:
    """Resize of every opset: `(x, scales)` in opset 10, `(x, roi, scales, sizes)` later."""
    x = call.tensor(0)
    if call.opset < _WITH_ROI:
        axes = _scaled(x.shape, [float(s) for s in call.tensor(1)])
        return (_resized(call, x, axes, "asymmetric", "floor"),)
    chosen = [axis % x.ndim for axis in call.integers("axes", range(x.ndim))]
    roi, scales, sizes = call.optional(1), call.optional(2), call.optional(3)
    shape = [x.shape[axis] for axis in chosen]
    if sizes is not None and sizes.size:
        some = _sized(call, shape, [int(size) for size in sizes])
    elif scales is not None and scales.size:
        some = _scaled(shape, [float(scale) for scale in scales])
    else:
        raise TruthUnavailableError("it has neither scales nor sizes")
    if roi is not None and roi.size:
        some = [
            _Axis(axis.size, axis.out, axis.scale, float(start), float(end))
            for axis, start, end in zip(some, roi[: len(chosen)], roi[len(chosen) :], strict=True)
        ]
    by_axis = dict(zip(chosen, some, strict=True))
    axes = [by_axis.get(axis, _Axis(size, size, 1.0, 0.0, 1.0)) for axis, size in enumerate(x.shape)]
    coordinates = call.string("coordinate_transformation_mode", "half_pixel")
    return (_resized(call, x, axes, coordinates, call.string("nearest_mode", "round_prefer_floor")),)


def _scaled(shape: Sequence[int], scales: Sequence[float]) -> list[_Axis]:
    return [
        _Axis(size, int(np.floor(size * scale)), scale, 0.0, 1.0)
        for size, scale in zip(shape, scales, strict=True)
    ]


def _sized(call: Call, shape: Sequence[int], sizes: Sequence[int]) -> list[_Axis]:
    policy = call.string("keep_aspect_ratio_policy", "stretch")
    ratios = [size / old for size, old in zip(sizes, shape, strict=True)]
    if policy == "stretch":
        return [
            _Axis(old, new, scale, 0.0, 1.0) for old, new, scale in zip(shape, sizes, ratios, strict=True)
        ]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [_Axis(old, int(np.floor(scale * old + 0.5)), scale, 0.0, 1.0) for old in shape]


def _resized(call: Call, x: Array, axes: Sequence[_Axis], coordinates: str, nearest: str) -> Array:
    mode = call.string("mode", "nearest")
    outside = np.zeros((), dtype=bool)
    y = x
    for place, axis in enumerate(axes):
        if axis.size == axis.out and axis.scale == 1.0 and coordinates != "tf_crop_and_resize":
            continue
        where = _source(axis, coordinates)
        if coordinates == "tf_crop_and_resize":
            beyond = (where < 0) | (where > axis.size - 1)
            outside = np.logical_or.outer(outside, beyond) if place else beyond
        if mode == "nearest":
            y = np.take(y, np.clip(_NEAREST[nearest](where), 0, axis.size - 1).astype(np.int64), axis=place)
        else:
            matrix = _matrix(call, axis, where, cubic=mode == "cubic")
            y = np.moveaxis(np.tensordot(matrix, y, axes=(1, place)), 0, place)
    if outside.any():
        y = np.where(outside, call.number("extrapolation_value", 0.0), y)
    return np.asarray(y)


_NEAREST: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
)


def _source(axis: _Axis, coordinates: str) -> Array:
    """The input coordinate that each output element looks at."""
    at = np.arange(axis.out, dtype=np.float64)
    length = axis.scale * axis.size
    if coordinates == "asymmetric":
        return at / axis.scale
    if coordinates == "align_corners":
        return at * 0.0 if length == 1 else at * (axis.size - 1) / (length - 1)
    if coordinates == "pytorch_half_pixel" and axis.out <= 1:
        return at * 0.0 - 0.5
    if coordinates == "half_pixel_symmetric":
        return axis.size / 2 * (1 - axis.out / length) + (at + 0.5) / axis.scale - 0.5
    if coordinates == "tf_crop_and_resize":
        span = axis.size - 1
        if axis.out == 1:
            return at * 0.0 + 0.5 * (axis.start + axis.end) * span
        return axis.start * span + at * (axis.end - axis.start) * span / (axis.out - 1)
    return (at + 0.5) / axis.scale - 0.5


def _matrix(call: Call, axis: _Axis, where: Array, *, cubic: bool) -> Array:
    """Interpolation weights `[out, size]`; elements beyond the input are those at its edge, or left out."""
    stretch = min(1.0, axis.scale) if call.integer("antialias", 0) else 1.0
    reach = int(np.ceil((2 if cubic else 1) / stretch)) + 1
    taps = np.floor(where)[:, None] + np.arange(-reach, reach + 2)
    distance = np.abs(taps - where[:, None]) * stretch
    weights = (
        _cubic(distance, call.number("cubic_coeff_a", -0.75)) if cubic else np.maximum(0.0, 1.0 - distance)
    )
    if call.integer("exclude_outside", 0):
        weights = np.where((taps >= 0) & (taps < axis.size), weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((axis.out, axis.size))
    columns = np.clip(taps, 0, axis.size - 1).astype(np.int64)
    np.add.at(matrix, (np.arange(axis.out)[:, None], columns), weights)
    return matrix


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (IEEE ASSP 29, 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    support = 2.0
    return np.asarray(np.where(distance <= 1, near, np.where(distance < support, far, 0.0)))
