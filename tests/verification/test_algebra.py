"""The half-ulp check of stored weights."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.verification.algebra import check_algebra

NARROW = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@given(values=st.lists(st.floats(-6e4, 6e4), min_size=1, max_size=20))
def test_a_value_rounded_once_passes(dtype: np.dtype[Any], values: list[float]) -> None:
    expected = np.array(values)
    assert check_algebra(expected, expected.astype(dtype)) is None


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("value", [1.0, -1.0, 0.7, 3.9999, 1e-4, -100.0])
def test_a_neighbour_is_found(dtype: np.dtype[Any], value: float) -> None:
    expected = np.array([0.5, value])
    stored = expected.astype(dtype)
    stored[1] = np.nextafter(stored[1], dtype.type(1e4))
    finding = check_algebra(expected, stored)
    assert finding is not None
    assert finding.index == (1,)
    assert finding.count == 1
    # The neighbour above a power of two is twice as far away as below it, counted in ulp of the smaller side.
    assert 0.5 <= finding.ulps <= 2.1
    assert "ulp apart" in str(finding)


@pytest.mark.parametrize(
    ("expected", "stored"),
    [
        ([np.nan], [1.0]),
        ([1.0], [np.nan]),
        ([1e6], [np.inf]),
        ([np.inf], [np.inf]),
        ([1e-30], [1e-3]),
    ],
)
def test_what_is_not_finite_or_far_off_is_found(expected: list[float], stored: list[float]) -> None:
    assert check_algebra(np.array(expected), np.array(stored, dtype=np.float16)) is not None


def test_below_the_normal_range_an_ulp_is_the_smallest_subnormal() -> None:
    smallest = float(np.finfo(np.float16).smallest_subnormal)
    assert check_algebra(np.array([0.4 * smallest]), np.zeros(1, dtype=np.float16)) is None
    assert check_algebra(np.array([0.6 * smallest]), np.zeros(1, dtype=np.float16)) is not None


def test_float64_may_differ_by_a_few_ulp_of_its_own_computation() -> None:
    expected = np.array([1.0])
    assert check_algebra(expected, expected + 4 * np.finfo(float).eps) is None
    assert check_algebra(expected, expected + 20 * np.finfo(float).eps) is not None


def test_another_shape_is_found() -> None:
    assert check_algebra(np.ones(2), np.ones(3, dtype=np.float32)) is not None
