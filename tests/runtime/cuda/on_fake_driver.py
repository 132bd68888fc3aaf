"""Checks of the whole CUDA backend, each run in a process of its own whose driver is a fake one.

Everything is real but the GPU: cuda.core, cuda.bindings, plans, copies, arrays of other libraries. Kernels
run in the emulator. Started by test_host.py: python on_fake_driver.py CHECK DRIVER KERNELS
"""

from __future__ import annotations

import ctypes
import sys
import threading
import types
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Array = npt.NDArray[Any]

from support.gpu_cases import half_ulp

from bnfold import runtime as typed_runtime
from bnfold.errors import EnvironmentFault, UsageError
from bnfold.runtime import cuda, cuda_compiler
from bnfold.runtime.cuda_plan import DTYPE_CODES

# Stand-ins for the arrays of other libraries are of no type that is declared.
runtime: Any = typed_runtime
DRIVER = ctypes.CDLL(sys.argv[2])
NAMES = {code: dtype.name for dtype, code in DTYPE_CODES.items()}
DRIVER.fake_allocated.restype = ctypes.c_size_t


def emulated(dtype_code: int, architecture: str) -> bytes:
    """A CUBIN for the fake driver."""
    assert architecture == "sm_90"
    return f"emulated:{Path(sys.argv[3]) / f'bn-{NAMES[dtype_code]}-plain.so'}\0".encode()


cuda_compiler.kernels = emulated


def problem(shape: tuple[int, ...], axis: int, dtype: Any) -> dict[str, Array]:  # noqa: ANN401 - a dtype-like
    rng = np.random.default_rng(list(shape))
    channels = shape[axis] if len(shape) > 1 else 1
    return {
        "x": (rng.normal(size=shape) + 1).astype(dtype),
        "scale": rng.normal(size=channels).astype(np.float32),
        "bias": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float16),
        "var": rng.uniform(1, 2, size=channels).astype(np.float16),
        "dy": rng.normal(size=shape).astype(dtype),
    }


def near(actual: Array, expected: Array, *, room: float = 64) -> None:
    """Within `room` half ulps of the expected dtype, at the size of the tensor: 64 covers float32 sums."""
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    assert actual.shape == expected.shape
    wide = expected.astype(np.float64)
    arithmetic = np.dtype(np.float64 if expected.dtype == np.float64 else np.float32)
    size = np.abs(wide).max(initial=1)
    bound = half_ulp(wide, expected.dtype) * 2 + room * half_ulp(np.asarray(size), arithmetic)
    if expected.dtype == np.float64:
        bound = bound + room * 2.0**-24 * size  # statistics of float32 values, kept in float64
    assert (np.abs(actual.astype(np.float64) - wide) <= bound).all()


def nothing_left() -> None:
    """All device memory is given back, and the thread has the device that it had."""
    assert DRIVER.fake_allocated() == 0
    assert DRIVER.fake_depth() == 0


def numpy_arrays() -> None:
    shapes = [((7,), 1), ((5, 3), 1), ((4, 3, 7), 1), ((2, 3, 4, 5), 1), ((2, 4, 5, 16), -1),
              ((2, 3, 2, 3, 4), 1), ((2, 4, 5, 3), 3), ((1, 6, 1, 1), 1), ((2, 2, 90, 90), 1)]  # fmt: skip
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
        for shape, axis in shapes:
            p = problem(shape, axis, dtype)
            for x in (p["x"], np.asfortranarray(p["x"])):
                given = (x, p["scale"], p["bias"], p["mean"], p["var"])
                near(runtime.infer(*given, axis=axis), runtime.infer(*given, axis=axis, backend="numpy"))
                t = runtime.train(*given, axis=axis)
                u = runtime.train(*given, axis=axis, backend="numpy")
                assert t.backend == "cuda"
                for name in ("y", "mean", "var", "running_mean", "running_var"):
                    near(getattr(t, name), getattr(u, name))
                for training in (True, False):
                    arguments = {"mean": u.mean, "var": u.var, "axis": axis, "training": training}
                    g = runtime.backward(p["dy"], x, p["scale"], **arguments)
                    h = runtime.backward(p["dy"], x, p["scale"], **arguments, backend="numpy")
                    for name in ("dx", "dscale", "dbias"):
                        near(getattr(g, name), getattr(h, name), room=256)
            nothing_left()
    # The kernels that were launched as clusters reached the driver as such.
    assert DRIVER.fake_cluster() == 4


