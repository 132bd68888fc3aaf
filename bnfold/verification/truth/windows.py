"""The geometry that convolution and pooling share: pads, output sizes, and views of one kernel tap.

ONNX Operators.md, Conv, ConvTranspose, MaxPool and AveragePool.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnfold.verification.truth.call import Array, Call


@dataclass(frozen=True, slots=True)
class Geometry:
    """A sliding window over the spatial axes, one entry per axis.

    Attributes:
        kernel: window size.
        strides: step of the window.
        dilations: step between the taps of a window.
        begin: padding before the first element.
        end: padding after the last element, as the node declares it.
        out: number of window positions.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]

    def taps(self) -> Iterator[tuple[int, ...]]:
        """Every position inside the kernel, in row-major order."""
        return itertools.product(*(range(size) for size in self.kernel))

    def view(self, padded: Array, tap: tuple[int, ...]) -> Array:
        """What `tap` sees at every window position: a view of shape `[..., *out]` of a `padded` input."""
        spatial = (
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, stride, count in zip(tap, self.dilations, self.strides, self.out, strict=True)
        )
        index: tuple[Any, ...] = (..., *spatial)
        return np.asarray(padded[index])

    def pad(self, x: Array, value: float) -> Array:
        """`x` (`[N, C, *spatial]`) with its padding, long enough for every window (ceil_mode goes beyond)."""
        widths = [(0, 0), (0, 0)]
        for size, kernel, stride, dilation, begin, end, count in zip(
            x.shape[2:],
            self.kernel,
            self.strides,
            self.dilations,
            self.begin,
            self.end,
            self.out,
            strict=True,
        ):
            reach = (count - 1) * stride + (kernel - 1) * dilation + 1
            widths.append((begin, max(end, reach - size - begin)))
        if all(width == (0, 0) for width in widths):
            return x
        return np.pad(x, widths, constant_values=value)


def geometry(call: Call, spatial: Sequence[int], kernel: Sequence[int]) -> Geometry:
    """Window geometry of a Conv or pooling node over an input whose spatial shape is `spatial`."""
    rank = len(spatial)
    strides = call.integers("strides", (1,) * rank)
    dilations = call.integers("dilations", (1,) * rank)
    auto_pad = call.string("auto_pad", "NOTSET")
    ceil = bool(call.integer("ceil_mode", 0))
    pads = call.integers("pads", (0,) * (2 * rank))
    begin, end, out = [], [], []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        size, stride = spatial[axis], strides[axis]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-size // stride)
            total = max(0, (count - 1) * stride + reach - size)
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        else:
            before, after = (0, 0) if auto_pad == "VALID" else (pads[axis], pads[axis + rank])
            room = size + before + after - reach
            count = (math.ceil(room / stride) if ceil else room // stride) + 1
            # A window that would begin in the padding after the input is left out (MaxPool-22, ceil_mode).
            if ceil and (count - 1) * stride >= size + before:
                count -= 1
        begin.append(before)
        end.append(after)
        out.append(max(count, 0))
    return Geometry(tuple(kernel), strides, dilations, tuple(begin), tuple(end), tuple(out))
