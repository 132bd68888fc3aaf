"""What the numbers in a TensorProto mean: element types, their sizes, their storage.

The table follows the comments of `TensorProto` in onnx.proto (field `raw_data`: fixed-width little-endian
elements; `int32_data` and the other typed fields: which element types each may hold, how 2- and 4-bit
elements share a byte).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from bnfold.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx


@dataclass(frozen=True, slots=True)
class ElementType:
    """One value of `TensorProto.DataType`.

    Attributes:
        name: the name that the ONNX specification uses.
        dtype: the NumPy type of one element of an array.
        bits: how wide an element is in `raw_data`; strings have no `raw_data` and say 0.
        field: the typed field that can hold the elements instead.
        packed: whether one entry of the typed field holds one byte of packed elements.
    """

    name: str
    dtype: np.dtype[Any]
    bits: int
    field: str
    packed: bool = False


STRING = 8
_COMPLEX = (14, 15)
_SIX_BITS = 6
_LEAST_PER_BYTE = 8


def _native(name: str, field: str) -> ElementType:
    dtype = np.dtype(name)
    return ElementType(name, dtype, dtype.itemsize * 8, field)


def _small(name: str, kind: type[np.generic], bits: int, *, packed: bool = False) -> ElementType:
    return ElementType(name, np.dtype(kind), bits, "int32_data", packed)


ELEMENT_TYPES: dict[int, ElementType] = {
    1: _native("float32", "float_data"),
    2: _native("uint8", "int32_data"),
    3: _native("int8", "int32_data"),
    4: _native("uint16", "int32_data"),
    5: _native("int16", "int32_data"),
    6: _native("int32", "int32_data"),
    7: _native("int64", "int64_data"),
    STRING: ElementType("string", np.dtype(object), 0, "string_data"),
    9: _native("bool", "int32_data"),
    10: _native("float16", "int32_data"),
    11: _native("float64", "double_data"),
    12: _native("uint32", "uint64_data"),
    13: _native("uint64", "uint64_data"),
    14: _native("complex64", "float_data"),
    15: _native("complex128", "double_data"),
    16: _small("bfloat16", ml_dtypes.bfloat16, 16),
    17: _small("float8e4m3fn", ml_dtypes.float8_e4m3fn, 8),
    18: _small("float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8),
    19: _small("float8e5m2", ml_dtypes.float8_e5m2, 8),
    20: _small("float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8),
    21: _small("uint4", ml_dtypes.uint4, 4, packed=True),
    22: _small("int4", ml_dtypes.int4, 4, packed=True),
    23: _small("float4e2m1", ml_dtypes.float4_e2m1fn, 4, packed=True),
    24: _small("float8e8m0", ml_dtypes.float8_e8m0fnu, 8),
    25: _small("uint2", ml_dtypes.uint2, 2, packed=True),
    26: _small("int2", ml_dtypes.int2, 2, packed=True),
    27: _small("float6e2m3", ml_dtypes.float6_e2m3fn, _SIX_BITS),
    28: _small("float6e3m2", ml_dtypes.float6_e3m2fn, _SIX_BITS),
}
"""`TensorProto.DataType` by number (onnx.proto, IR version 14)."""

DATA_TYPES: dict[np.dtype[Any], int] = {element.dtype: code for code, element in ELEMENT_TYPES.items()}
"""The way back: the `TensorProto.DataType` of a NumPy type."""


def element_type(tensor: onnx.TensorProto) -> ElementType:
    """The element type of a tensor.

    Raises:
        ModelError: the number is none that ONNX defines.
    """
    try:
        return ELEMENT_TYPES[tensor.data_type]
    except KeyError:
        raise ModelError(
            f"tensor {tensor.name!r} has element type number {tensor.data_type}, which ONNX does not define"
        ) from None


def count(dims: Iterable[int]) -> int:
    """How many elements a shape has; 1 for the empty shape."""
    return math.prod(dims)


def raw_size(element: ElementType, dims: Iterable[int]) -> int:
    """How many bytes `raw_data` has for a shape; elements narrower than a byte are packed without gaps."""
    return -(-count(dims) * element.bits // 8)


def typed_size(element: ElementType, dims: Iterable[int]) -> int:
    """How many entries the typed field has for a shape."""
    if element.packed:
        return raw_size(element, dims)
    return count(dims) * (2 if element.dtype.kind == "c" else 1)


def from_raw(element: ElementType, dims: Sequence[int], data: np.ndarray) -> np.ndarray:
    """The array that little-endian bytes spell; a view of them where elements fill whole bytes.

    Args:
        element: the element type, not a string.
        dims: the shape.
        data: uint8, one-dimensional, of exactly `raw_size` bytes.
    """
    if element.bits >= _LEAST_PER_BYTE:
        return data.view(element.dtype).reshape(dims)
    size = count(dims)
    if element.bits == _SIX_BITS:
        bits = np.unpackbits(data, bitorder="little")[: size * _SIX_BITS].reshape(size, _SIX_BITS)
        codes = np.packbits(bits, axis=1, bitorder="little").reshape(size)
    else:
        per_byte = 8 // element.bits
        shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(element.bits)
        codes = (data[:, None] >> shifts).reshape(-1)[:size] & np.uint8((1 << element.bits) - 1)
    return codes.view(element.dtype).reshape(dims)


def to_raw(element: ElementType, array: np.ndarray) -> memoryview:
    """The bytes of `raw_data` for an array; a view of it where elements fill whole bytes."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if element.bits < _LEAST_PER_BYTE:
        bits = np.unpackbits(flat[:, None], axis=1, count=element.bits, bitorder="little")
        flat = np.packbits(bits.reshape(-1), bitorder="little")
    return flat.data


