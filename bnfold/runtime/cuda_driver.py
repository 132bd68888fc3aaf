"""Whether an NVIDIA driver and a GPU are here, asked of the driver itself.

cuda.core is not asked first: without a driver it raises a SystemError that names nothing, and may then hang.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

from bnfold.errors import EnvironmentFault

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# What NVRTC 13 compiles for.
OLDEST_CAPABILITY = (7, 5)

_SUCCESS = 0
_ATTRIBUTE_MAJOR = 75
_ATTRIBUTE_MINOR = 76
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver says of itself and of the first GPU.

    Attributes:
        cuda: the CUDA version that it supports, as (major, minor).
        device: name of the first GPU.
        capability: compute capability of the first GPU.
    """

    cuda: tuple[int, int]
    device: str
    capability: tuple[int, int]


def probe(library: str = LIBRARY) -> Driver:
    """Ask the driver, without any CUDA package.

    Args:
        library: file name of the driver's library.

    Raises:
        EnvironmentFault: no driver, one that does not start, no GPU, or a GPU that is too old.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError as error:
        raise EnvironmentFault(
            f'no NVIDIA driver: {library} cannot be loaded; install it, or use backend="numpy"'
        ) from error
    _ask(cuda, "cuInit", 0)
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(cuda, "cuDriverGetVersion", ctypes.byref(version))
    _ask(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise EnvironmentFault('no CUDA device: the NVIDIA driver sees no GPU; use backend="numpy"')
    _ask(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _ask(cuda, "cuDeviceGetName", name, _NAME_BYTES, device)
    capability = (_attribute(cuda, _ATTRIBUTE_MAJOR, device), _attribute(cuda, _ATTRIBUTE_MINOR, device))
    if capability < OLDEST_CAPABILITY:
        raise EnvironmentFault(
            f"{name.value.decode()} has compute capability {_dotted(capability)}, and the kernels need "
            f'{_dotted(OLDEST_CAPABILITY)}; use backend="numpy"'
        )
    return Driver(divmod(version.value // 10, 100), name.value.decode(), capability)


def check_version(driver: Driver, compiler: tuple[int, int]) -> None:
    """Refuse a driver that cannot load what NVRTC compiles: it must not be of an older major version.

    Args:
        driver: of this machine.
        compiler: NVRTC's version.

    Raises:
        EnvironmentFault: the driver is too old.
    """
    if driver.cuda[0] < compiler[0]:
        raise EnvironmentFault(
            f"the NVIDIA driver supports CUDA {_dotted(driver.cuda)}, and NVRTC {_dotted(compiler)} needs "
            f"CUDA {compiler[0]}.0: update the driver"
        )


def _ask(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    status: int = getattr(cuda, function)(*arguments)
    if status == _SUCCESS:
        return
    text = ctypes.c_char_p()
    known = cuda.cuGetErrorName(status, ctypes.byref(text)) == _SUCCESS and text.value is not None
    name = text.value.decode() if known and text.value else "unknown"
    if name == "CUDA_ERROR_NO_DEVICE":
        raise EnvironmentFault('no CUDA device: the NVIDIA driver sees no GPU; use backend="numpy"')
    raise EnvironmentFault(
        f'the NVIDIA driver does not work: {function} gave {status} ({name}); use backend="numpy"'
    )


def _attribute(cuda: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _ask(cuda, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
