"""Runs `bnfold/runtime/kernels/bn.cu` on the CPU: compiled by g++ with the emulator in `tests/runtime/cuda`.

Three builds. `plain` is fast. `watched` checks every access to memory: bounds to the byte, races, reads of
what nothing wrote, and it interrupts threads between accesses. `address` is instrumented by AddressSanitizer,
whose runtime the process must have loaded from its start.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import bnfold.runtime
from bnfold.runtime.cuda_plan import DTYPE_CODES, Plan, Scratch

if TYPE_CHECKING:
    import numpy.typing as npt

KERNEL_SOURCE = Path(bnfold.runtime.__file__).parent / "kernels" / "bn.cu"
EMULATOR = Path(__file__).parents[1] / "runtime" / "cuda"

Mode = Literal["plain", "watched", "address"]
Order = Literal["forward", "reverse", "random"]
ORDERS: tuple[Order, ...] = ("forward", "reverse", "random")

_FLAGS = (
    "-std=c++17",
    "-O1",
    "-g",
    "-fPIC",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
)
_INSTRUMENT: dict[Mode, tuple[str, ...]] = {
    "plain": (),
    "watched": ("-fsanitize=thread",),
    "address": ("-fsanitize=address", "-fno-omit-frame-pointer"),
}
_UNWRITTEN = 0xFF  # NaN in every floating-point type


class LaunchError(Exception):
    """The emulator refused what a kernel did; the message says what and where."""


def kernels(source: str) -> list[str]:
    """The names of the kernels in bn.cu."""
    return re.findall(r"__launch_bounds__\([^)]*\)\s+(\w+)\(", source)


def build(folder: Path, dtype: npt.DTypeLike, mode: Mode = "plain", *, source: str | None = None) -> Path:
    """Compile bn.cu, or a changed `source`, into a shared library in `folder`.

    A library that is loaded stays so under its name: a changed source needs a folder of its own.

    Raises:
        RuntimeError: no g++, or it failed.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("g++ is missing; the CUDA kernels cannot be checked without it: install it")
    text = KERNEL_SOURCE.read_text() if source is None else source
    name = f"bn-{np.dtype(dtype).name}-{mode}"
    (folder / f"{name}.cu").write_text(text)
    unit = folder / f"{name}.cpp"
    exports = "".join(f"EXPORT({kernel})\n" for kernel in kernels(text))
    unit.write_text(f'#include "emulator.hpp"\n#include "{name}.cu"\n{exports}')
    code = f"-DBN_DTYPE={DTYPE_CODES[np.dtype(dtype)]}"
    objects = [folder / f"{name}.o", *_emulator(folder, compiler, mode)]
    # A bug may well leave a parameter unused.
    strict = ("-Werror",) if source is None else ()
    _run(
        [
            compiler,
            *_FLAGS,
            *strict,
            *_INSTRUMENT[mode],
            code,
            f"-I{EMULATOR}",
            "-c",
            str(unit),
            "-o",
            str(objects[0]),
        ]
    )
    library = folder / f"{name}.so"
    link = _INSTRUMENT[mode] if mode == "address" else ()
    _run([compiler, "-shared", *link, *map(str, objects), "-o", str(library)])
    return library


def _emulator(folder: Path, compiler: str, mode: Mode) -> list[Path]:
    """Compile the emulator itself, once for a folder; it watches and is not watched."""
    flags = _INSTRUMENT[mode] if mode == "address" else ()
    objects = []
    for source in (EMULATOR / "emulator.cpp", EMULATOR / "watch.cpp"):
        target = folder / f"{source.stem}-{mode}.o"
        if not target.exists():
            _run([compiler, *_FLAGS, *flags, "-c", str(source), "-o", str(target)])
        objects.append(target)
    return objects


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("blocks", "threads", "cluster", "shared_bytes", "order", "seed")
    ]


@dataclass
class _Buffer:
    memory: int
    address: int
    nbytes: int


class EmulatedGpu:
    """A device whose memory is the process's own.

    Attributes:
        order: in which threads and blocks run.
        seed: for the random order.
    """

    def __init__(self, library: Path, order: Order = "forward", seed: int = 1) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.emulator_error.restype = ctypes.c_char_p
        self._library.emulator_allocate.restype = ctypes.c_void_p
        self._library.emulator_allocate.argtypes = [ctypes.c_uint64]
        self._library.emulator_free.argtypes = [ctypes.c_void_p]
        self._library.watch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64]
        self._library.watch_remove.argtypes = [ctypes.c_void_p]
        self._buffers: dict[int, _Buffer] = {}
        self.dtype: np.dtype[Any] = np.dtype(np.float32)
        self.order: Order = order
        self.seed = seed

    def place(self, array: npt.NDArray[Any], shift: int = 0) -> int:
        """Copy an array to read-only device memory, `shift` values past a 16-byte boundary."""
        address = self._take(array.nbytes, shift * array.itemsize, kind=0)
        ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return address

    def reserve(self, nbytes: int, shift_bytes: int = 0) -> int:
        """Take device memory that kernels are to write; it holds NaN until then."""
        address = self._take(nbytes, shift_bytes, kind=1)
        ctypes.memset(address, _UNWRITTEN, nbytes)
        return address

    def fetch(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Copy device memory into an array."""
        array = np.empty(shape, dtype)
        assert array.nbytes <= self._buffers[address].nbytes
        ctypes.memmove(array.ctypes.data, address, array.nbytes)
        return array

    def run(self, plan: Plan) -> None:
        """Launch what a plan says.

        Raises:
            LaunchError: a kernel did what no kernel may.
        """
        workspace = self.reserve(plan.workspace_bytes)
        for launch in plan.launches:
            values: list[Any] = []
            for argument in launch.arguments:
                if isinstance(argument, Scratch):
                    values.append(ctypes.c_uint64(argument.at(workspace)))
                elif isinstance(argument, float):
                    values.append(ctypes.c_double(argument))
                else:
                    values.append(ctypes.c_uint64(argument))
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
            shape = _Shape(
                launch.blocks,
                launch.threads,
                launch.cluster,
                launch.shared_bytes,
                ORDERS.index(self.order),
                self.seed,
            )
            wanted: int = getattr(self._library, f"arguments_{launch.kernel}")()
            if wanted != len(values):
                raise LaunchError(f"{launch.kernel} takes {wanted} arguments; the plan has {len(values)}")
            if getattr(self._library, f"launch_{launch.kernel}")(ctypes.byref(shape), pointers):
                raise LaunchError(f"{launch.kernel}: {self._library.emulator_error().decode()}")

    def clear(self) -> None:
        """Give all memory back."""
        for buffer in self._buffers.values():
            self._library.watch_remove(buffer.address)
            self._library.emulator_free(buffer.memory)
        self._buffers.clear()

    def _take(self, nbytes: int, offset: int, kind: int) -> int:
        memory: int = self._library.emulator_allocate(offset + nbytes)
        assert memory % 16 == 0
        self._buffers[memory + offset] = _Buffer(memory, memory + offset, nbytes)
        self._library.watch_add(memory + offset, nbytes, kind)
        return memory + offset
