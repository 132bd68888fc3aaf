"""Gathering the evidence: outcomes of onnxruntime against float64 truth, or against a bound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.verification.bound import DRAWS, effect, moved_copies
from bnfold.verification.case import LEVELS, Case, Evidence, Outcomes
from bnfold.verification.errors import Error, difference
from bnfold.verification.feeding import check_provider
from bnfold.verification.judge import Place, failure, is_float, judge, judge_bound
from bnfold.verification.real import RealEvidence, Reals
from bnfold.verification.sensitivity import outputs_behind_jumps
from bnfold.verification.sessions import Failure, Level, Ran, Run, run_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnfold.verification.feeds import Feed
    from bnfold.verification.verdict import Outcome as Judgement
    from bnfold.verification.verdict import OutputEvidence

# An original that is ten times further from truth at one level than at the other was moved by onnxruntime.
MOVED_BY_RUNTIME = 10.0
# Outputs that differ by less than this, relative to their size, do not answer to their inputs.
UNMOVED = 1e-6


def failures(case: Case, first: Outcomes, second: Outcomes) -> Evidence:
    """What did not run. Where only the folded model fails, that is a difference.

    Raises:
        EnvironmentFault: onnxruntime fell back from the provider that was asked for, or has none such.
    """
    for outcome in first.values():
        if isinstance(outcome, Failure):
            check_provider(case.provider, outcome)
    rows, findings = [], []
    for (level, feed), outcome in first.items():
        other = second[level, feed]
        if isinstance(outcome, Failure):
            then = "so does the folded model" if isinstance(other, Failure) else "the folded model runs"
            findings.append(f"the original does not run at {level} ({then}): {outcome.reason}")
        elif isinstance(other, Failure):
            rows.append(failure(Place("", feed, level), f"only the original runs: {other.reason}"))
    return Evidence(tuple(rows), tuple(dict.fromkeys(findings)))


def judged_by_truth(case: Case, feeds: Sequence[Feed], first: Outcomes, second: Outcomes) -> Evidence:
    """The evidence of all feeds and levels.

    Raises:
        TruthUnavailableError: the original cannot be evaluated in float64.
    """
    folders = (case.original.folder, case.folded.folder)
    reals = Reals(case.original.proto, case.folded.proto, folders)
    behind = outputs_behind_jumps(case.original.proto.graph)
    evidence = Evidence()
    truths: list[Mapping[str, Any]] = []
    for number, feed in enumerate(feeds):
        case.say(f"evaluating the original in float64 ({number + 1}/{len(feeds)})")
        real = reals.evidence(feed) if number == 0 else None
        truth = real.truth if real else reals.truth(feed)
        rows = _levels(feed, truth, first, second, {})
        if any(row.outcome == "fail" for row in rows):
            rows = _levels(feed, truth, first, second, reals.runtime_allowances(feed))
        if any(row.outcome == "fail" for row in rows):
            real = real or reals.evidence(feed)
            rows = _excuse(rows, real, behind)
        evidence += Evidence(rows, _moved_by_runtime(rows))
        if real is not None:
            evidence += Evidence(real.rows, _flips(real))
        truths.append(truth)
    return evidence + Evidence(findings=_unmoved(truths))


def _unmoved(truths: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Outputs that are the same for every feed: a fold that they depend on could be wrong unnoticed."""
    findings = []
    for name, value in truths[0].items():
        others = [truth[name] for truth in truths[1:]]
        if not is_float(value) or not others or not value.size or any(o.shape != value.shape for o in others):
            continue
        scale = Error.of(value).rms
        if np.isfinite(scale) and all(difference(value, other).rms <= UNMOVED * scale for other in others):
            findings.append(
                f"output {name!r} is the same for every feed: these feeds do not exercise the model"
            )
    return tuple(findings)


def _levels(
    feed: Feed, truth: Mapping[str, Any], first: Outcomes, second: Outcomes, allowances: Mapping[str, Error]
) -> tuple[OutputEvidence, ...]:
    rows = []
    for level in LEVELS:
        a, b = first[level, feed.name], second[level, feed.name]
        if not isinstance(a, Ran) or not isinstance(b, Ran):
            continue
        for name, value in a.outputs.items():
            place, other = Place(name, feed.name, level), b.outputs[name]
            if not isinstance(value, str) and not isinstance(other, str):
                rows.append(judge(place, truth[name], value, other, allowance=allowances.get(name)))
    return tuple(rows)


