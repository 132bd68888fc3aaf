"""What was tried for one normalization: for a person, and as data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from bnfold.fold.reasons import Refusal
from bnfold.report.schema import fold_data, reason_data, refusal_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from bnfold.fold.reasons import Reason
    from bnfold.fold.trace import Attempt, Explanation, Step

SCHEMA = "bnfold.explanation/1"
_DEEPEST = 12  # levels of indentation, beyond which a line would have no room
_DIRECTIONS = {"backward": "against the data flow", "forward": "along the data flow"}


def render(explanations: Sequence[Explanation]) -> RenderableType:
    """A line for everybody who was asked, indented by how far it is from the normalization."""
    lines: list[Text] = []
    for explanation in explanations:
        lines += [Text(), *_lines(explanation)] if lines else _lines(explanation)
    return Group(*lines)


def to_json(explanations: Sequence[Explanation]) -> str:
    """The same as strict JSON."""
    data = {"schema": SCHEMA, "explanations": [_data(explanation) for explanation in explanations]}
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False)


def _lines(explanation: Explanation) -> Iterator[Text]:
    outcome = explanation.outcome
    where = f" in {outcome.scope}" if outcome.scope else ""
    head = Text.assemble((outcome.node, "bold"), f"  {outcome.op}{where}  ")
    if isinstance(outcome, Refusal):
        yield head.append(f"stays: {outcome.code.value}")
        for reason in outcome.reasons:
            yield from _reason(reason, 1)
    else:
        into = ", ".join(f"{op} {name!r}" for op, name in zip(outcome.into_op, outcome.into, strict=True))
        yield head.append(f"folds {outcome.direction} into {into}")
    for attempt in explanation.attempts:
        ended = "leads nowhere" if attempt.reasons else "everything is taken in"
        yield Text(f"{_DIRECTIONS[attempt.direction]}: {ended}", style="dim")
        for step in attempt.steps:
            yield from _step(step)


def _step(step: Step) -> Iterator[Text]:
    depth = 1 + min(step.depth, _DEEPEST)
    yield Text(f"{'  ' * depth}{step.op or 'tensor'} {step.node!r} {step.answer}")
    for reason in step.reasons:
        yield from _reason(reason, depth + 1)


def _reason(reason: Reason, depth: int) -> Iterator[Text]:
    yield Text(f"{'  ' * depth}{reason.code.value} {reason.evidence}")
    if reason.hint:
        yield Text(f"{'  ' * depth}       {reason.hint}", style="dim")


def _data(explanation: Explanation) -> dict[str, Any]:
    outcome = explanation.outcome
    return {
        "fold": None if isinstance(outcome, Refusal) else fold_data(outcome),
        "refusal": refusal_data(outcome) if isinstance(outcome, Refusal) else None,
        "attempts": [_attempt(attempt) for attempt in explanation.attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "direction": attempt.direction,
        "reasons": [reason_data(reason) for reason in attempt.reasons],
        "steps": [
            {
                "depth": step.depth,
                "node": step.node,
                "op": step.op,
                "answer": step.answer.value,
                "reasons": [reason_data(reason) for reason in step.reasons],
            }
            for step in attempt.steps
        ],
    }
