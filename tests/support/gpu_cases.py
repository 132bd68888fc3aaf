"""Problems for the CUDA kernels, and what plain NumPy in long double says of them.

Every bound counts roundings: it follows from the arithmetic of the kernels, not from what they give.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np
from support.emulated_gpu import ORDERS, Order

from bnfold.runtime import cuda_plan
from bnfold.runtime.arguments import Layout
from bnfold.runtime.cuda_plan import Limits, Tensor, Vector

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from bnfold.runtime.cuda_plan import Plan

    Array = npt.NDArray[Any]

DTYPES = tuple(np.dtype(d) for d in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
# A channel kept by one block; by a cluster, since little shared memory forces several blocks; by a block of a
# device without clusters; and read twice.
FUSED = Limits(multiprocessors=4, shared_bytes=227 * 1024, clusters=True)
CLUSTERED = Limits(multiprocessors=4, shared_bytes=4 * 1024, clusters=True)
FUSED_WITHOUT_CLUSTERS = Limits(multiprocessors=1, shared_bytes=64 * 1024, clusters=False)
TWO_PASS = Limits(multiprocessors=4, shared_bytes=0, clusters=False)
LIMITS = (FUSED, CLUSTERED, FUSED_WITHOUT_CLUSTERS, TWO_PASS)
EPSILON = 1e-5
# How many values past a 16-byte boundary x begins, and all other tensors.
Shifts = tuple[int, int]
ALIGNED: Shifts = (0, 0)
MOMENTUM = 0.9

# [outer, channels, inner]: whole vectors, odd tails, rows shorter than a vector, one value, several blocks.
SHAPES = (
    (3, 5, 49), (2, 4, 64), (2, 2, 257), (4, 3, 7), (5, 6, 2), (1, 1, 4001), (2, 1, 16), (1, 3, 1),
    (1, 2, 1030), (2, 3, 1), (50, 24, 1), (300, 3, 1), (37, 72, 1), (65, 16, 1), (40, 130, 1), (3, 1088, 1),
)  # fmt: skip


class Device(Protocol):
    """Where kernels run: emulated_gpu.EmulatedGpu, real_gpu.RealGpu."""

    order: Order

    def place(self, array: Array, shift: int = 0) -> int:
        """Copy an array to the device, `shift` values past a 16-byte boundary; its address."""

    def reserve(self, nbytes: int, shift_bytes: int = 0) -> int:
        """Take memory that holds NaN; its address."""

    def fetch(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Copy memory of the device."""

    def run(self, plan: Plan) -> None:
        """Launch what a plan says."""

    def clear(self) -> None:
        """Give all memory back."""


@dataclass(frozen=True)
class Problem:
    """Random values of one shape, with parameters in types of their own."""

    x: Array
    dy: Array
    scale: Array
    bias: Array
    mean: Array
    var: Array

    @classmethod
    def of(
        cls, shape: tuple[int, int, int], dtype: np.dtype[Any], offset: float = 3.0, seed: int = 0
    ) -> Problem:
        rng = np.random.default_rng([seed, *shape])
        per_channel, running = (np.float64, np.float32) if dtype == np.float64 else (np.float32, np.float16)
        channels = shape[1]
        return cls(
            x=(rng.normal(size=shape) * 2 + offset).astype(dtype),
            dy=(rng.normal(size=shape) + 0.5).astype(dtype),
            scale=rng.normal(size=channels).astype(per_channel),
            bias=rng.normal(size=channels).astype(per_channel),
            mean=rng.normal(size=channels).astype(running),
            var=rng.uniform(0.5, 2, size=channels).astype(running),
        )


@dataclass(frozen=True)
class Expected:
    """What float64 gives, and per value how much rounding in `unit` may change."""

    value: Array
    slack: Array


def wide(array: Array) -> Array:
    # Beyond float64, which some of the kernels compute in.
    return array.astype(np.longdouble)


def across(per_channel: Array) -> Array:
    return wide(per_channel)[:, None]


def half_ulp(value: Array, dtype: np.dtype[Any]) -> Array:
    info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # ml_dtypes leaves it so
    return np.maximum(np.abs(value) * float(info.eps) / 2, float(info.smallest_subnormal) / 2)