def conventions() -> None:
    p = problem((4, 3, 7), 1, np.float32)
    given = (p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    for convention in ("onnx", "pytorch", "keras"):
        t = runtime.train(*given, convention=convention)
        u = runtime.train(*given, convention=convention, backend="numpy")
        near(t.running_var, u.running_var)
        near(t.running_mean, u.running_mean)


def empty() -> None:
    p = problem((0, 3, 7), 1, np.float32)
    given = (p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    assert runtime.infer(*given).shape == (0, 3, 7)
    refuses("an empty batch has no mean", lambda: runtime.train(*given))
    g = runtime.backward(p["dy"], p["x"], p["scale"], mean=p["mean"], var=p["var"], training=False)
    assert g.dx.shape == (0, 3, 7)
    assert (g.dscale == 0).all()
    assert (g.dbias == 0).all()
    none = problem((5, 0, 7), 1, np.float32)
    assert runtime.infer(none["x"], none["scale"], none["bias"], none["mean"], none["var"]).shape == (5, 0, 7)
    nothing_left()


def refusals() -> None:
    p = problem((4, 3, 7), 1, np.float32)
    x, scale, bias, mean, var = (p[k] for k in ("x", "scale", "bias", "mean", "var"))
    wide = x.astype(float)
    for backend in ("numpy", "cuda"):
        infer = partial(runtime.infer, backend=backend)
        backward = partial(runtime.backward, mean=mean, var=var, backend=backend)
        refuses("scale has shape", partial(infer, x, scale[:2], bias, mean, var))
        refuses(
            "scale is float32 and bias is float64", partial(infer, x, scale, bias.astype(float), mean, var)
        )
        refuses("x has dtype int64", partial(infer, x.astype(int), scale, bias, mean, var))
        refuses("axis=2", partial(infer, x[..., None], scale, bias, mean, var, axis=2))
        refuses("dy has shape", partial(backward, x[:1], x, scale))
        refuses("dy is float64", partial(backward, wide, x, scale))
    nothing_left()


def out_of_memory() -> None:
    """FAKE_CUDA_BYTES is 100000."""
    p = problem((40, 3, 7, 70), 1, np.float32)
    expected = (
        r"out of GPU memory: 0\.00 GiB wanted \(0\.0 of 0\.0 GiB are free\); use a smaller batch, or backend="
    )
    with pytest.raises(EnvironmentFault, match=expected):
        runtime.infer(p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    nothing_left()


def unusable() -> None:
    """The environment makes the driver one that cannot be used."""
    reason = cuda.available()
    assert reason is not None
    sys.stdout.write(reason)
    p = problem((4, 3, 7), 1, np.float32)
    given = (p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    assert runtime.train(*given).backend == "numpy"
    with pytest.raises(EnvironmentFault) as caught:
        runtime.train(*given, backend="cuda")
    assert str(caught.value) == reason


def threads() -> None:
    p = problem((8, 5, 40), 1, np.float32)
    given = (p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    expected = runtime.train(*given).y.tobytes()
    found: list[bytes] = []

    def work() -> None:
        found.extend(runtime.train(*given).y.tobytes() for _ in range(5))
        assert DRIVER.fake_depth() == 0

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [expected] * 20
    nothing_left()


class DeviceArray:
    """Memory that another library owns, offered by `__cuda_array_interface__`."""

    requires_grad = False
    device = "cuda:0"

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        array = self.array
        return {"shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False),
                "version": 3, "strides": array.strides, "stream": None}  # fmt: skip


def seen(view: Any) -> Array:  # noqa: ANN401 - a StridedMemoryView
    """The values behind a result for a library that bnfold does not know."""
    size = int(np.prod(view.shape))
    memory = (ctypes.c_char * (size * view.dtype.itemsize)).from_address(view.ptr)
    flat = np.frombuffer(bytes(memory), view.dtype)
    if view.strides is None:
        return flat.reshape(view.shape)
    return np.lib.stride_tricks.as_strided(flat, view.shape, [s * view.dtype.itemsize for s in view.strides])


def foreign_arrays() -> None:
    p = problem((4, 6, 5, 7), 1, np.float32)
    given = (p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    expected = runtime.train(*given, backend="numpy")
    t = runtime.train(*map(DeviceArray, given))
    assert t.backend == "cuda"
    for name in ("y", "mean", "var", "running_mean", "running_var"):
        near(seen(getattr(t, name)), getattr(expected, name))
    assert DRIVER.fake_allocated() > 0
    del t
    nothing_left()
    # A tensor of channels-last memory, read where it is; y lies in the same order.
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(p["x"], 1, -1)), -1, 1)
    y = runtime.infer(*map(DeviceArray, (last, *given[1:])))
    assert tuple(s * 4 for s in y.strides) == last.strides
    near(seen(y), runtime.infer(*given, backend="numpy"))
    dy = DeviceArray(p["dy"])
    refuses("pass both in one memory order",
            lambda: runtime.backward(dy, DeviceArray(last), DeviceArray(given[1]),
                                     mean=DeviceArray(given[3]), var=DeviceArray(given[4])))  # fmt: skip
    gaps = DeviceArray(p["x"][..., ::2])
    refuses("which leave gaps", lambda: runtime.infer(gaps, *map(DeviceArray, given[1:])))
    strided = np.repeat(given[1], 2)[::2]
    refuses("scale has stride 2",
            lambda: runtime.infer(*map(DeviceArray, (given[0], strided, *given[2:]))))  # fmt: skip
    refuses(
        "scale is a numpy.ndarray in host memory: pass all as",
        lambda: runtime.infer(DeviceArray(given[0]), *given[1:], backend="cuda"),
    )
    refuses(
        "pass all in one kind", lambda: runtime.infer(given[0], *map(DeviceArray, given[1:]), backend="cuda")
    )


def torch_arrays() -> None:
    """A stand-in for torch: what is called of it is what is checked."""
    torch: Any = types.ModuleType("torch")
    tensor: Any = type("Tensor", (DeviceArray,), {"__module__": "torch"})
    made: list[Any] = []
    streams: list[int] = []

    def empty_like(array: Any) -> Any:  # noqa: ANN401 - a stand-in tensor
        made.append(tensor(np.empty_like(array.array)))
        return made[-1]

    def empty(shape: tuple[int, ...], *, dtype: Any, device: str) -> Any:  # noqa: ANN401 - see above
        assert device == "cuda:0"
        if int(np.prod(shape)) > torch.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate much.\nMore lines.")
        made.append(tensor(np.empty(shape, dtype)))
        return made[-1]

    def current_stream(ordinal: int) -> Any:  # noqa: ANN401 - see above
        streams.append(ordinal)
        return types.SimpleNamespace(cuda_stream=0)

    torch.__dict__.update(
        empty=empty, empty_like=empty_like, float16=np.float16, float32=np.float32, float64=np.float64,
        uint8=np.uint8, cuda=types.SimpleNamespace(current_stream=current_stream), limit=10**9,
        OutOfMemoryError=type("OutOfMemoryError", (RuntimeError,), {}),
    )  # fmt: skip
    sys.modules["torch"] = torch
    p = problem((4, 6, 5, 7), 1, np.float32)
    given = (p["x"], p["scale"], p["bias"], p["mean"], p["var"])
    t = runtime.train(*map(tensor, given))
    expected = runtime.train(*given, backend="numpy")
    for name in ("y", "mean", "var", "running_mean", "running_var"):
        assert type(getattr(t, name)) is tensor
        near(getattr(t, name).array, getattr(expected, name))
    assert streams == [0]
    nothing_left()  # all memory came from torch
    needs = tensor(given[0])
    needs.requires_grad = True
    refuses(r"x requires a gradient, which is not recorded here: pass x.detach\(\)",
            lambda: runtime.infer(needs, *map(tensor, given[1:])))  # fmt: skip
    torch.limit = 0
    with pytest.raises(EnvironmentFault, match="Tried to allocate much") as caught:
        runtime.train(*map(tensor, given))
    assert "\n" not in str(caught.value)


def host_memory_of_others() -> None:
    class HostTensor:
        def __dlpack__(self, **_: object) -> object:
            raise AssertionError("must not be asked for its memory")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    p = problem((4, 3, 7), 1, np.float32)
    refuses("in host memory: pass all as numpy.ndarray",
            lambda: runtime.infer(HostTensor(), p["scale"], p["bias"], p["mean"], p["var"]))  # fmt: skip


def refuses(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


CHECKS = {
    check.__name__: check
    for check in (
        numpy_arrays, conventions, empty, refusals, out_of_memory, unusable, threads,
        foreign_arrays, torch_arrays, host_memory_of_others,
    )
}  # fmt: skip

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