def from_typed(element: ElementType, tensor: onnx.TensorProto) -> np.ndarray:
    """The array that the typed field of a tensor spells (its length already checked)."""
    values = getattr(tensor, element.field)
    flat: np.ndarray
    if element.field == "string_data":
        flat = np.array([value.decode("utf-8", "surrogateescape") for value in values], object)
    elif element.dtype.kind == "b":
        flat = np.array(values, np.int32) != 0
    elif element.field == "int32_data":
        # An entry carries the bits of the element, not its value: 16-bit floats, bytes of packed elements.
        words = np.array(values, np.int32).astype(f"uint{element.dtype.itemsize * 8}")
        if element.packed:
            return from_raw(element, tuple(tensor.dims), words)
        if element.bits == _SIX_BITS:
            words = np.bitwise_and(words, (1 << _SIX_BITS) - 1)
        flat = words.view(element.dtype)
    elif element.dtype.kind == "c":
        flat = np.array(values, f"float{element.bits // 2}").view(element.dtype)
    else:
        flat = np.array(values, element.dtype)
    return flat.reshape(tuple(tensor.dims))


def check_raw(element: ElementType, tensor: onnx.TensorProto, nbytes: int) -> None:
    """Check that bytes of a tensor are as many as its shape and type take.

    Raises:
        ModelError: they are not.
    """
    needed = raw_size(element, tensor.dims)
    if nbytes != needed or any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"tensor {tensor.name!r} holds {nbytes} bytes, "
            f"but {element.name}{list(tensor.dims)} takes {needed}"
        )


def check_typed(element: ElementType, tensor: onnx.TensorProto) -> None:
    """Check that the typed field of a tensor has as many entries as its shape and type take.

    Raises:
        ModelError: it has not.
    """
    present, needed = len(getattr(tensor, element.field)), typed_size(element, tensor.dims)
    if present != needed or any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"tensor {tensor.name!r} holds {present} values in {element.field}, but "
            f"{element.name}{list(tensor.dims)} takes {needed}"
        )
