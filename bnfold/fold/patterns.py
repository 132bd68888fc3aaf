"""How the graph looks around the folds, before and after: each look that differs once, as plain values."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bnfold.fold.drawing import LARGEST, NEIGHBOURS, WEIGHTED, After, Before, Box, Drawing

if TYPE_CHECKING:
    from bnfold.fold.drawing import Edges
    from bnfold.fold.folded import Fold
    from bnfold.fold.plan import Plan
    from bnfold.model.view import Node


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
    before, after = Before(plan), After(plan)
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


def _pattern(index: int, node: Node, plan: Plan, before: Before, after: After) -> Pattern:
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
    second, hidden_after = _drawing(list(dict.fromkeys(alive))[:LARGEST], fold, plan, after)
    left_out = len(set(whole).difference(drawn)) + max(hidden, hidden_after)
    return Pattern((index,), fold.direction, first, second, left_out)


def _nearest(start: Node, nodes: list[Node], edges: Edges) -> list[Node]:
    """Some of the nodes of a fold: those nearest to the normalization."""
    inside, found, pending = set(nodes), {start: None}, deque([start])
    while pending:
        node = pending.popleft()
        for other in (*edges.feeders(node), *edges.readers(node)):
            if isinstance(other, str) or other in found or other not in inside:
                continue
            if len(found) == LARGEST:
                return list(found)
            found[other] = None
            pending.append(other)
    return list(found)


def _connected(drawn: list[Node], whole: list[Node], edges: Edges) -> list[Node]:
    """A branch that takes a normalization beside it in, with what lies between it and the sum."""
    found = dict.fromkeys(drawn)
    for start in whole:
        way: list[Node] = []
        node: Node | str | None = start
        while node is not None and not isinstance(node, str) and node not in found:
            way.append(node)
            node = next(iter(edges.readers(node)), None) if len(way) <= NEIGHBOURS else None
        if node is not None and not isinstance(node, str) and len(found) + len(way) <= LARGEST:
            found.update(dict.fromkeys(way))
    return list(found)


def _down_to_what_stays(drawn: list[Node], plan: Plan, edges: Edges) -> list[Node]:
    """With what lies behind and goes, too: the sum of merged branches, another normalization."""
    found = dict.fromkeys(drawn)
    pending = deque(drawn)
    while pending:
        for other in edges.readers(pending.popleft()):
            gone = not isinstance(other, str) and other in plan.draft.removed
            if gone and not isinstance(other, str) and other not in found and len(found) < LARGEST:
                found[other] = None
                pending.append(other)
    return list(found)


def _drawing(nodes: list[Node], fold: Fold, plan: Plan, edges: Edges) -> tuple[Drawing, int]:
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
    hidden = sum(max(0, len(side) - NEIGHBOURS) for side in (ahead, behind))
    shown: list[Node | str] = [
        *list(ahead)[:NEIGHBOURS],
        *sorted(nodes, key=lambda each: each.index),
        *list(behind)[:NEIGHBOURS],
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
    if each in inside and each.op in WEIGHTED:
        # Another branch, which took this one in.
        return Box(each.op, each.label, "weights")
    return Box(each.op, each.label, "between" if each in inside else "neighbour")
