from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from support import batchnorm
from support.batchnorm import Case, make_case

from bnfold import runtime
from bnfold.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


def step(case: Case, **options: Any) -> runtime.Training[Any]:  # noqa: ANN401 - any option of train
    return runtime.train(case.x, *case.parameters, axis=case.axis, backend="numpy", **options)


def test_it_is_the_formula_rounded_once(layout: tuple[tuple[int, ...], int], dtype: np.dtype[Any]) -> None:
    case = make_case(*layout, dtype=dtype)
    result = step(case, epsilon=1e-3, momentum=0.75)
    mean, var = batchnorm.mean_of(case.x, case.axis), batchnorm.var_of(case.x, case.axis)
    exact = batchnorm.normalized(case.x, case.scale, case.bias, mean, var, epsilon=1e-3, axis=case.axis)
    moved_mean = 0.75 * case.mean.astype(np.float64) + 0.25 * mean
    moved_var = 0.75 * case.var.astype(np.float64) + 0.25 * var
    # Float64 formulas in another order; 1e-14 is a hundred roundings of the largest value.
    np.testing.assert_allclose(result.mean, mean, rtol=0, atol=1e-14 * np.abs(case.x.astype(float)).max())
    np.testing.assert_allclose(result.var, var, rtol=1e-13, atol=1e-30)
    for got, expected in (
        (result.y, exact),
        (result.running_mean, moved_mean),
        (result.running_var, moved_var),
    ):
        assert got.dtype == dtype
        if dtype == np.float64:
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
        else:
            np.testing.assert_array_equal(got, batchnorm.rounded(expected, dtype))
    assert result.y.shape == case.x.shape
    assert result.mean.dtype == result.var.dtype == np.float64
    assert result.backend == "numpy"


def test_running_statistics_keep_their_own_dtype() -> None:
    case = make_case((8, 3), dtype=np.float16, scale_dtype=np.float32, mean_dtype=np.float64)
    result = step(case)
    assert result.y.dtype == np.float16
    assert result.running_mean.dtype == result.running_var.dtype == np.float64


def test_the_output_has_zero_mean_and_unit_variance() -> None:
    case = make_case((16, 5, 6, 6))
    one, zero = np.ones(5), np.zeros(5)
    y = runtime.train(case.x, one, zero, zero, one, epsilon=0.0, backend="numpy").y
    np.testing.assert_allclose(batchnorm.mean_of(y, 1), 0, atol=1e-15)
    np.testing.assert_allclose(batchnorm.var_of(y, 1), 1, rtol=1e-14)


def test_epsilon_shrinks_the_variance_by_the_known_factor() -> None:
    case = make_case((16, 5, 6, 6))
    one, zero = np.ones(5), np.zeros(5)
    y = runtime.train(case.x, one, zero, zero, one, epsilon=0.5, backend="numpy").y
    var = batchnorm.var_of(case.x, 1)
    np.testing.assert_allclose(batchnorm.var_of(y, 1), var / (var + 0.5), rtol=1e-13)


def test_scale_and_bias_can_undo_the_normalization(layout: tuple[tuple[int, ...], int]) -> None:
    case = make_case(*layout)
    mean, var = batchnorm.mean_of(case.x, case.axis), batchnorm.var_of(case.x, case.axis)
    y = runtime.train(
        case.x, np.sqrt(var + 1e-5), mean, mean, var, epsilon=1e-5, axis=case.axis, backend="numpy"
    ).y
    np.testing.assert_allclose(y, case.x, rtol=0, atol=1e-14 * np.abs(case.x).max())


def test_channels_are_independent() -> None:
    case = make_case((6, 4, 5, 5))
    whole = step(case)
    for c in range(4):
        one = slice(c, c + 1)
        alone = runtime.train(case.x[:, one], *(p[one] for p in case.parameters), backend="numpy")
        for name in ("y", "mean", "var", "running_mean", "running_var"):
            got = getattr(alone, name)
            expected = getattr(whole, name)[:, one] if name == "y" else getattr(whole, name)[one]
            # Summed in other tiles, so the last bits may differ.
            np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 3])
