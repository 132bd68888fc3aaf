"""How the graph looks around the folds, before and after: each look that differs once, as plain values."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnfold.fold.folded import Fold
    from bnfold.fold.plan import Plan
    from bnfold.model.view import Graph, Node

_Each = TypeVar("_Each")
Role = Literal["normalization", "weights", "between", "gone", "added", "neighbour", "input", "output"]

_LARGEST = 10  # nodes of a fold that are drawn
_NEIGHBOURS = 3  # that are drawn, in each direction
_CONSTANT = frozenset({"Constant", "DequantizeLinear"})
# Operators whose other inputs are weights.
_WEIGHTED = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class Box:
    """A node in a drawing, or an input or output of its graph.

    Attributes:
        op: the operator; empty for an input or output.
        name: the node's name, or the tensor's.
        role: the "normalization" goes, "weights" take it in, "between" lets it pass, "gone" is taken out
            by this or another fold, "added" is new, "neighbour" stays as it is.
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


@dataclass(frozen=True, slots=True)
class Pattern:
    """What some folds have in common; the names are those of the first.

    Attributes:
        folds: which, by their index in the report.
        direction: as `Fold.direction`.
        before: the model as it was.
        after: the result, with everything else that was folded.
        left_out: nodes of the first fold, or beside it, that are not drawn.
    """

    folds: tuple[int, ...]
    direction: str
    before: Drawing
    after: Drawing
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def patterns(plan: Plan) -> tuple[Pattern, ...]:
    """All folds of a plan by how the graph looks around them, the most frequent first."""
    nodes = [node for node in plan.draft.view.nodes() if node in plan.goes]
    before, after = _Before(plan), _After(plan)
    found: dict[object, list[Pattern]] = {}
    for index, node in enumerate(nodes):
        each = _pattern(index, node, plan, before, after)
        key = (each.direction, _shape(each.before), _shape(each.after), each.left_out)
        found.setdefault(key, []).append(each)
    merged = (Pattern(tuple(each.folds[0] for each in alike), *_rest(alike[0])) for alike in found.values())
    return tuple(sorted(merged, key=lambda each: -len(each.folds)))


def _rest(pattern: Pattern) -> tuple[str, Drawing, Drawing, int]:
    return pattern.direction, pattern.before, pattern.after, pattern.left_out


def _shape(drawing: Drawing) -> object:
    return tuple((box.op, box.role) for box in drawing.boxes), drawing.arrows


class _Edges(Protocol):
    """Who feeds and who reads a node, at one point in time; a string is an input or output of the graph."""

    def feeders(self, node: Node) -> list[Node | str]: ...

    def readers(self, node: Node) -> list[Node | str]: ...


def _pattern(index: int, node: Node, plan: Plan, before: _Before, after: _After) -> Pattern:
    fold, removed = plan.goes[node], plan.draft.removed
    appended = set(plan.draft.appended)
    whole = [each for each in dict.fromkeys((node, *plan.ways[node])) if each not in appended]
    drawn = _connected(_nearest(node, whole, before), whole, before)
    if fold.direction != "forward":
        drawn = _down_to_what_stays(drawn, plan, before)
    first, hidden = _drawing(drawn, fold, plan, before)
    alive = [each for each in drawn if each not in removed]
    if not alive:
        # Whoever took it in was itself taken in.
        behind = [other for each in drawn for other in before.readers(each) if not isinstance(other, str)]
        ahead = (other for each in behind if each not in removed for other in after.feeders(each))
        alive = [each for each in ahead if not isinstance(each, str)]
    second, hidden_after = _drawing(list(dict.fromkeys(alive))[:_LARGEST], fold, plan, after)
    left_out = len(set(whole).difference(drawn)) + max(hidden, hidden_after)
    return Pattern((index,), fold.direction, first, second, left_out)


def _nearest(start: Node, nodes: list[Node], edges: _Edges) -> list[Node]:
    """Some of the nodes of a fold: those nearest to the normalization."""
    inside, found, pending = set(nodes), {start: None}, deque([start])
    while pending:
        node = pending.popleft()
        for other in (*edges.feeders(node), *edges.readers(node)):
            if isinstance(other, str) or other in found or other not in inside:
                continue
            if len(found) == _LARGEST:
                return list(found)
            found[other] = None
            pending.append(other)
    return list(found)


def _connected(drawn: list[Node], whole: list[Node], edges: _Edges) -> list[Node]:
    """A branch that takes a normalization beside it in, with what lies between it and the sum."""
    found = dict.fromkeys(drawn)
    for start in whole:
        way: list[Node] = []
        node: Node | str | None = start
        while node is not None and not isinstance(node, str) and node not in found:
            way.append(node)
            node = next(iter(edges.readers(node)), None) if len(way) <= _NEIGHBOURS else None
        if node is not None and not isinstance(node, str) and len(found) + len(way) <= _LARGEST:
            found.update(dict.fromkeys(way))
    return list(found)


