"""Normalizing operators in float64.

onnx's own reference is not used for these: up to opset 13 it evaluates BatchNormalization with batch
statistics, its LRN walks over the batch instead of the channels, and its Softmax below opset 13 ignores that
everything from `axis` on is one distribution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bnfold.runtime import infer

if TYPE_CHECKING:
    from bnfold.verification.truth.call import Array, Call

# Opsets at which BatchNormalization changed how it says "inference" (ONNX Changelog.md).
_BY_OUTPUTS = 7
_BY_TRAINING_MODE = 14
_SOFTMAX_OF_ONE_AXIS = 13


def batch_normalization(call: Call) -> tuple[Array, ...]:
    """BatchNormalization of every opset.

    x is `[N, C, ...]` or `[N]`, the parameters `[C]`, or `[C, ...]` where spatial is 0.
    """
    x, scale, bias, mean, var = (call.tensor(index) for index in range(5))
    epsilon = call.number("epsilon", 1e-5)
    flat = x
    if call.integer("spatial", 1) == 0:
        flat = x.reshape(x.shape[0], -1)
        scale, bias, mean, var = (value.reshape(-1) for value in (scale, bias, mean, var))
    if not _training(call):
        axis = min(1, flat.ndim - 1)
        y = infer(flat, scale, bias, mean, var, epsilon=epsilon, axis=axis, backend="numpy")
        return (np.asarray(y).reshape(x.shape), *(mean, var, mean, var)[: call.outputs - 1])
    axes = tuple(axis for axis in range(flat.ndim) if axis != 1)
    batch_mean, batch_var = flat.mean(axis=axes), flat.var(axis=axes)
    y = infer(flat, scale, bias, batch_mean, batch_var, epsilon=epsilon, axis=1, backend="numpy")
    momentum = call.number("momentum", 0.9)
    running = (
        mean * momentum + batch_mean * (1 - momentum),
        var * momentum + batch_var * (1 - momentum),
        batch_mean,
        batch_var,
    )
    return (np.asarray(y).reshape(x.shape), *running[: call.outputs - 1])


def _training(call: Call) -> bool:
    if call.opset >= _BY_TRAINING_MODE:
        return bool(call.integer("training_mode", 0))
    if call.opset >= _BY_OUTPUTS:
        return call.outputs > 1
    return call.integer("is_test", 0) == 0 and call.outputs > 1


def lrn(call: Call) -> tuple[Array]:
    """LRN: x `[N, C, ...]`, each value divided by the energy of the `size` channels around it (LRN-13)."""
    x, size = call.tensor(0), call.integer("size", 1)
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
    squares = np.pad(x**2, [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2))
    energy = sum(squares[:, at : at + x.shape[1]] for at in range(size))
    alpha, beta, bias = call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    return (np.asarray(x / (bias + alpha / size * energy) ** beta),)


def instance_normalization(call: Call) -> tuple[Array]:
    """InstanceNormalization: x `[N, C, ...]`, scale and bias `[C]` (InstanceNormalization-6)."""
    x = call.tensor(0)
    axes = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    spread = np.sqrt(x.var(axis=axes, keepdims=True) + call.number("epsilon", 1e-5))
    per_channel = (-1, *(1,) * (x.ndim - 2))
    scale, bias = call.tensor(1).reshape(per_channel), call.tensor(2).reshape(per_channel)
    return (np.asarray(centred / spread * scale + bias),)


def softmax(call: Call) -> tuple[Array]:
    """Softmax of every opset."""
    shifted, shape = _shifted(call)
    exponentials = np.exp(shifted)
    return (
        (exponentials / exponentials.sum(axis=-1, keepdims=True)).swapaxes(-1, shape[1]).reshape(shape[0]),
    )


def log_softmax(call: Call) -> tuple[Array]:
    """LogSoftmax of every opset."""
    shifted, shape = _shifted(call)
    logarithm = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return ((shifted - logarithm).swapaxes(-1, shape[1]).reshape(shape[0]),)


def hardmax(call: Call) -> tuple[Array]:
    """Hardmax of every opset: 1 at the first of the largest values, 0 elsewhere."""
    shifted, shape = _shifted(call)
    y = np.zeros(shifted.shape)
    np.put_along_axis(y, shifted.argmax(axis=-1)[..., None], 1.0, axis=-1)
    return (y.swapaxes(-1, shape[1]).reshape(shape[0]),)


def _shifted(call: Call) -> tuple[Array, tuple[tuple[int, ...], int]]:
    """The input with its distribution on the last axis and its maximum moved to 0; how to undo the move."""
    x = call.tensor(0)
    if call.opset >= _SOFTMAX_OF_ONE_AXIS:
        axis = call.integer("axis", -1) % x.ndim
        rows = x.swapaxes(axis, -1)
    else:
        # Below opset 13 the input is a matrix: axes before `axis` are rows, all others one distribution.
        axis = -1
        split = call.integer("axis", 1) % x.ndim
        rows = x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))
    highest = rows.max(axis=-1, keepdims=True) if rows.size else rows[..., :1]
    return rows - highest, (x.shape, axis)
