"""Per-channel affine maps in float64: what a BatchNormalization is at inference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """`y = (x - center) * scale + bias`, one value per index of `axis`.

    The centre is kept apart from the bias because `(b - mean) * scale + beta` loses less than
    `b * scale + (beta - mean * scale)` when the mean is large. A vector of length 1 stands for
    every channel at once.

    Attributes:
        axis: the channel axis, counted from the front.
        center: float64 `[C]` or `[1]`.
        scale: float64 `[C]` or `[1]`.
        bias: float64 `[C]` or `[1]`.
    """

    axis: int
    center: Vector
    scale: Vector
    bias: Vector

    @property
    def size(self) -> int:
        """The number of channels; 1 also for a map that is the same for all of them."""
        return max(len(self.center), len(self.scale), len(self.bias))

    @property
    def shift(self) -> Vector:
        """`y - scale * x`, that is `bias - center * scale`."""
        return self.bias - self.center * self.scale

    @property
    def vectors(self) -> tuple[Vector, Vector, Vector]:
        """Centre, scale and bias."""
        return self.center, self.scale, self.bias

    @property
    def is_finite(self) -> bool:
        """Whether no entry is NaN or infinite."""
        return all(bool(np.isfinite(v).all()) for v in self.vectors)

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the map to values that hold one entry per channel along their last axis."""
        return (values - self.center) * self.scale + self.bias

    def after(self, first: Affine) -> Affine:
        """The composition `self(first(x))`, on the axis of `self`."""
        return Affine(
            axis=self.axis,
            center=first.center,
            scale=first.scale * self.scale,
            bias=(first.bias - self.center) * self.scale + self.bias,
        )

    def on_axis(self, axis: int) -> Affine:
        """The same map where the channels stand on another axis."""
        return Affine(axis, self.center, self.scale, self.bias)

    def take(self, channels: NDArray[np.intp], axis: int) -> Affine:
        """The map of a tensor whose index `i` along `axis` belongs to channel `channels[i]`."""
        full = self.expanded(self.size)
        return Affine(axis, full.center[channels], full.scale[channels], full.bias[channels])

    def embedded(self, channels: NDArray[np.intp], size: int) -> Affine:
        """The map of `size` channels that does this to `channels` and nothing to the others."""
        full = self.expanded(len(channels))
        center, scale, bias = np.zeros(size), np.ones(size), np.zeros(size)
        center[channels], scale[channels], bias[channels] = full.center, full.scale, full.bias
        return Affine(self.axis, center, scale, bias)

    def on_values(self, values: NDArray[np.float64], along: tuple[int, ...]) -> NDArray[np.float64]:
        """Apply the map to a whole tensor; `along` is the shape in which a vector broadcasts against it."""
        center, scale, bias = (v.reshape(along) for v in self.vectors)
        return (values - center) * scale + bias

    def expanded(self, size: int) -> Affine:
        """The same map with all three vectors of length `size`.

        Raises:
            ValueError: a vector has neither length 1 nor `size`.
        """
        return Affine(self.axis, *(np.broadcast_to(v, (size,)) for v in self.vectors))


def of_batch_normalization(
    scale: Vector, bias: Vector, mean: Vector, var: Vector, epsilon: float, *, axis: int = 1
) -> Affine:
    """The affine map of a BatchNormalization at inference.

    Source: ONNX operator BatchNormalization, `Y = (X - mean) / sqrt(var + epsilon) * scale + B`;
    Ioffe and Szegedy 2015, algorithm 2.

    Args:
        scale: gamma, float64 `[C]`.
        bias: beta, float64 `[C]`.
        mean: population mean, float64 `[C]`.
        var: population variance, float64 `[C]`; `var + epsilon` must be positive.
        epsilon: added to the variance.
        axis: the channel axis.
    """
    return Affine(axis, mean, scale / np.sqrt(var + epsilon), bias)
