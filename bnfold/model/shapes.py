"""Shapes and element types of all tensors, by onnx's shape inference.

The shapes of the inputs of a model are what its caller agrees to, and runtimes check them. No other that it
declares is trusted, neither a rank nor a size: runtimes do not reject a wrong one (onnxruntime warns, and
goes on with what it computes), so that a fold which leant on it could be wrong without anybody noticing. That
goes for what lies between, for the outputs, for inputs and outputs of nested graphs and for the elements of
sequences. Nor need two dimensions that have one name be equal: no runtime checks it. What Loops keep
(`bnfold.model.carried`) and what follows from the integers that a model computes (`bnfold.model.integers`) is
proved instead. The types of elements are trusted, since a model with wrong ones cannot be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper, shape_inference

from bnfold.model import carried, integers
from bnfold.model.edits import Scope
from bnfold.model.inference import Types, collect, defined, forget_shape, graphs, home, opset_of
from bnfold.model.integers import Entries, Shape
from bnfold.model.quantizing import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from bnfold.model.store import ModelFile

Integers = dict[tuple[Scope, str], Entries]

_MOST_ROUNDS = 8  # of inference; each needs integers that only the shapes of the one before tell
_OVERRIDABLE_SINCE_IR = 4
_QUANTIZERS_SINCE = 10
_SMALL = 4096  # bytes; a shape, axes or pads operand is never larger
_LONGEST = (
    1 << 24
)  # entries of an axis that inference is told of; data_prop keeps a list of those of a vector


def infer(model: ModelFile, sizes: Mapping[str, tuple[int, ...]] | None = None) -> Types:
    """Element type and shape by graph and tensor name; what nobody knows is absent.

    Local functions have no types of their own: they take those of each call.

    Args:
        model: the model.
        sizes: shapes that graph inputs have in the place of those that are declared.
    """
    return known(model, sizes, frozen=True).types


@dataclass(frozen=True)
class Known:
    """What is known of the tensors of a model before it runs.

    Attributes:
        types: element type and shape by graph and tensor name.
        integers: the entries of small integer tensors; None stands for one that is not known.
    """

    types: Types
    integers: Integers


def known(
    model: ModelFile, sizes: Mapping[str, tuple[int, ...]] | None = None, *, frozen: bool = False
) -> Known:
    """Types and integers.

    Args:
        model: the model.
        sizes: as for `infer`.
        frozen: take initializers that the caller could override for constants.
    """
    bare = _bare(model)
    if not frozen:
        _forget_defaults(bare)
    _resize(bare.graph, sizes or {})
    declared = collect(model.proto)
    for _ in range(_MOST_ROUNDS):
        for _, graph in graphs(bare.graph, Scope()):
            del graph.value_info[:]
        types = carried.infer(bare)
        if _declare_elements(bare, declared, types):
            types = carried.infer(bare)
        found = _integers(bare, types)
        if _complete(types) or not _fixed(bare, types, found):
            break
    return Known(types, found)


def _declare_elements(model: ModelProto, declared: Types, types: Types) -> bool:
    """Say what the elements are behind operators that inference does not know; whether there are any."""
    any_declared = False
    for scope, graph in graphs(model.graph, Scope()):
        for name in (name for node in graph.node for name in node.output):
            elem_type = declared.get((scope, name), (0, None))[0]
            if elem_type and not types.get((scope, name), (0, None))[0]:
                graph.value_info.append(helper.make_tensor_value_info(name, elem_type, None))
                any_declared = True
    return any_declared


def _complete(types: Types) -> bool:
    """Whether every shape is known in numbers."""
    return all(
        shape is not None and all(isinstance(dim, int) for dim in shape) for _, shape in types.values()
    )


def _integers(model: ModelProto, types: Types) -> Integers:
    """What is known of integers, in the main graph and in the bodies inside it."""
    opset = next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 1)
    found: Integers = {}
    visible: dict[Scope, dict[str, Entries]] = {}
    names = {scope: defined(graph) for scope, graph in graphs(model.graph, Scope())}
    for scope, graph in graphs(model.graph, Scope()):
        outer = visible.get(Scope(scope.function, scope.bodies[:-1]), {}) if scope.bodies else {}
        entries = {name: held for name, held in outer.items() if name not in names[scope]}
        for tensor in graph.initializer:
            held = integers.of_tensor(tensor)
            if held is None:
                entries.pop(tensor.name, None)
            else:
                entries[tensor.name] = held

        def shape(name: str, scope: Scope = scope) -> Shape | None:
            return types.get((home(scope, name, names), name), (0, None))[1]

        for node in graph.node:
            held = integers.of_node(node, shape, entries, opset)
            if held is not None:
                entries[node.output[0]] = held
        visible[scope] = entries
        found.update({(scope, name): held for name, held in entries.items()})
    return found


def _fixed(model: ModelProto, types: Types, found: Integers) -> bool:
    """Turn the nodes whose integers are all known into constants; whether there was any."""
    any_fixed = False
    for scope, graph in graphs(model.graph, Scope()):
        for node in graph.node:
            held = found.get((scope, node.output[0])) if len(node.output) == 1 else None
            if held is None or node.op_type == "Constant":
                continue
            elem_type, shape = types.get((scope, node.output[0]), (0, None))
            tensor = integers.to_tensor(held, elem_type or TensorProto.INT64)
            if tensor is None or (shape is not None and shape != held.shape):
                continue
            any_fixed = True
            name = node.output[0]
            node.CopyFrom(helper.make_node("Constant", [], [name], value=tensor))
    return any_fixed


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
    """The model as inference takes it, without what it declares of shapes but those of its inputs."""
    bare = ModelProto()
    bare.CopyFrom(model.proto)
    del bare.metadata_props[:]
    _forget_equal_names(bare.graph)
    for scope, graph in graphs(bare.graph, Scope()):
        del graph.value_info[:]
        for info in (*graph.output, *(graph.input if scope.bodies else ())):
            forget_shape(info.type)
        _forget_impossible_sizes(graph)
        _inline_shape_operands(model, graph)
        _declare_sparse(graph)
        if opset_of(bare.opset_import) >= _QUANTIZERS_SINCE:
            _show_quantizers(graph, {(function.domain, function.name) for function in bare.functions})
    return bare


def _show_quantizers(graph: GraphProto, functions: AbstractSet[tuple[str, str]]) -> None:
    """The quantizers of onnxruntime's own domain have the shapes of those that inference knows."""
    for node in graph.node:
        own = f"{node.domain}::{node.op_type}" in QUANTIZE | DEQUANTIZE
        if own and (node.domain, node.op_type) not in functions:
            node.domain = ""


