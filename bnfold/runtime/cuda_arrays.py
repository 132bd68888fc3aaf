"""Arrays on their way to the kernels and back: NumPy's by copy, device arrays where they are."""

from __future__ import annotations

import math
import sys
import weakref
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.runtime.arguments import FLOAT_DTYPES, Layout, layout_of
from bnfold.runtime.cuda_device import LEGACY_STREAM, PER_THREAD_STREAM, Gpu, gpu, out_of_memory, packages
from bnfold.runtime.cuda_plan import Vector

if TYPE_CHECKING:
    from types import TracebackType

# DLDeviceType of dlpack.h: kDLCUDA, kDLCUDAManaged.
_DLPACK_DEVICES = (2, 13)


@dataclass(frozen=True, slots=True)
class Operand:
    """An array as a kernel sees it.

    Attributes:
        address: of its first value in device memory.
        shape: lengths of the axes.
        strides: of the axes, in values.
        dtype: of the values.
        owner: the array that keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def vector(self) -> Vector:
        """For plans, where the shape is `[C]`."""
        return Vector(self.address, self.dtype)


class Exchange(Protocol):
    """Where the arrays of one call come from and go to."""

    gpu: Gpu
    stream: int

    def __enter__(self) -> Self:
        """Begin a call: the device becomes the thread's current one."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End a call: what was taken for it is given back."""

    def read(self, name: str, array: Any) -> Operand:  # noqa: ANN401 - any library's array
        """See an argument of the caller."""

    def like(self, operand: Operand) -> Operand:
        """Take a result of the shape, dtype and memory order of an argument."""

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Operand:
        """Take a contiguous result, or workspace."""

    def results(self, *operands: Operand) -> tuple[Any, ...]:
        """Give results to the caller, as arrays of the library of the arguments."""


def exchange_for(x: object) -> Exchange:
    """Choose how the arrays of a call travel.

    Args:
        x: the tensor of the call; the other arrays must be of its kind.

    Raises:
        UsageError: x is no array, or in host memory but not NumPy's.
        EnvironmentFault: no usable device.
    """
    if isinstance(x, np.ndarray):
        return HostArrays(gpu(0))
    for kind in type(x).__mro__:
        library = kind.__module__.partition(".")[0]
        if library == "torch":
            return TorchArrays(x)
        if library == "cupy":
            return CupyArrays(x)
    return ForeignArrays(x)


def memory_layout(operand: Operand, axis: int) -> Layout:
    """Divide a tensor at its channel axis as it lies in memory.

    Batch normalization does not care about the order of the other axes, so any dense order will do: a
    channels-last torch tensor of shape [N, C, H, W] is [N*H*W, C, 1].

    Args:
        operand: the tensor.
        axis: the channel axis, 1 or -1.

    Raises:
        UsageError: memory with gaps or repetitions, or an axis that does not fit.
    """
    layout = layout_of(operand.shape, axis)
    if layout.channels * layout.count == 0:
        return layout
    long = [a for a, length in enumerate(operand.shape) if length > 1]
    by_stride = sorted(long, key=lambda a: operand.strides[a], reverse=True)
    dense = 1
    for a in reversed(by_stride):
        if operand.strides[a] != dense:
            raise UsageError(
                f"x of shape {operand.shape} has strides {operand.strides}, which leave gaps or overlap: "
                "pass a contiguous copy"
            )
        dense *= operand.shape[a]
    channel_axis = axis % len(operand.shape) if len(operand.shape) > 1 else None
    if channel_axis not in by_stride:
        return Layout(outer=layout.count, channels=layout.channels, inner=1)
    at = by_stride.index(channel_axis)
    lengths = [operand.shape[a] for a in by_stride]
    return Layout(math.prod(lengths[:at]), layout.channels, math.prod(lengths[at + 1 :]))


def same_order(first: Operand, second: Operand) -> bool:
    """Whether two arrays of one shape lie in memory in the same order."""
    steps = zip(first.shape, first.strides, second.strides, strict=True)
    return all(length <= 1 or a == b for length, a, b in steps)


