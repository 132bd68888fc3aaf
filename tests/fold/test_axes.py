"""Following a channel axis through a reshape, against a reshape of real indices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.fold.affine import Affine
from bnfold.fold.axes import through_reshape


def _affine(channels: int, axis: int) -> Affine:
    return Affine((axis,), np.zeros(channels), np.arange(1.0, channels + 1), np.zeros(channels))


def _channels(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """For every element, the index of its channel."""
    return np.broadcast_to(np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - axis - 1)), shape)


@st.composite
def _reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))

    def grouped() -> tuple[int, ...]:
        cuts = sorted(draw(st.sets(st.integers(1, max(1, len(factors) - 1)), max_size=3)) - {len(factors)})
        parts = [factors[i:j] for i, j in zip([0, *cuts], [*cuts, len(factors)], strict=True)]
        return tuple(math.prod(p) for p in parts)

    there, here = grouped(), grouped()
    return there, here, draw(st.integers(0, len(there) - 1))


@given(_reshapes())
def test_the_map_found_is_the_map_of_every_element(
    case: tuple[tuple[int, ...], tuple[int, ...], int],
) -> None:
    there, here, axis = case
    found = through_reshape(_affine(there[axis], axis), there, here)
    wanted = _channels(there, axis).reshape(here) + 1.0
    assert found is not None, "all sizes are numbers"
    assert np.array_equal(found.on_tensor(np.ones(here)), wanted)


@pytest.mark.parametrize(
    ("there", "here", "axis", "expected"),
    [
        (("N", 6), ("B", "T", 6), 1, 2),  # LeViT: tokens folded into the batch
        (("N", 6, "H", "W"), ("N", 6, None), 1, 1),  # positions flattened, whatever their number
        (("N", 6, None), ("N", 6, "H", "W"), 1, 1),
        (("N", 6, "H", "W"), (None, 6, "H", "W"), 1, 1),
    ],
)
def test_symbols_that_agree_are_enough(
    there: tuple[int | str | None, ...], here: tuple[int | str | None, ...], axis: int, expected: int
) -> None:
    found = through_reshape(_affine(6, axis), there, here)
    assert found is not None
    assert found.axes == (expected,)
    assert np.array_equal(found.scale, np.arange(1.0, 7))


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (("N", 6, 6), ("N", 6, 6, 1, "K")),  # a size that agrees proves nothing
        ((None, 6, None), (None, 6, None)),  # two unknown dimensions need not be equal
        (("N", 6, "H"), ("M", 6, "W")),
        (("N", 6, "H"), ("N", None)),  # as many as there are positions
        (("N", "H", 6), ("N", 2, None)),
    ],
)
def test_what_cannot_be_proved_is_refused(
    there: tuple[int | str | None, ...], here: tuple[int | str | None, ...]
) -> None:
    channels = 6
    axis = there.index(6)
    assert isinstance(channels, int)
    found = through_reshape(_affine(channels, axis), there, here)
    if there == ("N", 6, 6):
        assert found is None or found.axes == (1,)
    else:
        assert found is None


def test_a_linear_layer_that_feeds_an_image_repeats_each_channel() -> None:
    found = through_reshape(_affine(3, 1), ("N", 3, 4, 4), ("N", 48))
    assert found is not None
    assert found.axes == (1,)
    assert np.array_equal(found.scale, np.repeat([1.0, 2.0, 3.0], 16))


def test_two_sizes_that_are_unknown_are_not_the_same() -> None:
    """(2, 6, 5) may become (10, 6, 1), in which no index of the second axis keeps its elements."""
    assert through_reshape(_affine(6, 1), (None, 6, None), (None, 6, None)) is None
    assert through_reshape(_affine(6, 1), ("N", 6, None), ("N", 6, None)) is not None


def test_a_map_of_another_length_than_its_axis_goes_nowhere() -> None:
    assert through_reshape(_affine(3, 1), (2, 6), (2, 3, 2)) is None
    assert through_reshape(_affine(3, 1), (2, 6), (2, 6, 1)) is None
