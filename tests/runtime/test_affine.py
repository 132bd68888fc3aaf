from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.batchnorm import along, make_case

from bnfold import runtime
from bnfold.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_inference_is_that_affine_map(layout: tuple[tuple[int, ...], int]) -> None:
    case = make_case(*layout)
    a = runtime.affine_of(*case.parameters, epsilon=1e-3)
    y = runtime.infer(case.x, *case.parameters, epsilon=1e-3, axis=case.axis, backend="numpy")
    rank = case.x.ndim
    mapped = case.x * along(a.scale, rank, case.axis) + along(a.shift, rank, case.axis)
    np.testing.assert_allclose(mapped, y, rtol=0, atol=1e-14 * np.abs(y).max())


def test_folding_a_linear_layer_is_composition() -> None:
    rng = np.random.default_rng(0)
    case = make_case((5, 4))
    z, weight, offset = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4)
    a = runtime.affine_of(*case.parameters)
    folded = z @ (weight * a.scale[:, None]).T + (offset * a.scale + a.shift)
    expected = runtime.infer(z @ weight.T + offset, *case.parameters, backend="numpy")
    np.testing.assert_allclose(folded, expected, rtol=0, atol=1e-13)


def test_folding_a_convolution_is_composition() -> None:
    rng = np.random.default_rng(0)
    image, weight, offset = (rng.standard_normal(s) for s in ((2, 3, 7, 7), (4, 3, 3, 3), (4,)))
    case = make_case((2, 4, 5, 5))
    a = runtime.affine_of(*case.parameters)

    def convolved(kernel: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))
        summed: NDArray[Any] = np.einsum("nchwij,ocij->nohw", windows, kernel)
        summed += bias[:, None, None]
        return summed

    folded = convolved(weight * a.scale[:, None, None, None], offset * a.scale + a.shift)
    expected = runtime.infer(convolved(weight, offset), *case.parameters, backend="numpy")
    np.testing.assert_allclose(folded, expected, rtol=0, atol=1e-12)


def test_values_are_float64_of_narrow_parameters() -> None:
    case = make_case((2, 3), dtype=np.float16)
    a = runtime.affine_of(*case.parameters, convention="keras")
    s, b, m, v = (p.astype(np.float64) for p in case.parameters)
    assert a.scale.dtype == a.shift.dtype == np.float64
    np.testing.assert_allclose(a.scale, s / np.sqrt(v + 1e-3), rtol=1e-15)
    np.testing.assert_allclose(a.shift, b - m * s / np.sqrt(v + 1e-3), rtol=1e-14, atol=1e-15)


def test_arguments_that_do_not_fit() -> None:
    one, two = np.ones(1), np.ones(2)
    with pytest.raises(UsageError, match=r"bias has shape \(2,\)"):
        runtime.affine_of(one, two, one, one)
    with pytest.raises(UsageError, match=r"scale has shape \(\)"):
        runtime.affine_of(np.array(1.0), one, one, one)
    with pytest.raises(UsageError, match=r"var is a builtins\.float"):
        runtime.affine_of(one, one, one, 1.0)  # type: ignore[arg-type]  # what a careless caller passes
    with pytest.raises(UsageError, match="epsilon=nan"):
        runtime.affine_of(one, one, one, one, epsilon=float("nan"))