def test_a_nonfinite_value_stays_in_its_channel(bad: float, at: int) -> None:
    case = make_case((6, 4, 5))
    clean = step(case)
    case.x[at // 3, 2, 0] = bad
    result = step(case)
    assert np.isnan(result.y[:, 2]).any()
    # The mean of finite values and one infinity is that infinity; only its variance is not a number.
    np.testing.assert_equal(result.mean[2], bad)
    assert np.isnan(result.var[2])
    assert np.isnan(result.running_var[2])
    keep = [0, 1, 3]
    np.testing.assert_array_equal(result.y[:, keep], clean.y[:, keep])
    for name in ("mean", "var", "running_mean", "running_var"):
        np.testing.assert_array_equal(getattr(result, name)[keep], getattr(clean, name)[keep])


@pytest.mark.parametrize(
    ("dtype", "offset"),
    [(np.float32, 0.0), (np.float32, 1e3), (np.float32, -1e5), (np.float64, 1e7), (np.float64, -1e12)],
)
def test_statistics_at_an_offset_against_rational_arithmetic(offset: float, dtype: DTypeLike) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((40, 2, 25)) + offset).astype(dtype)
    zero, one = np.zeros(2), np.ones(2)
    result = runtime.train(x, one, zero, zero, one, backend="numpy")
    for c in range(2):
        mean, var = batchnorm.exact_moments(x[:, c])
        assert result.mean[c] == pytest.approx(float(mean), rel=4e-16)
        # A thousand squares of differences exact to one rounding, summed in blocks.
        assert result.var[c] == pytest.approx(float(var), rel=1e-14)


def test_an_outlier_in_front_costs_no_digits() -> None:
    x = np.concatenate([[1e12], np.random.default_rng(0).standard_normal(999)])
    mean, var = batchnorm.exact_moments(x)
    one = np.ones(1)
    result = runtime.train(x, one, one, one, one, backend="numpy")
    assert result.mean[0] == pytest.approx(float(mean), rel=1e-14)
    assert result.var[0] == pytest.approx(float(var), rel=1e-14)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 70_001), 1), ((70_001, 3), 1), ((101, 331, 3), -1)])
def test_tensors_larger_than_a_tile(shape: tuple[int, ...], axis: int) -> None:
    case = make_case(shape, axis)
    result = step(case)
    np.testing.assert_allclose(result.mean, batchnorm.mean_of(case.x, axis), rtol=1e-12)
    np.testing.assert_allclose(result.var, batchnorm.var_of(case.x, axis), rtol=1e-12)
    exact = batchnorm.normalized(
        case.x, case.scale, case.bias, result.mean, result.var, epsilon=1e-5, axis=axis
    )
    np.testing.assert_allclose(result.y, exact, rtol=0, atol=1e-14)


@pytest.mark.parametrize("value", [0.1, 1e30, -3e-20])
def test_a_constant_channel_has_variance_zero_and_gives_the_bias(value: float) -> None:
    x = np.full((7, 1, 3), value)
    one = np.ones(1)
    result = runtime.train(x, one * 5, one * 0.25, one, one, backend="numpy")
    assert result.mean[0] == value
    assert result.var[0] == 0.0
    np.testing.assert_array_equal(result.y, 0.25)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_one_value_per_channel_gives_the_bias(shape: tuple[int, ...]) -> None:
    case = make_case(shape)
    result = step(case, momentum=0.75)
    np.testing.assert_array_equal(result.y.ravel(), case.bias)
    np.testing.assert_array_equal(result.var, 0)
    np.testing.assert_array_equal(result.running_var, 0.75 * case.var)


def test_one_value_per_channel_has_no_unbiased_variance() -> None:
    with pytest.raises(UsageError, match="one value per channel has no unbiased variance"):
        step(make_case((1, 3, 1, 1)), convention="pytorch")


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0), (0,)])
def test_an_empty_batch_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="empty batch"):
        step(make_case(shape))


def test_no_channels_are_no_problem() -> None:
    result = step(make_case((4, 0, 3)))
    assert result.y.shape == (4, 0, 3)
    assert result.mean.shape == result.running_var.shape == (0,)


def test_the_arguments_are_left_alone() -> None:
    case = make_case((2, 4, 3))
    before = [a.copy() for a in (case.x, *case.parameters)]
    step(case)
    for kept, array in zip(before, (case.x, *case.parameters), strict=True):
        np.testing.assert_array_equal(kept, array)