class HostArrays:
    """NumPy arrays: copied to the device and back, on the thread's own default stream."""

    def __init__(self, device: Gpu) -> None:
        self.gpu = device
        self.stream = PER_THREAD_STREAM
        self._taken: list[int] = []
        self._current = device.current()

    def __enter__(self) -> Self:
        """See `Exchange`."""
        self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `Exchange`."""
        while self._taken:
            self.gpu.free(self._taken.pop(), self.stream)
        self._current.__exit__(kind, error, trace)

    def read(self, name: str, array: Any) -> Operand:  # noqa: ANN401 - see Exchange
        """See `Exchange`."""
        if not isinstance(array, np.ndarray):
            raise UsageError(
                f"{name} is a {_kind(array)} and x a numpy.ndarray: pass all in one kind of memory"
            )
        _check_dtype(name, array.dtype)
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        operand = self.take(array.shape, array.dtype)
        self.gpu.upload(operand.address, contiguous, self.stream)
        return operand

    def like(self, operand: Operand) -> Operand:
        """See `Exchange`."""
        return self.take(operand.shape, operand.dtype)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Operand:
        """See `Exchange`."""
        address = self.gpu.allocate(math.prod(shape) * dtype.itemsize, self.stream)
        self._taken.append(address)
        return Operand(address, shape, _contiguous(shape), dtype, None)

    def results(self, *operands: Operand) -> tuple[Any, ...]:
        """See `Exchange`."""
        arrays = tuple(np.empty(operand.shape, operand.dtype) for operand in operands)
        for array, operand in zip(arrays, operands, strict=True):
            self.gpu.download(array, operand.address, self.stream)
        self.gpu.synchronize(self.stream)
        return arrays


@dataclass
class _DeviceArrays:
    """Arrays in device memory, read where they are; their library makes the results on its current stream."""

    x: Any
    gpu: Gpu = field(init=False)
    stream: int = field(init=False)

    def __post_init__(self) -> None:
        view = self._view("x", self.x, stream=-1)
        self.gpu = gpu(view.device_id)
        # 0 is ambiguous in DLPack; 1 names the same stream.
        self.stream = self._current_stream(view.device_id) or LEGACY_STREAM
        self._current = self.gpu.current()

    def __enter__(self) -> Self:
        """See `Exchange`."""
        self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `Exchange`."""
        self._current.__exit__(kind, error, trace)

    def read(self, name: str, array: Any) -> Operand:  # noqa: ANN401 - see Exchange
        """See `Exchange`."""
        view = self._view(name, array, stream=self._order_after(array))
        if view.device_id != self.gpu.ordinal:
            raise UsageError(
                f"{name} is on GPU {view.device_id} and x on GPU {self.gpu.ordinal}: pass all on one"
            )
        _check_dtype(name, view.dtype)
        shape = tuple(view.shape)
        strides = _contiguous(shape) if view.strides is None else tuple(view.strides)
        return Operand(view.ptr, shape, strides, np.dtype(view.dtype), (array, view))

    def like(self, operand: Operand) -> Operand:
        """See `Exchange`."""
        return self._seen(operand.nbytes, lambda: self._empty_like(operand.owner[0]))

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Operand:
        """See `Exchange`."""
        return self._seen(math.prod(shape) * dtype.itemsize, lambda: self._empty(shape, dtype))

    def results(self, *operands: Operand) -> tuple[Any, ...]:
        """See `Exchange`."""
        return tuple(operand.owner[0] for operand in operands)

    def _seen(self, nbytes: int, make: Any) -> Operand:  # noqa: ANN401 - a function
        try:
            array = make()
        except Exception as error:
            # torch and cupy each have an exception of this name.
            if type(error).__name__ == "OutOfMemoryError":
                raise EnvironmentFault(out_of_memory(nbytes, str(error).partition("\n")[0])) from error
            raise
        view = self._view("a result", array, stream=-1)
        shape = tuple(view.shape)
        strides = _contiguous(shape) if view.strides is None else tuple(view.strides)
        return Operand(view.ptr, shape, strides, np.dtype(view.dtype), (array, view))

    @staticmethod
    def _view(name: str, array: Any, *, stream: int) -> Any:  # noqa: ANN401 - a type of an optional package
        if getattr(array, "requires_grad", False):
            raise UsageError(f"{name} requires a gradient, which is not recorded here: pass {name}.detach()")
        if not _offers_memory(array):
            raise UsageError(f"{name} is a {_kind(array)}; expected an array in GPU memory, as x is")
        # Asked first, since it needs no driver.
        if hasattr(array, "__dlpack_device__") and array.__dlpack_device__()[0] not in _DLPACK_DEVICES:
            raise UsageError(
                f"{name} is a {_kind(array)} in host memory: pass all as numpy.ndarray, or all in GPU memory"
            )
        packages()
        return import_module("cuda.core.utils").StridedMemoryView.from_any_interface(array, stream_ptr=stream)

    def _order_after(self, array: Any) -> int:  # noqa: ANN401, ARG002 - an array of any library
        # Arrays of a library are ready on its current stream, which is the one used.
        return -1

    def _current_stream(self, ordinal: int) -> int:
        raise NotImplementedError

    def _empty_like(self, array: Any) -> Any:  # noqa: ANN401 - an array of any library
        raise NotImplementedError

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - an array of any library
        raise NotImplementedError