def judged_by_bound(case: Case, feeds: Sequence[Feed], first: Outcomes, second: Outcomes) -> Evidence:
    """The folded model against the original, by what half-ulp changes of the weights do in onnxruntime."""
    effects = _effects(case, feeds, first)
    rows = []
    for (level, feed), outcome in first.items():
        other = second[level, feed]
        if not isinstance(outcome, Ran) or not isinstance(other, Ran):
            continue
        for name, value in outcome.outputs.items():
            result, place = other.outputs[name], Place(name, feed, level)
            if isinstance(value, np.ndarray) and isinstance(result, np.ndarray):
                rows.append(judge_bound(place, value, result, effects.get((level, feed, name), Error())))
    if effects:
        return Evidence(tuple(rows))
    # Without a measured effect there is no bound: equal results are equal, others say nothing.
    undecided = [
        replace(row, outcome="ill-conditioned")
        if row.outcome == "fail" and row.limit_rms is not None
        else row
        for row in rows
    ]
    return Evidence(tuple(undecided), ("no weight could be moved to find a bound; only equal results count",))


def _effects(case: Case, feeds: Sequence[Feed], first: Outcomes) -> dict[tuple[Level, str, str], Error]:
    """What half-ulp changes of the weights do to the original, by level, feed and output."""
    runs = [
        Run(level, feed.name, feed.values)
        for level in LEVELS
        for feed in feeds
        if isinstance(first[level, feed.name], Ran)
    ]
    if not runs:
        return {}
    effects: dict[tuple[Level, str, str], Error] = {}
    for number, copy in enumerate(moved_copies(case.original.proto, case.original.folder)):
        case.say(f"running the original with its weights moved by half an ulp ({number + 1}/{DRAWS})")
        path = case.scratch / "moved.onnx"
        path.write_bytes(copy)
        moved = run_model(path, runs, provider=case.provider, timeout=case.timeout)
        for (level, feed), outcome in moved.items():
            plain = first[level, feed]
            if not isinstance(outcome, Ran) or not isinstance(plain, Ran):
                continue
            for name, value in plain.outputs.items():
                result, key = outcome.outputs[name], (level, feed, name)
                if isinstance(value, np.ndarray) and isinstance(result, np.ndarray):
                    effects[key] = effects.get(key, Error()).beyond(effect(value, result))
    return effects


def _excuse(
    rows: Sequence[OutputEvidence], real: RealEvidence, behind: frozenset[str]
) -> tuple[OutputEvidence, ...]:
    """Differences behind a discontinuous operator, where float64 shows that the fold is right.

    The fold is right when the float64 rows pass, which compare every decision's operands. The difference is
    one of rounding when decisions do turn under half-ulp changes; when none does, nothing can be said.
    """
    if any(row.outcome == "fail" for row in real.rows):
        return tuple(rows)
    outcome: Judgement = "near-tie" if real.flips else "ill-conditioned"
    note = "a discontinuous operator decides otherwise; with the original's decisions float64 agrees"
    return tuple(
        replace(row, outcome=outcome, note=f"{note}; {row.note}" if row.note else note)
        if row.outcome == "fail" and row.output in behind
        else row
        for row in rows
    )


def _flips(real: RealEvidence) -> tuple[str, ...]:
    return tuple(
        f"{label} decides by less than rounding: {count} of its results turn when weights move by half an ulp"
        for label, count in real.flips.items()
    )


def _moved_by_runtime(rows: Sequence[OutputEvidence]) -> tuple[str, ...]:
    """Outputs of the original that onnxruntime's own optimizer moves."""
    findings = []
    by_output: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.original_rms is not None:
            by_output.setdefault(row.output, {})[row.level] = row.original_rms
    for name, errors in by_output.items():
        plain, optimized = errors.get("disable_all"), errors.get("enable_all")
        if plain and optimized and optimized > MOVED_BY_RUNTIME * plain:
            findings.append(
                f"onnxruntime's optimizer moves output {name!r} of the original itself: RMS error "
                f"{plain:.2g} at disable_all, {optimized:.2g} at enable_all"
            )
    return tuple(findings)
