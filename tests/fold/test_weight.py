"""Rounding once, and knowing when a rounded weight does not stand for the exact one."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.fold.reasons import Code
from bnfold.fold.weight import Weight, round_to
from bnfold.model.constants import computed

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _nearest(value: float, candidates: np.ndarray) -> set[float]:
    """The representable values nearest to `value`, in exact rational arithmetic."""
    distances = {float(c): abs(Fraction(float(c)) - Fraction(value)) for c in candidates}
    least = min(distances.values())
    return {c for c, d in distances.items() if d == least}


@given(st.floats(-1e30, 1e30))
def test_bfloat16_is_rounded_to_nearest_even_in_one_step(value: float) -> None:
    rounded = float(round_to(np.array([value]), BFLOAT16)[0])
    bits = int(np.array(rounded, ml_dtypes.bfloat16).view(np.uint16))
    neighbours = np.array([(bits + d) & 0xFFFF for d in (-1, 0, 1)], np.uint16).view(ml_dtypes.bfloat16)
    finite = neighbours.astype(np.float64)[np.isfinite(neighbours.astype(np.float64))]
    nearest = _nearest(value, finite)
    assert rounded in nearest
    if len(nearest) > 1:
        assert bits % 2 == 0


def test_a_value_beside_a_tie_is_not_rounded_twice() -> None:
    # 1 + 2^-8 is the tie between 1 and 1 + 2^-7; a float32 in between would round 2^-40 away and tie to 1.
    value = np.array([1 + 2.0**-8 + 2.0**-40])
    assert float(round_to(value, BFLOAT16)[0]) == 1 + 2.0**-7
    assert float(round_to(-value, BFLOAT16)[0]) == -(1 + 2.0**-7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_the_last_finite_value_is_kept_and_the_first_infinite_one_refused(dtype: type) -> None:
    kind = np.dtype(dtype)
    largest = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]  # typed by halves
    half_ulp = (largest - float(np.nextafter(kind.type(largest), kind.type(0)))) / 2
    below = Weight.dense("w", np.array([largest + half_ulp * 0.99]), kind)
    assert below.check() is None
    assert np.isfinite(next(below.blocks()).astype(np.float64)).all()
    beyond = Weight.dense("w", np.array([largest + half_ulp]), kind)
    reason = beyond.check()
    assert reason is not None
    assert reason.code is Code.DTYPE_RANGE
    assert not np.isfinite(next(beyond.blocks()).astype(np.float64)).all()


def test_a_channel_that_sinks_below_the_normal_range_is_refused() -> None:
    source = computed("w", np.ones((2, 3), np.float16))
    fine = Weight.of(source).scaled(np.array([[1.0], [6.2e-5]]))
    assert fine.check() is None
    reason = Weight.of(source).scaled(np.array([[1.0], [6.0e-5]])).check()
    assert reason is not None
    assert reason.code is Code.DTYPE_RANGE


def test_a_channel_that_is_dead_anyway_may_vanish() -> None:
    """Nine taps of at most 1e-60 stay below 1.2e-38 for every input up to 2^64."""
    source = computed("w", np.full((1, 9), 1e-40, np.float32))
    assert Weight.of(source).scaled(np.array([[1e-20]])).check() is None
    reason = Weight.of(source).scaled(np.array([[1e-5]])).check()
    assert reason is not None
    assert reason.code is Code.DTYPE_RANGE


def test_small_values_beside_normal_ones_may_lose_digits() -> None:
    source = computed("w", np.array([[1.0, 1e-4]], np.float16))
    assert Weight.of(source).scaled(np.array([[1e-3]])).check() is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_are_refused(bad: float) -> None:
    source = computed("w", np.array([[1.0, bad], [1.0, 2.0]], np.float32))
    reason = Weight.of(source).scaled(np.array([[2.0], [3.0]])).check()
    assert reason is not None
    assert reason.code is Code.NON_FINITE


def test_a_zero_factor_gives_zeros() -> None:
    source = computed("w", np.array([[1.0, 2.0]], np.float32))
    weight = Weight.of(source).scaled(np.array([[0.0]]))
    assert weight.check() is None
    assert not next(weight.blocks()).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (700, 1000), (1, 600_000)])
def test_blocks_are_the_scaled_values_in_storage_order(dtype: type, shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    stored: np.ndarray = generator.normal(size=shape).astype(dtype)
    factor = generator.normal(size=(shape[0], 1))
    weight = Weight.of(computed("w", stored.copy())).scaled(factor)
    got = np.concatenate(list(weight.blocks())).reshape(shape)
    exact = stored.astype(np.float64) * factor
    assert got.dtype == stored.dtype
    # Half a unit in the last place of each value: the definition of rounding to nearest.
    ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    digits = {"bfloat16": 2.0**16, "float16": 2.0**13, "float32": 1.0, "float64": 2.0**-29}[got.dtype.name]
    smallest = float(ml_dtypes.finfo(dtype).smallest_subnormal)  # type: ignore[no-untyped-call]  # as above
    ulp = np.maximum(ulp * digits, smallest)
    assert (np.abs(got.astype(np.float64) - exact) <= ulp / 2 * (1 + 2.0**-20)).all()


def test_two_factors_multiply_before_the_one_rounding() -> None:
    stored = np.array([[3.0]], np.float32)
    third = np.array([[1 / 3]])
    weight = Weight.of(computed("w", stored)).scaled(third).scaled(np.array([[3.0]]))
    assert next(weight.blocks())[0] == np.float32(3.0)


def test_equal_recipes_share_a_key_and_others_do_not() -> None:
    source = computed("w", np.ones((2, 2), np.float32))
    one, same = (Weight.of(source).scaled(np.array([[2.0], [3.0]])) for _ in range(2))
    other = Weight.of(source).scaled(np.array([[2.0], [4.0]]))
    assert one.key == same.key
    assert one.key != other.key
    assert Weight.dense("b", np.ones(2), one.dtype).key != Weight.dense("b", np.zeros(2), one.dtype).key


def test_computed_sources_that_differ_never_share_a_key() -> None:
    factor = np.array([[2.0], [3.0]])
    one, other = (Weight.of(computed("w", np.full((2, 2), v, np.float32))).scaled(factor) for v in (1.0, 5.0))
    assert one.key != other.key
