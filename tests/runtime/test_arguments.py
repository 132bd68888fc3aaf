"""Arguments that do not fit are refused by name, whichever function they are given to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold import runtime
from bnfold.errors import UsageError
from bnfold.runtime.arguments import Layout, layout_of

X = np.ones((4, 3, 2), np.float32)
C = np.ones(3, np.float32)
GOOD: dict[str, dict[str, Any]] = {
    "infer": {"x": X, "scale": C, "bias": C, "mean": C, "var": C},
    "train": {"x": X, "scale": C, "bias": C, "running_mean": C, "running_var": C},
    "backward": {"dy": X, "x": X, "scale": C, "mean": C, "var": C},
}
FUNCTIONS: dict[str, Any] = {
    "infer": runtime.infer,
    "train": runtime.train,
    "backward": runtime.backward,
}
ARRAYS = [(function, name) for function, names in GOOD.items() for name in names]
PER_CHANNEL = [(function, name) for function, name in ARRAYS if name not in {"x", "dy"}]


def call(function: str, **changes: Any) -> Any:  # noqa: ANN401 - any function of the runtime
    return FUNCTIONS[function](**{**GOOD[function], **changes}, backend="numpy")


@pytest.mark.parametrize("function", GOOD)
def test_the_good_arguments_pass(function: str) -> None:
    call(function)


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.parametrize("bad", [[1.0, 2.0], 3.0, None, "x"])
def test_not_an_array(function: str, name: str, bad: object) -> None:
    with pytest.raises(
        UsageError, match=rf"^{name} is a builtins\.\w+; the NumPy backend takes numpy\.ndarray"
    ):
        call(function, **{name: bad})


@pytest.mark.parametrize(("function", "name"), ARRAYS)
@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64", ">f4", "longdouble", "object"])
def test_not_a_float_type(function: str, name: str, dtype: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^{name} has dtype .* expected one of float16, bfloat16, float32, float64"
    ):
        call(function, **{name: GOOD[function][name].astype(dtype)})


@pytest.mark.parametrize(("function", "name"), PER_CHANNEL)
@pytest.mark.parametrize("shape", [(4,), (1,), (3, 1), ()])
def test_not_one_value_per_channel(function: str, name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=rf"^{name} has shape .*; x has 3 channel"):
        call(function, **{name: np.ones(shape, np.float32)})


@pytest.mark.parametrize(
    ("function", "name", "other"),
    [
        ("infer", "bias", "scale"),
        ("infer", "var", "mean"),
        ("train", "bias", "scale"),
        ("train", "running_var", "running_mean"),
        ("backward", "var", "mean"),
        ("backward", "dy", "x"),
    ],
)
def test_two_arguments_of_one_type(function: str, name: str, other: str) -> None:
    with pytest.raises(UsageError) as caught:
        call(function, **{name: GOOD[function][name].astype(np.float64)})
    assert {name, other} <= set(str(caught.value).replace(";", "").split())
    assert "share one dtype" in str(caught.value)


def test_a_gradient_of_another_shape() -> None:
    with pytest.raises(UsageError, match=r"^dy has shape \(4, 3\) and x has \(4, 3, 2\)"):
        call("backward", dy=np.ones((4, 3), np.float32))


@pytest.mark.parametrize("function", GOOD)
@pytest.mark.parametrize("axis", [0, -2, 3, -3, 7])
def test_not_a_channel_axis(function: str, axis: int) -> None:
    with pytest.raises(
        UsageError, match=rf"^axis={axis} with x of shape \(4, 3, 2\): the channel axis is 1, or -1"
    ):
        call(function, axis=axis)


@pytest.mark.parametrize("function", GOOD)
def test_a_scalar(function: str) -> None:
    scalars = {name: np.array(1.0, np.float32) for name in ("x", "dy") if name in GOOD[function]}
    with pytest.raises(UsageError, match="x is a scalar"):
        call(function, **scalars)


@pytest.mark.parametrize("function", GOOD)
@pytest.mark.parametrize("epsilon", [math.nan, math.inf, -math.inf])
def test_epsilon_is_finite(function: str, epsilon: float) -> None:
    with pytest.raises(UsageError, match=r"^epsilon=.*not finite"):
        call(function, epsilon=epsilon)


@pytest.mark.parametrize("function", GOOD)
def test_an_unknown_convention(function: str) -> None:
    with pytest.raises(UsageError, match=r"^convention='caffe'; expected one of onnx, pytorch, keras"):
        call(function, convention="caffe")


@pytest.mark.parametrize("momentum", [-0.1, 1.1, math.nan])
def test_momentum_makes_an_average(momentum: float) -> None:
    with pytest.raises(UsageError, match=r"^momentum="):
        call("train", momentum=momentum)


@given(shape=st.lists(st.integers(0, 5), min_size=3, max_size=3), size=st.integers(1, 40))
def test_tiles_cover_every_value_once_and_keep_their_size(shape: list[int], size: int) -> None:
    layout = Layout(*shape)
    seen = np.zeros(layout.shape, int)
    for tile in layout.tiles(size):
        part = seen[tile]
        assert 0 < part.size <= size
        part += 1
    np.testing.assert_array_equal(seen, 1)


def test_the_layout_of_shapes() -> None:
    assert layout_of((7,), 1) == Layout(7, 1, 1)
    assert layout_of((2, 3), -1) == layout_of((2, 3), 1) == Layout(2, 3, 1)
    assert layout_of((2, 3, 4, 5), 1) == Layout(2, 3, 20)
    assert layout_of((2, 3, 4, 5), -1) == layout_of((2, 3, 4, 5), 3) == Layout(24, 5, 1)
    assert layout_of((2, 3, 4, 5, 6, 7), 1) == Layout(2, 3, 840)
