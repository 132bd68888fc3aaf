"""The values that the training-mode functions return, whichever backend computed them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

BackendName: TypeAlias = Literal["numpy", "cuda"]
Float64Array: TypeAlias = npt.NDArray[np.float64]


class DeviceArray(Protocol):
    """An array in device memory (torch, cupy, ...), known by its DLPack methods."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    def __dlpack__(self, *, stream: Any = None) -> Any:  # noqa: ANN401 - a PyCapsule, which has no public type
        """Export the memory without a copy."""

    def __dlpack_device__(self) -> tuple[Any, int]:
        """Device type and index."""


AnyArray: TypeAlias = npt.NDArray[Any] | DeviceArray
# The results of a call are of x's kind: host arrays or device arrays.
ArrayT = TypeVar("ArrayT", npt.NDArray[Any], DeviceArray)


@dataclass(frozen=True, slots=True, eq=False)
class Training(Generic[ArrayT]):
    """What one training step computes in the forward direction.

    Attributes:
        y: the normalized, scaled and shifted input; shape and dtype of `x`.
        mean: mini-batch mean, shape `[C]`; at least float32, float64 from the NumPy backend.
        var: mini-batch variance over N values (biased), shape `[C]`; dtype of `mean`.
        running_mean: updated running mean, shape `[C]`, dtype of the running mean passed in.
        running_var: updated running variance, likewise.
        backend: who computed it.
    """

    y: ArrayT
    mean: ArrayT
    var: ArrayT
    running_mean: ArrayT
    running_var: ArrayT
    backend: BackendName


@dataclass(frozen=True, slots=True, eq=False)
class Gradients(Generic[ArrayT]):
    """The derivatives of a loss with respect to what batch normalization reads.

    Attributes:
        dx: shape and dtype of `x`.
        dscale: shape `[C]`, dtype of `scale`.
        dbias: shape `[C]`, dtype of `scale` (ONNX gives scale and bias one type).
        backend: who computed it.
    """

    dx: ArrayT
    dscale: ArrayT
    dbias: ArrayT
    backend: BackendName