def _resize(graph: GraphProto, sizes: Mapping[str, tuple[int, ...]]) -> None:
    for info in graph.input:
        if info.name in sizes:
            del info.type.tensor_type.shape.dim[:]
            for size in sizes[info.name]:
                info.type.tensor_type.shape.dim.add(dim_value=size)


def _forget_defaults(model: ModelProto) -> None:
    """Inference takes the value of an initializer that the caller may override for the truth."""
    if model.ir_version < _OVERRIDABLE_SINCE_IR:
        return
    replaceable = {info.name for info in model.graph.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in replaceable]
    if len(kept) < len(model.graph.initializer):
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def _declare_sparse(graph: GraphProto) -> None:
    """Inference overlooks sparse initializers; as inputs they have a type and a shape."""
    for sparse in graph.sparse_initializer:
        graph.input.append(
            helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, sparse.dims)
        )
    del graph.sparse_initializer[:]


def _forget_equal_names(graph: GraphProto) -> None:
    """Give every dimension of the inputs a name of its own, and sequences of them no shape."""
    taken: set[str] = set()
    for info in graph.input:
        if not info.type.HasField("tensor_type"):
            forget_shape(info.type)
            continue
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in taken:
                dim.ClearField("dim_param")
            taken.add(dim.dim_param)


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