class TorchArrays(_DeviceArrays):
    """Tensors of PyTorch."""

    def _current_stream(self, ordinal: int) -> int:
        return int(sys.modules["torch"].cuda.current_stream(ordinal).cuda_stream)

    def _empty_like(self, array: Any) -> Any:  # noqa: ANN401 - a torch.Tensor
        return sys.modules["torch"].empty_like(array)

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - a torch.Tensor
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, dtype.name), device=self.x.device)


class CupyArrays(_DeviceArrays):
    """Arrays of CuPy."""

    def _current_stream(self, ordinal: int) -> int:
        return int(sys.modules["cupy"].cuda.get_current_stream(ordinal).ptr)

    def _empty_like(self, array: Any) -> Any:  # noqa: ANN401 - a cupy.ndarray
        return sys.modules["cupy"].empty_like(array)

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - a cupy.ndarray
        return sys.modules["cupy"].empty(shape, dtype)


class ForeignArrays(_DeviceArrays):
    """Arrays of any other library that offers DLPack or `__cuda_array_interface__`.

    Results are `cuda.core.utils.StridedMemoryView`, which offers DLPack in turn. Nothing is known of the
    library's streams, so the results are complete when they are returned.
    """

    def results(self, *operands: Operand) -> tuple[Any, ...]:
        """See `Exchange`."""
        self.gpu.synchronize(self.stream)
        return super().results(*operands)

    def _order_after(self, array: Any) -> int:  # noqa: ANN401, ARG002 - an array of any library
        return self.stream

    def _current_stream(self, ordinal: int) -> int:  # noqa: ARG002 - see the class
        return LEGACY_STREAM

    def _empty_like(self, array: Any) -> Any:  # noqa: ANN401 - a StridedMemoryView
        operand = self.read("x", array)
        return self._empty(operand.shape, operand.dtype, operand.strides)

    def _empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...] | None = None
    ) -> Any:  # noqa: ANN401 - a StridedMemoryView
        nbytes = max(math.prod(shape) * dtype.itemsize, 1)
        memory = _Memory(self.gpu, nbytes, self.stream)
        buffer = import_module("cuda.core").Buffer.from_handle(memory.address, nbytes, owner=memory)
        view = import_module("cuda.core.utils").StridedMemoryView
        return view.from_buffer(buffer, shape, strides, dtype=dtype, itemsize=dtype.itemsize)


class _Memory:
    """Device memory that is given back with the last reference to it.

    Attributes:
        address: of its first byte.
    """

    def __init__(self, device: Gpu, nbytes: int, stream: int) -> None:
        self.address = device.allocate(nbytes, stream)
        weakref.finalize(self, _release, device, self.address, stream)


def _release(device: Gpu, address: int, stream: int) -> None:
    with device.current():
        device.free(address, stream)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[a + 1 :]) for a in range(len(shape)))


def _check_dtype(name: str, dtype: np.dtype[Any] | None) -> None:
    if dtype not in FLOAT_DTYPES:
        raise UsageError(f"{name} has dtype {dtype}; expected one of {', '.join(map(str, FLOAT_DTYPES))}")


def _offers_memory(array: object) -> bool:
    return hasattr(array, "__dlpack__") or hasattr(array, "__cuda_array_interface__")


def _kind(array: object) -> str:
    return f"{type(array).__module__}.{type(array).__qualname__}"
