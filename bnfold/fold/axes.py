"""Where a channel axis goes when a tensor changes its shape: by index, never by matching sizes.

A reshape keeps the flat order of the elements. Whether an index of one axis still belongs to exactly
one channel is therefore arithmetic on strides, and strides may be products of symbols ("batch").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.fold.affine import Affine
    from bnfold.model.view import Dim, Shape


MOST_CHANNELS = 1 << 24
"""An axis with more entries is not followed entry by entry: a model may declare any size."""


@dataclass(frozen=True)
class _Product:
    """A product of dimensions: a number times symbols in sorted order."""

    number: int
    symbols: tuple[str, ...]

    @classmethod
    def of(cls, dims: Sequence[Dim]) -> _Product | None:
        """None when a factor is not known at all."""
        if any(d is None for d in dims):
            return None
        number = 1
        for dim in dims:
            number *= dim if isinstance(dim, int) else 1
        return cls(number, tuple(sorted(d for d in dims if isinstance(d, str))))


def through_reshape(affine: Affine, there: Shape, here: Shape) -> Affine | None:
    """The map before a reshape, given the map behind it (or the other way round).

    Args:
        affine: the map on the tensor of shape `there`.
        there: its shape; dimensions may be symbols, or None for unknown.
        here: the shape of the tensor the map is wanted for.

    Returns:
        None when it cannot be proved that every index of one axis belongs to one channel.
    """
    size = there[affine.axis] if affine.axis < len(there) else None
    if affine.size != 1:
        if isinstance(size, int) and size != affine.size:
            return None
        size = affine.size
    if not isinstance(size, int):
        return None
    before, behind = _Product.of(there[: affine.axis]), _Product.of(there[affine.axis + 1 :])
    for axis, length in enumerate(here):
        if length == size and (
            (before is not None and before == _Product.of(here[:axis]))
            or (behind is not None and behind == _Product.of(here[axis + 1 :]))
        ):
            return affine.expanded(size).on_axis(axis)
    return _by_strides(affine.expanded(size), behind, here)


def _by_strides(affine: Affine, behind: _Product | None, here: Shape) -> Affine | None:
    """An axis of whole channel blocks: index `i` lies in channel `i * stride // behind % C`."""
    if behind is None:
        return None
    for axis, length in enumerate(here):
        stride = _Product.of(here[axis + 1 :])
        if not isinstance(length, int) or length > MOST_CHANNELS:
            continue
        if stride is None or stride.symbols != behind.symbols:
            continue
        # Common symbols cancel; what is left must nest: an index inside one channel, whole turns in the axis.
        if behind.number % stride.number or (length * stride.number) % (behind.number * affine.size):
            continue
        channels = (np.arange(length) * stride.number // behind.number) % affine.size
        return affine.take(channels, axis)
    return None
