"""A model with some calls of its local functions replaced by their bodies.

What stands in the place of a call are copies of the function's nodes: the caller's tensors take the place of
the formal parameters, the call's attributes that of the references to them, and everything else gets a name
that nobody has (ONNX, IR specification, "Functions"). Every other byte of the model stays, except the
functions that nobody calls any more, which go.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto

from bnfold.model.census import within
from bnfold.model.edits import MAIN, GraphEdits, ModelEdits, Scope
from bnfold.model.store import node_tensors
from bnfold.model.wire import MAX_MESSAGE
from bnfold.model.write import edited

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bnfold.model.store import ModelFile

_DEEPEST = 64
_MOST_NODES = 100_000
_MOST_BYTES = 256 << 20  # of constants, which each copy of a body has again

Place = tuple[Scope, int]
"""A node of the model: the graph or function it stands in, and its index there."""

Path = tuple[Place, ...]
"""A call, and the calls that lead to it, outermost first."""


@dataclass(frozen=True)
class Origin:
    """Where a node of an inlined body comes from.

    Attributes:
        path: the call that brought it.
        place: where it stands in the function; the call's own place, where the function has no such node.
        label: how the function names it.
    """

    path: Path
    place: Place
    label: str


@dataclass(frozen=True)
class Inlined:
    """A model with some calls inlined.

    Attributes:
        model: the result.
        origins: for the label of each node that came out of a function, where from.
        calls: the calls that were inlined, each with the function's index in the original.
        obstacles: why calls were not, one for each function's index in the original.
        functions: of the functions that are left, the indices in the original.
    """

    model: ModelFile
    origins: Mapping[str, Origin]
    calls: Mapping[Path, int]
    obstacles: Mapping[int, str]
    functions: tuple[int, ...]


def inlined(model: ModelFile, names: Iterable[str], wanted: frozenset[Path] | None = None) -> Inlined | None:
    """Inline calls in the main graph and its nested graphs, and in what comes with them.

    Args:
        model: a valid model.
        names: the names it uses; none of them is given to anything new.
        wanted: which calls; None for all.

    Returns:
        None when the model has no functions, or when the result would be beyond reason: functions that call
        functions can make any size of it.
    """
    if model.proto.training_info or not model.proto.functions:
        return None
    run = _Inliner(model, set(names), wanted)
    if not run.bounded():
        return None
    run.scan(model.proto.graph.node, MAIN)
    if not run.calls:
        return Inlined(model, {}, {}, run.obstacles, tuple(range(len(run.functions))))
    removed = run.uncalled()
    edits = ModelEdits(tuple(run.edits()), functions_removed=removed)
    left = tuple(index for index in range(len(run.functions)) if index not in removed)
    return Inlined(edited(model, edits), run.origins, run.calls, run.obstacles, left)


class _Inliner:
    def __init__(self, model: ModelFile, names: set[str], wanted: frozenset[Path] | None) -> None:
        self.model = model
        self.names = names
        self.wanted = wanted
        self.functions = model.proto.functions
        self.index = {(f.domain, f.name, f.overload): i for i, f in enumerate(self.functions)}
        self.imports = _versions(model.proto.opset_import)
        self.origins: dict[str, Origin] = {}
        self.calls: dict[Path, int] = {}
        self.obstacles: dict[int, str] = {}
        self.nodes: dict[Scope, dict[int, NodeProto | None]] = defaultdict(dict)
        self.inserted: dict[Scope, dict[int, tuple[NodeProto, ...]]] = defaultdict(dict)
        self._foreign: dict[int, str | None] = {}

    def bounded(self) -> bool:
        """Whether the model stays of a reasonable size with every call inlined."""
        sizes: dict[int, tuple[int, int, int]] = {}
        callees = [set(self._called(function.node)) for function in self.functions]
        pending = list(range(len(self.functions)))
        while pending:
            current = pending[-1]
            missing = [i for i in callees[current] if i not in sizes]
            if current in sizes or not missing:
                pending.pop()
                sizes[current] = sizes.get(current) or self._size(self.functions[current].node, sizes)
            else:
                pending += missing
        called = [sizes[i] for i in self._called(self.model.proto.graph.node)]
        nodes, nbytes = sum(size[0] for size in called), sum(size[1] for size in called)
        return (
            max((size[2] for size in called), default=0) <= _DEEPEST
            and nodes <= _MOST_NODES
            and nbytes <= _MOST_BYTES
            and len(self.model.buffer) + 2 * nbytes <= MAX_MESSAGE
        )

    def scan(self, nodes: Sequence[NodeProto], scope: Scope) -> None:
        """Inline the calls in one graph of the model, and in those nested in it."""
        for index, node in enumerate(nodes):
            body = self.expanded(node, (scope, index), ())
            if body is not None:
                self.nodes[scope][index] = None
                self.inserted[scope][index] = tuple(body)
                continue
            for attribute, position, graph in _graphs(node):
                self.scan(graph.node, scope.body(index, attribute.name, position))

    def edits(self) -> Iterator[GraphEdits]:
        for scope, nodes in self.nodes.items():
            yield GraphEdits(scope, nodes=nodes, inserted=self.inserted[scope])

    def uncalled(self) -> frozenset[int]:
        """Functions that were called from the graph, and are no longer."""
        graph = self.model.proto.graph
        brought = (n for inserted in self.inserted.values() for nodes in inserted.values() for n in nodes)
        gone = {(s, i) for s, nodes in self.nodes.items() for i in nodes}
        before = self._reachable(self._called(graph.node))
        after = self._reachable([*self._called(brought), *self._called_but(graph.node, MAIN, gone)])
        # Somebody may look for a function that was never called: it is none of ours.
        kept = self._reachable([i for i in range(len(self.functions)) if i not in before])
        return frozenset(before - after - kept)

    def _reachable(self, start: Iterable[int]) -> set[int]:
        found: set[int] = set()
        pending = list(start)
        while pending:
            index = pending.pop()
            if index not in found:
                found.add(index)
                pending += self._called(self.functions[index].node)
        return found

    def _called(self, nodes: Iterable[NodeProto]) -> list[int]:
        keys = ((n.domain, n.op_type, n.overload) for n in within(nodes))
        return [self.index[key] for key in keys if key in self.index]

    def _called_but(self, nodes: Sequence[NodeProto], scope: Scope, gone: set[Place]) -> Iterator[int]:
        for index, node in enumerate(nodes):
            if (scope, index) in gone:
                continue
            callee = self._callee(node)
            if callee is not None:
                yield callee
            for attribute, position, graph in _graphs(node):
                yield from self._called_but(graph.node, scope.body(index, attribute.name, position), gone)

    def _callee(self, node: NodeProto) -> int | None:
        return self.index.get((node.domain, node.op_type, node.overload))

    def _size(
        self, nodes: Sequence[NodeProto], sizes: Mapping[int, tuple[int, int, int]]
    ) -> tuple[int, int, int]:
        """Nodes, bytes of constants and depth of calls, with all calls inlined."""
        count, depth = 0, 0
        nbytes = sum(self._payload(tensor) for tensor, _ in node_tensors(nodes))
        for node in within(nodes):
            callee = self._callee(node)
            inner = (1, 0, 0) if callee is None else sizes[callee]
            count, nbytes, depth = count + inner[0], nbytes + inner[1], max(depth, inner[2])
        return count, nbytes, depth + 1

    def _payload(self, tensor: onnx.TensorProto) -> int:
        span = self.model.span(tensor)
        nbytes: int = tensor.ByteSize()
        return nbytes if span is None or span.file is not None else nbytes + span.nbytes

    def expanded(self, call: NodeProto, place: Place, path: Path) -> list[NodeProto] | None:
        """What stands in the place of `call`; None where it stays.

        Args:
            call: the node, its tensors and attributes named as in the graph that it will stand in.
            place: where it stands in the model.
            path: the calls that brought it there.
        """
        index = self._callee(call)
        path = (*path, place)
        if index is None or (self.wanted is not None and path not in self.wanted):
            return None
        function = self.functions[index]
        obstacle = self._obstacle(index) or _misfit(call, function)
        if obstacle is not None:
            self.obstacles.setdefault(index, obstacle)
            return None
        self.calls[path] = index
        return _Copy(self, index, call, path).nodes()

    def _obstacle(self, index: int) -> str | None:
        """Why no call of a function can be inlined: its nodes would mean something else in the main graph."""
        if index not in self._foreign:
            self._foreign[index] = self._foreign_node(self.functions[index])
        return self._foreign[index]

    def _foreign_node(self, function: FunctionProto) -> str | None:
        own = _versions(function.opset_import)
        for node in within(function.node):
            domain = _normal(node.domain)
            here, there = own.get(domain), self.imports.get(domain)
            same = here == there if self._callee(node) is None else there is not None
            if not same and _since(node, here) != (_since(node, there) or -1):
                return (
                    f"its {node.op_type} is of version {here} of operator set {domain or 'ai.onnx'!r}, "
                    f"and the model imports {'none' if there is None else there}"
                )
        return None

    def unique(self, base: str) -> str:
        """A name that nobody has; it is taken from now on."""
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name)
        return name


@dataclass
class _Names:
    """What the names of a body are called where it goes; a nested graph's lie over those around it."""

    known: dict[str, str] = field(default_factory=dict)
    around: _Names | None = None

    def __getitem__(self, name: str) -> str:
        scope: _Names | None = self
        while scope is not None:
            if name in scope.known:
                return scope.known[name]
            scope = scope.around
        return name


