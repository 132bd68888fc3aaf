"""Batch normalization in NumPy: the reference.

Every value is computed in float64 whatever the dtypes are, and rounded once when it is stored. Tensors are
walked in tiles that stay in the cache, so that the steps of a formula cost one trip through memory and
no temporary of the tensor's size. Non-finite numbers follow IEEE 754 silently, as in ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import UsageError
from bnfold.runtime.arguments import (
    Layout,
    check_host,
    check_per_channel,
    check_same_dtype,
    check_trainable,
    layout_of,
)
from bnfold.runtime.results import Float64Array, Gradients, Training
from bnfold.runtime.rounding import rounded, store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Tile = tuple[slice, slice, slice]

# 512 KiB of float64: with input and output beside it, a tile fits a 2 MiB second-level cache.
_TILE_VALUES = 1 << 16


def infer(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float,
    axis: int,
) -> Array:
    """See `bnfold.runtime.infer`."""
    layout = _checked(x, axis, {"scale": scale, "bias": bias, "mean": mean, "var": var})
    check_same_dtype("scale", scale.dtype, "bias", bias.dtype)
    check_same_dtype("mean", mean.dtype, "var", var.dtype)
    with np.errstate(all="ignore"):
        return _normalized(x, layout, _wide(mean), _gain(scale, var, epsilon), _wide(bias))


def train(
    x: Array,
    scale: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    *,
    epsilon: float,
    momentum: float,
    axis: int,
    unbiased: bool,
) -> Training[Array]:
    """See `bnfold.runtime.train`; `unbiased` makes the running variance that of N - 1."""
    running = {"running_mean": running_mean, "running_var": running_var}
    layout = _checked(x, axis, {"scale": scale, "bias": bias, **running})
    check_same_dtype("scale", scale.dtype, "bias", bias.dtype)
    check_same_dtype("running_mean", running_mean.dtype, "running_var", running_var.dtype)
    check_trainable(layout, unbiased=unbiased)
    with np.errstate(all="ignore"):
        batch = moments(x, layout)
        var = batch.m2 / layout.count
        shown = batch.m2 / (layout.count - 1) if unbiased else var
        return Training(
            y=_normalized(x, layout, batch.mean, _gain(scale, var, epsilon), _wide(bias)),
            mean=batch.mean,
            var=var,
            running_mean=_moved(running_mean, batch.mean, momentum),
            running_var=_moved(running_var, shown, momentum),
            backend="numpy",
        )


def backward(
    dy: Array,
    x: Array,
    scale: Array,
    *,
    mean: Array,
    var: Array,
    epsilon: float,
    axis: int,
    training: bool,
) -> Gradients[Array]:
    """See `bnfold.runtime.backward`."""
    layout = _checked(x, axis, {"scale": scale, "mean": mean, "var": var})
    check_host({"dy": dy})
    if dy.shape != x.shape:
        raise UsageError(f"dy has shape {dy.shape} and x has {x.shape}; they must agree")
    check_same_dtype("dy", dy.dtype, "x", x.dtype)
    check_same_dtype("mean", mean.dtype, "var", var.dtype)
    if training:
        check_trainable(layout, unbiased=False)
    with np.errstate(all="ignore"):
        center = _wide(mean)
        inverse = 1.0 / np.sqrt(_wide(var) + epsilon)
        dbias, dproduct = _sums(dy, x, layout, center)
        dscale = dproduct * inverse
        gain = _wide(scale) * inverse
        if training:
            offset = dbias / layout.count
            slope = inverse * dscale / layout.count
            dx = _input_gradient(dy, x, layout, mean=center, gain=gain, offset=offset, slope=slope)
        else:
            zero = np.zeros(layout.channels)
            dx = _normalized(dy, layout, zero, gain, zero)
        return Gradients(
            dx=dx,
            dscale=rounded(dscale, scale.dtype),
            dbias=rounded(dbias, scale.dtype),
            backend="numpy",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Per-channel mean and sum of squared deviations from it, float64, shape `[C]`."""

    mean: Float64Array
    m2: Float64Array


