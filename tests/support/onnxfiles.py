"""Models on disk and in memory, and a second, plain reading of what bnfold.model does with them."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.model.edits import GraphEdits, ModelEdits, NewTensor, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message  # type: ignore[import-untyped]  # protobuf ships no stubs

    Graph = onnx.GraphProto | onnx.FunctionProto

DTYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(dtype)
    for code, dtype in {
        TensorProto.FLOAT: np.float32,
        TensorProto.UINT8: np.uint8,
        TensorProto.INT8: np.int8,
        TensorProto.UINT16: np.uint16,
        TensorProto.INT16: np.int16,
        TensorProto.INT32: np.int32,
        TensorProto.INT64: np.int64,
        TensorProto.BOOL: np.bool_,
        TensorProto.FLOAT16: np.float16,
        TensorProto.DOUBLE: np.float64,
        TensorProto.UINT32: np.uint32,
        TensorProto.UINT64: np.uint64,
        TensorProto.COMPLEX64: np.complex64,
        TensorProto.COMPLEX128: np.complex128,
        TensorProto.BFLOAT16: ml_dtypes.bfloat16,
        TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
        TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
        TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
        TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
        TensorProto.UINT4: ml_dtypes.uint4,
        TensorProto.INT4: ml_dtypes.int4,
        TensorProto.FLOAT4E2M1: ml_dtypes.float4_e2m1fn,
        24: ml_dtypes.float8_e8m0fnu,  # FLOAT8E8M0, and the next four, are younger than onnx 1.18
        25: ml_dtypes.uint2,
        26: ml_dtypes.int2,
        27: ml_dtypes.float6_e2m3fn,
        28: ml_dtypes.float6_e3m2fn,
    }.items()
}


def shipped_models() -> list[Path]:
    """The .onnx files inside the installed onnx package."""
    return sorted(Path(onnx.__file__).parent.rglob("*.onnx"))


def split(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """(field number, whole record, payload) of each record: a second reading of the wire format."""
    found = []
    at = 0
    while at < len(data):
        begin = at
        tag, at = _varint(data, at)
        kind = tag % 8
        if kind == 0:
            body = at
            _, at = _varint(data, at)
        elif kind == 2:
            length, body = _varint(data, at)
            at = body + length
        else:
            body, at = at, at + {1: 8, 5: 4}[kind]
        found.append((tag // 8, data[begin:at], data[body:at]))
    return found


def padded_varint(value: int) -> bytes:
    """A number below 2**21 in three bytes: valid, though protobuf would mostly write fewer."""
    return bytes([value & 127 | 128, value >> 7 & 127 | 128, value >> 14])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value += (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


def value_info(
    name: str, shape: tuple[int | str, ...] = (2,), kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    graph: onnx.GraphProto,
    *,
    ir_version: int = 10,
    opsets: dict[str, int] | None = None,
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> onnx.ModelProto:
    imports = [helper.make_opsetid(*pair) for pair in ({"": 17} if opsets is None else opsets).items()]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=imports, functions=list(functions))


def sparse(name: str, length: int, rng: np.random.Generator) -> onnx.SparseTensorProto:
    indices = np.sort(rng.choice(length, size=min(5, length), replace=False)).astype(np.int64)
    values = numpy_helper.from_array(rng.normal(size=indices.size).astype(np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices, f"{name}_indices"), [length])


class Builder:
    """Random models that use every place where ONNX can put a tensor or a graph, big and small."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.random = random.Random(seed)  # noqa: S311 - test data
        self.serial = 0

    def name(self) -> str:
        self.serial += 1
        return f"{self.random.choice(string.ascii_letters)}{self.serial}"

    def tensor(self, name: str = "") -> onnx.TensorProto:
        # 5,000 float32 are above the size from which payloads are left out; 5 are below.
        size = self.random.choice([0, 1, 5, 1500, 5000])
        kind = self.random.choice([np.float32, np.float64, np.float16, np.int64])
        array = self.rng.normal(size=size).astype(kind)
        tensor = numpy_helper.from_array(array, name)
        if self.random.random() < 0.3:
            typed = {"f4": "float_data", "f8": "double_data", "i8": "int64_data"}.get(array.dtype.str[1:])
            if typed:
                tensor.ClearField("raw_data")
                getattr(tensor, typed).extend(array.tolist())
        if self.random.random() < 0.2:
            tensor.doc_string = "said of it"
            tensor.metadata_props.add(key="k", value="v")
        return tensor

    def node(self, depth: int, known: list[str]) -> onnx.NodeProto:
        kind = self.random.choice(["Relu", "Constant", "Add", "Odd", "If" if depth else "Neg"])
        out = self.name()
        source = self.random.choice(known)
        if kind == "Constant":
            node = helper.make_node(kind, [], [out], value=self.tensor())
        elif kind == "Odd":
            node = helper.make_node(kind, [source], [out], domain="odd", name=self.name())
            node.attribute.add(name="list", type=onnx.AttributeProto.TENSORS).tensors.extend(
                [self.tensor("a"), self.tensor("b")]
            )
            item = node.attribute.add(name="thin", type=onnx.AttributeProto.SPARSE_TENSOR)
            item.sparse_tensor.CopyFrom(sparse("", 3000, self.rng))
            graphs = node.attribute.add(name="parts", type=onnx.AttributeProto.GRAPHS)
            if depth:
                graphs.graphs.extend([self.graph(depth - 1), self.graph(depth - 1)])
            helper.set_metadata_props(node, {"where": "here"})
        elif kind == "If":
            then, other = self.graph(depth - 1), self.graph(depth - 1)
            node = helper.make_node(kind, [source], [out], then_branch=then, else_branch=other)
        else:
            node = helper.make_node(kind, [source] * (2 if kind == "Add" else 1), [out], doc_string="d")
        known.append(out)
        return node

    def graph(self, depth: int) -> onnx.GraphProto:
        inputs = [self.name() for _ in range(2)]
        dense = [self.name() for _ in range(self.random.randrange(4))]
        known = inputs + dense
        nodes = [self.node(depth, known) for _ in range(self.random.randrange(1, 6))]
        graph = helper.make_graph(
            nodes,
            self.name(),
            [value_info(name) for name in inputs],
            [value_info(known[-1])],
            [self.tensor(name) for name in dense],
            value_info=[value_info(name) for name in known[2:-1]],
        )
        graph.sparse_initializer.extend(
            sparse(self.name(), 4000, self.rng) for _ in range(self.random.randrange(2))
        )
        for name in known[:3]:
            graph.quantization_annotation.add(tensor_name=name).quant_parameter_tensor_names.add(
                key="SCALE_TENSOR", value="s"
            )
        return graph

    def model(self) -> onnx.ModelProto:
        functions = []
        for _ in range(self.random.randrange(3)):
            known = ["p", "q"]
            nodes = [self.node(1, known) for _ in range(3)]
            function = helper.make_function(
                "local", self.name(), known[:2], known[-1:], nodes, [helper.make_opsetid("", 17)]
            )
            default = function.attribute_proto.add(name="default", type=onnx.AttributeProto.TENSOR)
            default.t.CopyFrom(self.tensor("default"))
            function.value_info.append(value_info(known[2]))
            functions.append(function)
        made = model(self.graph(2), opsets={"": 17, "odd": 1, "local": 1}, functions=tuple(functions))
        made.metadata_props.add(key="first", value="1")
        made.metadata_props.add(key="second", value="2")
        if self.random.random() < 0.5:
            made.training_info.add().algorithm.CopyFrom(self.graph(1))
        return made