def test_memory_order_does_not_matter() -> None:
    case = make_case((4, 6, 5, 8), dtype=np.float32)
    turned = np.ascontiguousarray(case.x.transpose(0, 2, 3, 1))
    first = step(case)
    view = runtime.train(turned.transpose(0, 3, 1, 2), *case.parameters, backend="numpy")
    last = runtime.train(turned, *case.parameters, axis=-1, backend="numpy")
    np.testing.assert_array_equal(view.y, first.y)
    np.testing.assert_array_equal(last.y.transpose(0, 3, 1, 2), first.y)


class TestConventions:
    def test_onnx_momentum_weighs_the_old_value(self) -> None:
        case = make_case((9, 3, 4))
        result = step(case, momentum=1.0)
        np.testing.assert_array_equal(result.running_mean, case.mean)
        np.testing.assert_array_equal(result.running_var, case.var)
        result = step(case, momentum=0.0)
        np.testing.assert_array_equal(result.running_mean, result.mean)
        np.testing.assert_array_equal(result.running_var, result.var)

    def test_pytorch_momentum_weighs_the_batch_and_the_variance_is_unbiased(self) -> None:
        case = make_case((9, 3, 4))
        result = step(case, momentum=0.1, convention="pytorch")
        unbiased = np.var(case.x, axis=(0, 2), ddof=1)
        np.testing.assert_allclose(result.running_mean, 0.9 * case.mean + 0.1 * result.mean, rtol=1e-14)
        np.testing.assert_allclose(result.running_var, 0.9 * case.var + 0.1 * unbiased, rtol=1e-14)
        # What normalizes, and what is returned for the backward direction, stays biased.
        np.testing.assert_allclose(result.var, batchnorm.var_of(case.x, 1), rtol=1e-14)
        np.testing.assert_array_equal(result.y, step(case).y)

    @pytest.mark.parametrize(
        ("convention", "epsilon", "old", "new", "ddof"),
        [("onnx", 1e-5, 0.9, 0.1, 0), ("pytorch", 1e-5, 0.9, 0.1, 1), ("keras", 1e-3, 0.99, 0.01, 0)],
    )
    def test_defaults(
        self, convention: runtime.ConventionName, epsilon: float, old: float, new: float, ddof: int
    ) -> None:
        case = make_case((9, 3, 4))
        result = step(case, convention=convention)
        mean, var = batchnorm.mean_of(case.x, 1), np.var(case.x, axis=(0, 2), ddof=ddof)
        np.testing.assert_allclose(result.running_mean, old * case.mean + new * mean, rtol=1e-13)
        np.testing.assert_allclose(result.running_var, old * case.var + new * var, rtol=1e-13)
        exact = batchnorm.normalized(
            case.x, case.scale, case.bias, mean, batchnorm.var_of(case.x, 1), epsilon=epsilon, axis=1
        )
        np.testing.assert_allclose(result.y, exact, rtol=0, atol=1e-13)

    def test_the_documented_table_is_the_table_that_computes(self) -> None:
        text = runtime.conventions.__doc__
        assert text is not None
        rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith('| `"')]
        assert {row[0].strip('`"') for row in rows} == set(runtime.CONVENTIONS)
        for name, weighs, momentum, epsilon, divisor in rows:
            row = runtime.CONVENTIONS[name.strip('`"')]  # type: ignore[index]  # names compared above
            assert (
                weighs
                == {"running": "the old running value", "batch": "the new mini-batch"}[row.momentum_weighs]
            )
            assert math.isclose(float(momentum), row.momentum)
            assert math.isclose(float(epsilon), row.epsilon)
            assert divisor == ("N - 1 (unbiased)" if row.unbiased else "N (biased)")


def test_bfloat16_running_statistics_are_rounded_once() -> None:
    # 0.5*2 + 0.5*(2^-7 + 2^-39) = 1 + 2^-8 + 2^-40: just above the tie between two bfloat16 numbers.
    x = np.full((2, 1), 2.0**-7 + 2.0**-39)
    one = np.ones(1)
    running = np.full(1, 2.0).astype(ml_dtypes.bfloat16)
    result = runtime.train(x, one, one, running, running, momentum=0.5, backend="numpy")
    assert float(result.running_mean[0]) == 1 + 2.0**-7
