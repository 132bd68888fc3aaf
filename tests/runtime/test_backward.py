from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import batchnorm
from support.batchnorm import Case, make_case

from bnfold import runtime
from bnfold.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

EPSILON = 1e-3


def loss_of(case: Case, dy: NDArray[Any], *, training: bool) -> Callable[..., float]:
    """A loss whose derivative by y is dy, from the printed formula alone."""

    def loss(x: NDArray[Any], scale: NDArray[Any], bias: NDArray[Any]) -> float:
        mean = batchnorm.mean_of(x, case.axis) if training else case.mean
        var = batchnorm.var_of(x, case.axis) if training else case.var
        return float(
            (batchnorm.normalized(x, scale, bias, mean, var, epsilon=EPSILON, axis=case.axis) * dy).sum()
        )

    return loss


def slopes(function: Callable[[NDArray[Any]], float], at: NDArray[Any]) -> NDArray[Any]:
    """Central differences of fourth order."""
    step = 1e-3
    result = np.empty(at.shape)
    for index in np.ndindex(at.shape):
        values = []
        for k in (-2, -1, 1, 2):
            moved = at.copy()
            moved[index] += k * step
            values.append(function(moved))
        far_left, left, right, far_right = values
        result[index] = (far_left - 8 * left + 8 * right - far_right) / (12 * step)
    return result


def statistics(case: Case, *, training: bool) -> dict[str, Any]:
    if training:
        return {"mean": batchnorm.mean_of(case.x, case.axis), "var": batchnorm.var_of(case.x, case.axis)}
    return {"mean": case.mean, "var": case.var}


@pytest.mark.parametrize("training", [True, False])
def test_against_finite_differences(layout: tuple[tuple[int, ...], int], training: bool) -> None:
    case = make_case(*layout, seed=5)
    dy = np.random.default_rng(6).standard_normal(case.x.shape)
    got = runtime.backward(
        dy,
        case.x,
        case.scale,
        **statistics(case, training=training),
        epsilon=EPSILON,
        axis=case.axis,
        training=training,
        backend="numpy",
    )
    loss = loss_of(case, dy, training=training)
    # Truncation of order step^4 = 1e-12 times a fifth derivative of order 1 to 100 where the batch is small,
    # rounding of order 1e-16/step times the loss.
    close: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-9 * max(1.0, float(np.abs(got.dx).max()))}
    if case.x.size == case.scale.size and training:
        # One value per channel: y is the bias whatever x is. The differences see the same zero.
        np.testing.assert_array_equal(got.dx, 0)
    np.testing.assert_allclose(got.dx, slopes(lambda v: loss(v, case.scale, case.bias), case.x), **close)
    np.testing.assert_allclose(got.dscale, slopes(lambda v: loss(case.x, v, case.bias), case.scale), **close)
    np.testing.assert_allclose(got.dbias, slopes(lambda v: loss(case.x, case.scale, v), case.bias), **close)
    assert got.backend == "numpy"


def test_results_have_the_dtypes_of_what_they_belong_to(dtype: np.dtype[Any]) -> None:
    case = make_case((6, 3, 5), dtype=dtype, scale_dtype=np.float32)
    wide = make_case((6, 3, 5))
    dy = case.x[::-1].copy()
    got = runtime.backward(dy, case.x, case.scale, **statistics(case, training=True), backend="numpy")
    assert got.dx.dtype == dtype
    assert got.dscale.dtype == got.dbias.dtype == np.float32
    exact = runtime.backward(
        dy.astype(np.float64),
        case.x.astype(np.float64),
        case.scale.astype(np.float64),
        **statistics(case, training=True),
        backend="numpy",
    )
    assert wide.x.shape == case.x.shape
    if dtype != np.float64:
        np.testing.assert_array_equal(got.dx, batchnorm.rounded(exact.dx, dtype))
    np.testing.assert_array_equal(got.dscale, exact.dscale.astype(np.float32))
    np.testing.assert_array_equal(got.dbias, exact.dbias.astype(np.float32))


def test_the_training_gradient_is_orthogonal_to_what_normalization_removes() -> None:
    # y does not change when x is shifted, nor, with epsilon 0, when it is stretched about its mean.
    case = make_case((8, 4, 6))
    dy = np.random.default_rng(1).standard_normal(case.x.shape)
    got = runtime.backward(
        dy, case.x, case.scale, **statistics(case, training=True), epsilon=0.0, backend="numpy"
    )
    np.testing.assert_allclose(got.dx.sum(axis=(0, 2)), 0, atol=1e-13)
    centred = case.x - case.x.mean(axis=(0, 2), keepdims=True)
    np.testing.assert_allclose((got.dx * centred).sum(axis=(0, 2)), 0, atol=1e-12)


