"""Who produces and who consumes each tensor, in every graph, nested body and local function of a model.

onnx-graphsurgeon does the linking. It is given a skeleton without weights, attributes or types, and
nothing is ever exported from it: its writer loses what it does not model (metadata, quantization
annotations, overridable initializers), its reader fails on types it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto
from onnx_graphsurgeon.logger import G_LOGGER

from bnfold.model.edits import Scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnfold.model.integers import Shape
    from bnfold.model.shapes import Known
    from bnfold.model.store import ModelFile

G_LOGGER.severity = G_LOGGER.CRITICAL

_DEFAULT_DOMAINS = ("", "ai.onnx")
_BRANCHES = {"then_branch": "then-branch", "else_branch": "else-branch"}


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of one graph.

    Attributes:
        name: as the model writes it.
        graph: the graph that defines it.
        producer: the node it is an output of; None for inputs, initializers and formal parameters.
        uses: every place that reads it, those in nested bodies included.
        is_input: whether it is a graph input or a function's formal parameter.
        is_output: whether a graph returns it (its own or, without a node between, a nested one).
        initializer: its stored value, if it has one.
    """

    name: str
    graph: Graph
    producer: Node | None = None
    uses: list[Use] = field(default_factory=list)
    is_input: bool = False
    is_output: bool = False
    initializer: TensorProto | onnx.SparseTensorProto | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """Input `position` of `node`."""

    node: Node
    position: int


@dataclass(eq=False, slots=True)
class Node:
    """An operator call; `inputs` and `outputs` hold None where the model leaves an optional one out.

    Attributes:
        graph: where it stands.
        index: its place among the nodes of the file.
        label: its name, or that of its first output when it has none; edits do not change it.
        proto: as the model writes it.
        inputs: what it reads.
        outputs: what it computes.
    """

    graph: Graph
    index: int
    label: str
    proto: NodeProto
    inputs: list[Value | None]
    outputs: list[Value | None]

    @property
    def op(self) -> str:
        """The operator of the default domain, or `domain::operator`; local functions are named so too."""
        domain, name = self.proto.domain, self.proto.op_type
        if domain in _DEFAULT_DOMAINS and (domain, name) not in self.graph.view.local_functions:
            return name
        return f"{domain}::{name}"

    @property
    def opset(self) -> int:
        """The version of the default operator set that holds here."""
        return self.graph.opset

    def attribute(self, name: str) -> AttributeProto | None:
        """The attribute as the model writes it; None when it is absent."""
        return next((a for a in self.proto.attribute if a.name == name), None)

    def int_attribute(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self.attribute(name)
        return default if found is None else found.i

    def float_attribute(self, name: str, default: float) -> float:
        """A float attribute."""
        found = self.attribute(name)
        return default if found is None else found.f

    def ints_attribute(self, name: str) -> tuple[int, ...] | None:
        """A list of integers; None when the attribute is absent."""
        found = self.attribute(name)
        return None if found is None else tuple(found.ints)

    @property
    def refers_to_caller(self) -> bool:
        """Whether an attribute is given by the caller of the local function around it."""
        return any(a.ref_attr_name for a in self.proto.attribute)

    @property
    def has_bodies(self) -> bool:
        """Whether it carries nested graphs (If, Loop, Scan ...)."""
        return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in self.proto.attribute)