class _Copy:
    """The copy of one function's body for one call."""

    def __init__(self, inliner: _Inliner, index: int, call: NodeProto, path: Path) -> None:
        self.inliner = inliner
        self.function = inliner.functions[index]
        self.scope = Scope(function=index)
        self.call = call
        self.path = path
        self.prefix = call.name or next(filter(None, call.output), self.function.name)
        self.attributes: dict[str, AttributeProto] = {a.name: a for a in self.function.attribute_proto}
        self.attributes.update((a.name, a) for a in call.attribute)

    def nodes(self) -> list[NodeProto]:
        """The body, between the tensors of the call."""
        function, call = self.function, self.call
        given = [*call.input, *[""] * len(function.input)]
        names = _Names(dict(zip(function.input, given, strict=False)))
        produced = {name for node in function.node for name in node.output if name}
        passed_on: list[tuple[str, str]] = []
        for formal, actual in zip(function.output, call.output, strict=False):
            if not actual:
                continue
            if formal in produced and formal not in names.known:
                names.known[formal] = actual
            else:
                passed_on.append((formal, actual))
        for name in (name for node in function.node for name in node.output if name):
            if name not in names.known:
                names.known[name] = self._fresh(name)
        body = self._renamed(function.node, self.scope, names)
        for formal, actual in passed_on:
            name = self._fresh(formal)
            self.inliner.origins[name] = Origin(self.path, self.path[-1], formal)
            body.append(NodeProto(op_type="Identity", name=name, input=[names[formal]], output=[actual]))
        return body

    def _fresh(self, name: str) -> str:
        return self.inliner.unique(f"{self.prefix}/{name}")

    def _renamed(self, nodes: Sequence[NodeProto], scope: Scope, names: _Names) -> list[NodeProto]:
        body: list[NodeProto] = []
        for index, node in enumerate(nodes):
            copy = self._node(node, (scope, index), names)
            expanded = self.inliner.expanded(copy, (scope, index), self.path)
            body += [copy] if expanded is None else expanded
        return body

    def _node(self, node: NodeProto, place: Place, names: _Names) -> NodeProto:
        scope, index = place
        copy = NodeProto()
        copy.CopyFrom(node)
        label = node.name or next(filter(None, node.output), f"#{index}")
        copy.name = self._fresh(label)
        self.inliner.origins[copy.name] = Origin(self.path, place, label)
        inputs = [names[name] for name in node.input]
        while inputs and not inputs[-1] and node.input[len(inputs) - 1]:
            inputs.pop()
        copy.input[:] = inputs
        copy.output[:] = [names[name] if name else "" for name in node.output]
        del copy.attribute[:]
        for attribute in node.attribute:
            given = self._attribute(attribute)
            if given is not None:
                copy.attribute.append(given)
        for attribute, position, graph in _graphs(copy):
            self._graph(graph, scope.body(index, attribute.name, position), names)
        return copy

    def _attribute(self, attribute: AttributeProto) -> AttributeProto | None:
        """As the call gives it; None where nobody does, and the operator's own default holds."""
        if not attribute.ref_attr_name:
            return attribute
        given = self.attributes.get(attribute.ref_attr_name)
        if given is None:
            return None
        copy = AttributeProto()
        copy.CopyFrom(given)
        copy.name = attribute.name
        return copy

    def _graph(self, graph: GraphProto, scope: Scope, around: _Names) -> None:
        """Rename a nested graph, in place."""
        names = _Names(around=around)
        defined = [value.name for value in graph.input]
        defined += [tensor.name for tensor in graph.initializer]
        defined += [sparse.values.name for sparse in graph.sparse_initializer]
        defined += [name for node in graph.node for name in node.output if name]
        for name in dict.fromkeys(defined):
            names.known[name] = self._fresh(name)
        for named in (
            *graph.input, *graph.output, *graph.value_info, *graph.initializer,
            *(sparse.values for sparse in graph.sparse_initializer),
        ):  # fmt: skip
            named.name = names[named.name]
        for note in graph.quantization_annotation:
            note.tensor_name = names[note.tensor_name]
            for parameter in note.quant_parameter_tensor_names:
                parameter.value = names[parameter.value]
        body = self._renamed(list(graph.node), scope, names)
        del graph.node[:]
        graph.node.extend(body)


