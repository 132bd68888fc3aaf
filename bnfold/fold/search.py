"""Walking with an affine map through the graph until somebody has swallowed all of it.

Each node on the way swallows the map, passes it on changed (to one edge or to several, all of which must
take it), or refuses. Nothing changes until the whole way is known to be possible, so that a search that
fails leaves nothing behind.

The walk cannot explode. As long as the edges crossed lead nowhere else they form a tree, and a tensor is
asked for no more maps than there are sums behind it, each of which may pass its shift on or not. Where an
edge leads elsewhere the answer is no, whatever comes of it: from there on only the reason is looked for,
and what is found for one map holds for every other of its kind (`_kind`), in later searches too.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from bnfold.fold.changes import Bypass, Dissolve
from bnfold.fold.cost import gained_nodes, more_work
from bnfold.fold.obstacles import (
    HORIZON,
    QUANTIZERS,
    attribute_of_caller,
    end_of_graph,
    needed_elsewhere,
    no_producer,
    no_weights_before,
    no_weights_behind,
    no_weights_beyond,
    replaceable,
    returned,
    too_far,
)
from bnfold.fold.operator import Absorbed, Carried, Choice, Refused
from bnfold.fold.ops import TABLE
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.trace import Answer, Step
from bnfold.model.constants import NotConstant

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.fold.operator import Outcome
    from bnfold.model.view import Node, Use, Value

_OF_INTEGERS = frozenset({"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
_MOST_BEYOND = 64  # nodes beyond an obstacle that are looked at before it is believed to be one
_MOST_READERS = 64  # of a tensor, that each may select a part of; to ask all for all takes the square

# true of one map, perhaps not of the next
_OF_THE_NUMBERS = frozenset({Code.DTYPE_RANGE, Code.MIXED_DTYPES, Code.NON_FINITE})


@dataclass(frozen=True)
class Site:
    """A normalization: a BatchNormalization, or a chain that spells one out.

    Attributes:
        node: the node; of a chain the last one for a backward, the first one for a forward search.
        position: its runtime input.
        affine: the map from that input to its output.
        op: how reports name the operator.
    """

    node: Node
    position: int
    affine: Affine
    op: str


@dataclass(frozen=True)
class Way:
    """A way on which every branch ends at somebody who swallows the map.

    Attributes:
        into: who does.
        through: the nodes passed.
        changes: all that has to change, in the order in which it has to.
    """

    into: tuple[Node, ...] = ()
    through: tuple[Node, ...] = ()
    changes: tuple[Change, ...] = ()

    def __add__(self, other: Way) -> Way:
        return Way(self.into + other.into, self.through + other.through, self.changes + other.changes)


@dataclass(frozen=True)
class DeadEnd:
    """Why there is no way.

    Attributes:
        reasons: what stood in the way where the search came farthest.
        depth: how many nodes it had passed by then; `HORIZON` more where it had come to weights.
    """

    reasons: tuple[Reason, ...]
    depth: int

    @property
    def weight(self) -> tuple[bool, int]:
        """The truest has the largest: that there are no weights is true only where nothing else stands."""
        concrete = bool(self.reasons) and self.reasons[0].code is not Code.NO_LINEAR_NEIGHBOUR
        return concrete, self.depth


# A walk yields each walk whose answer it needs, and returns its own.
_Walk = Generator["_Walk", "Way | DeadEnd", "Way | DeadEnd"]


@dataclass(frozen=True)
class Seen:
    """What searches found behind edges that lead elsewhere, where only the reason counts.

    Without it every normalization behind a residual sum would look through all the sums before it.

    Attributes:
        answers: by tensor and kind of map: the answer, its depth counted from the tensor.
    """

    answers: dict[object, Way | DeadEnd] = field(default_factory=dict)


def backward(
    site: Site, draft: Draft, seen: Seen | None = None, trace: list[Step] | None = None
) -> Way | DeadEnd:
    """Against the data flow, into the producers of the normalization's input.

    Args:
        site: the normalization.
        draft: the graph as it is now.
        seen: what earlier searches found, and where this one notes what it finds.
        trace: receives what was asked.
    """
    start = Way(changes=(Dissolve(site.node, site.position),))
    found = _walked(
        _Upstream(draft, seen or Seen(), trace).ask(site.node, site.position, site.affine, 0, free=True)
    )
    return found if isinstance(found, DeadEnd) else _checked(start + found, draft)


def forward(site: Site, draft: Draft, trace: list[Step] | None = None) -> Way | DeadEnd:
    """Along the data flow, into every consumer of the normalization's output; `trace` as in `backward`."""
    output = site.node.outputs[0]
    if output is None:
        return DeadEnd((), 0)
    start = Way(changes=(Bypass(site.node, site.position),))
    found = _Downstream(draft, trace).walk(output, site.affine)
    return found if isinstance(found, DeadEnd) else _checked(start + found, draft)


