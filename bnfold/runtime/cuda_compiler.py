"""`kernels/bn.cu` as machine code for one architecture: compiled by NVRTC, kept on disk.

Machine code rather than PTX, since an older driver refuses the PTX of a newer NVRTC.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from bnfold import atomic
from bnfold.errors import EnvironmentFault

INSTALL = "pip install 'bnfold[cuda]'"
# Contraction off: bn.cu writes fma where it means one, and so gives the same bits on every architecture.
OPTIONS = ("--std=c++17", "--fmad=false")

_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Compiled:
    """What NVRTC makes of the kernels.

    Attributes:
        cubin: an ELF file with machine code.
        log: what the compiler and the assembler have to say.
    """

    cubin: bytes
    log: str


def source() -> str:
    """The text of bn.cu."""
    return resources.files("bnfold.runtime").joinpath("kernels", "bn.cu").read_text(encoding="utf-8")


def version() -> tuple[int, int]:
    """The version of NVRTC.

    Raises:
        EnvironmentFault: the extra is not installed.
    """
    return _version(_nvrtc())


def kernels(dtype_code: int, architecture: str) -> bytes:
    """Give the machine code for one storage type, from the cache where it is there.

    Args:
        dtype_code: ONNX TensorProto.DataType of x.
        architecture: such as `"sm_90"`.

    Raises:
        EnvironmentFault: the extra is not installed, or NVRTC does not know the architecture.
    """
    text = source()
    options = _options(dtype_code, architecture)
    entry = cache_folder() / f"bn-{cache_key(text, options, version())}.cubin"
    kept = _kept(entry)
    if kept is not None:
        return kept
    cubin = compile_kernels(text, options).cubin
    # A home that cannot be written to costs a second each time, and is no reason to fail.
    with contextlib.suppress(OSError):
        _keep(entry, cubin)
    return cubin


def cache_folder() -> Path:
    """Where compiled kernels are kept: `$XDG_CACHE_HOME/bnfold`, or `~/.cache/bnfold`.

    A relative `$XDG_CACHE_HOME` is ignored (XDG Base Directory Specification).
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "bnfold"


def cache_key(text: str, options: tuple[str, ...], compiler: tuple[int, int]) -> str:
    """Digest of all that decides the machine code; the architecture and the dtype are among the options."""
    return hashlib.sha256(repr((text, options, compiler)).encode()).hexdigest()[:32]


def compile_kernels(text: str, options: tuple[str, ...]) -> Compiled:
    """Run NVRTC. Needs no driver and no GPU.

    Raises:
        EnvironmentFault: the extra is not installed, or it refuses; the message has its first error.
    """
    nvrtc = _nvrtc()
    _check_architecture(nvrtc, options)
    error, program = nvrtc.nvrtcCreateProgram(text.encode(), b"bn.cu", 0, [], [])
    _check(nvrtc, error)
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
        log = _text(nvrtc, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        message = log.rstrip(b"\0\n").decode(errors="replace")
        if int(status) != 0:
            errors = [line for line in message.splitlines() if "error" in line]
            raise EnvironmentFault(
                f"NVRTC {_dotted(_version(nvrtc))} cannot compile the kernels with {' '.join(options)}: "
                f"{errors[0] if errors else status}"
            )
        cubin = _text(nvrtc, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        return Compiled(cubin, message)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _options(dtype_code: int, architecture: str) -> tuple[str, ...]:
    return (f"--gpu-architecture={architecture}", f"-DBN_DTYPE={dtype_code}", *OPTIONS)


@cache
def _nvrtc() -> Any:  # noqa: ANN401 - an extension module without types
    try:
        nvrtc = import_module("cuda.bindings.nvrtc")
        _version(nvrtc)
    except (ImportError, RuntimeError) as error:
        # A missing libnvrtc is a RuntimeError of cuda.pathfinder.
        raise EnvironmentFault(f"the CUDA packages are not complete ({error}): {INSTALL}") from error
    return nvrtc


def _version(nvrtc: Any) -> tuple[int, int]:  # noqa: ANN401 - an extension module without types
    error, major, minor = nvrtc.nvrtcVersion()
    _check(nvrtc, error)
    return int(major), int(minor)


def _check_architecture(nvrtc: Any, options: tuple[str, ...]) -> None:  # noqa: ANN401 - see _nvrtc
    prefix = "--gpu-architecture=sm_"
    wanted = next(option.removeprefix(prefix) for option in options if option.startswith(prefix))
    error, known = nvrtc.nvrtcGetSupportedArchs()
    _check(nvrtc, error)
    if wanted not in {str(architecture) for architecture in known}:
        raise EnvironmentFault(
            f"NVRTC {_dotted(_version(nvrtc))} does not compile for sm_{wanted}: "
            "pip install -U nvidia-cuda-nvrtc cuda-bindings"
        )


def _text(nvrtc: Any, size_of: Any, read: Any, program: Any) -> bytes:  # noqa: ANN401 - see _nvrtc
    error, size = size_of(program)
    _check(nvrtc, error)
    buffer = b" " * int(size)
    (error,) = read(program, buffer)
    _check(nvrtc, error)
    return bytes(buffer)


def _check(nvrtc: Any, error: Any) -> None:  # noqa: ANN401 - see _nvrtc
    if int(error) != 0:
        raise EnvironmentFault(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(error)[1].decode()}")


def _kept(entry: Path) -> bytes | None:
    try:
        stored = entry.read_bytes()
    except OSError:
        return None
    digest, cubin = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
    return cubin if hashlib.sha256(cubin).digest() == digest else None


def _keep(entry: Path, cubin: bytes) -> None:
    """Write a file that other processes see whole or not at all; the last one wins, with the same bytes."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(entry, hashlib.sha256(cubin).digest() + cubin)


def _dotted(version_: tuple[int, int]) -> str:
    return f"{version_[0]}.{version_[1]}"
