from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from support import batchnorm
from support.batchnorm import make_case

from bnfold import runtime

FLOATS = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)


def test_it_is_the_formula_rounded_once(layout: tuple[tuple[int, ...], int], dtype: np.dtype[Any]) -> None:
    case = make_case(*layout, dtype=dtype)
    y = runtime.infer(case.x, *case.parameters, epsilon=1e-3, axis=case.axis, backend="numpy")
    exact = batchnorm.normalized(case.x, *case.parameters, epsilon=1e-3, axis=case.axis)
    assert y.dtype == dtype
    assert y.shape == case.x.shape
    if dtype == np.float64:
        # Five roundings against five in another order: (x - m), root, division, product, sum.
        np.testing.assert_allclose(y, exact, rtol=0, atol=8 * np.finfo(np.float64).eps * np.abs(exact).max())
    else:
        # Float64 differences of 1e-16 cannot move a value over a rounding boundary in this data: same bits.
        np.testing.assert_array_equal(y, batchnorm.rounded(exact, dtype))


@pytest.mark.parametrize(("t", "t1", "t2"), list(product(FLOATS, repeat=3)))
def test_every_mix_of_types_of_onnx_15(t: type, t1: type, t2: type) -> None:
    case = make_case((3, 5, 7), dtype=t, scale_dtype=t1, mean_dtype=t2)
    y = runtime.infer(case.x, *case.parameters, backend="numpy")
    exact = batchnorm.normalized(case.x, *case.parameters, epsilon=1e-5, axis=1)
    assert y.dtype == np.dtype(t)
    np.testing.assert_allclose(
        y.astype(np.float64),
        batchnorm.rounded(exact, np.dtype(t)).astype(np.float64),
        rtol=1e-14,
        atol=1e-15,
    )


def test_bfloat16_is_rounded_once_next_to_a_tie() -> None:
    # 1 + 2^-8 lies halfway between two bfloat16 numbers. By way of float32 the 2^-40 is lost and the tie
    # goes to 1; rounded once, the value is above the tie.
    one = np.ones(1)
    x = np.zeros((1, 1), ml_dtypes.bfloat16)
    y = runtime.infer(x, one, one + 2.0**-8 + 2.0**-40, one * 0, one, epsilon=0.0, backend="numpy")
    assert float(y[0, 0]) == 1 + 2.0**-7
    for below in (one + 2.0**-8, one + 2.0**-8 - 2.0**-40):
        y = runtime.infer(x, one, below, one * 0, one, epsilon=0.0, backend="numpy")
        assert float(y[0, 0]) == 1.0


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 1e-300, -3.39e38, 2.0**-133]
)
def test_the_edges_of_bfloat16(value: float) -> None:
    # All but the last are what float32 rounds to as well; the last is bfloat16's smallest number.
    zero, one = np.zeros(1), np.ones(1)
    x = np.full((1, 1), 0.0).astype(ml_dtypes.bfloat16)
    y = runtime.infer(x, zero, np.full(1, value), zero, one, epsilon=0.0, backend="numpy")
    with np.errstate(over="ignore"):
        expected = np.full((1, 1), value).astype(np.float32).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))


def test_a_batch_of_one_gives_the_bits_of_its_row(
    layout: tuple[tuple[int, ...], int], dtype: np.dtype[Any]
) -> None:
    case = make_case(*layout, dtype=dtype)
    whole = runtime.infer(case.x, *case.parameters, axis=case.axis, backend="numpy")
    for row in range(len(case.x)):
        alone = runtime.infer(case.x[row : row + 1], *case.parameters, axis=case.axis, backend="numpy")
        assert alone.tobytes() == whole[row : row + 1].tobytes()


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 2, 70_001), 1),
        ((3, 5, 9_001), 1),
        ((33_001, 3), 1),
        ((2, 40_001, 2), 1),
        ((1, 70_001, 1), 1),
        ((70_001,), 1),
        ((101, 331, 3), -1),
    ],
)
def test_tensors_larger_than_a_tile(shape: tuple[int, ...], axis: int) -> None:
    case = make_case(shape, axis, dtype=np.float32)
    y = runtime.infer(case.x, *case.parameters, axis=axis, backend="numpy")
    exact = batchnorm.normalized(case.x, *case.parameters, epsilon=1e-5, axis=axis)
    np.testing.assert_array_max_ulp(y, exact.astype(np.float32), maxulp=1)
    assert np.mean(y == exact.astype(np.float32)) > 0.9999  # one bit where float64 falls beside a tie