def _checked(way: Way, draft: Draft) -> Way | DeadEnd:
    """A way that would cost more than it saves, visits a node twice or confuses names is none.

    Two branches that meet in one node were each computed without the other, so nobody vouches for both.
    """
    seen: set[Node] = set()
    for node in (*way.into, *way.through):
        if node in seen:
            evidence = f"two branches of the way meet in {node.op} {node.label!r}"
            return DeadEnd((Reason(Code.SEVERAL_CONSUMERS, node.label, evidence),), len(way.through))
        seen.add(node)
    costs = more_work(way.changes, draft)
    if costs is not None:
        return DeadEnd((costs,), HORIZON + len(way.through))
    clash = draft.clash(way.changes)
    return way if clash is None else DeadEnd((clash,), len(way.through))


def _walked(walk: _Walk) -> Way | DeadEnd:
    """Run a walk and the walks it asks for on a stack of our own: Python's is too short for a deep graph."""
    stack = [walk]
    answer: Way | DeadEnd | None = None
    while stack:
        try:
            following = next(stack[-1]) if answer is None else stack[-1].send(answer)
        except StopIteration as end:
            stack.pop()
            answer = end.value
        else:
            stack.append(following)
            answer = None
    if answer is None:
        raise AssertionError("a walk ends with an answer")
    return answer


def _arrived(node: Node | None) -> int:
    """A search that has come to weights has come farther than any that has not."""
    entry = TABLE.get(node.op) if node is not None else None
    return HORIZON if entry is not None and entry.linear else 0


def _worth_naming(
    reasons: tuple[Reason, ...], node: Node | None, draft: Draft, *, before: bool
) -> tuple[Reason, ...]:
    """What a node said; that there are no weights beyond it comes first, where that is so."""
    obstacle = any(reason.code not in {Code.NO_LINEAR_NEIGHBOUR, Code.OVERRIDABLE} for reason in reasons)
    if node is None or not obstacle or _has_weights(node) or _weights_beyond(node, draft, before=before):
        return reasons
    return no_weights_beyond(node, before=before), *reasons


def _has_weights(node: Node) -> bool:
    """Whether it takes maps in: a linear operator, or another normalization."""
    return _arrived(node) > 0 or node.op in _OF_INTEGERS or node.op.endswith("Normalization")


def _weights_beyond(node: Node, draft: Draft, *, before: bool) -> bool:
    """Whether anybody near could take a map in, if `node` and those behind it let it through."""
    pending, seen = [node], {node}
    while pending and len(seen) < _MOST_BEYOND:
        current = pending.pop()
        if before:
            near = [value.producer for value in current.inputs if value is not None]
        else:
            near = [
                use.node for value in current.outputs if value is not None for use in draft.readers(value)
            ]
        for other in near:
            if (
                other is None
                or other in seen
                or not (other.op in TABLE or _has_weights(other) or other.op in QUANTIZERS)
            ):
                continue
            if _has_weights(other):
                return True
            seen.add(other)
            pending.append(other)
    return bool(pending)


def _exactly(affine: Affine) -> tuple[object, ...]:
    """Equal for two maps that do the same."""
    return affine.axes, *((vector.shape, vector.tobytes()) for vector in affine.vectors)


def _kind(affine: Affine) -> tuple[object, ...]:
    """Equal for two maps that the same operators let pass, as far as that does not depend on the numbers."""
    scale = affine.scale.reshape(-1)
    signs = bool((scale > 0).all()), bool((scale < 0).all())
    return affine.axes, affine.dims, signs, bool((scale == scale[:1]).all()), bool(affine.shift.any())


