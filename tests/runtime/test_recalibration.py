from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import batchnorm

from bnfold import runtime
from bnfold.errors import UsageError


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(sum),
    offset=st.sampled_from([0.0, 1e3, -1e6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_stream_has_the_statistics_of_one_large_batch(sizes: list[int], offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.standard_normal((n, 2, 3)) + offset for n in sizes]
    got = runtime.recalibrate(batches)
    whole = np.concatenate(batches)
    assert got.count == whole.shape[0] * 3
    for c in range(2):
        mean, var = batchnorm.exact_moments(whole[:, c])
        # Each of the at most eight merges rounds the mean once; at 1e6 that is 1e-10 beside values of 1.
        assert got.mean[c] == pytest.approx(float(mean), rel=2e-15, abs=1e-15)
        assert got.var()[c] == pytest.approx(float(var), rel=1e-9 if offset else 1e-13, abs=1e-18)


def test_it_is_not_a_moving_average() -> None:
    batches = [np.full((n, 1), v) for n, v in ((1, 0.0), (3, 4.0))]
    got = runtime.recalibrate(batches)
    assert got.mean[0] == 3.0
    assert got.var()[0] == 3.0


def test_how_the_stream_is_cut_does_not_matter() -> None:
    x = np.random.default_rng(0).standard_normal((64, 3, 5))
    whole = runtime.Recalibration.of(x)
    for parts in (2, 7, 64):
        cut = runtime.recalibrate(iter(np.array_split(x, parts)))
        np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-13)
        np.testing.assert_allclose(cut.var(), whole.var(), rtol=1e-13)


def test_merging_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    a = runtime.Recalibration.of(rng.standard_normal((5, 2)))
    b = runtime.Recalibration.of(rng.standard_normal((50, 2)) * 3 + 7)
    np.testing.assert_allclose(a.merge(b).mean, b.merge(a).mean, rtol=1e-15)
    np.testing.assert_allclose(a.merge(b).m2, b.merge(a).m2, rtol=1e-14)


def test_channels_last_and_half_precision() -> None:
    x = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float16)
    got = runtime.recalibrate([x[:2], x[2:]], axis=-1)
    np.testing.assert_allclose(got.mean, x.astype(np.float64).mean(axis=(0, 1)), rtol=1e-13)
    np.testing.assert_allclose(got.var(), x.astype(np.float64).var(axis=(0, 1)), rtol=1e-13)


def test_the_pytorch_variance_divides_by_one_less() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2))
    got = runtime.Recalibration.of(x).var(convention="pytorch")
    np.testing.assert_allclose(got, x.var(axis=0, ddof=1), rtol=1e-14)


def test_a_nan_stays_in_its_channel() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2))
    clean = runtime.recalibrate([x[:3], x[3:]])
    x[4, 1] = np.nan
    got = runtime.recalibrate([x[:3], x[3:]])
    assert np.isnan(got.mean[1])
    assert np.isnan(got.var()[1])
    assert got.mean[0] == clean.mean[0]
    assert got.var()[0] == clean.var()[0]


def test_what_has_no_statistics_is_refused() -> None:
    with pytest.raises(UsageError, match="no batch"):
        runtime.recalibrate([])
    with pytest.raises(UsageError, match="0 value"):
        runtime.recalibrate([np.zeros((0, 3))]).var()
    with pytest.raises(UsageError, match="1 value"):
        runtime.recalibrate([np.zeros((1, 3))]).var(convention="pytorch")
    with pytest.raises(UsageError, match=r"2 channel.* 3 channel"):
        runtime.recalibrate([np.zeros((4, 3)), np.zeros((4, 2))])
    with pytest.raises(UsageError, match=r"x is a builtins\.list"):
        runtime.recalibrate([[1.0]])  # type: ignore[list-item]  # what a caller without a type checker passes


@pytest.mark.parametrize("first", [True, False])
def test_an_empty_batch_changes_nothing(first: bool) -> None:
    x, empty = np.array([[1.0, np.inf, np.nan], [2.0, 0.0, 0.0]]), np.zeros((0, 3))
    got = runtime.recalibrate([empty, x] if first else [x, empty])
    assert got.count == 2
    np.testing.assert_array_equal(got.mean, [1.5, np.inf, np.nan])
    np.testing.assert_array_equal(got.m2, [0.5, np.nan, np.nan])


def test_one_value_has_variance_zero() -> None:
    np.testing.assert_array_equal(runtime.Recalibration.of(np.full((1, 3), 0.1)).var(), 0)