def moments(x: Array, layout: Layout) -> Moments:
    """Take the mean and the squared deviations of every channel.

    Values are shifted by the channel's first, so that a large offset costs no digits and a constant
    channel has a variance of exactly zero; deviations are then taken from the mean itself, and what its
    rounding left over is put back (Chan, Golub and LeVeque, "Algorithms for computing the sample variance",
    The American Statistician 37(3), 1983, eq. 1.7).
    """
    first = _wide(x.reshape(layout.shape)[0, :, 0])
    shift = np.where(np.isfinite(first), first, 0.0)
    total = np.zeros(layout.channels)
    for tile, values in _walk(x, layout):
        np.subtract(values, _along(shift, tile), out=values)
        total[tile[1]] += values.sum(axis=(0, 2))
    mean = shift + total / layout.count

    left = np.zeros(layout.channels)
    squares = np.zeros(layout.channels)
    for tile, values in _walk(x, layout):
        np.subtract(values, _along(mean, tile), out=values)
        left[tile[1]] += values.sum(axis=(0, 2))
        np.square(values, out=values)
        squares[tile[1]] += values.sum(axis=(0, 2))
    # An infinity has left NaN behind, where its mean stands.
    correction = np.where(np.isfinite(left), left / layout.count, 0.0)
    return Moments(mean + correction, np.maximum(squares - left * correction, 0.0))


def _normalized(
    x: Array, layout: Layout, mean: Float64Array, gain: Float64Array, bias: Float64Array
) -> Array:
    # (x - mean) first: x*gain + (bias - mean*gain) would cancel where the mean is large.
    y = np.empty(x.shape, x.dtype)
    target = y.reshape(layout.shape)
    for tile, values in _walk(x, layout):
        np.subtract(values, _along(mean, tile), out=values)
        np.multiply(values, _along(gain, tile), out=values)
        np.add(values, _along(bias, tile), out=values)
        store(values, target[tile])
    return y


def _sums(dy: Array, x: Array, layout: Layout, mean: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Per channel, the sums of dy and of dy*(x - mean)."""
    total = np.zeros(layout.channels)
    product = np.zeros(layout.channels)
    for (tile, values), (_, slopes) in zip(_walk(x, layout), _walk(dy, layout), strict=True):
        total[tile[1]] += slopes.sum(axis=(0, 2))
        np.subtract(values, _along(mean, tile), out=values)
        np.multiply(values, slopes, out=values)
        product[tile[1]] += values.sum(axis=(0, 2))
    return total, product


def _input_gradient(
    dy: Array,
    x: Array,
    layout: Layout,
    *,
    mean: Float64Array,
    gain: Float64Array,
    offset: Float64Array,
    slope: Float64Array,
) -> Array:
    """Return gain * (dy - offset - (x - mean)*slope).

    That is the derivative through the mini-batch statistics (Ioffe and Szegedy, "Batch Normalization",
    2015, section 3) with the sums collected: offset is the mean of dy, slope that of dy*xhat over the
    standard deviation.
    """
    dx = np.empty(x.shape, x.dtype)
    target = dx.reshape(layout.shape)
    for (tile, values), (_, slopes) in zip(_walk(x, layout), _walk(dy, layout), strict=True):
        np.subtract(values, _along(mean, tile), out=values)
        np.multiply(values, _along(slope, tile), out=values)
        np.subtract(slopes, _along(offset, tile), out=slopes)
        np.subtract(slopes, values, out=slopes)
        np.multiply(slopes, _along(gain, tile), out=slopes)
        store(slopes, target[tile])
    return dx


def _checked(x: Array, axis: int, per_channel: dict[str, Array]) -> Layout:
    check_host({"x": x, **per_channel})
    layout = layout_of(x.shape, axis)
    check_per_channel({name: array.shape for name, array in per_channel.items()}, layout)
    return layout


def _walk(x: Array, layout: Layout) -> Iterator[tuple[Tile, Float64Array]]:
    """Give every tile of x as float64 in a scratch array that the next tile overwrites."""
    source = x.reshape(layout.shape)
    scratch = np.empty(min(_TILE_VALUES, x.size))
    for tile in layout.tiles(_TILE_VALUES):
        part = source[tile]
        values = scratch[: part.size].reshape(part.shape)
        values[...] = part
        yield tile, values


def _wide(per_channel: Array) -> Float64Array:
    return per_channel.astype(np.float64)


def _along(per_channel: Float64Array, tile: Tile) -> Float64Array:
    return per_channel[tile[1], np.newaxis]


def _gain(scale: Array, var: Array, epsilon: float) -> Float64Array:
    gain: Float64Array = _wide(scale) / np.sqrt(_wide(var) + epsilon)
    return gain


def _moved(running: Array, batch: Float64Array, momentum: float) -> Array:
    return rounded(momentum * _wide(running) + (1.0 - momentum) * batch, running.dtype)
