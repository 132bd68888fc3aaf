"""One GPU: its memory, and the launch of plans on it."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any

from bnfold.errors import EnvironmentFault
from bnfold.runtime import cuda_compiler, cuda_driver
from bnfold.runtime.cuda_plan import DTYPE_CODES, Limits, Plan, Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

# CUstream handles that the driver gives a meaning (cuda.h): 0 and 1 are the same stream.
LEGACY_STREAM = 1
PER_THREAD_STREAM = 2

_FIRST_WITH_CLUSTERS = (9, 0)


class Gpu:
    """A device and its primary context, which every CUDA library of the process shares.

    Attributes:
        ordinal: its index.
        architecture: such as `"sm_90"`.
        limits: what decides plans.
    """

    def __init__(self, ordinal: int) -> None:
        self._driver, self._core = packages()
        self.ordinal = ordinal
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", ordinal)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        capability = (
            self._attribute("COMPUTE_CAPABILITY_MAJOR"),
            self._attribute("COMPUTE_CAPABILITY_MINOR"),
        )
        self.architecture = f"sm_{capability[0]}{capability[1]}"
        self.limits = Limits(
            multiprocessors=self._attribute("MULTIPROCESSOR_COUNT"),
            shared_bytes=self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
            clusters=capability >= _FIRST_WITH_CLUSTERS,
        )
        self._kernels: dict[tuple[int, str], Any] = {}
        self._code: dict[int, Any] = {}
        self._lock = Lock()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make this the current device of the thread, and put back what was.

        Raises:
            EnvironmentFault: the driver fails underneath.
        """
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        except Exception as error:
            # cuda.core's exception is private; its text begins with the driver's name of the error.
            if "CUDA_ERROR" in str(error):
                raise EnvironmentFault(f"the GPU cannot do it: {error}") from error
            raise
        finally:
            self._call("cuCtxPopCurrent")

    def allocate(self, nbytes: int, stream: int) -> int:
        """Take device memory, in the order of the stream, and give its address.

        Raises:
            EnvironmentFault: there is not enough.
        """
        error, address = self._driver.cuMemAllocAsync(max(nbytes, 1), stream)
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            free, total = self._call("cuMemGetInfo")
            detail = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free"
            raise EnvironmentFault(out_of_memory(nbytes, detail))
        self._check("cuMemAllocAsync", error)
        return int(address)

    def free(self, address: int, stream: int) -> None:
        """Give device memory back once the stream has done with it."""
        self._call("cuMemFreeAsync", address, stream)

    def upload(self, address: int, array: npt.NDArray[Any], stream: int) -> None:
        """Copy a contiguous array to the device; the array may change afterwards."""
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)

    def download(self, array: npt.NDArray[Any], address: int, stream: int) -> None:
        """Copy from the device to a contiguous array; it is filled once the stream is synchronized."""
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)

    def synchronize(self, stream: int) -> None:
        """Wait until the stream has done all that was asked of it."""
        self._call("cuStreamSynchronize", stream)

    def run(self, plan: Plan, dtype: np.dtype[Any], workspace: int, stream: int) -> None:
        """Launch what a plan says, in order, on a stream; does not wait.

        Args:
            plan: the launches.
            dtype: storage type of the tensors.
            workspace: address of `plan.workspace_bytes` bytes.
            stream: a CUstream.
        """
        queue = self._core.Stream.from_handle(stream)
        for launch in plan.launches:
            # With a cluster, cuda.core counts the grid in clusters.
            config = self._core.LaunchConfig(
                grid=launch.blocks // launch.cluster,
                block=launch.threads,
                shmem_size=launch.shared_bytes,
                **({"cluster": launch.cluster} if self.limits.clusters and launch.cluster > 1 else {}),
            )
            values = [
                ctypes.c_double(argument)
                if isinstance(argument, float)
                else ctypes.c_uint64(argument.at(workspace) if isinstance(argument, Scratch) else argument)
                for argument in launch.arguments
            ]
            self._core.launch(queue, config, self._kernel(DTYPE_CODES[dtype], launch.kernel), *values)

    def _kernel(self, code: int, name: str) -> Any:  # noqa: ANN401 - a type of an optional package
        with self._lock:
            if (code, name) not in self._kernels:
                if code not in self._code:
                    cubin = cuda_compiler.kernels(code, self.architecture)
                    self._code[code] = self._core.ObjectCode.from_cubin(cubin)
                kernel = self._code[code].get_kernel(name)
                # Above 48 KiB a kernel must be allowed its shared memory.
                attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                if name.endswith("_fused"):
                    self._call(
                        "cuKernelSetAttribute",
                        attribute,
                        self.limits.shared_bytes,
                        kernel.handle,
                        self._device,
                    )
                self._kernels[code, name] = kernel
            return self._kernels[code, name]

    def _attribute(self, name: str) -> int:
        attribute = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("cuDeviceGetAttribute", attribute, self._device))

    def _call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - what the driver returns
        error, *results = getattr(self._driver, function)(*arguments)
        self._check(function, error)
        return results[0] if len(results) == 1 else results

    def _check(self, function: str, error: Any) -> None:  # noqa: ANN401 - a type of an optional package
        if int(error) != 0:
            raise EnvironmentFault(f"the GPU cannot do it: {function} gave {error.name}")


@cache
def packages() -> tuple[Any, Any]:
    """Check all that a GPU needs beside itself, and give `cuda.bindings.driver` and `cuda.core`.

    Creates no context, which would take half a second and device memory.

    Raises:
        EnvironmentFault: no driver, no device, a package that is missing, or a driver too old for NVRTC.
    """
    driver = cuda_driver.probe()
    cuda_driver.check_version(driver, cuda_compiler.version())
    return _package("cuda.bindings.driver"), _package("cuda.core")


@cache
def gpu(ordinal: int) -> Gpu:
    """The device with this index; the same object each time.

    Raises:
        EnvironmentFault: no driver, no such device, too old a driver, or a missing package.
    """
    return Gpu(ordinal)


def out_of_memory(nbytes: int, detail: str) -> str:
    """The message when an allocation fails."""
    return (
        f"out of GPU memory: {nbytes / 2**30:.2f} GiB wanted ({detail}); use a smaller batch, or "
        'backend="numpy"'
    )


def _package(name: str) -> Any:  # noqa: ANN401 - a module of an optional package
    try:
        return import_module(name)
    except ImportError as error:
        raise EnvironmentFault(f"{name} is missing ({error}): {cuda_compiler.INSTALL}") from error
