"""Where the axes of a map go when a tensor changes its shape: by index, never by matching sizes.

A reshape keeps the flat order of the elements. Where both shapes have the same stride they can be cut, and
between two cuts lie the same elements. The axes of such a block are reshaped as NumPy reshapes. A stride may
be a product of symbols ("batch"), but the block that holds the channels must be known in numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnfold.fold.affine import Affine
    from bnfold.model.integers import Dim, Shape


MOST_CHANNELS = 1 << 24
"""Axes with more entries are not followed entry by entry: a model may declare any size."""


@dataclass(frozen=True)
class _Product:
    """A product of dimensions: a number times symbols in sorted order."""

    number: int
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    """Neighbouring axes of either shape that hold the same elements."""

    there: range
    here: range


def through_reshape(affine: Affine, there: Shape, here: Shape) -> Affine | None:
    """The map before a reshape, given the map behind it (or the other way round).

    Args:
        affine: the map on the tensor of shape `there`.
        there: its shape; dimensions may be symbols, or None for unknown.
        here: the shape of the tensor the map is wanted for.

    Returns:
        None when it cannot be proved that every index of the axes it would go along has one value.
    """
    affine = affine.reduced()
    if not all(axis < len(there) for axis in affine.axes):
        return None
    known = dict(zip(affine.axes, affine.dims, strict=True))
    if any(there[axis] != size for axis, size in known.items() if isinstance(there[axis], int)):
        return None
    there = tuple(known.get(axis, size) for axis, size in enumerate(there))
    blocks = [b for b in _blocks(there, here) if any(axis in b.there for axis in affine.axes)]
    for block in blocks:
        sizes = {_number([there[a] for a in block.there]), _number([here[a] for a in block.here])}
        if None in sizes or len(sizes) > 1:
            return None
    old = [axis for block in blocks for axis in block.there]
    new = [axis for block in blocks for axis in block.here]
    lengths = [size for axis in new if isinstance(size := here[axis], int)]
    if math.prod(lengths) > MOST_CHANNELS:
        return None
    whole = affine.spread(old, [size for axis in old if isinstance(size := there[axis], int)])
    return whole.reshaped(new, lengths).reduced()


def completed(shape: Shape, other: Shape) -> Shape:
    """The shape with its only unknown dimension as the elements of `other`, which are as many, make it."""
    unknown = [
        axis for axis, dim in enumerate(shape) if dim is None or (isinstance(dim, str) and dim not in other)
    ]
    if len(unknown) != 1:
        return shape
    (axis,) = unknown
    rest, whole = _products((*shape[:axis], *shape[axis + 1 :]))[-1], _products(other)[-1]
    if rest is None or whole is None or rest.symbols != whole.symbols or not rest.number:
        return shape
    size, over = divmod(whole.number, rest.number)
    return shape if over else (*shape[:axis], size, *shape[axis + 1 :])


def _blocks(there: Shape, here: Shape) -> Iterator[_Block]:
    """Both shapes, cut wherever that is known to be possible."""
    left, right = _products(there), _products(here)
    from_behind, to_behind = _products(there[::-1])[::-1], _products(here[::-1])[::-1]
    start = begun = 0
    for i in range(len(there) + 1):
        for j in range(begun, len(here) + 1):
            if _equal(left[i], right[j]) or _equal(from_behind[i], to_behind[j]):
                yield _Block(range(start, i), range(begun, j))
                start, begun = i, j
                break
    yield _Block(range(start, len(there)), range(begun, len(here)))


def _products(shape: Shape) -> list[_Product | None]:
    """The size of no axis, of the first, of the first two ...; None from the first unknown one on."""
    product: _Product | None = _Product(1, ())
    products = [product]
    for dim in shape:
        if product is None or dim is None:
            product = None
        elif isinstance(dim, int):
            product = _Product(product.number * dim, product.symbols)
        else:
            product = _Product(product.number, tuple(sorted((*product.symbols, dim))))
        products.append(product)
    return products


def _equal(one: _Product | None, other: _Product | None) -> bool:
    return one is not None and one == other


def _number(dims: Sequence[Dim]) -> int | None:
    """Their product; None when it is not a number."""
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(sizes) if len(sizes) == len(dims) else None
