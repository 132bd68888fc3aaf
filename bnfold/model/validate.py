"""Is a model well-formed: does every name mean one value, known before it is used, with data that fits?

The rules are those of the ONNX IR specification ("Graphs", "Names Within a Graph", "Nodes", "Functions"),
relaxed where onnxruntime and real exporters agree on less: shadowing of outer names by the inputs and
initializers of a body, initializers that IR version 3 wants listed as inputs, graphs without a name, values
that are listed as an output twice.
"""

from __future__ import annotations

from collections.abc import Hashable
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

import onnx

from bnfold.errors import ModelError
from bnfold.model.edits import MAIN, Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bnfold.model.store import ModelFile

_STANDARD = ("", "ai.onnx")
_FIRST_IR_WITH_OPSETS = 3
_BN_INPUTS = ("X", "scale", "B", "mean", "var")

_Call: TypeAlias = tuple[str, str, str]
_Key = TypeVar("_Key", bound=Hashable)


def validate(model: ModelFile) -> None:
    """Check a model; linear in its nodes, and without reading weights.

    Raises:
        ModelError: the first thing that is wrong: in which graph, at which node or tensor, and what.
    """
    proto = model.proto
    if proto.ir_version < 1:
        raise ModelError("the model gives no IR version; export it again")
    if not proto.opset_import and proto.ir_version >= _FIRST_IR_WITH_OPSETS:
        raise ModelError("the model imports no operator set, so its operators mean nothing; export it again")
    _check_versions(proto)
    _Graph(model, proto.graph.node, MAIN, ()).check(proto.graph)
    for index, function in enumerate(proto.functions):
        _function(model, function, Scope(index))
    _check_calls(proto.functions)


def _check_versions(proto: onnx.ModelProto) -> None:
    """What a later version of ONNX says, nobody here has read."""
    own = f"onnx {onnx.__version__} knows"
    helps = "upgrade onnx, or export with an older one"
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(f"IR version {proto.ir_version} is newer than {own} ({onnx.IR_VERSION}); {helps}")
    newest = onnx.defs.onnx_opset_version()
    for imports in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        for entry in imports:
            if entry.domain in _STANDARD and entry.version > newest:
                raise ModelError(f"opset {entry.version} is newer than {own} ({newest}); {helps}")


def _function(model: ModelFile, function: onnx.FunctionProto, scope: Scope) -> None:
    graph = _Graph(model, function.node, scope, ())
    if function.node and not function.opset_import:
        graph.fail(f"function {function.name!r} imports no operator set")
    graph.define(function.input, "input")
    graph.check_nodes()
    graph.check_outputs(function.output)


