"""On a real GPU: the checks of the emulated kernels, its bits, large tensors, device arrays, sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.emulated_gpu import EmulatedGpu, build
from support.gpu_cases import (
    ALIGNED,
    DTYPES,
    LIMITS,
    SHAPES,
    Problem,
    check_backward,
    check_everything,
    check_infer,
    check_train,
    run_backward,
    run_infer,
    run_train,
    statistics,
)
from support.real_gpu import RealGpu

from bnfold import runtime
from bnfold.runtime import cuda
from bnfold.runtime.cuda_device import gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.runtime.cuda_plan import Limits

pytestmark = pytest.mark.gpu

# Is there where the kernel has NVIDIA's driver.
DRIVER = Path("/dev/nvidiactl")

# Beyond the small ones: many blocks, several waves of them, clusters, and the shapes of a ResNet.
LARGE = (
    (8, 64, 56 * 56), (32, 256, 14 * 14), (16, 512, 49), (2, 3, 224 * 224), (64, 3, 112 * 112),
    (1, 1, 3_000_001), (32 * 56 * 56, 64, 1), (32 * 49, 2048, 1), (100_001, 24, 1), (200_003, 3, 1),
    (5, 20_000, 1),
)  # fmt: skip


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    chosen: np.dtype[Any] = request.param
    return chosen


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    """Nothing here can run without a GPU; a GPU that cannot be used is a failure."""
    missing = cuda.available()
    if missing and not DRIVER.exists():
        pytest.skip(missing)
    assert missing is None


@pytest.fixture
def device(dtype: np.dtype[Any]) -> Iterator[RealGpu]:
    with RealGpu(dtype) as real:
        yield real


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[np.dtype[Any], Path]:
    folder = tmp_path_factory.mktemp("kernels")
    return {dtype: build(folder, dtype) for dtype in DTYPES}


def possible() -> list[Limits]:
    """The ways that this device has of computing: its own limits, and those of the small tests."""
    own = gpu(0).limits
    return [own, *(limits for limits in LIMITS if own.clusters or not limits.clusters)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts_tails_and_alignments(
    device: RealGpu, dtype: np.dtype[Any], shape: tuple[int, int, int]
) -> None:
    check_everything(device, shape, dtype, orders=("forward",), limits=possible())


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_tensors(
    device: RealGpu, dtype: np.dtype[Any], shape: tuple[int, int, int], offset: float
) -> None:
    if offset > 3e4 and dtype == np.float16:
        pytest.skip("float16 ends at 65504")
    problem = Problem.of(shape, dtype, offset=offset, seed=int.from_bytes(os.urandom(4)))
    mean, var = (exact.astype(np.float64) for exact in statistics(problem.x))
    check_infer(run_infer(device, problem), problem)
    for limits in possible():
        check_train(run_train(device, problem, limits), problem)
        for training in (True, False):
            found = run_backward(device, problem, limits, mean, var, training=training)
            check_backward(found, problem, mean, var, training=training)
        device.clear()


@pytest.mark.parametrize("shape", [*SHAPES, (8, 16, 56 * 56), (3000, 64, 1)], ids=str)
def test_the_emulator_gives_the_same_bits(
    device: RealGpu, dtype: np.dtype[Any], shape: tuple[int, int, int], libraries: dict[Any, Path]
) -> None:
    emulated = EmulatedGpu(libraries[dtype], order="random")
    problem = Problem.of(shape, dtype)
    mean, var = (exact.astype(np.float64) for exact in statistics(problem.x))
    for limits in possible():
        for shifts in (ALIGNED, (1, 0)):
            on_gpu, on_cpu = (
                run_train(each, problem, limits, shifts=shifts)
                | run_backward(each, problem, limits, mean, var, training=True, shifts=shifts)
                | {"infer": run_infer(each, problem, shifts=shifts)}
                for each in (device, emulated)
            )
            for name, array in on_gpu.items():
                assert array.tobytes() == on_cpu[name].tobytes(), name
    emulated.clear()


def test_the_same_bits_each_time(device: RealGpu, dtype: np.dtype[Any]) -> None:
    for shape in ((16, 64, 3136), (50_000, 64, 1)):
        problem = Problem.of(shape, dtype)
        mean, var = (exact.astype(np.float64) for exact in statistics(problem.x))
        for limits in possible():
            runs = set()
            for _ in range(10):
                found = run_train(device, problem, limits)
                found |= run_backward(device, problem, limits, mean, var, training=True)
                runs.add(tuple(array.tobytes() for array in found.values()))
                device.clear()
            assert len(runs) == 1


@pytest.mark.parametrize(
    ("shape", "axis"), [((8, 32, 14, 14), 1), ((8, 14, 14, 32), -1), ((64, 10), 1), ((1000,), 1)]
)
def test_numpy_arrays_agree_with_the_numpy_backend(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng()
    channels = shape[axis] if len(shape) > 1 else 1
    x = (rng.normal(size=shape) + 3).astype(np.float32)
    scale, bias, mean = (rng.normal(size=channels).astype(np.float32) for _ in range(3))
    var = rng.uniform(0.5, 2, channels).astype(np.float32)
    both = [runtime.train(x, scale, bias, mean, var, axis=axis, backend=b) for b in ("cuda", "numpy")]
    for name in ("y", "mean", "var", "running_mean", "running_var"):
        np.testing.assert_allclose(getattr(both[0], name), getattr(both[1], name), rtol=1e-5, atol=1e-5)
    assert runtime.train(x, scale, bias, mean, var, axis=axis).backend == "cuda"


def test_torch_tensors_on_their_stream() -> None:
    torch = pytest.importorskip("torch")
    normalize = torch.nn.functional.batch_norm
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            with torch.cuda.stream(torch.cuda.Stream()):
                x = torch.randn(8, 32, 14, 14, device="cuda", dtype=dtype).to(memory_format=memory_format)
                scale, bias, mean = (torch.randn(32, device="cuda") for _ in range(3))
                var = torch.rand(32, device="cuda") + 0.5
                y = runtime.infer(x, scale, bias, mean, var)
                expected = normalize(x.double(), mean.double(), var.double(), scale.double(), bias.double())
                assert y.is_contiguous(memory_format=memory_format)
                rounding = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 2**-20}[dtype]
                torch.testing.assert_close(y.double(), expected, rtol=rounding, atol=rounding)
                trained = runtime.train(x, scale, bias, mean, var, convention="pytorch")
                moved = mean.double(), var.double()
                expected = normalize(x.double(), *moved, scale.double(), bias.double(), training=True)
                torch.testing.assert_close(trained.y.double(), expected, rtol=rounding, atol=4 * rounding)
                torch.testing.assert_close(trained.running_mean.double(), moved[0], rtol=1e-6, atol=1e-6)
                torch.testing.assert_close(trained.running_var.double(), moved[1], rtol=1e-6, atol=1e-6)


def test_torch_gradients() -> None:
    torch = pytest.importorskip("torch")
    x = torch.randn(16, 8, 9, 9, device="cuda", dtype=torch.float64, requires_grad=True)
    scale = torch.randn(8, device="cuda", dtype=torch.float64, requires_grad=True)
    bias = torch.randn(8, device="cuda", dtype=torch.float64, requires_grad=True)
    dy = torch.randn_like(x)
    torch.nn.functional.batch_norm(x, None, None, scale, bias, training=True).backward(dy)
    plain = x.detach()
    mean, var = plain.mean((0, 2, 3)), plain.var((0, 2, 3), correction=0)
    found = runtime.backward(dy, plain, scale.detach(), mean=mean, var=var)
    for actual, expected in ((found.dx, x.grad), (found.dscale, scale.grad), (found.dbias, bias.grad)):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_cupy_arrays() -> None:
    cupy = pytest.importorskip("cupy")
    x = cupy.random.standard_normal((8, 32, 14, 14), dtype=cupy.float32)
    scale, bias, mean = (cupy.random.standard_normal(32, dtype=cupy.float32) for _ in range(3))
    var = cupy.abs(mean) + 1
    with cupy.cuda.Stream(non_blocking=True):
        y = runtime.infer(x, scale, bias, mean, var)
        assert isinstance(y, cupy.ndarray)
        host = runtime.infer(*(a.get() for a in (x, scale, bias, mean, var)), backend="numpy")
        cupy.testing.assert_allclose(y, host, rtol=1e-5, atol=1e-5)


SANITIZED = """
import numpy as np
from support.gpu_cases import LIMITS, check_everything
from support.real_gpu import RealGpu
from bnfold.runtime.cuda_device import gpu
own = gpu(0).limits
limits = [own, *(l for l in LIMITS if own.clusters or not l.clusters)]
for name in ("float16", "float32"):
    dtype = np.dtype(name)
    with RealGpu(dtype) as device:
        for shape in ((3, 5, 49), (1, 1, 4001), (50, 24, 1), (300, 3, 1), (40, 130, 1), (5, 6, 2)):
            check_everything(
                device, shape, dtype, orders=("forward",), limits=limits, shifts=((0, 0), (1, 0))
            )
print("clean")
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not installed")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        (sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED),
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "clean" in done.stdout
