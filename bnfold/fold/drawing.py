"""A few nodes of a graph as boxes and arrows, and who feeds and reads whom, before the folds and after."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnfold.fold.plan import Plan
    from bnfold.model.view import Graph, Node

_Each = TypeVar("_Each")
Role = Literal[
    "normalization", "kept", "weights", "between", "gone", "added", "neighbour", "hidden", "input", "output"
]

LARGEST = 10
"""How many nodes are drawn, those beside them not counted."""

NEIGHBOURS = 3
"""How many of those beside them are drawn, in each direction."""

CONSTANT = frozenset({"Constant", "DequantizeLinear"})
"""Operators that stand for stored values, and are not drawn."""

WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose other inputs are weights."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node in a drawing, or an input or output of its graph.

    Attributes:
        op: the operator; empty for an input or output, and for nodes that are not drawn.
        name: the node's name, or the tensor's.
        role: the "normalization" goes, the "kept" one stays, "weights" take it in, "between" lets it pass,
            "gone" is taken out by this or another fold, "added" is new, "neighbour" stays as it is; "hidden"
            stands for nodes that are not drawn, and its name says how many.
    """

    op: str
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Drawing:
    """A few nodes and the edges between them.

    Attributes:
        boxes: in the order of the model.
        arrows: from one box to another, by index.
    """

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]


class Edges(Protocol):
    """Who feeds and who reads a node, at one point in time; a string is an input or output of the graph."""

    def feeders(self, node: Node) -> list[Node | str]:
        """What computes its data: no constants, no weights."""

    def readers(self, node: Node) -> list[Node | str]:
        """Who reads what it computes; a node of a nested graph counts for the one that holds it."""


class Before:
    """The model as it was: the names of edges, which no fold changes."""

    def __init__(self, plan: Plan) -> None:
        self.producers: dict[tuple[Graph, str], Node] = {}
        self.consumers: dict[tuple[Graph, str], list[Node]] = {}
        self.stored: dict[Graph, set[str]] = {}
        self.returned = {graph: _outputs(graph) for graph in plan.draft.view.graphs}
        for graph in plan.draft.view.graphs:
            self.stored[graph] = {v.name for v in graph.values.values() if v.initializer is not None}
            for node in graph.nodes:
                for name in node.proto.output:
                    self.producers[graph, name] = node
                for name in node.proto.input:
                    home, reader = _home(graph, name, node)
                    self.consumers.setdefault((home, name), []).append(reader)

    def feeders(self, node: Node) -> list[Node | str]:
        """As `Edges.feeders`."""
        found: list[Node | str] = []
        for name in _data(node, node.proto.input):
            home, _ = _home(node.graph, name, node)
            producer = self.producers.get((home, name))
            if name in self.stored[home] or not name:
                continue
            if producer is None or home is not node.graph:
                found.append(name)
            elif producer.op not in CONSTANT:
                found.append(producer)
        return list(dict.fromkeys(found))

    def readers(self, node: Node) -> list[Node | str]:
        """As `Edges.readers`."""
        found: list[Node | str] = []
        for name in node.proto.output:
            found += self.consumers.get((node.graph, name), []) if name else []
            found += [name] * (name in self.returned[node.graph])
        return list(dict.fromkeys(found))


class After:
    """The result: the draft with all folds."""

    def __init__(self, plan: Plan) -> None:
        self.draft = plan.draft
        self.returned = {graph: _outputs(graph) for graph in plan.draft.view.graphs}

    def feeders(self, node: Node) -> list[Node | str]:
        """As `Edges.feeders`."""
        found: list[Node | str] = []
        for position, value in _data(node, enumerate(node.inputs)):
            if value is None or value.initializer is not None or (node, position) in self.draft.weights:
                continue
            if value.producer is None or value.graph is not node.graph:
                found.append(value.name)
            elif value.producer.op not in CONSTANT:
                found.append(value.producer)
        return list(dict.fromkeys(found))

    def readers(self, node: Node) -> list[Node | str]:
        """As `Edges.readers`."""
        found: list[Node | str] = []
        for value in node.outputs:
            if value is not None:
                found += [lifted(use.node, value.graph) for use in self.draft.uses(value)]
                found += [value.name] * (value.name in self.returned[value.graph])
        return list(dict.fromkeys(found))


def _data(node: Node, inputs: Iterable[_Each]) -> Iterator[_Each]:
    """The inputs that hold no weights."""
    return islice(inputs, 1) if node.op in WEIGHTED else iter(inputs)


def _outputs(graph: Graph) -> set[str]:
    names: Iterable[Any] = graph.proto.output
    return {name if isinstance(name, str) else name.name for name in names}


def _home(graph: Graph, name: str, node: Node) -> tuple[Graph, Node]:
    """The graph that a name is defined in, and the node of that graph that reads it."""
    home, reader = graph, node
    while name not in home.values and home.parent is not None:
        reader = home.parent.nodes[home.scope.bodies[-1].node]
        home = home.parent
    return (home, reader) if name in home.values else (graph, node)


def lifted(node: Node, graph: Graph) -> Node:
    """The node of `graph` that is, or holds, this one."""
    while node.graph is not graph and node.graph.parent is not None:
        node = node.graph.parent.nodes[node.graph.scope.bodies[-1].node]
    return node
