"""Measures of closeness, worked out by hand or by definitions of their own."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from bnfold.verification.judge import Place, judge
from bnfold.verification.measures import closeness, spacing

EPS = float(np.finfo(np.float32).eps)


def test_values_worked_out_by_hand() -> None:
    found = closeness(np.array([3.0, 4.0]), np.array([3.0, 4.5]), EPS)
    assert found is not None
    assert found.relative_l2 == pytest.approx(0.1)
    assert found.sqnr_db == pytest.approx(20.0)
    assert found.cosine == pytest.approx((9 + 18) / (5 * math.hypot(3, 4.5)))
    # One unit in the last place of a float32 between 4 and 8 is 2^-21.
    assert found.ulp_max == pytest.approx(0.5 * 2**21)
    assert found.top1 is None


def test_quantiles_of_the_distance() -> None:
    reference = np.ones(201)
    result = reference + np.arange(201) * EPS
    found = closeness(reference, result, EPS)
    assert found is not None
    assert (found.ulp_p50, found.ulp_p99, found.ulp_max) == pytest.approx((100, 198, 200))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_spacing_is_that_of_the_type(dtype: type[np.floating]) -> None:
    values = np.array([1.0, 1.5, 2.0, -3.9, 1000.0, 1e-3, 0.0], dtype=dtype)
    info = np.finfo(dtype)
    expected = np.abs(np.spacing(values)).astype(float)
    assert np.array_equal(
        spacing(values.astype(float), float(info.eps), float(info.smallest_normal)), expected
    )


def test_the_first_choice_of_a_classifier() -> None:
    truth = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.4], [0.3, 0.6]])
    result = truth.copy()
    result[2] = 0.4, 0.5
    found = closeness(truth, result, EPS)
    assert found is not None
    assert found.top1 == 0.75
    for other in (truth[:, :1], truth.reshape(2, 2, 2), truth[0]):
        again = closeness(other, other, EPS)
        assert again is not None
        assert again.top1 is None


def test_only_finite_values_count() -> None:
    truth, result = np.array([1.0, np.inf, 2.0, np.nan]), np.array([1.0, np.inf, np.nan, 5.0])
    found = closeness(truth, result, EPS)
    assert found is not None
    assert (found.relative_l2, found.sqnr_db, found.cosine) == (0.0, None, 1.0)
    assert closeness(truth[1:2], truth[1:2], EPS) is None
    assert closeness(truth, result[:2], EPS) is None


@pytest.mark.parametrize("reference", [np.zeros(3), np.full(3, 1e300), np.full(3, 5e-324), np.zeros((0, 3))])
def test_whatever_the_values_the_numbers_are_json(reference: np.ndarray) -> None:
    found = closeness(reference, reference + 1.0, EPS)
    if found is not None:
        json.dumps(asdict(found), allow_nan=False)


def test_the_evidence_holds_both() -> None:
    truth = np.array([[1.0, 2.0]])
    original, folded = truth.astype(np.float32), (truth * (1 + 2 * EPS)).astype(np.float32)
    row = judge(Place("y", "f", "disable_all"), truth, original, folded)
    assert row.original is not None
    assert row.folded is not None
    assert row.original.relative_l2 == 0
    assert row.folded.ulp_max == pytest.approx(2)
    assert row.folded.top1 == 1