def _from(found: Way | DeadEnd, depth: int) -> Way | DeadEnd:
    """The same answer, its depth counted from `depth` nodes farther away."""
    return DeadEnd(found.reasons, found.depth + depth) if isinstance(found, DeadEnd) else found


class _Upstream:
    def __init__(self, draft: Draft, seen: Seen, trace: list[Step] | None) -> None:
        self.draft = draft
        self.trace = trace
        self.answers: dict[object, Way | DeadEnd] = {}
        self.seen = seen.answers

    def ask(self, consumer: Node, position: int, affine: Affine, depth: int, *, free: bool) -> _Walk:
        """Whether the tensor at `position` of `consumer` can become `affine` of itself.

        Args:
            consumer: who reads the tensor.
            position: at which of its inputs.
            affine: what is asked for.
            depth: how many nodes lie between it and the normalization.
            free: whether every edge crossed so far leads nowhere else, so that the answer can be a way.
        """
        value = _input(consumer, position)
        if not free:
            return (yield self._only_the_reason(value, consumer, position, affine, depth))
        key = (value, consumer, _exactly(affine))
        if key not in self.answers:
            self.answers[key] = yield self._climb(consumer, position, affine, depth, free=True)
        return self.answers[key]

    def _only_the_reason(
        self, value: Value, consumer: Node, position: int, affine: Affine, depth: int
    ) -> _Walk:
        """Where no way can come of it: once for all maps of a kind."""
        key = (value, consumer.graph, _kind(affine))
        answers = self.answers if key in self.answers else self.seen
        if key not in answers:
            found = yield self._climb(consumer, position, affine, depth, free=False)
            lasting = isinstance(found, Way) or not any(r.code in _OF_THE_NUMBERS for r in found.reasons)
            answers = self.seen if lasting else self.answers
            # That somebody would take it in is all that counts; the way itself may be 2**depth long.
            answers[key] = _from(found, -depth) if isinstance(found, DeadEnd) else Way()
        return _from(answers[key], depth)

    def _climb(self, consumer: Node, position: int, affine: Affine, depth: int, *, free: bool) -> _Walk:
        """Node by node, as long as there is one way to go.

        An edge that leads elsewhere too is not refused at once: it is the true reason only if there would
        have been somebody to take the map in.
        """
        way = Way()
        while True:
            value = _input(consumer, position)
            shared = self._shared(value, consumer, position, affine) if free else self.draft.free_edge(value)
            if shared is not None and (free or way.through):
                if free and self.trace is not None:
                    self.trace.append(Step(depth, value.name, "", Answer.REFUSES, (shared,)))
                found = yield self.ask(consumer, position, affine, depth, free=False)
                return DeadEnd((shared,), HORIZON + depth) if free and isinstance(found, Way) else found
            outcome = (
                self._outcome(consumer, position, value, affine)
                if depth < HORIZON
                else Refused((too_far(value.name),))
            )
            node = value.producer
            if self.trace is not None:
                self.trace.append(_step(depth, node, value.name, outcome))
            if isinstance(outcome, Refused) or node is None:
                reasons = outcome.reasons if isinstance(outcome, Refused) else ()
                return DeadEnd(_worth_naming(reasons, node, self.draft, before=True), depth + _arrived(node))
            if isinstance(outcome, Absorbed):
                return way + Way(into=(node,), changes=outcome.changes)
            if not isinstance(outcome, Carried) or len(outcome.edges) != 1:
                found = yield self._first(node, outcome, depth, free=free)
                return found if isinstance(found, DeadEnd) else way + found
            way += Way(through=(node,), changes=outcome.changes)
            ((position, affine),) = outcome.edges
            consumer, depth = node, depth + 1

    def _first(self, node: Node, outcome: Carried | Choice, depth: int, *, free: bool) -> _Walk:
        """The first option that leads to the end without a new node, else with the fewest.

        If there is none, the one that came farthest.
        """
        ends: list[DeadEnd] = []
        best, fewest = None, 0
        for option in outcome.options if isinstance(outcome, Choice) else (outcome,):
            found = yield self._branch(node, option, depth, free=free)
            if isinstance(found, DeadEnd):
                ends.append(found)
                continue
            gained = gained_nodes(found.changes, self.draft)
            if not gained:
                return found
            if best is None or gained < fewest:
                best, fewest = found, gained
        return best or _deepest(ends)

    def _branch(self, node: Node, carried: Carried, depth: int, *, free: bool) -> _Walk:
        way = Way(through=(node,), changes=carried.changes)
        for position, affine in carried.edges:
            found = yield self.ask(node, position, affine, depth + 1, free=free)
            if isinstance(found, DeadEnd):
                return found
            way += found
        return way

    def _shared(self, value: Value, consumer: Node, position: int, affine: Affine) -> Reason | None:
        """Why the tensor cannot take the map for the sake of one reader; the others may not notice it."""
        reason = self.draft.free_edge(value)
        if value.is_output:
            return reason
        uses = self.draft.readers(value)
        if reason is None:
            # A node that computes for nobody does not count among the readers, nor may it change them.
            return None if any(use.node is consumer for use in uses) else needed_elsewhere(value, consumer)
        if len(uses) > _MOST_READERS:
            return reason
        others = (use for use in uses if use.node is not consumer or use.position != position)
        return None if all(self._overlooks(use, affine) for use in others) else reason

    def _overlooks(self, use: Use, affine: Affine) -> bool:
        """Whether a reader selects nothing that the map changes."""
        entry = TABLE.get(use.node.op)
        if entry is None or entry.forward is None or entry.linear or use.node.refers_to_caller:
            return False
        outcome = entry.forward(use.node, use.position, affine, self.draft)
        return (
            isinstance(outcome, Carried)
            and not outcome.changes
            and all(map_.is_identity for _, map_ in outcome.edges)
        )

    def _outcome(self, consumer: Node, position: int, value: Value, affine: Affine) -> Outcome:
        producer = value.producer
        if producer is None:
            found = self.draft.weight(consumer, position)
            if isinstance(found, NotConstant) and found.kind == "overridable":
                return Refused((replaceable(consumer, found),))
            return Refused((no_producer(value),))
        entry = TABLE.get(producer.op)
        if entry is None or producer.graph is not consumer.graph:
            return Refused((no_weights_before(producer, consumer),))
        if producer.refers_to_caller and not entry.ignores_attributes:
            return Refused((attribute_of_caller(producer),))
        if entry.backward_of is not None:
            return entry.backward_of(producer, producer.outputs.index(value), affine, self.draft)
        if entry.backward is None or producer.outputs[0] is not value:
            return Refused((no_weights_before(producer, consumer),))
        return entry.backward(producer, affine, self.draft)