def externalized(proto: onnx.ModelProto, data: Path, share: float = 0.6, seed: int = 0) -> onnx.ModelProto:
    """The same model with some of its raw tensors in an external file, at odd offsets."""
    chooser = random.Random(seed)  # noqa: S311 - test data
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    content = bytearray(b"#")
    for tensor in every_tensor(copy):
        if tensor.HasField("raw_data") and chooser.random() < share:
            payload = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": data.name, "offset": str(len(content)), "length": str(len(payload))}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value)
            content += payload + b"#" * chooser.randrange(9)
    data.write_bytes(content)
    return copy


def every_tensor(message: Message) -> Iterator[onnx.TensorProto]:
    """Every TensorProto anywhere inside a message, found through protobuf's own reflection."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if field.is_repeated else [value]:
            if isinstance(item, TensorProto):
                yield item
            else:
                yield from every_tensor(item)


def internalized(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The same model with its external data in raw_data."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in every_tensor(copy):
        if tensor.data_location == TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            start = int(entries["offset"])
            content = (folder / entries["location"]).read_bytes()
            tensor.raw_data = content[start : start + int(entries["length"])]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return copy


def scopes(proto: onnx.ModelProto) -> list[tuple[Scope, Any]]:
    """Every scope that edits can have, with its graph or function."""
    found: list[tuple[Scope, Any]] = []

    def visit(scope: Scope, graph: Graph) -> None:
        found.append((scope, graph))
        for index, node in enumerate(graph.node):
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    visit(scope.body(index, attribute.name), attribute.g)
                for place, inner in enumerate(attribute.graphs):
                    visit(scope.body(index, attribute.name, place), inner)

    visit(Scope(), proto.graph)
    for index, function in enumerate(proto.functions):
        visit(Scope(index), function)
    return found


def applied(proto: onnx.ModelProto, edits: ModelEdits) -> onnx.ModelProto:
    """Edits applied to a whole model with plain protobuf calls."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    by_scope = {edit.scope: edit for edit in edits.graphs}
    _apply(result.graph, Scope(), by_scope)
    for index, function in enumerate(result.functions):
        _apply(function, Scope(index), by_scope)
    present = {entry.key: entry for entry in result.metadata_props}
    for key, value in edits.metadata.items():
        entry = present.get(key) or result.metadata_props.add(key=key)
        entry.value = value
    return result


