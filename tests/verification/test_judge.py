"""Judgements on arrays whose errors are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bnfold.verification.errors import Error, difference
from bnfold.verification.judge import (
    NO_NUMBERS,
    NO_VALUES,
    Place,
    judge,
    judge_bound,
    judge_exact,
    judge_real,
)

Array = np.ndarray[Any, np.dtype[Any]]
HERE = Place("y", "feed", "disable_all")
EPS = float(np.finfo(np.float32).eps)


def noisy(truth: Array, size: float, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.asarray((truth + rng.standard_normal(truth.shape) * size).astype(np.float32))


@pytest.fixture
def truth() -> Array:
    return np.random.default_rng(0).standard_normal(1000)


@pytest.mark.parametrize(("factor", "outcome"), [(0.5, "pass"), (1.0, "pass"), (1.9, "pass"), (3.0, "fail")])
def test_the_original_is_the_yardstick(truth: Array, factor: float, outcome: str) -> None:
    size = 100 * EPS
    row = judge(HERE, truth, noisy(truth, size, 1), noisy(truth, factor * size, 2))
    assert row.outcome == outcome
    assert row.ratio == pytest.approx(factor, rel=0.1)


def test_one_wrong_value_among_many_fails_by_the_largest_error(truth: Array) -> None:
    size = 10 * EPS
    folded = noisy(truth, size, 2)
    folded[7] += np.float32(30 * size)
    row = judge(HERE, truth, noisy(truth, size, 1), folded)
    assert row.folded_rms is not None
    assert row.limit_rms is not None
    assert row.folded_rms < row.limit_rms
    assert row.outcome == "fail"


def test_an_exact_original_still_leaves_room_for_rounding_of_the_result() -> None:
    truth = np.array([1.0, 2.0, 4.0])
    exact = truth.astype(np.float32)
    assert judge(HERE, truth, exact, np.nextafter(exact, np.float32(9))).outcome == "pass"
    assert judge(HERE, truth, exact, exact * np.float32(1 + 16 * EPS)).outcome == "fail"


def test_an_allowance_widens_the_limit(truth: Array) -> None:
    original, folded = noisy(truth, EPS, 1), noisy(truth, 20 * EPS, 2)
    assert judge(HERE, truth, original, folded).outcome == "fail"
    assert judge(HERE, truth, original, folded, allowance=Error(10 * EPS, 30 * EPS)).outcome == "pass"


def test_rounding_that_drowns_the_signal_says_nothing(truth: Array) -> None:
    assert judge(HERE, truth, noisy(truth, 0.3, 1), noisy(truth, 0.3, 2)).outcome == "ill-conditioned"
    assert judge(HERE, truth, noisy(truth, 0.3, 1), noisy(truth, 100.0, 2)).outcome == "fail"


def test_a_wrong_value_where_truth_is_zero_fails() -> None:
    truth = np.zeros(4)
    assert judge(HERE, truth, noisy(truth, 1e-9, 1), np.ones(4, dtype=np.float32)).outcome == "fail"


@pytest.mark.parametrize("made", [np.nan, np.inf, -np.inf])
def test_a_non_finite_value_of_the_folded_model_alone_fails(truth: Array, made: float) -> None:
    original = truth.astype(np.float32)
    folded = original.copy()
    folded[3] = made
    row = judge(HERE, truth, original, folded)
    assert row.outcome == "fail"
    assert "1 non-finite values that the original has not" in row.note


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf])
def test_hiding_a_non_finite_value_fails(truth: Array, hidden: float) -> None:
    truth[3] = hidden
    original = truth.astype(np.float32)
    folded = original.copy()
    folded[3] = 0.0
    row = judge(HERE, truth, original, folded)
    assert row.outcome == "fail"
    assert "finite values where the original and truth have none" in row.note


def test_the_sign_of_infinity_counts(truth: Array) -> None:
    truth[3] = np.inf
    original = truth.astype(np.float32)
    folded = original.copy()
    folded[3] = -np.inf
    assert judge(HERE, truth, original, folded).outcome == "fail"


def test_the_same_non_finite_values_pass_and_are_mentioned(truth: Array) -> None:
    truth[:3] = np.nan, np.inf, -np.inf
    same = truth.astype(np.float32)
    row = judge(HERE, truth, same, same)
    assert row.outcome == "pass"
    assert row.note.startswith("3 non-finite values")
    assert row.signal_rms is not None


def test_an_overflow_that_the_fold_removes_passes_with_a_note() -> None:
    truth = np.array([1.0, 2.0, 300.0])
    original = np.array([1.0, 2.0, np.inf], dtype=np.float16)
    row = judge(HERE, truth, original, truth.astype(np.float16))
    assert row.outcome == "pass"
    assert "original overflows at 1 values" in row.note


def test_overflow_in_both_is_no_difference_and_no_evidence_where_it_is_most() -> None:
    truth = np.array([1.0, 1e6, -1e6, 1e6])
    original = np.array([1.0, np.inf, -np.inf, np.nan], dtype=np.float16)
    folded = np.array([1.0, np.nan, -np.inf, np.inf], dtype=np.float16)
    assert judge(HERE, truth, original, folded).outcome == "ill-conditioned"
    long = [np.concatenate([array, np.ones(9, array.dtype)]) for array in (truth, original, folded)]
    row = judge(HERE, *long)
    assert row.outcome == "pass"
    assert "2 overflow in both" in row.note


def test_at_the_edge_of_the_range_either_side_is_right() -> None:
    truth = np.array([1.0, 65519.0])
    original = np.array([1.0, 65504.0], dtype=np.float16)
    assert judge(HERE, truth, original, np.array([1.0, np.inf], dtype=np.float16)).outcome == "pass"
    assert judge(HERE, truth, original, np.array([1.0, np.nan], dtype=np.float16)).outcome == "fail"


def test_another_shape_or_dtype_fails(truth: Array) -> None:
    original = truth.astype(np.float32)
    assert judge(HERE, truth, original, original[:-1]).outcome == "fail"
    assert judge(HERE, truth, original, truth).outcome == "fail"


@pytest.mark.parametrize(
    "values", [np.array([1, 2]), np.array([True, False]), np.array(["a", "b"], dtype=object)]
)
def test_integers_bools_and_strings_must_be_equal(values: Array) -> None:
    assert judge_exact(HERE, values, values.copy()).outcome == "pass"
    assert judge_exact(HERE, values, values[::-1].copy()).outcome == "fail"


def test_in_float64_the_effect_of_the_weights_is_the_yardstick(truth: Array) -> None:
    effect = Error(EPS, 4 * EPS)
    rng = np.random.default_rng(3)
    noise = rng.uniform(-1, 1, truth.shape) * EPS
    assert judge_real(HERE, truth, truth + noise, effect, EPS).outcome == "pass"
    assert judge_real(HERE, truth, truth + 8 * noise, effect, EPS).outcome == "fail"
    assert judge_real(HERE, truth, np.full_like(truth, np.nan), effect, EPS).outcome == "fail"


def test_without_truth_the_effect_of_the_weights_is_the_yardstick(truth: Array) -> None:
    original, effect = truth.astype(np.float32), Error(10 * EPS, 40 * EPS)
    assert judge_bound(HERE, original, noisy(truth, 10 * EPS, 1), effect).outcome == "pass"
    assert judge_bound(HERE, original, noisy(truth, 100 * EPS, 1), effect).outcome == "fail"
    broken = original.copy()
    broken[0] = np.nan
    assert judge_bound(HERE, original, broken, effect).outcome == "fail"


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (np.zeros((0, 3), np.float32), NO_VALUES),
        (np.array([np.nan, np.inf, -np.inf], np.float32), NO_NUMBERS),
        (np.array([np.nan], np.float16), NO_NUMBERS),
        (np.array([np.nan + 1j], np.complex64), ""),
    ],
)
def test_to_compare_nothing_says_nothing(values: Array, note: str) -> None:
    wide = values.astype(complex if values.dtype.kind == "c" else float)
    rows = [
        judge(HERE, wide, values, values),
        judge_real(HERE, wide, wide, Error(), EPS),
        judge_bound(HERE, values, values, Error()),
    ]
    said = {(row.outcome, row.note if row.outcome == "ill-conditioned" else "") for row in rows}
    assert said == {("ill-conditioned", note) if note else ("pass", "")}


def test_to_compare_no_integers_says_nothing() -> None:
    nothing, wrong = np.zeros((0, 3), np.int64), np.zeros((1, 3), np.int64)
    assert judge_exact(HERE, nothing, nothing).outcome == "ill-conditioned"
    assert judge_exact(HERE, nothing, wrong).outcome == "fail"


def test_errors_of_huge_values_do_not_overflow() -> None:
    error = difference(np.zeros(2), np.array([3e200, 4e200]))
    assert error.rms == pytest.approx(np.sqrt(12.5) * 1e200)
    assert error.max == 4e200


def test_complex_results_are_judged_by_both_of_their_parts() -> None:
    truth = np.linspace(1, 2, 8) + 1j
    original, folded = truth.astype(np.complex64), truth.astype(np.complex64)
    place = Place("y", "f", "disable_all")
    assert judge(place, truth, original, folded).outcome == "pass"
    assert judge(place, truth, original, folded + np.complex64(0.01j)).outcome == "fail"