@dataclass(eq=False)
class Graph:
    """A main graph, a nested body or the body of a local function."""

    view: View
    scope: Scope
    proto: GraphProto | FunctionProto
    opset: int
    parent: Graph | None = None
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)

    @property
    def is_function(self) -> bool:
        """Whether this is a local function, which can hold no initializers."""
        return isinstance(self.proto, FunctionProto)

    @property
    def label(self) -> str:
        """How reports name this graph; the empty string is the main graph."""
        return str(self.scope) if self.scope != Scope() else ""

    @property
    def output_names(self) -> tuple[str, ...]:
        """What it returns."""
        if isinstance(self.proto, FunctionProto):
            return tuple(self.proto.output)
        return tuple(v.name for v in self.proto.output)

    @property
    def phrase(self) -> str:
        """How a sentence names this graph."""
        if self.parent is not None:
            body = self.scope.bodies[-1]
            node = self.parent.nodes[body.node]
            part = _BRANCHES.get(body.attribute, "body")
            return f"the {part} of {node.op} {node.label!r}"
        return f"the local function {self.proto.name!r}" if self.is_function else "the graph"

    def role(self, part: str) -> str:
        """How a sentence calls a tensor that is an `input` or an `output` of this graph."""
        nested = self.parent is not None or self.is_function
        return f"an {part} of {self.phrase}" if nested else f"a graph {part}"


class View:
    """The topology of a whole model: `graphs` holds the main graph first, then nested ones and functions."""

    def __init__(self, model: ModelFile, *, frozen: bool = False) -> None:
        """Link all graphs of `model`; reads no weights.

        Args:
            model: the model.
            frozen: take initializers that the caller could override for constants.
        """
        self.model = model
        self.frozen = frozen
        self.local_functions = frozenset((f.domain, f.name) for f in model.proto.functions)
        self.graphs: list[Graph] = []
        opset = _default_opset(model.proto.opset_import)
        self._link(Graph(self, Scope(), model.proto.graph, opset), _skeleton(model.proto.graph))
        for index, function in enumerate(model.proto.functions):
            graph = Graph(self, Scope(function=index), function, _default_opset(function.opset_import))
            self._link(graph, _skeleton(function))

        _note_training(self.graphs[0], model.proto.training_info)

    def nodes(self) -> Iterator[Node]:
        """All nodes of all graphs, in the order of the file."""
        for graph in self.graphs:
            yield from graph.nodes

    def shape(self, value: Value) -> Shape | None:
        """What shape inference (or, where that is silent, the model itself) says; None is an unknown rank."""
        return self._known.types.get((value.graph.scope, value.name), (0, None))[1]

    def elem_type(self, value: Value) -> int:
        """The TensorProto data type, 0 when unknown."""
        if isinstance(value.initializer, TensorProto):
            return value.initializer.data_type
        return self._known.types.get((value.graph.scope, value.name), (0, None))[0]

    def integers(self, value: Value) -> tuple[int | None, ...] | None:
        """The entries of a small integer tensor that are known before the model runs; None for none."""
        found = self._known.integers.get((value.graph.scope, value.name))
        return None if found is None else tuple(found.reshape(-1))

    @cached_property
    def needed(self) -> frozenset[Node]:
        """Nodes that some graph's output depends on; what the others compute is for nobody."""
        pending = [v.producer for graph in self.graphs for v in graph.values.values() if v.is_output]
        found: set[Node] = set()
        while pending:
            node = pending.pop()
            if node is not None and node not in found:
                found.add(node)
                pending += [value.producer for value in node.inputs if value is not None]
        return frozenset(found)

    @cached_property
    def names(self) -> set[str]:
        """Every tensor and node name of the model, so that a new name can be told from a taken one."""
        found = {name for graph in self.graphs for name in graph.values}
        found.update(node.proto.name for node in self.nodes())
        return found

    @cached_property
    def _known(self) -> Known:
        from bnfold.model.shapes import known  # noqa: PLC0415  # most models are folded without shapes

        return known(self.model, frozen=self.frozen)

    def _link(self, graph: Graph, skeleton: GraphProto) -> None:
        """Import `skeleton` once, then walk it and the graph's own protos side by side."""
        surgeon = gs.import_onnx(
            onnx.ModelProto(graph=skeleton, opset_import=[onnx.OperatorSetIdProto(version=1)])
        )
        self._walk(graph, surgeon, _Linked({}))

    def _walk(self, graph: Graph, surgeon: Any, linked: _Linked) -> None:  # noqa: ANN401  # untyped library
        self.graphs.append(graph)
        for value in filter(None, (linked.value(t, graph) for t in surgeon.inputs)):
            value.is_input = True
        _note_initializers(graph)
        protos: Sequence[NodeProto] = graph.proto.node
        for index, (proto, twin) in enumerate(zip(protos, surgeon.nodes, strict=True)):
            label = proto.name or next(filter(None, proto.output), f"#{index}")
            node = Node(graph, index, label, proto, [], [])
            node.inputs = [linked.value(t, graph) for t in twin.inputs]
            for position, source in enumerate(node.inputs):
                if source is not None:
                    source.uses.append(Use(node, position))
            for attribute, position, body in _bodies(proto):
                scope = graph.scope.body(index, attribute, position)
                inner = Graph(self, scope, body, graph.opset, parent=graph)
                self._walk(inner, twin.attrs[f"{attribute}/{position}"], linked)
            node.outputs = [linked.value(t, graph) for t in twin.outputs]
            for value in filter(None, node.outputs):
                value.producer = node
            graph.nodes.append(node)
        for value in filter(None, (linked.value(t, graph) for t in surgeon.outputs)):
            value.is_output = True


