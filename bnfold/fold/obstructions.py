"""How the graph looks around what stays, and what of it stands in the way: each look that differs once."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from bnfold.fold.drawing import CONSTANT, LARGEST, NEIGHBOURS, After, Box, Drawing, lifted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping

    from bnfold.fold.draft import Draft
    from bnfold.fold.drawing import Role
    from bnfold.fold.plan import Plan
    from bnfold.fold.reasons import Refusal
    from bnfold.model.view import Node, Value

    _Each: TypeAlias = Node | str  # a string is an input or output of the graph
    _Input: TypeAlias = tuple[Value, _Each, bool]  # the last one says whether it is a stored value
    _Reads: TypeAlias = Callable[[Node], list[_Input]]
    _Step: TypeAlias = Callable[[Node], Iterable[tuple[Value, _Each]]]
    _Found: TypeAlias = dict[_Each, tuple[Value, Node]]

_REACH = 64  # nodes that are looked at on each side
_ENDS = 2  # nodes at each end of a long way that are drawn


@dataclass(frozen=True, slots=True)
class Obstruction:
    """What some that stay have in common; the names are those of the first.

    Attributes:
        kept: which, by their index in the report.
        around: the result, with everything that was folded.
        obstacles: the boxes that stand in the way, by index.
        far: how many others do that are too far away to be drawn.
        left_out: nodes beside the first that are not drawn.
    """

    kept: tuple[int, ...]
    around: Drawing
    obstacles: tuple[int, ...]
    far: int
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def obstructions(plan: Plan) -> tuple[Obstruction, ...]:
    """All that a plan keeps, by why and by how the graph looks around them; the most frequent first."""
    after, appended = After(plan), frozenset(plan.draft.appended)
    reads, down = _upward(plan.draft), _downward(plan.draft)
    found: dict[object, list[Obstruction]] = {}
    nodes = (node for node in plan.draft.view.nodes() if node in plan.stays)
    for index, node in enumerate(nodes):
        refusal = plan.stays[node]
        each = _drawn(index, _scene(node, refusal, after, reads, down), appended)
        key = (refusal.code, refusal.reason.hint, _shape(each))
        found.setdefault(key, []).append(each)
    merged = (replace(alike[0], kept=tuple(each.kept[0] for each in alike)) for alike in found.values())
    return tuple(sorted(merged, key=lambda each: -len(each.kept)))


def _shape(found: Obstruction) -> object:
    return (
        tuple((box.op, box.role) for box in found.around.boxes),
        found.around.arrows,
        found.obstacles,
        found.far,
    )


@dataclass(frozen=True)
class _Scene:
    """What is drawn around a normalization.

    Attributes:
        shown: the nodes, and inputs and outputs by their names; each with its role.
        obstacles: what of it stands in the way.
        far: how many others do that are not found near it.
        gaps: pairs, the upper first, that are joined by so many nodes that are not drawn.
        left_out: how many nodes beside them are not drawn.
        steps: from a node to what it reads, and to who reads it.
    """

    shown: Mapping[_Each, Role]
    obstacles: frozenset[_Each]
    far: int
    gaps: Mapping[tuple[_Each, _Each], int]
    left_out: int
    steps: tuple[_Step, _Step]


def _scene(node: Node, refusal: Refusal, after: After, reads: _Reads, down: _Step) -> _Scene:
    names = dict.fromkeys(reason.blocking for reason in refusal.reasons)
    up = _data(reads, names.keys())
    shown: dict[_Each, Role] = {node: "kept"}
    obstacles: set[_Each] = {node} if node.label in names else set()
    gaps: dict[tuple[_Each, _Each], int] = {}
    left_out = 0
    near = {node.label}

    def show(some: Iterable[_Each], role: Role, outside: Role) -> int:
        """Show what there is room for; how many nodes there is none for."""
        new = [each for each in some if each not in shown]
        room = max(0, LARGEST + 2 * NEIGHBOURS - len(shown))
        shown.update((each, outside if isinstance(each, str) else role) for each in new[:room])
        return len(new[room:])

    sides: tuple[tuple[_Step, Callable[[Node], list[_Each]], Role], ...] = (
        (up, after.feeders, "input"),
        (down, after.readers, "output"),
    )
    for step, beside, outside in sides:
        found = _search(node, step)
        edge = [node]
        ends = [(name, *pair) for name in names for pair in _ends(name, found, node, down)]
        near |= {name for name, _, _ in ends}
        for _, end, guilty in ends:
            way = _way(end, found)
            if len(way) > 2 * _ENDS + 1:
                first, last = way[_ENDS - 1], way[-_ENDS]
                gaps[(last, first) if step is up else (first, last)] = len(way) - 2 * _ENDS
                way = [*way[:_ENDS], *way[-_ENDS:]]
            show(way, "between", outside)
            left_out += show(guilty[:NEIGHBOURS], "neighbour", "output") + len(guilty[NEIGHBOURS:])
            obstacles.update(each for each in guilty if each in shown)
            edge += [end] if end in guilty and not isinstance(end, str) else []
        for each in edge:
            others = beside(each)
            left_out += show(others[:NEIGHBOURS], "neighbour", outside) + len(others[NEIGHBOURS:])
    return _Scene(shown, frozenset(obstacles), len(names.keys() - near), gaps, left_out, (up, down))


def _upward(draft: Draft) -> _Reads:
    """What a node reads."""

    @cache
    def step(node: Node) -> list[_Input]:
        found: list[_Input] = []
        for position, value in enumerate(node.inputs):
            if value is None or (node, position) in draft.weights:
                continue
            if value.producer is None or value.graph is not node.graph:
                found.append((value, value.name, value.initializer is not None))
            else:
                found.append((value, value.producer, value.producer.op in CONSTANT))
        return found

    return step


def _data(reads: _Reads, names: KeysView[str]) -> _Step:
    """The same without stored values, but for those that one of the names is about."""

    def data(node: Node) -> list[tuple[Value, _Each]]:
        return [
            (v, other) for v, other, stored in reads(node) if not stored or names & _names(other, v, node)
        ]

    return data


def _downward(draft: Draft) -> _Step:
    """Who reads what a node computes."""

    @cache
    def step(node: Node) -> list[tuple[Value, _Each]]:
        found: dict[tuple[Value, _Each], None] = {}
        for value in filter(None, node.outputs):
            found |= dict.fromkeys((value, lifted(use.node, value.graph)) for use in draft.uses(value))
            found |= dict.fromkeys([(value, value.name)] * (value.name in value.graph.output_names))
        return list(found)

    return step


def _search(start: Node, step: _Step) -> _Found:
    """What lies on one side, the nearest first: the tensor that leads to it, and from where."""
    found: _Found = {}
    pending = deque([start])
    while pending:
        node = pending.popleft()
        for value, other in step(node):
            if len(found) == _REACH:
                return found
            if other is start or other in found:
                continue
            found[other] = value, node
            if not isinstance(other, str):
                pending.append(other)
    return found


def _ends(name: str, found: _Found, start: Node, down: _Step) -> Iterator[tuple[_Each, list[_Each]]]:
    """Where a way ends that something of this name bars, and what bars it there: at most one such place."""
    for end, (value, origin) in found.items():
        if name in _names(end, value, origin):
            yield end, [end]
            return
        if name == value.name:
            # Everybody else who gets the tensor.
            source = value.producer
            readers = [] if source is None else [reader for read, reader in down(source) if read is value]
            others = [reader for reader in readers if reader not in {origin, end, start}]
            yield end, others or [origin]
            return


def _names(end: _Each, value: Value, origin: Node) -> set[str]:
    """What reasons may call it by; of what a nested graph reads from outside, by the name of its producer."""
    if not isinstance(end, str):
        return {end.label}
    outside = value.producer if value.graph is not origin.graph else None
    return {end} if outside is None else {end, outside.label}


def _way(end: _Each, found: _Found) -> list[_Each]:
    """From what comes next to a normalization to an end."""
    way: list[_Each] = [end]
    while (before := found[way[-1]][1]) in found:
        way.append(before)
    return way[::-1]


def _drawn(index: int, scene: _Scene, appended: frozenset[Node]) -> Obstruction:
    def rank(each: _Each) -> tuple[int, int, bool]:
        if isinstance(each, str):
            return (0 if scene.shown[each] == "input" else 2, 0, False)
        return (1, each.index, each in appended)

    gap_above = {lower: (upper, count) for (upper, lower), count in scene.gaps.items()}
    boxes: list[Box] = []
    place: dict[_Each, int] = {}
    arrows: set[tuple[int, int]] = set()
    for each in sorted(scene.shown, key=rank):
        if each in gap_above:
            upper, count = gap_above[each]
            if upper in place:
                arrows |= {(place[upper], len(boxes)), (len(boxes), len(boxes) + 1)}
                boxes.append(Box("", f"{count} nodes", "hidden"))
        place[each] = len(boxes)
        name, op = (each, "") if isinstance(each, str) else (each.label, each.op)
        boxes.append(Box(op, name, scene.shown[each]))
    for each in scene.shown:
        if isinstance(each, str):
            continue
        up, down = scene.steps
        arrows.update((place[other], place[each]) for _, other in up(each) if other in place)
        arrows.update((place[each], place[other]) for _, other in down(each) if other in place)
    # An input that is an output too would point both ways.
    around = Drawing(tuple(boxes), tuple(sorted(pair for pair in arrows if pair[0] < pair[1])))
    obstacles = tuple(sorted(place[each] for each in scene.obstacles))
    return Obstruction((index,), around, obstacles, scene.far, scene.left_out)
