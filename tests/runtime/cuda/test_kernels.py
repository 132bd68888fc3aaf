"""The kernels on the CPU: every dtype, layout, tail, alignment and thread order, against plain NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.emulated_gpu import KERNEL_SOURCE, ORDERS, EmulatedGpu, build, kernels
from support.gpu_cases import (
    ALIGNED,
    DTYPES,
    FUSED,
    LIMITS,
    SHAPES,
    TWO_PASS,
    Problem,
    check_everything,
    run_backward,
    run_infer,
    run_train,
    statistics,
    wide,
)

from bnfold.errors import UsageError
from bnfold.runtime.arguments import Layout
from bnfold.runtime.cuda_plan import Tensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from support.emulated_gpu import Order

    from bnfold.runtime.cuda_plan import Limits, Plan

    Array = npt.NDArray[Any]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts_and_tails(gpu: EmulatedGpu, dtype: np.dtype[Any], shape: tuple[int, int, int]) -> None:
    check_everything(gpu, shape, dtype, orders=("random",))


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_thread_orders(gpu: EmulatedGpu, dtype: np.dtype[Any], order: Order) -> None:
    for shape in ((3, 5, 49), (300, 24, 1), (300, 3, 1)):
        check_everything(gpu, shape, dtype, orders=(order,), shifts=((1, 1),))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_alignment_and_order(
    gpu: EmulatedGpu, dtype: np.dtype[Any], shape: tuple[int, int, int]
) -> None:
    lanes = range(16 // dtype.itemsize)
    check_everything(gpu, shape, dtype, shifts=[(x, other) for x in lanes for other in (x, 0)])


@pytest.mark.slow
def test_larger_tensors(gpu: EmulatedGpu, dtype: np.dtype[Any]) -> None:
    # Several blocks per channel, full blocks, clusters of eight, columns in several tiles and bands.
    for shape in ((8, 3, 56 * 56), (16, 64, 49), (4096, 64, 1), (777, 1100, 1), (1, 1, 200_001)):
        check_everything(gpu, shape, dtype, orders=("random",), shifts=(ALIGNED,))


def test_the_cases_run_every_kernel(monkeypatch: pytest.MonkeyPatch, libraries: dict[Any, Path]) -> None:
    launched: set[str] = set()
    real = EmulatedGpu.run

    def run(self: EmulatedGpu, plan: Plan) -> None:
        launched.update(launch.kernel for launch in plan.launches)
        clusters.update(launch.cluster for launch in plan.launches)
        real(self, plan)

    clusters: set[int] = set()
    monkeypatch.setattr(EmulatedGpu, "run", run)
    dtype = np.dtype(np.float16)
    for shape in SHAPES:
        check_everything(EmulatedGpu(libraries[dtype]), shape, dtype, orders=("forward",), shifts=(ALIGNED,))
    assert launched == set(kernels(KERNEL_SOURCE.read_text()))
    assert clusters == {1, 2, 4, 8}


@pytest.mark.parametrize("limits", LIMITS, ids=("fused", "clusters", "one block", "two passes"))
def test_bits_do_not_depend_on_thread_order(gpu: EmulatedGpu, dtype: np.dtype[Any], limits: Limits) -> None:
    for shape in ((4, 3, 1030), (333, 24, 1)):
        problem = Problem.of(shape, dtype)
        mean, var = (exact.astype(np.float64) for exact in statistics(problem.x))
        runs = []
        for seed, order in enumerate((*ORDERS, "random", "random")):
            gpu.order, gpu.seed = order, seed + 1
            found = run_train(gpu, problem, limits) | run_backward(
                gpu, problem, limits, mean, var, training=True
            )
            runs.append({name: array.tobytes() for name, array in found.items()})
            gpu.clear()
        assert all(run == runs[0] for run in runs)


def test_a_batch_of_one_gives_the_bits_of_its_row(gpu: EmulatedGpu, dtype: np.dtype[Any]) -> None:
    for shape in ((5, 3, 49), (5, 24, 1), (5, 3, 1)):
        problem = Problem.of(shape, dtype)
        batch = run_infer(gpu, problem)
        for row in range(shape[0]):
            alone = Problem(problem.x[row : row + 1], problem.dy, *_parameters(problem))
            assert run_infer(gpu, alone).tobytes() == batch[row : row + 1].tobytes()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("limits", [FUSED, TWO_PASS], ids=["fused", "two passes"])
def test_statistics_within_an_ulp_of_float32(
    libraries: dict[Any, Path], limits: Limits, offset: float
) -> None:
    dtype = np.dtype(np.float32)
    gpu = EmulatedGpu(libraries[dtype])
    for shape in ((16, 3, 1024), (16_384, 8, 1), (16_384, 3, 1)):
        problem = Problem.of(shape, dtype, offset=offset)
        mean, var = statistics(problem.x)
        found = run_train(gpu, problem, limits)
        # An ulp of the mean where it is as large as the spread; else of the spread, which is what it is
        # subtracted from.
        scale = np.maximum(np.abs(mean), np.sqrt(var)).astype(np.float32)
        assert (np.abs(found["mean"] - mean) <= np.spacing(scale)).all()
        assert (np.abs(found["var"] - var) <= np.spacing(var.astype(np.float32))).all()


def test_the_first_value_of_a_chunk_may_be_far_from_the_others(libraries: dict[Any, Path]) -> None:
    dtype = np.dtype(np.float32)
    problem = Problem.of((4, 2, 1000), dtype)
    problem.x[..., ::16] = 1e6
    mean, var = statistics(problem.x)
    found = run_train(EmulatedGpu(libraries[dtype]), problem, TWO_PASS)
    np.testing.assert_allclose(found["mean"], wide(mean).astype(float), rtol=2**-22)
    np.testing.assert_allclose(found["var"], wide(var).astype(float), rtol=2**-22)


def test_constant_channels_have_no_variance(gpu: EmulatedGpu, dtype: np.dtype[Any]) -> None:
    for shape, limits in (
        ((3, 2, 333), FUSED),
        ((3, 2, 333), TWO_PASS),
        ((333, 3, 1), TWO_PASS),
        ((1, 3, 1), TWO_PASS),
    ):
        problem = Problem.of(shape, dtype)
        problem.x[...] = np.array([0.1, -7.3, 1e4][: shape[1]])[None, :, None]
        found = run_train(gpu, problem, limits)
        assert (found["var"] == 0).all()
        assert (found["mean"] == problem.x[0, :, 0].astype(np.float64)).all()
        bias = np.broadcast_to(problem.bias[None, :, None].astype(dtype), shape)
        assert (found["y"] == bias).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_channel(
    gpu: EmulatedGpu, dtype: np.dtype[Any], poison: float
) -> None:
    for shape in ((3, 4, 49), (3, 4, 5), (60, 16, 1), (60, 5, 1)):
        clean = Problem.of(shape, dtype)
        dirty = Problem(clean.x.copy(), clean.dy.copy(), *_parameters(clean))
        dirty.x[shape[0] // 2, 2, shape[2] // 2] = poison
        others = np.arange(shape[1]) != 2
        mean, var = (exact.astype(np.float64) for exact in statistics(clean.x))
        for limits in LIMITS:
            found, expected = run_train(gpu, dirty, limits), run_train(gpu, clean, limits)
            assert np.array_equal(found["y"][:, others], expected["y"][:, others])
            assert np.isnan(wide(found["y"])[:, 2]).all()
            # As a plain sum gives them.
            assert np.array_equal(found["mean"][2], dirty.x[:, 2].astype(float).sum(), equal_nan=True)
            assert np.isnan(found["var"][2])
            gradients = run_backward(gpu, dirty, limits, mean, var, training=True)
            same = run_backward(gpu, clean, limits, mean, var, training=True)
            assert np.array_equal(gradients["dx"][:, others], same["dx"][:, others])
            # In inference mode dx does not depend on x.
            fixed = run_backward(gpu, dirty, limits, mean, var, training=False)
            assert np.isfinite(wide(fixed["dx"])).all()
        gpu.clear()


def test_unbiased_running_variance(gpu: EmulatedGpu, dtype: np.dtype[Any]) -> None:
    problem = Problem.of((2, 3, 5), dtype)
    found = run_train(gpu, problem, FUSED, unbiased=True)
    expected = 0.9 * wide(problem.var) + 0.1 * np.var(wide(problem.x), axis=(0, 2), ddof=1)
    np.testing.assert_allclose(found["running_var"].astype(float), expected.astype(float), rtol=1e-3)
    biased = run_train(gpu, problem, FUSED)
    assert (found["running_var"] > biased["running_var"]).all()


@pytest.mark.parametrize("parameters", DTYPES, ids=str)
def test_parameters_of_every_dtype_are_rounded_once(
    libraries: dict[Any, Path], parameters: np.dtype[Any]
) -> None:
    # x is such that its statistics are exact, so the running ones are known to the last bit.
    x = np.array([[[1.0, 3.0]], [[1.0, 3.0]]], np.float32)
    channel = np.ones(1, parameters)
    running = np.array([1 / 3], parameters)
    problem = Problem(x, x, channel, channel, running, running)
    found = run_train(EmulatedGpu(libraries[np.dtype(np.float32)]), problem, TWO_PASS)
    old = float(running[0])
    fresh = 1 - 0.9
    assert found["running_mean"][0] == _nearest(0.9 * old + fresh * 2.0, parameters)
    assert found["running_var"][0] == _nearest(0.9 * old + fresh * 1.0, parameters)


def test_an_empty_batch(gpu: EmulatedGpu, dtype: np.dtype[Any]) -> None:
    x = np.empty((0, 3, 7), dtype)
    parameters = _parameters(Problem.of((1, 3, 7), dtype))
    problem = Problem(x, x, *parameters)
    assert run_infer(gpu, problem).shape == x.shape
    found = run_backward(gpu, problem, TWO_PASS, np.zeros(3), np.ones(3), training=False)
    assert (found["dscale"] == 0).all()
    assert (found["dbias"] == 0).all()


def test_no_compiler_fails_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"g\+\+ is missing"):
        build(tmp_path, np.float32)


def test_one_value_per_channel_gives_the_bias(gpu: EmulatedGpu, dtype: np.dtype[Any]) -> None:
    for shape in ((1, 5, 1), (1, 16, 1), (1, 1, 1)):
        problem = Problem.of(shape, dtype)
        found = run_train(gpu, problem, TWO_PASS)
        assert (found["y"][0, :, 0] == problem.bias.astype(dtype)).all()


def test_plans_refuse_what_their_indices_cannot_hold() -> None:
    with pytest.raises(UsageError, match="split the batch"):
        Tensor.of(Layout(2**30, 2, 3), np.dtype(np.float16))
    with pytest.raises(UsageError, match="split the batch"):
        Tensor.of(Layout(1, 1, 2**30), np.dtype(np.float16))
    Tensor.of(Layout(2**30 - 1, 2, 1), np.dtype(np.float16))


def _parameters(problem: Problem) -> tuple[Array, Array, Array, Array]:
    return problem.scale, problem.bias, problem.mean, problem.var


def _nearest(value: float, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - a scalar of the dtype
    """The nearest value of a dtype, ties to even, found among three neighbours."""
    rough = np.array([value]).astype(np.float32).astype(dtype)
    bits = rough.view({2: np.int16, 4: np.int32, 8: np.int64}[dtype.itemsize])
    if dtype == np.float64:
        return value
    around = (bits + np.arange(-1, 2, dtype=bits.dtype)).view(dtype)
    distance = np.abs(around.astype(np.float64) - value)
    best = np.flatnonzero(distance == distance.min())
    return around[best[0]] if len(best) == 1 else around[next(i for i in best if (bits[0] + i - 1) % 2 == 0)]