def unit(dtype: np.dtype[Any]) -> float:
    """Half an ulp at 1 of the arithmetic: float32 for what is stored in 32 bits or fewer."""
    return 2.0**-53 if dtype == np.float64 else 2.0**-24


def check(actual: Array, expected: Expected, dtype: np.dtype[Any]) -> None:
    bound = expected.slack + half_ulp(np.abs(expected.value) + expected.slack, dtype)
    excess = np.abs(wide(actual) - expected.value) - bound
    assert not np.isnan(wide(actual)).any(), "a value was not written"
    assert excess.max(initial=0.0) <= 0, f"off by {excess.max()} more than rounding explains"


def normalized(
    problem: Problem, mean: Array, var: Array, *, statistics_error: float, dtype: np.dtype[Any]
) -> Expected:
    """The formula; its slack counts roundings: x - mean, gain (three of them), shift, and the sum."""
    gain = across(problem.scale) / np.sqrt(across(var) + EPSILON)
    centered = wide(problem.x) - across(mean)
    value = centered * gain + across(problem.bias)
    size = np.abs(centered * gain)
    u = unit(dtype)
    slack = 6 * u * size + 2 * u * np.abs(across(problem.bias))
    slack += statistics_error * (size + np.abs(across(problem.scale)))
    # Means are kept in float64.
    slack += 2.0**-52 * np.abs(across(mean) * gain)
    return Expected(value, slack)


def statistics(x: Array) -> tuple[Array, Array]:
    mean = wide(x).mean(axis=(0, 2))
    return mean, np.square(wide(x) - mean[:, None]).mean(axis=(0, 2))


# A chunk's sum is a difference and a tree of five additions; its squares cost two roundings more.
STATISTICS_ROUNDINGS = 8


def run_train(
    gpu: Device, problem: Problem, limits: Limits, *, shifts: Shifts = ALIGNED, unbiased: bool = False
) -> dict[str, Array]:
    x = problem.x
    channels = x.shape[1]
    tensor = Tensor.of(Layout(*x.shape), x.dtype)
    source = gpu.place(x, shifts[0])
    target = gpu.reserve(x.nbytes, shifts[1] * x.itemsize)
    parameters = tuple(
        Vector(gpu.place(v), v.dtype) for v in (problem.scale, problem.bias, problem.mean, problem.var)
    )
    dtypes = (np.dtype(np.float64), np.dtype(np.float64), problem.mean.dtype, problem.mean.dtype)
    record = tuple(gpu.reserve(channels * dtype.itemsize) for dtype in dtypes)
    gpu.run(
        cuda_plan.train(
            tensor, limits, x=source, y=target, parameters=parameters, record=record,
            epsilon=EPSILON, momentum=MOMENTUM, unbiased=unbiased,
        )
    )  # fmt: skip
    names = ("mean", "var", "running_mean", "running_var")
    found = {n: gpu.fetch(a, (channels,), d) for n, a, d in zip(names, record, dtypes, strict=True)}
    return {"y": gpu.fetch(target, x.shape, x.dtype), **found}


def run_backward(
    gpu: Device,
    problem: Problem,
    limits: Limits,
    mean: Array,
    var: Array,
    *,
    training: bool,
    shifts: Shifts = ALIGNED,
) -> dict[str, Array]:
    x = problem.x
    channels = x.shape[1]
    tensor = Tensor.of(Layout(*x.shape), x.dtype)
    target = gpu.reserve(x.nbytes, shifts[1] * x.itemsize)
    scale = problem.scale
    record = (gpu.reserve(scale.nbytes), gpu.reserve(scale.nbytes))
    gpu.run(
        cuda_plan.backward(
            tensor, limits, dy=gpu.place(problem.dy, shifts[1]), x=gpu.place(x, shifts[0]), dx=target,
            scale=Vector(gpu.place(scale), scale.dtype),
            statistics=(Vector(gpu.place(mean), mean.dtype), Vector(gpu.place(var), var.dtype)),
            record=record, epsilon=EPSILON, training=training,
        )
    )  # fmt: skip
    found = {
        n: gpu.fetch(a, (channels,), scale.dtype) for n, a in zip(("dscale", "dbias"), record, strict=True)
    }
    return {"dx": gpu.fetch(target, x.shape, x.dtype), **found}