def test_channels_are_independent() -> None:
    case = make_case((6, 4, 5))
    dy = np.random.default_rng(1).standard_normal(case.x.shape)
    clean = runtime.backward(dy, case.x, case.scale, **statistics(case, training=True), backend="numpy")
    dy[1, 2, 3] = np.nan
    got = runtime.backward(dy, case.x, case.scale, **statistics(case, training=True), backend="numpy")
    assert np.isnan(got.dx[:, 2]).all()
    keep = [0, 1, 3]
    np.testing.assert_array_equal(got.dx[:, keep], clean.dx[:, keep])
    np.testing.assert_array_equal(got.dscale[keep], clean.dscale[keep])
    np.testing.assert_array_equal(got.dbias[keep], clean.dbias[keep])


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 70_001), 1), ((70_001, 3), 1), ((101, 331, 3), -1)])
@pytest.mark.parametrize("training", [True, False])
def test_tensors_larger_than_a_tile(shape: tuple[int, ...], axis: int, training: bool) -> None:
    case = make_case(shape, axis)
    dy = np.random.default_rng(1).standard_normal(shape)
    given = statistics(case, training=training)
    got = runtime.backward(dy, case.x, case.scale, **given, axis=axis, training=training, backend="numpy")
    rank, rest = case.x.ndim, batchnorm.others(case.x.ndim, axis)
    inverse = batchnorm.along(1 / np.sqrt(given["var"] + 1e-5), rank, axis)
    xhat = (case.x - batchnorm.along(given["mean"], rank, axis)) * inverse
    through = dy
    if training:
        through = dy - dy.mean(axis=rest, keepdims=True) - xhat * (dy * xhat).mean(axis=rest, keepdims=True)
    np.testing.assert_allclose(got.dbias, dy.sum(axis=rest), rtol=1e-11)
    np.testing.assert_allclose(got.dscale, (dy * xhat).sum(axis=rest), rtol=1e-11)
    np.testing.assert_allclose(
        got.dx, batchnorm.along(case.scale, rank, axis) * inverse * through, rtol=0, atol=1e-13
    )


def test_memory_order_does_not_matter() -> None:
    case = make_case((4, 6, 5, 8), dtype=np.float32)
    dy = np.random.default_rng(1).standard_normal(case.x.shape).astype(np.float32)
    given = statistics(case, training=True)
    expected = runtime.backward(dy, case.x, case.scale, **given, backend="numpy")
    strided = np.zeros((4, 6, 5, 16), np.float32)[..., ::2]
    strided[...] = dy
    got = runtime.backward(strided, np.asfortranarray(case.x), case.scale, **given, backend="numpy")
    np.testing.assert_array_equal(got.dx, expected.dx)
    np.testing.assert_array_equal(got.dscale, expected.dscale)


def test_at_a_large_offset_against_the_same_data_without_it() -> None:
    case = make_case((8, 3, 16))
    x = np.round(case.x * 1024) / 1024  # so that adding the offset is exact
    dy = np.random.default_rng(1).standard_normal(x.shape)
    near = runtime.train(x, *case.parameters, backend="numpy")
    far = runtime.train(x + 2.0**20, *case.parameters, backend="numpy")
    a = runtime.backward(dy, x, case.scale, mean=near.mean, var=near.var, backend="numpy")
    b = runtime.backward(dy, x + 2.0**20, case.scale, mean=far.mean, var=far.var, backend="numpy")
    # The mean at 2^20 is known to 2^-33, half a unit in its last place; nothing else differs.
    np.testing.assert_allclose(b.dx, a.dx, rtol=0, atol=1e-8)
    np.testing.assert_allclose(b.dscale, a.dscale, rtol=0, atol=1e-8)


def test_an_empty_batch() -> None:
    case = make_case((0, 3, 4), dtype=np.float32)
    given: dict[str, Any] = {"mean": case.mean, "var": case.var}
    got = runtime.backward(case.x, case.x, case.scale, **given, training=False, backend="numpy")
    assert got.dx.shape == (0, 3, 4)
    np.testing.assert_array_equal(got.dscale, np.zeros(3))
    np.testing.assert_array_equal(got.dbias, np.zeros(3))
    with pytest.raises(UsageError, match="empty batch"):
        runtime.backward(case.x, case.x, case.scale, **given, backend="numpy")
