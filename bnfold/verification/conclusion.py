"""From evidence to a verdict: one status and one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.verification.case import LEVELS, Case, Evidence, Outcomes
from bnfold.verification.judge import NO_NUMBERS, NO_VALUES
from bnfold.verification.sessions import Ran
from bnfold.verification.verdict import OutputEvidence, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ValueInfoProto

    from bnfold.verification.feeds import Feed


_NOTHING = (NO_VALUES, NO_NUMBERS)


def conclude(case: Case, evidence: Evidence, feeds: Sequence[Feed], first: Outcomes) -> Verdict:
    """Weigh the evidence: one failure is a difference; without one, every output must pass somewhere."""
    rows = evidence.rows
    failed = [row for row in rows if row.outcome == "fail"]
    if failed:
        worst = max(failed, key=_excess)
        return verdict(case, "different", f"different: {_told(worst)}", evidence, feeds, first)
    outputs = [name for value in case.original.proto.graph.output for name in _compared(value, rows)]
    missing = [name for name in outputs if not any(row.output == name for row in rows)]
    if missing:
        blocking = [finding for finding in evidence.findings if "does not run" in finding]
        reason = next(iter(blocking or evidence.findings), "onnxruntime gives no tensor for it")
        text = f"not verified: output {', '.join(missing)}: {reason}"
        return verdict(case, "not verified", text, evidence, feeds, first)
    shown = {row.output for row in rows if row.outcome in {"pass", "near-tie"}}
    doubtful = [name for name in outputs if name not in shown]
    bare = [name for name in doubtful if all(row.note in _NOTHING for row in rows if row.output == name)]
    if bare:
        why = " or ".join(sorted({row.note for row in rows if row.output in bare}))
        text = f"inconclusive: nothing of output {', '.join(bare)} was compared: {why} with every feed"
        return verdict(case, "inconclusive", text, evidence, feeds, first)
    if doubtful:
        why = "; ".join(sorted({row.note for row in rows if row.output in doubtful and row.note}))
        text = (
            f"inconclusive: rounding alone moves output {', '.join(doubtful)} too far to judge a fold by it"
        )
        return verdict(case, "inconclusive", f"{text} ({why})" if why else text, evidence, feeds, first)
    if evidence.doubts:
        text = f"inconclusive: {'; '.join(evidence.doubts)}"
        return verdict(case, "inconclusive", text, evidence, feeds, first)
    hidden = _hidden(rows, outputs)
    if hidden:
        text = (
            f"inconclusive: in onnxruntime rounding or overflow hides output {', '.join(hidden)} of the "
            "original itself; evaluated in float64 both models agree"
        )
        return verdict(case, "inconclusive", text, evidence, feeds, first)
    return verdict(case, "equivalent", _praise(rows, feeds, _providers(first)), evidence, feeds, first)


def _compared(value: ValueInfoProto, rows: Sequence[OutputEvidence]) -> list[str]:
    """What must be compared of an output: itself, or every tensor of one that is a sequence."""
    if _is_empty(value):
        return []
    parts = [row.output for row in rows if row.output.startswith(f"{value.name}[")]
    return list(dict.fromkeys(parts)) if value.type.HasField("sequence_type") and parts else [value.name]


def _is_empty(value: ValueInfoProto) -> bool:
    """Whether an output can have no values, whatever the model is fed."""
    return any(dim.HasField("dim_value") and not dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _hidden(rows: Sequence[OutputEvidence], outputs: Sequence[str]) -> tuple[str, ...]:
    """Outputs that pass in float64 alone although onnxruntime ran: what it computes shows nothing of a fold.

    The stored weights are right then, but what a user gets was not compared with anything.
    """
    ran = {row.output for row in rows if row.level in LEVELS}
    shown = {row.output for row in rows if row.level in LEVELS and row.outcome != "ill-conditioned"}
    return tuple(name for name in outputs if name in ran - shown)


def _excess(row: OutputEvidence) -> float:
    if row.folded_rms is None or not row.limit_rms:
        return float("inf")
    return row.folded_rms / row.limit_rms


def _told(row: OutputEvidence) -> str:
    where = (
        f"output {row.output!r} at {row.level} with feed {row.feed!r}" if row.output else f"at {row.level}"
    )
    if row.folded_rms is None or row.limit_rms is None:
        return f"{where}: {row.note or row.rule}"
    said = f"{where}: RMS error {row.folded_rms:.3g}, allowed {row.limit_rms:.3g}"
    if row.folded_rms <= row.limit_rms:
        said = f"{where}: largest error {row.folded_max:.3g}, allowed {row.limit_max:.3g}"
    return f"{said}; {row.note}" if row.note else said


def _praise(rows: Sequence[OutputEvidence], feeds: Sequence[Feed], provider: str) -> str:
    levels = [level for level in LEVELS if any(row.level == level for row in rows)]
    judged = [row for row in rows if row.level in levels] or rows
    outputs, count = len({row.output for row in judged}), len(feeds)
    where = "float64 alone; onnxruntime runs neither"
    if levels:
        where = f"onnxruntime on {provider} at {' and '.join(levels)}"
    if rows and all(row.against == "original" for row in rows):
        where += ", by a rounding bound"
    # What a discontinuous operator decided otherwise is no matter of how much rounding allows.
    passed = [row for row in judged if row.outcome == "pass"]
    used = [row.folded_rms / row.limit_rms for row in passed if row.folded_rms is not None and row.limit_rms]
    ratios = sorted(row.ratio for row in passed if row.ratio is not None)
    said = f"equivalent: {outputs} output{'s' * (outputs != 1)}, {count} feed{'s' * (count != 1)}, {where}"
    if ratios and levels:
        said += f"; RMS error {ratios[len(ratios) // 2]:.2f} times the original's own (median)"
    return f"{said}, at most {max(used):.0%} of what rounding allows" if used else said


def verdict(  # noqa: PLR0917 - each is a different thing, none has a default to skip
    case: Case,
    status: Status,
    summary: str,
    evidence: Evidence,
    feeds: Sequence[Feed],
    outcomes: Outcomes | None = None,
) -> Verdict:
    """A verdict with this status; `outcomes` say which provider ran."""
    return Verdict(
        status=status,
        summary=summary,
        outputs=evidence.rows,
        findings=tuple(dict.fromkeys(evidence.findings)),
        feeds=tuple(feed.name for feed in feeds),
        provider=_providers(outcomes or {}),
        seed=case.seed,
        seconds=0.0,
    )


def _providers(outcomes: Outcomes) -> str:
    """What really ran."""
    return ", ".join(sorted({each.provider for each in outcomes.values() if isinstance(each, Ran)}))
