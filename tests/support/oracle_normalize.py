"""InstanceNormalization, GroupNormalization and LayerNormalization for the oracle, with their bounds.

All three subtract a mean, divide by a standard deviation and end in a scale and a bias. The bound of an
error `e` of the input (its largest in the group): the mean moves by at most e, the deviation, which is a
norm of the centred values, by at most e, so that the normalized value `z` moves by at most
(2 + |z|) e / (sigma - e).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from support.unsupported import Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from support.oracle import Arrays, Call, Result

    Array = NDArray[Any]

KINDS = frozenset({"InstanceNormalization", "GroupNormalization", "LayerNormalization"})


def _grouped(call: Call, x: Array) -> Array:
    """The input with what is averaged over flattened into the last axis."""
    if call.node.op_type == "LayerNormalization":
        axis = call.get("axis", -1) % x.ndim
        return x.reshape(*x.shape[:axis], -1)
    groups = x.shape[1] if call.node.op_type == "InstanceNormalization" else call.attrs["num_groups"]
    return x.reshape(x.shape[0], groups, -1)


def _spread(call: Call, parameter: Array, x: Array) -> Array:
    """Scale or bias in a shape that broadcasts against the input."""
    if call.node.op_type == "LayerNormalization":
        return parameter
    if call.node.op_type == "GroupNormalization" and call.opset < 21:
        parameter = np.repeat(parameter, x.shape[1] // parameter.size)  # until then one value a group
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


def _deviation(call: Call, x: Array) -> tuple[Array, Array]:
    """The normalized values, and the deviation they were divided by."""
    grouped = _grouped(call, x)
    centred = grouped - grouped.mean(-1, keepdims=True)
    sigma = np.sqrt((centred**2).mean(-1, keepdims=True) + float(np.float32(call.get("epsilon", 1e-5))))
    return (centred / sigma).reshape(x.shape), np.broadcast_to(sigma, grouped.shape).reshape(x.shape)


def normalize(call: Call, arrays: Arrays) -> Result:
    x = arrays[0]
    if call.wanted > 1:
        raise Unsupported("the statistics of a LayerNormalization")
    z, _ = _deviation(call, x)
    y = z * _spread(call, arrays[1], x)
    return y if len(arrays) < 3 or arrays[2] is None else y + _spread(call, arrays[2], x)


def magnitude(call: Call, data: Arrays, sizes: Arrays) -> Array:
    """With every term positive: the sums of the mean, and of the variance that it enters."""
    x, size = data[0], sizes[0]
    _, sigma = _deviation(call, x)
    grouped = _grouped(call, size)
    centred = (grouped + grouped.mean(-1, keepdims=True)).reshape(x.shape)
    worst = _grouped(call, centred).max(-1, keepdims=True) + 0 * grouped
    z = centred / sigma * (1 + (worst.reshape(x.shape) / sigma) ** 2)
    y = z * _spread(call, sizes[1], x)
    return np.asarray(y if len(sizes) < 3 or sizes[2] is None else y + _spread(call, sizes[2], x))


def error(call: Call, data: Arrays, errors: Arrays) -> Array:
    x = data[0]
    z, sigma = _deviation(call, x)
    grouped = _grouped(call, np.broadcast_to(errors[0], x.shape))
    e = (grouped.max(-1, keepdims=True) + 0 * grouped).reshape(x.shape)
    least = np.maximum(sigma - e, np.sqrt(float(np.float32(call.get("epsilon", 1e-5)))))
    moved = (2 + np.abs(z)) * e / least
    scale, of_scale = (_spread(call, a, x) for a in (data[1], errors[1]))
    grown = (np.abs(scale) + of_scale) * moved + np.abs(z) * of_scale
    return np.asarray(grown if len(errors) < 3 or errors[2] is None else grown + _spread(call, errors[2], x))
