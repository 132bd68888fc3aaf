"""One run of onnx's shape inference over a whole model, as a table of what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    OperatorSetIdProto,
    TensorShapeProto,
    TypeProto,
    ValueInfoProto,
    shape_inference,
)

from bnfold.model.edits import Body, Scope
from bnfold.model.integers import Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnfold.model.integers import Dim

_INVENTED = "unk__"  # how dimensions start that inference had to name

Types = dict[tuple[Scope, str], tuple[int, Shape | None]]


def run(model: ModelProto) -> Types:
    """Element type and shape by graph and tensor name, as far as inference and the model itself tell."""
    try:
        return collect(shape_inference.infer_shapes(model, strict_mode=False, data_prop=True))
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        # An operator of a version unknown to this onnx release, say.
        return collect(model)


def declare(info: ValueInfoProto, elem_type: int, shape: Shape | None) -> None:
    """Say of a tensor what it is; sizes that are not numbers get no names but those of inputs."""
    forget_shape(info.type)
    if elem_type:
        info.type.tensor_type.elem_type = elem_type
    if shape is None:
        return
    info.type.tensor_type.shape.SetInParent()
    for size in shape:
        dim = info.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None and not size.startswith(_INVENTED):
            dim.dim_param = size


def declaration(graph: GraphProto, name: str) -> ValueInfoProto:
    """Where a graph declares what one of its nodes computes."""
    info: ValueInfoProto
    for info in (*graph.output, *graph.value_info):
        if info.name == name:
            return info
    info = graph.value_info.add(name=name) if name else ValueInfoProto()
    return info


def opset_of(imports: Iterable[OperatorSetIdProto]) -> int:
    """The version of the default operator set."""
    return next((i.version for i in imports if i.domain in ("", "ai.onnx")), 1)


def collect(model: ModelProto) -> Types:
    """What the model says of the types of its tensors, function bodies aside."""
    types: Types = {}
    for scope, graph in graphs(model.graph, Scope()):
        for info in (*graph.value_info, *graph.output, *graph.input):
            if info.type.HasField("tensor_type"):
                types[scope, info.name] = (info.type.tensor_type.elem_type, _shape(info))
        for tensor in graph.initializer:
            types[scope, tensor.name] = (tensor.data_type, tuple(tensor.dims))
        for sparse in graph.sparse_initializer:
            types[scope, sparse.values.name] = (sparse.values.data_type, tuple(sparse.dims))
    return types


def graphs(graph: GraphProto, scope: Scope) -> Iterator[tuple[Scope, GraphProto]]:
    """A graph and those nested in it, from the outside in."""
    yield scope, graph
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            for position, body in enumerate(bodies):
                inner = Scope(scope.function, (*scope.bodies, Body(index, attribute.name, position)))
                yield from graphs(body, inner)


def defined(graph: GraphProto) -> frozenset[str]:
    """The names of the tensors of a graph; others that it reads belong to the graphs around it."""
    return frozenset((
        *(name for node in graph.node for name in node.output),
        *(info.name for info in graph.input),
        *(tensor.name for tensor in graph.initializer),
        *(sparse.values.name for sparse in graph.sparse_initializer),
    ))  # fmt: skip


def home(scope: Scope, name: str, names: Mapping[Scope, frozenset[str]]) -> Scope:
    """The graph that defines what is called `name` in `scope`, given what each graph defines."""
    while name not in names[scope] and scope.bodies:
        scope = Scope(scope.function, scope.bodies[:-1])
    return scope


def forget_shape(kind: TypeProto) -> None:
    """Leave of a type but what its elements are, those of sequences and optionals included."""
    field = kind.WhichOneof("value")
    if field in {"tensor_type", "sparse_tensor_type"}:
        getattr(kind, field).ClearField("shape")
    elif field in {"sequence_type", "optional_type"}:
        forget_shape(getattr(kind, field).elem_type)


def _shape(info: ValueInfoProto) -> Shape | None:
    tensor = info.type.tensor_type
    return tuple(_dim(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None


def _dim(dim: TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        # Some exporters write 0 or -1 for "unknown".
        return dim.dim_value if dim.dim_value > 0 else None
    return dim.dim_param or None