def _apply(graph: Graph, scope: Scope, by_scope: dict[Scope, GraphEdits]) -> None:
    edit = by_scope.get(scope, GraphEdits(scope))
    nodes: list[onnx.NodeProto] = []
    for index in range(len(graph.node) + 1):
        nodes += edit.inserted.get(index, ())
        if index < len(graph.node):
            node = edit.nodes.get(index, graph.node[index])
            if node is None:
                continue
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    _apply(attribute.g, scope.body(index, attribute.name), by_scope)
                for place, inner in enumerate(attribute.graphs):
                    _apply(inner, scope.body(index, attribute.name, place), by_scope)
            nodes.append(node)
    _assign(graph.node, nodes)
    _assign(graph.value_info, [info for info in graph.value_info if info.name not in edit.dropped])
    if isinstance(graph, onnx.FunctionProto):
        return
    tensors = []
    for tensor in graph.initializer:
        replacement = edit.initializers.get(tensor.name, tensor)
        tensors += [] if replacement is None else [_merged(tensor, replacement)]
    appended = []
    for thin in graph.sparse_initializer:
        replacement = edit.initializers.get(thin.values.name)
        appended += [] if replacement is None else [_merged(TensorProto(), replacement)]
    kept = [thin for thin in graph.sparse_initializer if thin.values.name not in edit.initializers]
    added = [_merged(TensorProto(), new) for new in edit.added]
    # Where there was none, new ones come at the end of the graph.
    _assign(graph.initializer, tensors + (added + appended if graph.initializer else appended + added))
    _assign(graph.sparse_initializer, kept)
    inputs = [value for value in graph.input if value.name not in edit.inputs_removed]
    _assign(graph.input, inputs + list(edit.inputs_added))
    notes = [note for note in graph.quantization_annotation if note.tensor_name not in edit.dropped]
    _assign(graph.quantization_annotation, notes)


def _assign(field: Any, items: list[Any]) -> None:  # noqa: ANN401 - a repeated field of any message
    copies = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del field[:]
    field.extend(copies)


def _merged(old: TensorProto, new: NewTensor | TensorProto) -> TensorProto:
    if isinstance(new, TensorProto):
        return new
    result = TensorProto(doc_string=old.doc_string) if old.HasField("doc_string") else TensorProto()
    result.metadata_props.extend(old.metadata_props)
    result.name, result.data_type = new.name, new.data_type
    result.dims.extend(new.dims)
    result.raw_data = b"".join(bytes(np.asarray(chunk).tobytes()) for chunk in new.chunks())
    return result
