"""What a Loop carries from one iteration to the next: shapes that stay, proved by induction.

What a body declares of its state proves nothing: no runtime checks it, and sizes and even ranks may change
from one iteration to the next. But if the state has a shape before the first iteration, and the body makes
the same shape of it again, it has that shape in every iteration, and behind the Loop. What the body changes,
a dimension or the whole rank, is given up until nothing changes any more. The states of all Loops of a model
are assumed and checked together, since one may start with what another returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, ValueInfoProto

from bnfold.model.doubts import run
from bnfold.model.edits import Scope
from bnfold.model.inference import declaration, declare, defined, graphs, home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnfold.model.inference import Types
    from bnfold.model.integers import Shape

_MOST_PASSES = 16  # of inference; each gives up what the one before contradicts
_BEFORE_STATE = 2  # inputs of a Loop, and of its body, that are no state


@dataclass(frozen=True, eq=False)
class _State:
    """One tensor that a Loop carries.

    Attributes:
        start: where it is before the first iteration.
        end: what the body makes of it.
        formal: what the body reads, declared with the shape that is assumed.
        result: what the Loop returns, declared alike; None where nobody wants it.
    """

    start: tuple[Scope, str]
    end: tuple[Scope, str]
    formal: ValueInfoProto
    result: ValueInfoProto | None


def infer(model: ModelProto) -> Types:
    """What `doubts.run` finds, and what follows from the Loops.

    Args:
        model: a model that declares no shapes but those of its inputs; the state of its Loops is declared.
    """
    names = {scope: defined(graph) for scope, graph in graphs(model.graph, Scope())}
    states = list(_states(model, names))
    for state in states:
        _declare(state, 0, None)
    assumed: dict[_State, Shape | None] = {}
    for _ in range(_MOST_PASSES):
        types = run(model)
        # First something is assumed of all, since one may end as another starts; then it is given up.
        found = _beginnings(states, assumed, types) or _contradictions(assumed, types)
        if not found:
            return types
        for state, shape in found.items():
            _declare(state, types.get(state.start, (0, None))[0], shape)
        assumed |= found
    for state in states:
        _declare(state, 0, None)
    return run(model)


def _beginnings(
    states: list[_State], assumed: Mapping[_State, Shape | None], types: Types
) -> dict[_State, Shape | None]:
    """The shapes that states start with, of which nothing has been assumed yet."""
    shapes = {s: types.get(s.start, (0, None))[1] for s in states if s not in assumed}
    return {state: _common(shape) for state, shape in shapes.items() if shape is not None}


def _contradictions(assumed: Mapping[_State, Shape | None], types: Types) -> dict[_State, Shape | None]:
    """What is left of the assumptions that do not hold."""
    left = {
        state: _common(shape, *(types.get(place, (0, None))[1] for place in (state.start, state.end)))
        for state, shape in assumed.items()
    }
    return {state: shape for state, shape in left.items() if shape != assumed[state]}


def _states(model: ModelProto, names: Mapping[Scope, frozenset[str]]) -> Iterator[_State]:
    for scope, graph in graphs(model.graph, Scope()):
        for index, node in enumerate(graph.node):
            if node.op_type != "Loop" or node.domain not in ("", "ai.onnx"):
                continue
            body = next((a.g for a in node.attribute if a.name == "body"), GraphProto())
            inner = scope.body(index, "body", 0)
            starts, formals = node.input[_BEFORE_STATE:], body.input[_BEFORE_STATE:]
            results = [*node.output, *[""] * len(starts)]
            for start, formal, end, result in zip(starts, formals, body.output[1:], results, strict=False):
                if start:
                    yield _State(
                        start=(home(scope, start, names), start),
                        end=(home(inner, end.name, names), end.name),
                        formal=formal,
                        result=declaration(graph, result) if result else None,
                    )


def _common(assumed: Shape | None, *others: Shape | None) -> Shape | None:
    """What of a shape, in numbers, holds of others as well."""
    if assumed is None or any(other is None or len(other) != len(assumed) for other in others):
        return None
    return tuple(
        dim if isinstance(dim, int) and all(o is not None and o[axis] == dim for o in others) else None
        for axis, dim in enumerate(assumed)
    )


def _declare(state: _State, elem_type: int, shape: Shape | None) -> None:
    for info in (state.formal, state.result):
        if info is not None:
            declare(info, elem_type, shape)
