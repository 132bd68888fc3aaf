"""Which code computes: an explicit table, and the choice among it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import numpy as np

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnfold.runtime.results import BackendName

Backend: TypeAlias = Literal["auto", "numpy", "cuda"]


class BackendModule(Protocol):
    """What a backend offers: the three functions, with every default filled in by the caller."""

    infer: Callable[..., Any]
    train: Callable[..., Any]
    backward: Callable[..., Any]


# Modules by name, so that naming the CUDA backend does not import it.
MODULES: Mapping[BackendName, str] = MappingProxyType(
    {
        "numpy": "bnfold.runtime.numpy_backend",
        "cuda": "bnfold.runtime.cuda",
    }
)


def load(name: BackendName) -> BackendModule:
    """Import a backend."""
    return cast("BackendModule", import_module(MODULES[name]))


@cache
def cuda_unavailable() -> str | None:
    """Say why the CUDA backend cannot run here, or None when it can. The answer is kept."""
    reason: str | None = import_module(MODULES["cuda"]).available()
    return reason


def backend_for(backend: Backend, *arrays: object) -> BackendName:
    """Choose the backend that computes on these arrays.

    Args:
        backend: `"auto"` takes CUDA for device arrays, CUDA for NumPy arrays where it works, and NumPy
            otherwise.
        arrays: the arrays of the call; none asks what `"auto"` takes for NumPy arrays.

    Raises:
        UsageError: an unknown backend, or a device array with `backend="numpy"`.
    """
    if backend not in {"auto", *MODULES}:
        raise UsageError(f"backend={backend!r}; expected one of auto, {', '.join(MODULES)}")
    foreign = [array for array in arrays if is_device_array(array)]
    if foreign and backend == "numpy":
        kind = f"{type(foreign[0]).__module__}.{type(foreign[0]).__qualname__}"
        raise UsageError(
            f'backend="numpy" with a {kind}: pass numpy.ndarray (numpy.from_dlpack shares host memory), '
            'or choose backend="cuda"'
        )
    if backend != "auto":
        return backend
    return "cuda" if foreign or cuda_unavailable() is None else "numpy"


def is_device_array(array: object) -> bool:
    """Say whether an array is not NumPy's own and offers its memory by a protocol."""
    return not isinstance(array, np.ndarray) and (
        hasattr(array, "__cuda_array_interface__") or hasattr(array, "__dlpack__")
    )
