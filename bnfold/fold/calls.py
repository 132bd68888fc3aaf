"""Normalizations that a call of a local function separates from their weights.

A function cannot be folded for all of its callers with the weights that one of them passes in, and a map
cannot cross its border. So where a model has functions, all calls are inlined on trial; those that a new fold
needed are inlined, the others are not. Where nothing is gained the model stays as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from bnfold.errors import UsageError
from bnfold.fold.advice import advised
from bnfold.fold.plan import Plan, plan
from bnfold.fold.reasons import Code
from bnfold.fold.trace import Explanation
from bnfold.model.inline import inlined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnfold.fold.folded import Fold
    from bnfold.fold.options import Options
    from bnfold.fold.reasons import Refusal
    from bnfold.fold.trace import Attempt
    from bnfold.model.inline import Inlined, Path, Place
    from bnfold.model.store import ModelFile
    from bnfold.model.view import Node

# Reasons that no other form of the model would take away.
_BY_ORDER = frozenset({Code.EXCLUDED, Code.RESULTS_DIFFER})


_NEAR = 3  # names that are offered for one that is not there


@dataclass(frozen=True)
class Planned:
    """What happens to a model.

    Attributes:
        model: what the plan is made for: the given model, or that with some calls inlined.
        plan: the plan.
        notes: what was inlined, or why it was not; one line each.
        aliases: what a function calls its nodes, by the names they have where it was inlined.
    """

    model: ModelFile
    plan: Plan
    notes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


def plan_through_calls(model: ModelFile, options: Options | None = None) -> Planned:
    """Decide about every normalization, and about the calls that stand in the way of some.

    Raises:
        ModelError: a normalization or the data of a weight is invalid.
    """
    made = _planned(model, options)
    better = advised(made.plan, options, lambda other: plan(made.model, other, made.aliases))
    return replace(made, plan=better)


def _planned(model: ModelFile, options: Options | None) -> Planned:
    direct = plan(model, options)
    everything = inlined(model, direct.draft.view.names)
    if everything is None:
        return Planned(model, direct)
    left_alone = _obstacles(everything, direct)
    if not everything.calls:
        return Planned(model, direct, left_alone)
    whole = _Trial(everything, options, direct)
    if not whole.gained:
        return Planned(model, whole.explain(direct, range(len(model.proto.functions))), left_alone)
    needed = inlined(model, direct.draft.view.names, whole.needed())
    part = None if needed is None else _Trial(needed, options, direct)
    best = whole if part is None or len(part.gained) < len(whole.gained) else part
    explained = whole.explain(best.plan, best.inlined.functions)
    notes = (*_notes(best.inlined, direct), *left_alone)
    return Planned(best.inlined.model, explained, notes, best.aliases)


def explanations(model: ModelFile, options: Options | None, name: str) -> tuple[Explanation, ...]:
    """What was tried for each normalization of a name: of the node, of its output, or in a local function.

    Raises:
        UsageError: there is none.
        ModelError: a normalization or the data of a weight is invalid.
    """
    made = plan_through_calls(model, options)
    outcomes: dict[Node, Fold | Refusal] = {**made.plan.goes, **made.plan.stays}
    called = {node: _names(node, made.aliases) for node in outcomes}
    found = [node for node, names in called.items() if name in names]
    if not found:
        known = sorted({n for names in called.values() for n in names})
        near = (get_close_matches(name, known) or [n for n in known if name in n])[:_NEAR]
        hint = f"; near it: {', '.join(near)}" if near else "; `bnfold inspect` names them all"
        raise UsageError(f"no normalization is called {name!r}{hint}")
    attempts: dict[Place, tuple[Attempt, ...]] = {}
    for label in dict.fromkeys(node.label for node in found):
        traced = plan(made.model, options, made.aliases, label)
        attempts.update((_place(node), tried) for node, tried in traced.attempts.items())
    return tuple(Explanation(outcomes[node], attempts.get(_place(node), ())) for node in found)


def _names(node: Node, aliases: Mapping[str, str]) -> frozenset[str]:
    """What a user may call a normalization by."""
    return frozenset(filter(None, (node.label, aliases.get(node.label), *node.proto.output)))


class _Trial:
    """A plan for a model with calls inlined, compared with the plan for the model itself.

    Attributes:
        inlined: the model.
        plan: the plan for it.
        aliases: what the functions call the nodes that came out of them.
        gained: the normalizations that go now and did not before; none, if any other way round.
    """

    def __init__(self, found: Inlined, options: Options | None, direct: Plan) -> None:
        self.inlined = found
        self.direct = direct
        self.aliases = {label: origin.label for label, origin in found.origins.items()}
        self.plan = plan(found.model, options, self.aliases)
        before = {_place(node) for node in direct.ways}
        places = dict(self._places())
        lost = any(places.get(node) in before for node in self.plan.stays)
        gained = [node for node in self.plan.ways if node in places and places[node] not in before]
        self.gained = [] if lost else gained

    def needed(self) -> frozenset[Path]:
        """The calls that what was gained passes, and those around them."""
        origins = self.inlined.origins
        passed = (n.label for node in self.gained for n in (node, *self.plan.ways[node]))
        paths = (origins[label].path for label in passed if label in origins)
        return frozenset(path[:depth] for path in paths for depth in range(1, len(path) + 1))

    def explain(self, made: Plan, functions: Sequence[int]) -> Plan:
        """What stays in a function stays for the reason that was found at its first call.

        Args:
            made: the plan.
            functions: the index in the original of each function of the model it was made for.
        """
        found: dict[Place, Refusal] = {}
        for node, refusal in self.plan.stays.items():
            if node.label in self.inlined.origins:
                found.setdefault(self.inlined.origins[node.label].place, refusal)
        better: dict[int, Refusal] = {}
        for node, refusal in made.stays.items():
            scope, index = _place(node)
            if scope.function is None or refusal.code in _BY_ORDER:
                continue
            deeper = found.get((replace(scope, function=functions[scope.function]), index))
            if deeper is not None:
                better[id(refusal)] = replace(refusal, reasons=deeper.reasons)
        return replace(
            made,
            kept=tuple(better.get(id(refusal), refusal) for refusal in made.kept),
            stays={node: better.get(id(refusal), refusal) for node, refusal in made.stays.items()},
        )

    def _places(self) -> Iterator[tuple[Node, Place]]:
        """Each node of the main graph and those nested in it, with its place in the original."""
        origins, calls = self.inlined.origins, self.inlined.calls
        others = (_place(node) for node in _main(self.direct) if (_place(node),) not in calls)
        for node in _main(self.plan):
            origin = origins.get(node.label)
            yield node, next(others) if origin is None else origin.place


def _notes(found: Inlined, direct: Plan) -> tuple[str, ...]:
    """What was inlined."""
    counts = Counter(found.calls.values())
    return tuple(
        f"local function {_name(index, direct)!r} was inlined at {count} {'call' if count == 1 else 'calls'}"
        for index, count in counts.items()
    )


def _obstacles(found: Inlined, direct: Plan) -> tuple[str, ...]:
    """What could not be inlined, and keeps a normalization."""
    holding = {node.graph.scope.function for node in direct.stays}
    return tuple(
        f"local function {_name(index, direct)!r} was not inlined: {why}"
        for index, why in found.obstacles.items()
        if index in holding
    )


def _name(index: int, direct: Plan) -> str:
    name: str = direct.draft.view.model.proto.functions[index].name
    return name


def _main(made: Plan) -> Iterator[Node]:
    return (node for node in made.draft.view.nodes() if node.graph.scope.function is None)


def _place(node: Node) -> Place:
    return node.graph.scope, node.index