def _down_to_what_stays(drawn: list[Node], plan: Plan, edges: _Edges) -> list[Node]:
    """With what lies behind and goes, too: the sum of merged branches, another normalization."""
    found = dict.fromkeys(drawn)
    pending = deque(drawn)
    while pending:
        for other in edges.readers(pending.popleft()):
            gone = not isinstance(other, str) and other in plan.draft.removed
            if gone and not isinstance(other, str) and other not in found and len(found) < _LARGEST:
                found[other] = None
                pending.append(other)
    return list(found)


def _drawing(nodes: list[Node], fold: Fold, plan: Plan, edges: _Edges) -> tuple[Drawing, int]:
    """The nodes with those beside them, and how many of these are left out."""
    inside: set[Node | str] = {*nodes}
    ahead: dict[Node | str, None] = {}
    behind: dict[Node | str, None] = {}
    for node in nodes:
        feeders, readers = edges.feeders(node), edges.readers(node)
        if fold.direction != "backward" and not inside.intersection(feeders):
            ahead.update(dict.fromkeys(feeders))
        if fold.direction != "forward" and not inside.intersection(readers):
            behind.update(dict.fromkeys(readers))
    hidden = sum(max(0, len(side) - _NEIGHBOURS) for side in (ahead, behind))
    shown: list[Node | str] = [
        *list(ahead)[:_NEIGHBOURS],
        *sorted(nodes, key=lambda each: each.index),
        *list(behind)[:_NEIGHBOURS],
    ]
    order = {each: place for place, each in enumerate(dict.fromkeys(shown))}
    boxes = tuple(_box(each, each in ahead, inside, fold, plan) for each in order)
    arrows: set[tuple[int, int]] = set()
    for each, place in order.items():
        if isinstance(each, str):
            continue
        arrows.update((order[other], place) for other in edges.feeders(each) if other in order)
        arrows.update((place, order[other]) for other in edges.readers(each) if other in order)
    # Feeders and readers agree on nodes; an input that is an output too would point both ways.
    return Drawing(boxes, tuple(sorted(pair for pair in arrows if pair[0] < pair[1]))), hidden


def _box(each: Node | str, ahead: bool, inside: set[Node | str], fold: Fold, plan: Plan) -> Box:
    if isinstance(each, str):
        return Box("", each, "input" if ahead else "output")
    if each in plan.draft.appended:
        return Box(each.op, each.label, "added")
    if each.label == fold.node:
        return Box(each.op, each.label, "normalization")
    if each.label in fold.into:
        return Box(each.op, each.label, "weights")
    if each in plan.draft.removed:
        return Box(each.op, each.label, "gone")
    if each in inside and each.op in _WEIGHTED:
        # Another branch, which took this one in.
        return Box(each.op, each.label, "weights")
    return Box(each.op, each.label, "between" if each in inside else "neighbour")


class _Before:
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
        found: list[Node | str] = []
        for name in _data(node, node.proto.input):
            home, _ = _home(node.graph, name, node)
            producer = self.producers.get((home, name))
            if name in self.stored[home] or not name:
                continue
            if producer is None or home is not node.graph:
                found.append(name)
            elif producer.op not in _CONSTANT:
                found.append(producer)
        return list(dict.fromkeys(found))

    def readers(self, node: Node) -> list[Node | str]:
        found: list[Node | str] = []
        for name in node.proto.output:
            found += self.consumers.get((node.graph, name), []) if name else []
            found += [name] * (name in self.returned[node.graph])
        return list(dict.fromkeys(found))


class _After:
    """The result: the draft with all folds."""

    def __init__(self, plan: Plan) -> None:
        self.draft = plan.draft
        self.returned = {graph: _outputs(graph) for graph in plan.draft.view.graphs}

    def feeders(self, node: Node) -> list[Node | str]:
        found: list[Node | str] = []
        for position, value in _data(node, enumerate(node.inputs)):
            if value is None or value.initializer is not None or (node, position) in self.draft.weights:
                continue
            if value.producer is None or value.graph is not node.graph:
                found.append(value.name)
            elif value.producer.op not in _CONSTANT:
                found.append(value.producer)
        return list(dict.fromkeys(found))

    def readers(self, node: Node) -> list[Node | str]:
        found: list[Node | str] = []
        for value in node.outputs:
            if value is not None:
                found += [_lifted(use.node, value.graph) for use in self.draft.uses(value)]
                found += [value.name] * (value.name in self.returned[value.graph])
        return list(dict.fromkeys(found))


def _data(node: Node, inputs: Iterable[_Each]) -> Iterator[_Each]:
    """The inputs that hold no weights."""
    return islice(inputs, 1) if node.op in _WEIGHTED else iter(inputs)


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


def _lifted(node: Node, graph: Graph) -> Node:
    """The node of `graph` that is, or holds, this one."""
    while node.graph is not graph and node.graph.parent is not None:
        node = node.graph.parent.nodes[node.graph.scope.bodies[-1].node]
    return node
