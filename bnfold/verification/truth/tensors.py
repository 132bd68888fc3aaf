"""Stored tensors as arrays, with floating-point ones promoted to float64.

The values keep the rounding they were stored with; only the arithmetic that follows is wider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from bnfold.verification.external import loaded
from bnfold.verification.truth.call import Array, TruthUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

PROMOTED = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16))
PROMOTED_TYPES = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16})


def promoted(value: object) -> object:
    """A value with its floating-point arrays in float64; integers, bools, strings and float8 as they are."""
    if isinstance(value, (list, tuple)):
        return [promoted(item) for item in value]
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype in PROMOTED:
        return value.astype(np.float64)
    return value.astype(np.complex128) if value.dtype == np.complex64 else value


def stored(tensor: onnx.TensorProto, folder: Path | None) -> Array:
    """The array of a TensorProto in its own dtype; external data is read from beside the model.

    Raises:
        TruthUnavailableError: the data is external and the model's folder is not known.
    """
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    if folder is None:
        raise TruthUnavailableError(f"the data of {tensor.name!r} is external and the model has no folder")
    return numpy_helper.to_array(loaded(tensor, folder))


def dense(tensor: onnx.SparseTensorProto) -> Array:
    """A sparse tensor written out: indices are flat `[NNZ]` or coordinates `[NNZ, rank]`."""
    values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    array = np.zeros(tuple(tensor.dims), dtype=values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return array
