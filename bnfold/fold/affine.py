"""Affine maps of a tensor in float64, one for each channel: what a BatchNormalization is at inference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """`y = (x - center) * scale + bias`, one value for every index of `axes`.

    The centre is kept apart from the bias because `(b - mean) * scale + beta` loses less than
    `b * scale + (beta - mean * scale)` when the mean is large. A BatchNormalization goes along one axis;
    a Reshape that splits its channels makes it go along several, and one map for the whole tensor goes along
    none.

    Attributes:
        axes: along which the map differs, ascending, counted from the front.
        center: float64, one dimension for each of `axes`; of length 1 it stands for every index.
        scale: the same.
        bias: the same.
    """

    axes: tuple[int, ...]
    center: Values
    scale: Values
    bias: Values

    @classmethod
    def along(cls, axis: int, center: Values, scale: Values, bias: Values) -> Affine:
        """The map along one axis, of vectors `[C]` or `[1]`; if all are `[1]`, that of the whole tensor."""
        if len(center) == len(scale) == len(bias) == 1:
            return cls((), center.reshape(()), scale.reshape(()), bias.reshape(()))
        return cls((axis,), center, scale, bias)

    @classmethod
    def uniform(cls, scale: float = 1.0) -> Affine:
        """One scale for the whole tensor."""
        return cls((), np.array(0.0), np.array(scale), np.array(0.0))

    @property
    def dims(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return np.broadcast_shapes(*(v.shape for v in self.vectors))

    @property
    def shift(self) -> Values:
        """`y - scale * x`, that is `bias - center * scale`."""
        return self.bias - self.center * self.scale

    @property
    def vectors(self) -> tuple[Values, Values, Values]:
        """Centre, scale and bias."""
        return self.center, self.scale, self.bias

    @property
    def is_finite(self) -> bool:
        """Whether no entry is NaN or infinite."""
        return all(bool(np.isfinite(v).all()) for v in self.vectors)

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return bool((self.scale == 1).all()) and not self.shift.any()

    @property
    def scaling(self) -> Affine:
        """The map without its shift, as long as with it."""
        # The shift may be all that differs from channel to channel.
        scale = np.broadcast_to(self.scale, self.dims)
        return Affine(self.axes, np.zeros(self.dims), scale, np.zeros(self.dims))

    def equals(self, other: Affine) -> bool:
        """Whether both have the same entries."""
        if self.axes != other.axes or self.dims != other.dims:
            return False
        return all(bool((a == b).all()) for a, b in zip(self.vectors, other.vectors, strict=True))

    def __call__(self, values: Values) -> Values:
        """Apply the map to values that hold one entry per index of the axes, in the last dimensions."""
        return (values - self.center) * self.scale + self.bias

    def after(self, first: Affine) -> Affine:
        """The composition `self(first(x))`, along the axes of both."""
        axes = tuple(sorted({*self.axes, *first.axes}))
        outer, inner = self._over(axes), first._over(axes)
        return Affine(
            axes=axes,
            center=inner.center,
            scale=inner.scale * outer.scale,
            bias=(inner.bias - outer.center) * outer.scale + outer.bias,
        )

    def with_axes(self, axes: Sequence[int]) -> Affine:
        """The same map where axis `self.axes[k]` has become `axes[k]`."""
        order = np.argsort(axes)
        return Affine(tuple(sorted(axes)), *(v.transpose(order) for v in self.vectors))

    def spread(self, axes: Sequence[int], dims: Sequence[int]) -> Affine:
        """The same map with an entry for every index of `axes`, of the lengths `dims`.

        Raises:
            ValueError: it goes along other axes, or has other lengths.
        """
        over = self._over(tuple(axes))
        return Affine(over.axes, *(np.broadcast_to(v, tuple(dims)) for v in over.vectors))

    def on(self, axis: int, size: int) -> Affine:
        """The same map with vectors `[size]` along this one axis.

        Raises:
            ValueError: it goes along another axis, or has another length.
        """
        return self.spread((axis,), (size,))

    def take(self, axis: int, indices: NDArray[np.intp]) -> Affine:
        """The map of a tensor that holds the entries `indices` of `axis`, as ONNX Gather arranges them.

        The axis makes room for as many as `indices` has dimensions.
        """
        moved = [a if a < axis else a + indices.ndim - 1 for a in self.axes if a != axis]
        if axis not in self.axes:
            return self.with_axes(moved)
        place = self.axes.index(axis)
        # A vector of length 1 stands for every index.
        vectors = (np.take(v, indices if v.shape[place] > 1 else indices * 0, place) for v in self.vectors)
        axes = (*moved[:place], *range(axis, axis + indices.ndim), *moved[place:])
        return Affine(axes, *vectors)

    def embedded(self, axis: int, indices: NDArray[np.intp], size: int) -> Affine:
        """The map of `size` entries along `axis` that does this to `indices`, `[n]`, and no more."""
        over = self._over(tuple(sorted({*self.axes, axis})))
        place = over.axes.index(axis)
        dims = (*over.dims[:place], size, *over.dims[place + 1 :])
        where = (slice(None),) * place + (indices,)
        vectors = [np.zeros(dims), np.ones(dims), np.zeros(dims)]
        for new, old in zip(vectors, over.vectors, strict=True):
            new[where] = old
        return Affine(over.axes, *vectors)

    def on_tensor(self, values: Values) -> Values:
        """Apply the map to a whole tensor."""
        return self._over(tuple(range(values.ndim)))(values)

    def reshaped(self, axes: Sequence[int], dims: Sequence[int]) -> Affine:
        """The same entries in the same order along other axes; every vector must have them all."""
        return Affine(tuple(axes), *(v.reshape(tuple(dims)) for v in self.vectors))

    def reduced(self) -> Affine:
        """The same map without the axes along which it does not differ."""
        axes, vectors = list(self.axes), list(self.vectors)
        for place in reversed(range(len(axes))):
            first = [v[(slice(None),) * place + (slice(1),)] for v in vectors]
            if self.dims[place] and all((v == f).all() for v, f in zip(vectors, first, strict=True)):
                vectors = [f.squeeze(place) for f in first]
                del axes[place]
        return Affine(tuple(axes), *vectors)

    def _over(self, axes: tuple[int, ...]) -> Affine:
        """The same map with a dimension for each of `axes`, of length 1 where it has none.

        Raises:
            ValueError: it goes along an axis that is not among them.
        """
        if not set(self.axes) <= set(axes):
            raise ValueError(f"a map along {self.axes} is not one along {axes}")
        new = tuple(i for i, axis in enumerate(axes) if axis not in self.axes)
        return Affine(axes, *(np.expand_dims(v, new) for v in self.vectors))


def of_batch_normalization(
    scale: Values, bias: Values, mean: Values, var: Values, epsilon: float, *, axis: int = 1
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
    return Affine.along(axis, mean, scale / np.sqrt(var + epsilon), bias)