@dataclass
class _Arrival:
    """A node of a forward walk, the maps that its inputs come without, and how many nodes lie before it."""

    node: Node
    affines: dict[int, Affine] = field(default_factory=dict)
    depth: int = 0


class _Downstream:
    """Node by node in the order of the model, so that whoever joins branches sees what comes by each."""

    def __init__(self, draft: Draft, trace: list[Step] | None) -> None:
        self.draft = draft
        self.trace = trace
        self.arrivals: dict[Node, _Arrival] = {}
        self.queue: list[tuple[tuple[int, ...], int, Node]] = []
        self.passed: set[Node] = set()
        self.ends: list[DeadEnd] = []
        self.last: dict[Reason, Reason] = {}  # for outputs that nobody reads: that nothing comes behind

    def walk(self, value: Value, affine: Affine) -> Way | DeadEnd:
        """Whether every reader of `value` can do without the `affine` that it had so far."""
        way = Way()
        self._reach(value, affine, 0)
        while self.queue:
            arrival = self.arrivals[heappop(self.queue)[-1]]
            node, depth = arrival.node, arrival.depth
            self.passed.add(node)
            outcome = self._outcome(arrival) if depth < HORIZON else Refused((too_far(node.label),))
            if self.trace is not None:
                self.trace.append(_step(depth, node, node.label, outcome))
            if isinstance(outcome, Absorbed):
                way += Way(into=(node,), changes=outcome.changes)
            elif isinstance(outcome, Carried):
                way += Way(through=(node,), changes=outcome.changes)
                for position, each in outcome.edges:
                    output = node.outputs[position]
                    if output is not None:
                        self._reach(output, each, depth + 1)
            else:
                reasons = outcome.reasons if isinstance(outcome, Refused) else ()
                reasons = _worth_naming(reasons, node, self.draft, before=False)
                self.ends.append(DeadEnd(reasons, depth + _arrived(node)))
        if not self.ends:
            return way
        if way.into:
            # That one refuses counts for more where another would have taken the map in.
            far = [e if e.depth >= HORIZON else DeadEnd(e.reasons, e.depth + HORIZON) for e in self.ends]
            return _together(far)
        return _together([DeadEnd(tuple(self.last.get(r, r) for r in e.reasons), e.depth) for e in self.ends])

    def _reach(self, value: Value, affine: Affine, depth: int) -> None:
        """Everybody who reads the tensor is to be asked."""
        readers = self.draft.readers(value)
        if value.is_output:
            reason = returned(value)
            if self.trace is not None:
                self.trace.append(Step(depth, value.name, "", Answer.REFUSES, (reason,)))
            self.ends.append(DeadEnd((reason,), depth))
            if not readers:
                self.last[reason] = end_of_graph(value)
        for use in readers:
            if use.node in self.passed:
                evidence = f"{use.node.op} {use.node.label!r} stands before what it reads"
                self.ends.append(DeadEnd((Reason(Code.SEVERAL_CONSUMERS, use.node.label, evidence),), depth))
                continue
            if use.node not in self.arrivals:
                self.arrivals[use.node] = _Arrival(use.node)
                heappush(self.queue, (_place(use.node), len(self.arrivals), use.node))
            arrival = self.arrivals[use.node]
            arrival.affines[use.position] = affine
            arrival.depth = max(arrival.depth, depth)

    def _outcome(self, arrival: _Arrival) -> Outcome:
        node, affines = arrival.node, arrival.affines
        entry = TABLE.get(node.op)
        if entry is None or entry.forward is None:
            return Refused((no_weights_behind(node),))
        if node.refers_to_caller:
            return Refused((attribute_of_caller(node),))
        if len(affines) == 1:
            ((position, affine),) = affines.items()
            return entry.forward(node, position, affine, self.draft)
        if entry.join is None:
            evidence = f"{node.op} {node.label!r} gets the normalized tensor by two ways"
            return Refused((Reason(Code.SEVERAL_CONSUMERS, node.label, evidence),))
        return entry.join(node, affines, self.draft)