class _Graph:
    """One graph or function body while it is checked, node after node."""

    def __init__(
        self, model: ModelFile, nodes: Sequence[onnx.NodeProto], scope: Scope, outer: tuple[_Graph, ...]
    ) -> None:
        self.model = model
        self.nodes = nodes
        self.scope = scope
        self.outer = outer
        self.known: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}

    def fail(self, message: str) -> NoReturn:
        """Refuse the model."""
        raise ModelError(f"{self.scope}: {message}")

    def check(self, graph: onnx.GraphProto) -> None:
        """Check a graph with inputs, initializers and outputs."""
        self.define((value.name for value in graph.input), "input")
        initialized: set[str] = set()
        for tensor in graph.initializer:
            self._initializer(tensor.name, initialized)
            self._tensor(tensor, None)
            self.constants[tensor.name] = tensor
        for sparse in graph.sparse_initializer:
            self._initializer(sparse.values.name, initialized)
            self._sparse(sparse, None)
        self.known |= initialized
        self.check_nodes()
        self.check_outputs(value.name for value in graph.output)

    def define(self, names: Iterable[str], what: str) -> None:
        """Take names as defined from here on."""
        for name in names:
            self._text(name, what)
            if name and name in self.known:
                self.fail(f"{what} {name!r} is there twice")
            self.known.add(name)

    def check_nodes(self) -> None:
        """Check the nodes in order."""
        known, outer = self.known, self.outer
        for index, node in enumerate(self.nodes):
            for name in node.input:
                if name and name not in known and not any(name in graph.known for graph in outer):
                    self._unknown(name, index)
            self._texts(node)
            if node.attribute:
                self._attributes(index, node)
            if node.op_type == "BatchNormalization" and node.domain in _STANDARD:
                self._batch_normalization(index, node)
            for name in filter(None, node.output):
                if name in known or any(name in graph.known for graph in outer):
                    self.fail(f"{label(index, node)} defines {name!r}, which is defined already")
                known.add(name)
        for name in known:
            self._text(name, "value")

    def check_outputs(self, names: Iterable[str]) -> None:
        """Check that the graph has the outputs that it promises."""
        for name in names:
            self._text(name, "output")
            if name not in self.known:
                self.fail(f"output {name!r} is produced by no node")

    def _texts(self, node: onnx.NodeProto) -> None:
        for name, what in ((node.op_type, "operator"), (node.name, "node"), (node.domain, "domain")):
            self._text(name, what)

    def _text(self, name: object, what: str) -> None:
        # Protobuf's Python gives bytes for a string that is not valid UTF-8.
        if not isinstance(name, str):
            self.fail(f"the {what} name {name!r} is not valid UTF-8")

    def _initializer(self, name: str, initialized: set[str]) -> None:
        self._text(name, "initializer")
        if name and name in initialized:
            self.fail(f"initializer {name!r} is there twice")
        initialized.add(name)

    def _tensor(self, tensor: onnx.TensorProto, holder: str | None) -> None:
        try:
            self.model.check(tensor)
        except ModelError as error:
            self.fail(f"{holder}: {error}" if holder else str(error))

    def _sparse(self, sparse: onnx.SparseTensorProto, holder: str | None) -> None:
        self._tensor(sparse.values, holder)
        self._tensor(sparse.indices, holder)
        values, indices = tuple(sparse.values.dims), tuple(sparse.indices.dims)
        # Linear or by coordinate (onnx.proto, SparseTensorProto).
        if len(values) != 1 or indices not in (values, (*values, len(sparse.dims))):
            self.fail(
                f"{holder or 'initializer'}: sparse tensor {sparse.values.name!r} has values of shape "
                f"{list(values)} and indices of shape {list(indices)}, which do not fit"
            )

    def _attributes(self, index: int, node: onnx.NodeProto) -> None:
        attributes = node.attribute
        if len(attributes) > 1 and len({attribute.name for attribute in attributes}) < len(attributes):
            self.fail(f"{label(index, node)} has an attribute twice")
        for attribute in attributes:
            if attribute.HasField("t"):
                self._tensor(attribute.t, label(index, node))
            if attribute.HasField("sparse_tensor"):
                self._sparse(attribute.sparse_tensor, label(index, node))
            for tensor in attribute.tensors:
                self._tensor(tensor, label(index, node))
            for sparse in attribute.sparse_tensors:
                self._sparse(sparse, label(index, node))
            for position, body in _bodies(attribute):
                scope = self.scope.body(index, attribute.name, position)
                _Graph(self.model, body.node, scope, (*self.outer, self)).check(body)

    def _batch_normalization(self, index: int, node: onnx.NodeProto) -> None:
        present = len(node.input)
        missing = [what for at, what in enumerate(_BN_INPUTS) if at >= present or not node.input[at]]
        if missing:
            self.fail(f"{label(index, node)} lacks its input {', '.join(missing)}")
        shapes = {name: list(self.constants[name].dims) for name in node.input[1:5] if name in self.constants}
        if len({tuple(shape) for shape in shapes.values()}) > 1:
            given = ", ".join(f"{name!r} {shape}" for name, shape in shapes.items())
            self.fail(f"{label(index, node)} has statistics of different lengths: {given}")

    def _unknown(self, name: str, index: int) -> None:
        """Say what is wrong with a name that is used and not defined so far."""
        self._text(name, "value")
        user = label(index, self.nodes[index])
        for graph in (self, *reversed(self.outer)):
            producer = next((i for i, node in enumerate(graph.nodes) if name in node.output), None)
            if producer is None:
                continue
            cycle = find_cycle(graph.nodes)
            if cycle:
                around = " -> ".join(label(i, graph.nodes[i]) for i in cycle)
                graph.fail(f"the nodes form a cycle: {around}")
            self.fail(
                f"{user} uses {name!r} before {label(producer, graph.nodes[producer])} produces it; "
                f"the nodes must be sorted"
            )
        self.fail(f"{user} uses {name!r}, which is no input, no initializer and no output of a node")


def label(index: int, node: onnx.NodeProto) -> str:
    """How messages call a node."""
    return f"node {index} {node.name!r} ({node.op_type})"


def find_cycle(nodes: Sequence[onnx.NodeProto]) -> list[int]:
    """The nodes of one cycle, the first again at the end; empty if the graph has none."""
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    sources = {
        index: sorted({producer[name] for name in _used(node) if name in producer})
        for index, node in enumerate(nodes)
    }
    return _cycle(sources)


def _cycle(sources: Mapping[_Key, Iterable[_Key]]) -> list[_Key]:
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        cycle: list[_Key] = error.args[1]
        return cycle
    return []


def _used(node: onnx.NodeProto) -> set[str]:
    """The names that a node uses, in its bodies too (their own names included: harmless for cycles)."""
    names = set(node.input)
    for attribute in node.attribute:
        for _, body in _bodies(attribute):
            inner: set[str] = set()
            defined: set[str] = {value.name for value in body.input} | {t.name for t in body.initializer}
            for child in body.node:
                inner |= _used(child)
                defined |= set(child.output)
            names |= inner - defined
    return names


def _bodies(attribute: onnx.AttributeProto) -> Iterator[tuple[int, onnx.GraphProto]]:
    if attribute.HasField("g"):
        yield 0, attribute.g
    yield from enumerate(attribute.graphs)


def _check_calls(functions: Sequence[onnx.FunctionProto]) -> None:
    """Check that local functions are there once and do not call themselves, directly or not."""
    calls: dict[_Call, list[_Call]] = {}
    for function in functions:
        key = (function.domain, function.name, function.overload)
        if key in calls:
            raise ModelError(f"function {function.name!r} of domain {function.domain!r} is there twice")
        calls[key] = list(_called(function.node))
    cycle = _cycle(calls)
    if cycle:
        raise ModelError(f"function {cycle[0][1]!r} calls itself, directly or through others")


def _called(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Call]:
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for _, body in _bodies(attribute):
                yield from _called(body.node)