@dataclass(frozen=True)
class _Linked:
    """Our value for each of onnx-graphsurgeon's tensor objects: one object is one value, in any scope."""

    known: dict[int, Value]

    def value(self, tensor: Any, graph: Graph) -> Value | None:  # noqa: ANN401  # untyped library
        if not tensor.name:
            return None
        if id(tensor) not in self.known:
            self.known[id(tensor)] = graph.values[tensor.name] = Value(tensor.name, graph)
        return self.known[id(tensor)]


def _bodies(node: NodeProto) -> Iterator[tuple[str, int, GraphProto]]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, 0, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            for index, body in enumerate(attribute.graphs):
                yield attribute.name, index, body


def _skeleton(graph: GraphProto | FunctionProto) -> GraphProto:
    """Names and edges alone. Initializers become inputs, so that a nested body finds those of its parents."""
    bare = GraphProto()
    if isinstance(graph, FunctionProto):
        inputs, outputs = list(graph.input), list(graph.output)
    else:
        inputs = [v.name for v in graph.input]
        inputs += [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]
        outputs = [v.name for v in graph.output]
    for name in dict.fromkeys(inputs):
        bare.input.add(name=name)
    for name in outputs:
        bare.output.add(name=name)
    for node in graph.node:
        copy = bare.node.add(op_type=node.op_type, input=node.input, output=node.output)
        for name, index, body in _bodies(node):
            copy.attribute.add(name=f"{name}/{index}", type=AttributeProto.GRAPH, g=_skeleton(body))
    return bare


def _note_initializers(graph: Graph) -> None:
    """Attach stored values; an initializer counts as an input only where the model lists it as one."""
    if isinstance(graph.proto, FunctionProto):
        return
    listed = {v.name for v in graph.proto.input}
    for tensor in graph.proto.initializer:
        graph.values[tensor.name].initializer = tensor
        graph.values[tensor.name].is_input = tensor.name in listed
    for sparse in graph.proto.sparse_initializer:
        graph.values[sparse.values.name].initializer = sparse
        graph.values[sparse.values.name].is_input = sparse.values.name in listed


def _note_training(graph: Graph, training: Sequence[onnx.TrainingInfoProto]) -> None:
    """Tensors that a training graph reads or updates by name are as good as graph outputs."""
    for info in training:
        names = {binding.key for binding in (*info.initialization_binding, *info.update_binding)}
        names.update(
            name for part in (info.initialization, info.algorithm) for n in part.node for name in n.input
        )
        for name in names & graph.values.keys():
            graph.values[name].is_output = True


def _default_opset(imports: Sequence[onnx.OperatorSetIdProto]) -> int:
    """The default domain's version; a model older than IR 3 imports none and means version 1."""
    return next((i.version for i in imports if i.domain in _DEFAULT_DOMAINS), 1)