def _misfit(call: NodeProto, function: FunctionProto) -> str | None:
    """Why one call cannot be inlined."""
    if len(call.input) > len(function.input) or len(call.output) > len(function.output):
        return f"{call.name or call.op_type!r} does not fit its signature"
    if any(True for _ in _graphs(call)):
        return f"{call.name or call.op_type!r} passes it a graph"
    given = [*call.input, *[""] * len(function.input)]
    missing = {formal for formal, actual in zip(function.input, given, strict=False) if not actual}
    returned = (f for f, actual in zip(function.output, call.output, strict=False) if actual)
    absent = next((name for name in returned if name in missing), None)
    if absent is not None:
        return f"{call.name or call.op_type!r} leaves out {absent!r}, which it returns"
    return None


def _since(node: NodeProto, version: int | None) -> int | None:
    """The version of the operator set that defined the operator as it is in this one."""
    if version is None:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, version, _normal(node.domain))
    except onnx.defs.SchemaError:
        return None
    since: int = schema.since_version
    return since


def _versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {_normal(i.domain): i.version for i in imports}


def _normal(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _graphs(node: NodeProto) -> Iterator[tuple[AttributeProto, int, GraphProto]]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute, 0, attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            for position, graph in enumerate(attribute.graphs):
                yield attribute, position, graph
