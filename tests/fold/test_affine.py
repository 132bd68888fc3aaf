"""Maps along any axes, against the same done to whole tensors of entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.fold.affine import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray


@st.composite
def _maps(draw: st.DrawFn) -> tuple[Affine, tuple[int, ...]]:
    """A map, and the shape of a tensor that it is for."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axes = tuple(sorted(draw(st.sets(st.integers(0, len(shape) - 1)))))
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    def vector() -> NDArray[np.float64]:
        return rng.integers(-3, 4, [draw(st.sampled_from((1, shape[a]))) for a in axes]).astype(np.float64)

    return Affine(axes, vector(), vector(), vector()), shape


def _tensor(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.arange(float(np.prod(shape))).reshape(shape)


def _by_hand(affine: Affine, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Element by element."""
    result = np.empty_like(values)
    for index in np.ndindex(values.shape):
        center, scale, bias = (
            v[tuple(0 if n == 1 else index[a] for a, n in zip(affine.axes, v.shape, strict=True))]
            for v in affine.vectors
        )
        result[index] = (values[index] - center) * scale + bias
    return result


@given(_maps())
def test_on_a_tensor(case: tuple[Affine, tuple[int, ...]]) -> None:
    affine, shape = case
    assert np.array_equal(affine.on_tensor(_tensor(shape)), _by_hand(affine, _tensor(shape)))


@given(_maps(), st.randoms())
def test_with_other_axes(case: tuple[Affine, tuple[int, ...]], random: np.random.Generator) -> None:
    affine, shape = case
    perm = list(range(len(shape)))
    random.shuffle(perm)
    moved = affine.with_axes([perm.index(axis) for axis in affine.axes])
    x = _tensor(shape)
    assert np.array_equal(_by_hand(moved, x.transpose(perm)), _by_hand(affine, x).transpose(perm))


@given(_maps(), st.data())
def test_entries_taken(case: tuple[Affine, tuple[int, ...]], data: st.DataObject) -> None:
    affine, shape = case
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = data.draw(st.sampled_from([(), (1,), (3,), (2, 2), (0,)]))
    indices = np.random.default_rng(0).integers(0, shape[axis], size)
    x = _tensor(shape)
    taken = affine.take(axis, np.asarray(indices))
    assert np.array_equal(
        _by_hand(taken, np.take(x, indices, axis)), np.take(_by_hand(affine, x), indices, axis)
    )


@given(_maps(), st.data())
def test_embedded_entries(case: tuple[Affine, tuple[int, ...]], data: st.DataObject) -> None:
    affine, shape = case
    axis, more = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(0, 3))
    size = shape[axis] + more
    places = np.random.default_rng(more).permutation(size)[: shape[axis]]
    x = _tensor((*shape[:axis], size, *shape[axis + 1 :]))
    wanted = x.copy()
    where = (slice(None),) * axis + (places,)
    wanted[where] = _by_hand(affine, x[where])
    assert np.array_equal(_by_hand(affine.embedded(axis, places, size), x), wanted)


@given(_maps(), _maps())
def test_one_after_the_other(
    one: tuple[Affine, tuple[int, ...]], other: tuple[Affine, tuple[int, ...]]
) -> None:
    first, shape = one
    second = Affine(other[0].axes, *other[0].vectors)
    if any(a >= len(shape) or shape[a] != other[1][a] for a in second.axes):
        return
    x = _tensor(shape)
    assert np.array_equal(_by_hand(second.after(first), x), _by_hand(second, _by_hand(first, x)))


@given(_maps())
def test_without_the_axes_that_do_not_matter(case: tuple[Affine, tuple[int, ...]]) -> None:
    affine, shape = case
    reduced = affine.reduced()
    assert np.array_equal(_by_hand(reduced, _tensor(shape)), _by_hand(affine, _tensor(shape)))
    for place in range(len(reduced.axes)):
        assert any(
            (np.diff(np.broadcast_to(v, reduced.dims), axis=place) != 0).any() for v in reduced.vectors
        )


@given(_maps())
def test_without_its_shift(case: tuple[Affine, tuple[int, ...]]) -> None:
    affine, shape = case
    values, nothing = _tensor(shape), np.zeros(shape)
    expected = _by_hand(affine, values) - _by_hand(affine, nothing)
    assert np.array_equal(_by_hand(affine.scaling, values), expected)
    assert affine.scaling.dims == affine.dims, "a layer that takes it in asks for as many channels"


def test_one_entry_is_for_the_whole_tensor() -> None:
    one = Affine.along(1, np.array([1.0]), np.array([2.0]), np.array([3.0]))
    assert one.axes == ()
    assert one.dims == ()
    assert np.array_equal(one.on(2, 3).scale, [2.0, 2.0, 2.0])
    assert Affine.uniform().is_identity
    assert not one.is_identity


def test_a_map_does_not_spread_over_axes_that_it_does_not_know() -> None:
    along = Affine.along(1, np.zeros(3), np.arange(3.0), np.zeros(1))
    assert along.dims == (3,)
    with pytest.raises(ValueError, match="not one along"):
        along.on(2, 3)
    with pytest.raises(ValueError, match="broadcast"):
        along.on(1, 4)


def test_no_channels_at_all() -> None:
    none = Affine.along(1, np.zeros(0), np.zeros(0), np.zeros(0))
    assert none.dims == (0,)
    assert none.reduced().axes == (1,)
