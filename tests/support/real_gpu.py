"""A GPU as the kernel checks see one: the calls of the emulated one, so the same checks run on both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bnfold.runtime.cuda_device import PER_THREAD_STREAM, gpu

if TYPE_CHECKING:
    import numpy.typing as npt
    from support.emulated_gpu import Order

    from bnfold.runtime.cuda_plan import Plan

_UNWRITTEN = 0xFF  # NaN in every floating-point type


class RealGpu:
    """The first GPU. Use it as a context manager: the device is the thread's current one meanwhile.

    Attributes:
        dtype: storage type of the tensors.
        order: without effect; threads run as they do.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.device = gpu(0)
        self.dtype = dtype
        self.order: Order = "forward"
        self._current = self.device.current()
        self._taken: list[int] = []

    def __enter__(self) -> Self:
        self._current.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()
        self._current.__exit__(None, None, None)

    def place(self, array: npt.NDArray[Any], shift: int = 0) -> int:
        """Copy an array to the device, `shift` values past a 16-byte boundary."""
        address = self._take(array.nbytes, shift * array.itemsize)
        self.device.upload(address, np.ascontiguousarray(array), PER_THREAD_STREAM)
        return address

    def reserve(self, nbytes: int, shift_bytes: int = 0) -> int:
        """Take memory that kernels are to write; it holds NaN until then."""
        address = self._take(nbytes, shift_bytes)
        if nbytes:
            self.device._call("cuMemsetD8Async", address, _UNWRITTEN, nbytes, PER_THREAD_STREAM)
        return address

    def fetch(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Copy device memory into an array."""
        array = np.empty(shape, dtype)
        self.device.download(array, address, PER_THREAD_STREAM)
        self.device.synchronize(PER_THREAD_STREAM)
        return array

    def run(self, plan: Plan) -> None:
        """Launch what a plan says."""
        self.device.run(plan, self.dtype, self.reserve(plan.workspace_bytes), PER_THREAD_STREAM)

    def clear(self) -> None:
        """Give all memory back."""
        while self._taken:
            self.device.free(self._taken.pop(), PER_THREAD_STREAM)

    def _take(self, nbytes: int, offset: int) -> int:
        self._taken.append(self.device.allocate(offset + nbytes, PER_THREAD_STREAM))
        return self._taken[-1] + offset