def check_train(found: dict[str, Array], problem: Problem, *, unbiased: bool = False) -> None:
    dtype = problem.x.dtype
    mean, var = statistics(problem.x)
    error = STATISTICS_ROUNDINGS * unit(dtype)
    spread = np.sqrt(var)
    float64 = np.dtype(np.float64)
    check(found["mean"], Expected(mean, error * spread + 2.0**-50 * np.abs(mean)), float64)
    check(found["var"], Expected(var, error * var + 2.0**-98 * np.square(mean)), float64)
    check(found["y"], normalized(problem, mean, var, statistics_error=error, dtype=dtype), dtype)
    count = problem.x.size // problem.x.shape[1]
    shown = var * count / (count - 1) if unbiased else var
    for name, batch, slack in (("mean", mean, error * spread), ("var", shown, error * shown)):
        moved = MOMENTUM * wide(getattr(problem, name)) + (1 - MOMENTUM) * batch
        running = getattr(problem, name).dtype
        check(found[f"running_{name}"], Expected(moved, slack + 2.0**-50 * np.abs(moved)), running)


def check_backward(
    found: dict[str, Array], problem: Problem, mean: Array, var: Array, *, training: bool
) -> None:
    dtype = problem.x.dtype
    u = unit(dtype)
    inverse = 1 / np.sqrt(across(var) + EPSILON)
    xhat = (wide(problem.x) - across(mean)) * inverse
    dy = wide(problem.dy)
    count = dy.size // dy.shape[1]
    sums = {"dscale": (dy * xhat).sum(axis=(0, 2)), "dbias": dy.sum(axis=(0, 2))}
    magnitude = {"dscale": np.abs(dy * xhat).sum(axis=(0, 2)), "dbias": np.abs(dy).sum(axis=(0, 2))}
    for name, total in sums.items():
        # Five additions, and for dscale the difference and the product before them.
        check(found[name], Expected(total, 8 * u * magnitude[name]), problem.scale.dtype)
    gain = across(problem.scale) * inverse
    if not training:
        check(found["dx"], Expected(gain * dy, 3 * u * np.abs(gain * dy)), dtype)
        return
    terms = (dy, -across(sums["dbias"]) / count, -xhat * across(sums["dscale"]) / count)
    size = np.abs(dy) + (across(magnitude["dbias"]) + np.abs(xhat) * across(magnitude["dscale"])) / count
    check(found["dx"], Expected(gain * sum(terms), 16 * u * np.abs(gain) * size), dtype)


def run_infer(gpu: Device, problem: Problem, *, shifts: Shifts = ALIGNED) -> Array:
    x = problem.x
    given = (problem.scale, problem.bias, problem.mean, problem.var)
    target = gpu.reserve(x.nbytes, shifts[1] * x.itemsize)
    gpu.run(
        cuda_plan.infer(
            Tensor.of(Layout(*x.shape), x.dtype), x=gpu.place(x, shifts[0]), y=target,
            parameters=tuple(Vector(gpu.place(v), v.dtype) for v in given), epsilon=EPSILON,
        )
    )  # fmt: skip
    return gpu.fetch(target, x.shape, x.dtype)


def check_infer(found: Array, problem: Problem) -> None:
    check(
        found,
        normalized(problem, problem.mean, problem.var, statistics_error=0, dtype=problem.x.dtype),
        problem.x.dtype,
    )


def check_everything(
    gpu: Device,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    *,
    orders: Iterable[Order] = ORDERS,
    limits: Iterable[Limits] = LIMITS,
    shifts: Iterable[Shifts] = (ALIGNED, (1, 1), (1, 0)),
) -> None:
    """Run every function of the backend on a problem in every given way."""
    problem = Problem.of(shape, dtype)
    mean, var = (exact.astype(np.float64) for exact in statistics(problem.x))
    for order, pair in itertools.product(orders, shifts):
        gpu.order = order
        check_infer(run_infer(gpu, problem, shifts=pair), problem)
        for limit in limits:
            check_train(run_train(gpu, problem, limit, shifts=pair), problem)
            for training in (True, False):
                found = run_backward(gpu, problem, limit, mean, var, training=training, shifts=pair)
                check_backward(found, problem, mean, var, training=training)
        gpu.clear()
