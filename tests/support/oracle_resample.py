"""Resize, Upsample, DepthToSpace and SpaceToDepth for the oracle, each as its specification writes it down.

A Resize is linear in its image: along each axis every output is a weighted sum of inputs. The weights
are written out as one matrix an axis, so that the bound of the result is the same sum over their absolute
values.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from support.unsupported import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from support.oracle import Arrays, Call, Result

    Matrix = NDArray[np.float64]


def _optional(arrays: Arrays, index: int) -> list[float] | None:
    found = arrays[index] if index < len(arrays) else None
    return None if found is None or np.asarray(found).size == 0 else [float(v) for v in np.asarray(found)]


def _plan(call: Call, arrays: Arrays) -> tuple[list[int], list[float]]:
    """Output size and scale of every axis."""
    shape = arrays[0].shape
    if call.node.op_type == "Upsample":
        scales = call.get("scales", None) if call.opset < 9 else _optional(arrays, 1)
        assert scales is not None
        return [math.floor(n * s) for n, s in zip(shape, scales, strict=True)], list(scales)
    if call.opset < 11:
        scales, sizes = _optional(arrays, 1), None
    else:
        scales, sizes = _optional(arrays, 2), _optional(arrays, 3)
    axes = [a % len(shape) for a in call.get("axes", range(len(shape)))]
    all_scales, all_sizes = [1.0] * len(shape), list(shape)
    if scales is not None:
        for axis, scale in zip(axes, scales, strict=True):
            all_scales[axis], all_sizes[axis] = scale, math.floor(shape[axis] * scale)
        return all_sizes, all_scales
    assert sizes is not None
    policy = call.get("keep_aspect_ratio_policy", b"stretch")
    wanted = dict(zip(axes, (int(s) for s in sizes), strict=True))
    ratios = {axis: size / shape[axis] for axis, size in wanted.items()}
    if policy != b"stretch":
        common = min(ratios.values()) if policy == b"not_larger" else max(ratios.values())
        ratios = dict.fromkeys(wanted, common)
        wanted = {axis: math.floor(common * shape[axis] + 0.5) for axis in wanted}
    for axis, size in wanted.items():
        all_sizes[axis], all_scales[axis] = size, ratios[axis]
    return all_sizes, all_scales


def _coordinate(mode: bytes, x: int, scale: float, size: int, resized: int) -> float:
    """Where output `x` lies in the input (ONNX Resize, coordinate_transformation_mode)."""
    match mode:
        case b"half_pixel":
            return (x + 0.5) / scale - 0.5
        case b"half_pixel_symmetric":
            adjustment = resized / (scale * size)
            return size / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        case b"pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if resized > 1 else 0.0
        case b"align_corners":
            return 0.0 if resized == 1 else x * (size - 1) / (resized - 1)
        case b"asymmetric":
            return x / scale
        case b"tf_half_pixel_for_nn":
            return (x + 0.5) / scale
        case _:
            raise Unsupported(mode.decode())


def _nearest(mode: bytes, x: float) -> int:
    match mode:
        case b"round_prefer_floor":
            return math.ceil(x - 0.5)
        case b"round_prefer_ceil":
            return math.floor(x + 0.5)
        case b"floor":
            return math.floor(x)
        case _:
            return math.ceil(x)


def _cubic(distance: float, a: float) -> float:
    """Keys 1981, equation 4, with the coefficient `a` of the specification."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def _taps(call: Call, x: float, size: int) -> dict[int, float]:
    """The inputs that output coordinate `x` is made of; beyond the border the border is repeated."""
    mode = call.get("mode", b"nearest")
    if mode == b"nearest":
        default = b"round_prefer_floor" if call.opset >= 11 and call.node.op_type == "Resize" else b"floor"
        return {_nearest(call.get("nearest_mode", default), x): 1.0}
    low = math.floor(x)
    if mode in (b"linear", b"bilinear"):
        return {low: 1 - (x - low), low + 1: x - low}
    weights = {i: _cubic(x - i, call.get("cubic_coeff_a", -0.75)) for i in range(low - 1, low + 3)}
    if call.get("exclude_outside", 0):
        weights = {i: w for i, w in weights.items() if 0 <= i < size}
        total = sum(weights.values())
        weights = {i: w / total for i, w in weights.items()}
    return weights


def _matrices(call: Call, arrays: Arrays) -> list[tuple[int, Matrix]]:
    """For each axis that changes, outputs by inputs."""
    sizes, scales = _plan(call, arrays)
    default = b"half_pixel" if call.opset >= 11 and call.node.op_type == "Resize" else b"asymmetric"
    mode = call.get("coordinate_transformation_mode", default)
    if call.get("antialias", 0):
        raise Unsupported("antialias")
    found = []
    for axis, (before, after, scale) in enumerate(zip(arrays[0].shape, sizes, scales, strict=True)):
        if scale == 1:
            continue
        if mode == b"align_corners" and before * scale != after:
            raise Unsupported("align_corners between pixels: onnx and onnxruntime read it differently")
        matrix = np.zeros((after, before))
        for x in range(after):
            for i, weight in _taps(call, _coordinate(mode, x, scale, before, after), before).items():
                matrix[x, min(max(i, 0), before - 1)] += weight
        found.append((axis, matrix))
    return found


def _applied(image: NDArray[np.float64], matrices: list[tuple[int, Matrix]]) -> Result:
    for axis, matrix in matrices:
        image = np.moveaxis(np.tensordot(matrix, image, ([1], [axis])), 0, axis)
    return image


def resize(call: Call, arrays: Arrays) -> Result:
    """Resize (opset 10 on) and Upsample (opset 7 and 9)."""
    return _applied(arrays[0], _matrices(call, arrays))


def resize_absolute(call: Call, up: Arrays, _low: Arrays) -> Result:
    return _applied(up[0], [(axis, np.abs(matrix)) for axis, matrix in _matrices(call, up)])


def _deep(call: Call, channels: int, c: int, i: int, j: int) -> int:
    """The deep channel that holds pixel `(i, j)` of each block of channel `c`."""
    size: int = call.attrs["blocksize"]
    if call.get("mode", b"DCR") == b"CRD":
        return (c * size + i) * size + j
    return (i * size + j) * channels + c


def depth_to_space(call: Call, arrays: Arrays) -> Result:
    x, size = arrays[0], call.attrs["blocksize"]
    n, deep, h, w = x.shape
    channels = deep // size**2
    y = np.zeros((n, channels, h * size, w * size))
    for c, i, j in product(range(channels), range(size), range(size)):
        y[:, c, i::size, j::size] = x[:, _deep(call, channels, c, i, j)]
    return y


def space_to_depth(call: Call, arrays: Arrays) -> Result:
    x, size = arrays[0], call.attrs["blocksize"]
    n, channels, h, w = x.shape
    y = np.zeros((n, channels * size**2, h // size, w // size))
    for c, i, j in product(range(channels), range(size), range(size)):
        y[:, _deep(call, channels, c, i, j)] = x[:, c, i::size, j::size]
    return y
