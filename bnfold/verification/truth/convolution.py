"""Conv and ConvTranspose of any rank, in float64 through BLAS.

ONNX Operators.md, Conv-22 and ConvTranspose-22. Unrolled windows (im2col) are made piece by piece, so that
memory stays bounded whatever the image size.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from bnfold.verification.truth.windows import Geometry, geometry

if TYPE_CHECKING:
    from bnfold.verification.truth.call import Array, Call

# 4 Mi float64 = 32 MiB for one piece of unrolled windows: far beyond what BLAS needs to be efficient, and
# small beside the activations themselves.
PIECE = 4 * 2**20
_VOLUME, _ROWS = 3, 16


def conv(call: Call) -> tuple[Array]:
    """Conv: x `[N, C, *spatial]`, w `[M, C/group, *kernel]`, b `[M]` or absent -> `[N, M, *out]`."""
    x, w, b = call.tensor(0), call.tensor(1), call.optional(2)
    group = call.integer("group", 1)
    window = geometry(call, x.shape[2:], w.shape[2:])
    padded = window.pad(x, 0.0)
    if w.shape[1] == 1 and group > 1:
        y = _depthwise(padded, w, window)
    elif len(window.out) >= _VOLUME and set(window.strides) == {1} and _worth(w):
        y = _dense_volume(padded, w, window, group)
    else:
        y = _dense(padded, w, window, group)
    if b is not None:
        y += b.reshape(-1, *(1,) * (x.ndim - 2))
    return (y,)


def _worth(w: Array) -> bool:
    """Whether the matrices of `_dense_volume` are large enough for BLAS, and the copies it saves are many."""
    return int(w.shape[1] * w.shape[-1]) >= _ROWS and math.prod(w.shape[2:-1]) > 1


def _depthwise(padded: Array, w: Array, window: Geometry) -> Array:
    """One input channel per group: too little work per group for BLAS, so taps are added one by one."""
    batch, channels = padded.shape[:2]
    multiplier = w.shape[0] // channels
    y = np.zeros((batch, channels, multiplier, *window.out))
    taps = w.reshape(channels, multiplier, -1)
    ones = (1,) * len(window.out)
    for index, tap in enumerate(window.taps()):
        y += window.view(padded, tap)[:, :, None] * taps[:, :, index].reshape(channels, multiplier, *ones)
    return y.reshape(batch, channels * multiplier, *window.out)


def _dense(padded: Array, w: Array, window: Geometry, group: int) -> Array:
    """One matrix product per image and group; windows are unrolled along the first spatial axis in pieces."""
    batch = padded.shape[0]
    out_channels, in_channels = w.shape[0] // group, w.shape[1]
    kernel = math.prod(window.kernel)
    weights = w.reshape(group, out_channels, in_channels * kernel)
    y = np.empty((batch, group * out_channels, *window.out))
    if y.size == 0:
        return y
    pointwise = kernel == 1 and set(window.strides) == {1} and padded.shape[2:] == window.out
    row = math.prod(window.out[1:])
    rows = max(1, PIECE // max(1, in_channels * kernel * row))
    for image in range(batch):
        for index in range(group):
            source = padded[image, index * in_channels : (index + 1) * in_channels]
            target = y[image, index * out_channels : (index + 1) * out_channels]
            if pointwise:
                np.matmul(
                    weights[index], source.reshape(in_channels, -1), out=target.reshape(out_channels, -1)
                )
                continue
            for start in range(0, window.out[0], rows):
                stop = min(start + rows, window.out[0])
                unrolled = np.empty((in_channels, kernel, stop - start, *window.out[1:]))
                for position, tap in enumerate(window.taps()):
                    unrolled[:, position] = window.view(source, tap)[:, start:stop]
                product = weights[index] @ unrolled.reshape(in_channels * kernel, -1)
                target[:, start:stop] = product.reshape(out_channels, stop - start, *window.out[1:])
    return y


def _dense_volume(padded: Array, w: Array, window: Geometry, group: int) -> Array:
    """A convolution of a volume, without strides: windows are unrolled along the last axis alone.

    A tap at another place along the other axes is then the same matrix, beginning further on: its products
    are added up. A 3x3x3 kernel copies every value 3 times instead of 27. The rows of padding between two
    planes give values that nobody asked for, and that are left out at the end.
    """
    batch, out_channels, in_channels = padded.shape[0], w.shape[0] // group, w.shape[1]
    width, last = window.out[-1], window.kernel[-1]
    weights = w.reshape(group, out_channels, in_channels, -1, last)
    y = np.empty((batch, group * out_channels, *window.out))
    if y.size == 0:
        return y
    reach = (window.kernel[0] - 1) * window.dilations[0]
    lines = padded.shape[2:-1]
    # How far on, in the flattened matrix, each axis but the last one steps.
    steps = [width * math.prod(lines[axis + 1 :]) for axis in range(len(lines))]
    lead = list(itertools.product(*(range(size) for size in window.kernel[:-1])))
    shifts = [
        sum(at * dilation * step for at, dilation, step in zip(tap, window.dilations, steps, strict=False))
        for tap in lead
    ]
    rows = max(1, PIECE // max(1, in_channels * last * steps[0]) - reach)
    inside = tuple(slice(count) for count in window.out[1:-1])
    for image, index in itertools.product(range(batch), range(group)):
        source = padded[image, index * in_channels : (index + 1) * in_channels]
        target = y[image, index * out_channels : (index + 1) * out_channels]
        taps = [
            np.ascontiguousarray(weights[index, :, :, at]).reshape(out_channels, -1)
            for at in range(len(lead))
        ]
        for start in range(0, window.out[0], rows):
            stop = min(start + rows, window.out[0])
            planes = source[:, start : stop + reach]
            unrolled = np.empty((in_channels, last, *planes.shape[1:-1], width))
            for at in range(last):
                begin = at * window.dilations[-1]
                unrolled[:, at] = planes[..., begin : begin + width]
            columns = unrolled.reshape(in_channels * last, -1)
            total = np.zeros((out_channels, (stop - start) * steps[0]))
            # What lies behind the last window of the last plane would be read beyond the end.
            length = min(total.shape[1], columns.shape[1] - max(shifts))
            for tap, shift in zip(taps, shifts, strict=True):
                total[:, :length] += tap @ columns[:, shift : shift + length]
            grid = total.reshape(out_channels, stop - start, *lines[1:], width)
            target[:, start:stop] = grid[(slice(None), slice(None), *inside)]
    return y


def conv_transpose(call: Call) -> tuple[Array]:
    """ConvTranspose: x `[N, C, *spatial]`, w `[C, M/group, *kernel]`, b `[M]` -> `[N, M, *out]`."""
    x, w, b = call.tensor(0), call.tensor(1), call.optional(2)
    group = call.integer("group", 1)
    window = _transposed_geometry(call, x.shape[2:], w.shape[2:])
    batch, channels = x.shape[0], x.shape[1] // group
    out_channels, kernel = w.shape[1], math.prod(window.kernel)
    weights = w.reshape(group, channels, out_channels * kernel)
    full = [
        (count - 1) * stride + (size - 1) * dilation + 1
        for count, stride, size, dilation in zip(
            window.out, window.strides, window.kernel, window.dilations, strict=True
        )
    ]
    y = np.zeros((batch, group * out_channels, *_cropped(x.shape[2:], window)))
    for image in range(batch):
        for index in range(group):
            source = x[image, index * channels : (index + 1) * channels].reshape(channels, -1)
            spread = (weights[index].T @ source).reshape(out_channels, kernel, *x.shape[2:])
            canvas = np.zeros((out_channels, *full))
            for position, tap in enumerate(window.taps()):
                view = window.view(canvas, tap)
                view += spread[:, position]
            target = y[image, index * out_channels : (index + 1) * out_channels]
            _crop_into(target, canvas, window)
    if b is not None:
        y += b.reshape(-1, *(1,) * (x.ndim - 2))
    return (y,)


def _transposed_geometry(call: Call, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> Geometry:
    """The window whose positions are the *input* elements; `begin` and `end` are cropped from the canvas.

    `end` may be negative: output_padding and output_shape can reach beyond the last tap,
    where the result is bias.
    """
    rank = len(spatial)
    strides = call.integers("strides", (1,) * rank)
    dilations = call.integers("dilations", (1,) * rank)
    extra = call.integers("output_padding", (0,) * rank)
    pads = call.integers("pads", (0,) * (2 * rank))
    auto_pad = call.string("auto_pad", "NOTSET")
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    shape = call.attributes.get("output_shape")
    if shape is None and same:
        shape = [size * stride for size, stride in zip(spatial, strides, strict=True)]
    begin, end = [], []
    for axis in range(rank):
        reach = strides[axis] * (spatial[axis] - 1) + (kernel[axis] - 1) * dilations[axis] + 1 + extra[axis]
        if shape is None:
            before, after = (0, 0) if auto_pad == "VALID" else (pads[axis], pads[axis + rank])
        else:
            # output_shape may list batch and channels too; the spatial part is at its end.
            total = reach - int(shape[len(shape) - rank + axis])
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            before, after = max(before, 0) if total > 0 else 0, 0
            after = total - before
        begin.append(before)
        end.append(after - extra[axis])
    return Geometry(kernel, strides, dilations, tuple(begin), tuple(end), spatial)


def _cropped(spatial: tuple[int, ...], window: Geometry) -> tuple[int, ...]:
    return tuple(
        (size - 1) * stride + (kernel - 1) * dilation + 1 - begin - end
        for size, stride, kernel, dilation, begin, end in zip(
            spatial, window.strides, window.kernel, window.dilations, window.begin, window.end, strict=True
        )
    )


def _crop_into(target: Array, canvas: Array, window: Geometry) -> None:
    """Copy the part of `canvas` that remains after cropping; what lies beyond the canvas stays zero."""
    sources, targets = [slice(None)], [slice(None)]
    for full, size, begin in zip(canvas.shape[1:], target.shape[1:], window.begin, strict=True):
        count = max(0, min(full - begin, size))
        sources.append(slice(begin, begin + count))
        targets.append(slice(0, count))
    target[tuple(targets)] = canvas[tuple(sources)]
