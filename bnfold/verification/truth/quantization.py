"""DequantizeLinear in float64; onnx's reference has it from opset 19 on only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bnfold.verification.truth.call import Array, Call


def dequantize_linear(call: Call) -> tuple[Array]:
    """DequantizeLinear-10 to 25: `(x - zero_point) * scale`, per tensor, per axis, or per block."""
    x, scale, zero_point = call.tensor(0), call.tensor(1), call.optional(2)
    # Integers of 4 bits and float8 have no arithmetic of their own.
    y = x.astype(np.float64)
    if zero_point is not None:
        y = y - _spread(call, zero_point.astype(np.float64), x)
    return (y * _spread(call, scale.astype(np.float64), x),)


def _spread(call: Call, parameter: Array, x: Array) -> Array:
    """A scale or zero point in a shape that broadcasts with `x`."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = call.integer("axis", 1) % x.ndim
    block = call.integer("block_size", 0)
    if block:
        return np.asarray(np.repeat(parameter, block, axis=axis)[tuple(map(slice, x.shape))])
    return parameter.reshape([-1 if place == axis else 1 for place in range(x.ndim)])