def test_memory_order_does_not_matter() -> None:
    case = make_case((4, 6, 5, 8), dtype=np.float32)
    expected = runtime.infer(case.x, *case.parameters, backend="numpy")
    turned = np.ascontiguousarray(case.x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    reversed_ = np.ascontiguousarray(case.x[::-1, :, ::-1])[::-1, :, ::-1]
    strided = np.zeros((4, 6, 5, 16), np.float32)[..., ::2]
    strided[...] = case.x
    for x in (turned, reversed_, strided, np.asfortranarray(case.x)):
        assert not x.flags.c_contiguous
        y = runtime.infer(x, *case.parameters, backend="numpy")
        np.testing.assert_array_equal(y, expected)
        assert y.flags.c_contiguous


def test_strided_parameters() -> None:
    case = make_case((2, 4, 3))
    scale, bias, mean, var = (np.stack([p, p], axis=1)[:, 0] for p in case.parameters)
    np.testing.assert_array_equal(
        runtime.infer(case.x, scale, bias, mean, var, backend="numpy"),
        runtime.infer(case.x, *case.parameters, backend="numpy"),
    )


def test_the_arguments_are_left_alone() -> None:
    case = make_case((2, 4, 3))
    before = [a.copy() for a in (case.x, *case.parameters)]
    y = runtime.infer(case.x, *case.parameters, backend="numpy")
    for kept, array in zip(before, (case.x, *case.parameters), strict=True):
        np.testing.assert_array_equal(kept, array)
        assert not np.shares_memory(y, array)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0), (2, 0, 4), (0, 0)])
def test_an_empty_tensor_stays_empty(shape: tuple[int, ...]) -> None:
    case = make_case(shape, dtype=np.float16)
    y = runtime.infer(case.x, *case.parameters, backend="numpy")
    assert y.shape == shape
    assert y.dtype == np.float16


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_value_stays_where_it_is(bad: float) -> None:
    case = make_case((3, 4, 5))
    clean = runtime.infer(case.x, *case.parameters, backend="numpy")
    case.x[1, 2, 3] = bad
    y = runtime.infer(case.x, *case.parameters, backend="numpy")
    assert not np.isfinite(y[1, 2, 3])
    y[1, 2, 3] = clean[1, 2, 3]
    np.testing.assert_array_equal(y, clean)


@pytest.mark.parametrize("parameter", range(4))
def test_a_nan_parameter_stays_in_its_channel(parameter: int) -> None:
    case = make_case((3, 4, 5))
    clean = runtime.infer(case.x, *case.parameters, backend="numpy")
    case.parameters[parameter][2] = np.nan
    y = runtime.infer(case.x, *case.parameters, backend="numpy")
    assert np.isnan(y[:, 2]).all()
    np.testing.assert_array_equal(np.delete(y, 2, axis=1), np.delete(clean, 2, axis=1))


def test_a_variance_below_minus_epsilon_is_nan_without_a_warning() -> None:
    case = make_case((3, 2, 5))
    case.var[0] = -1.0
    y = runtime.infer(case.x, *case.parameters, backend="numpy")
    assert np.isnan(y[:, 0]).all()
    assert np.isfinite(y[:, 1]).all()


def test_a_value_too_large_for_the_dtype_becomes_infinite_without_a_warning() -> None:
    one = np.ones(1, np.float32)
    y = runtime.infer(np.full((1, 1), 60000, np.float16), one * 2, one * 0, one * 0, one, backend="numpy")
    assert np.isposinf(y[0, 0])


def test_a_large_mean_costs_no_digits() -> None:
    # x*s + (b - m*s) would lose eight of sixteen digits here; (x - m)*s + b loses none.
    x = np.array([[1e8 + 1.0]])
    y = runtime.infer(
        x, np.array([1 / 3]), np.array([0.0]), np.array([1e8]), np.array([1.0]), epsilon=0.0, backend="numpy"
    )
    assert y[0, 0] == 1 / 3


def test_epsilon_defaults_to_that_of_the_convention() -> None:
    zero, one = np.zeros(1), np.ones(1)
    x = np.ones((1, 1))
    expected: dict[runtime.ConventionName, float] = {"onnx": 1e-5, "pytorch": 1e-5, "keras": 1e-3}
    for convention, epsilon in expected.items():
        y = runtime.infer(x, one, zero, zero, zero, backend="numpy", convention=convention)
        np.testing.assert_allclose(y[0, 0], 1 / np.sqrt(epsilon), rtol=1e-15)