def _step(depth: int, node: Node | None, name: str, outcome: Outcome) -> Step:
    """What a node said, or the tensor `name` if nobody computes it."""
    label, op = (name, "") if node is None else (node.label, node.op)
    if isinstance(outcome, Refused):
        return Step(depth, label, op, Answer.REFUSES, outcome.reasons)
    return Step(depth, label, op, Answer.TAKES if isinstance(outcome, Absorbed) else Answer.PASSES)


def _place(node: Node) -> tuple[int, ...]:
    """Where a node stands, a body where the node that has it does: whatever it reads stands before it."""
    return *(body.node for body in node.graph.scope.bodies), node.index


def _input(node: Node, position: int) -> Value:
    value = node.inputs[position]
    if value is None:
        raise AssertionError("an operator carries a map only to an input that it has")
    return value


def _together(ends: list[DeadEnd]) -> DeadEnd:
    """Where all had to be taken in: each kind of obstacle where it lies deepest, the deepest first."""
    kinds: dict[tuple[Code, ...], DeadEnd] = {}
    for end in sorted(ends, key=lambda end: -end.depth):
        kinds.setdefault(tuple(reason.code for reason in end.reasons), end)
    reasons = dict.fromkeys(reason for end in kinds.values() for reason in end.reasons)
    return DeadEnd(tuple(reasons), max(end.depth for end in ends))


def _deepest(ends: list[DeadEnd]) -> DeadEnd:
    depth = max(end.depth for end in ends)
    reasons = dict.fromkeys(reason for end in ends if end.depth == depth for reason in end.reasons)
    return DeadEnd(tuple(reasons), depth)
