"""Shapes and element types of all tensors, by onnx's shape inference.

What the model declares about its own intermediate tensors is not trusted where inference can tell:
a stale `value_info` must not decide which axis carries the channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from bnfold.model.edits import Body, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnfold.model.store import ModelFile

Dim = int | str | None
Types = dict[tuple[Scope, str], tuple[int, tuple[Dim, ...] | None]]

_SMALL = 4096  # bytes; a shape, axes or pads operand is never larger
_LONGEST = (
    1 << 24
)  # entries of an axis that inference is told of; data_prop keeps a list of those of a vector


def infer(model: ModelFile, sizes: Mapping[str, tuple[int, ...]] | None = None) -> Types:
    """Element type and shape by graph and tensor name; what nobody knows is absent.

    Local functions have no types of their own: they take those of each call.

    Args:
        model: the model.
        sizes: shapes that graph inputs have in the place of those that are declared. What the model declares
            about its other tensors then counts for nothing, since it may hold for other sizes alone.
    """
    bare = _bare(model)
    _resize(bare.graph, sizes or {})
    inferred = _run(bare)
    types = _collect(inferred)
    declared = {} if sizes else _collect(model.proto)
    missing = {
        key: kind
        for key, kind in declared.items()
        if types.get(key, (0, None))[1] is None and kind[1] is not None
    }
    if missing:
        # Beyond an operator that inference does not know, the declarations are all there is to start from.
        for scope, graph in _graphs(bare.graph, Scope()):
            source = dict(_graphs(model.proto.graph, Scope()))[scope]
            graph.value_info.extend(v for v in source.value_info if (scope, v.name) in missing)
        types = missing | _collect(_run(bare))
    return types


def contradiction(model: ModelFile) -> str | None:
    """What onnx's inference finds wrong with the model, in one line; None when it finds nothing."""
    bare = _bare(model)
    try:
        shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        said = str(error).replace("[ShapeInferenceError]", "").replace("Inference error(s):", "").strip()
        return " ".join(said.splitlines()[0].split()) if said else type(error).__name__
    return None


def _bare(model: ModelFile) -> ModelProto:
    """The model as inference takes it, without what it declares about its own intermediate tensors."""
    bare = ModelProto()
    bare.CopyFrom(model.proto)
    del bare.metadata_props[:]
    for _, graph in _graphs(bare.graph, Scope()):
        del graph.value_info[:]
        _forget_impossible_sizes(graph)
        _inline_shape_operands(model, graph)
        _declare_sparse(graph)
    return bare


def _resize(graph: GraphProto, sizes: Mapping[str, tuple[int, ...]]) -> None:
    for info in graph.input:
        if info.name in sizes:
            del info.type.tensor_type.shape.dim[:]
            for size in sizes[info.name]:
                info.type.tensor_type.shape.dim.add(dim_value=size)
    if sizes:
        # Inference takes a declared size of an output for the truth.
        for info in graph.output:
            if info.type.HasField("tensor_type"):
                info.type.tensor_type.ClearField("shape")


def _run(model: ModelProto) -> ModelProto:
    try:
        return shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        # An operator of a version unknown to this onnx release, say: then the declarations must do.
        return model


def _graphs(graph: GraphProto, scope: Scope) -> Iterator[tuple[Scope, GraphProto]]:
    yield scope, graph
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for position, body in enumerate(bodies):
                inner = Scope(scope.function, (*scope.bodies, Body(index, attribute.name, position)))
                yield from _graphs(body, inner)


def _collect(model: ModelProto) -> Types:
    types: Types = {}
    for scope, graph in _graphs(model.graph, Scope()):
        for info in (*graph.value_info, *graph.output, *graph.input):
            if info.type.HasField("tensor_type"):
                types[scope, info.name] = (info.type.tensor_type.elem_type, _shape(info))
        for tensor in graph.initializer:
            types[scope, tensor.name] = (tensor.data_type, tuple(tensor.dims))
        for sparse in graph.sparse_initializer:
            types[scope, sparse.values.name] = (sparse.values.data_type, tuple(sparse.dims))
    return types


def _shape(info: ValueInfoProto) -> tuple[Dim, ...] | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(_dim(d) for d in tensor.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        # Some exporters write 0 or -1 for "unknown".
        return dim.dim_value if dim.dim_value > 0 else None
    return dim.dim_param or None


def _declare_sparse(graph: GraphProto) -> None:
    """Inference overlooks sparse initializers; as inputs they have a type and a shape."""
    for sparse in graph.sparse_initializer:
        graph.input.append(
            helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, sparse.dims)
        )
    del graph.sparse_initializer[:]


def _forget_impossible_sizes(graph: GraphProto) -> None:
    """Sizes that exporters write for "unknown" end the process in onnx's C++ (Slice), as huge ones can."""
    for info in graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and not 0 < dim.dim_value <= _LONGEST:
                dim.ClearField("dim_value")


def _inline_shape_operands(model: ModelFile, graph: GraphProto) -> None:
    """Inference reads shapes and axes from the model; those in an external file have to be brought in."""
    for tensor in graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL or tensor.data_type != TensorProto.INT64:
            continue
        if int(np.prod(tensor.dims, dtype=np.int64)) * 8 <= _SMALL:
            tensor.CopyFrom(numpy_helper.from_array(np.array(model.array(tensor)), tensor.name))
