from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnxfiles import DTYPES, padded_varint

from bnfold.errors import ModelError
from bnfold.model import dtypes
from bnfold.model.edits import NewTensor
from bnfold.model.store import open_model

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (40, 257)]


def sample(code: int, shape: tuple[int, ...]) -> np.ndarray:
    """Random bit patterns, all of them valid elements."""
    rng = np.random.default_rng(code)
    dtype = DTYPES[code]
    if dtype.kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, size=shape).astype(dtype)
    bits = dtypes.ELEMENT_TYPES[code].bits
    codes = rng.integers(0, 2**bits, size=shape, dtype=np.uint64, endpoint=False) if bits < 64 else None
    if codes is None:
        return np.asarray(rng.integers(-(2**62), 2**62, size=shape)).view(dtype)
    array: np.ndarray = codes.astype(f"u{dtype.itemsize}").reshape(shape).view(dtype)
    # int4 and int2 are sign-extended in their byte.
    return array.astype(np.int8).astype(dtype) if dtype.name in {"int4", "int2"} else array


def holding(tensor: TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()
    assert not got.flags.writeable


def test_every_type_of_onnx_is_known() -> None:
    values = {v for k, v in TensorProto.DataType.items() if k != "UNDEFINED"}
    assert values <= set(dtypes.ELEMENT_TYPES)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("code", sorted(set(DTYPES) & set(TensorProto.DataType.values())))
def test_raw_data_as_onnx_reads_and_writes_it(code: int, shape: tuple[int, ...]) -> None:
    tensor = numpy_helper.from_array(sample(code, shape), "t")
    opened = open_model(holding(tensor))
    same(opened.array(opened.proto.graph.initializer[0]), numpy_helper.to_array(tensor))
    new = NewTensor.of("t", sample(code, shape))
    assert (new.dims, new.data_type, new.nbytes) == (shape, code, len(tensor.raw_data))
    assert b"".join(np.asarray(chunk).tobytes() for chunk in new.chunks()) == tensor.raw_data


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("code", sorted(set(DTYPES) & set(TensorProto.DataType.values())))
def test_typed_fields_as_onnx_reads_them(code: int, shape: tuple[int, ...]) -> None:
    raw = numpy_helper.from_array(sample(code, shape), "t")
    element = dtypes.ELEMENT_TYPES[code]
    tensor = TensorProto(name="t", data_type=code, dims=shape)
    field = getattr(tensor, element.field)
    array = sample(code, shape).reshape(-1)
    if element.packed:
        field.extend(raw.raw_data)
    elif array.dtype.kind == "c":
        field.extend(array.view(f"f{array.dtype.itemsize // 2}").tolist())
    elif element.field == "int32_data" and array.dtype.kind not in "iu":
        field.extend(array.view(f"u{array.dtype.itemsize}").tolist())
    else:
        field.extend(array.tolist())
    opened = open_model(holding(tensor))
    stored = opened.proto.graph.initializer[0]
    same(opened.array(stored), numpy_helper.to_array(tensor))
    if element.field == "int32_data":  # Python's floats, on the way, make quiet NaNs of signalling ones
        same(opened.array(stored), numpy_helper.to_array(raw))


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("packed", [True, False])
def test_packed_and_unpacked_floats(size: int, dtype: type, packed: bool) -> None:
    array: np.ndarray = np.random.default_rng(0).normal(size=size).astype(dtype)
    code, field = (1, 4) if dtype is np.float32 else (11, 10)
    head = TensorProto(name="t", data_type=code, dims=(size,)).SerializeToString()
    if packed:
        length = bytes([array.nbytes % 128 + 128, array.nbytes // 128 % 128 + 128, array.nbytes // 128**2])
        data = head + bytes([field << 3 | 2]) + length + array.tobytes()
    else:
        tag = bytes([field << 3 | (5 if dtype is np.float32 else 1)])
        data = head + b"".join(tag + value.tobytes() for value in array)
    tensor = TensorProto.FromString(data)
    body = b"\x2a" + padded_varint(len(data)) + data
    opened = open_model(b"\x08\x0a\x3a" + padded_varint(len(body)) + body)
    stored = opened.proto.graph.initializer[0]
    same(opened.array(stored), numpy_helper.to_array(tensor))
    left_out = packed and size > 1000
    assert (opened.span(stored) is not None) == left_out


def test_strings() -> None:
    tensor = TensorProto(name="t", data_type=8, dims=(2, 1), string_data=[b"one", "zwölf".encode()])
    opened = open_model(holding(tensor))
    assert opened.array(opened.proto.graph.initializer[0]).tolist() == [["one"], ["zwölf"]]


def test_unknown_type_is_refused() -> None:
    tensor = TensorProto(name="t", dims=(1,), raw_data=b"x")
    opened = open_model(holding(tensor))
    with pytest.raises(ModelError, match="tensor 't' has element type number 0"):
        opened.array(opened.proto.graph.initializer[0])
