"""Gathering the evidence: outcomes of onnxruntime against float64 truth, or against a bound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.verification.bound import DRAWS, effect, moved_copies
from bnfold.verification.case import LEVELS, Case, Evidence, Outcomes, few
from bnfold.verification.errors import Error, difference
from bnfold.verification.feeding import check_provider
from bnfold.verification.judge import Place, failure, is_float, judge, judge_bound
from bnfold.verification.real import RealEvidence, Reals
from bnfold.verification.sensitivity import outputs_behind_jumps
from bnfold.verification.sessions import Failure, Level, Ran, Run, run_model
from bnfold.verification.truth import BudgetSpentError, TruthUnavailableError
from bnfold.verification.unrun import unknown, unrun
from bnfold.verification.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx

    from bnfold.verification.feeds import Array, Feed
    from bnfold.verification.sessions import Outcome
    from bnfold.verification.verdict import Outcome as Judgement
    from bnfold.verification.verdict import OutputEvidence

_MOVED_ORIGINAL = "onnxruntime's optimizer moves the original itself"
# Outputs that differ by less than this, relative to their size, do not answer to their inputs.
UNMOVED = 1e-6
# Operators that hide their operand where it is large, and how near to 0, 1 or -1 their result is there.
SATURATING = frozenset({"HardSigmoid", "Sigmoid", "Softmax", "Tanh"})
ENDS, HALF = 1e-6, 0.5


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
        if isinstance(outcome, Ran) and isinstance(other, Ran):
            rows += [
                failure(Place(name, feed, level), f"only one of the models gives {name}")
                for name in sorted(outcome.outputs.keys() ^ other.outputs.keys())
            ]
        elif isinstance(outcome, Failure):
            then = "so does the folded model" if isinstance(other, Failure) else "the folded model runs"
            findings.append(f"the original does not run at {level} ({then}): {outcome.reason}")
        elif isinstance(other, Failure):
            rows.append(failure(Place("", feed, level), f"only the original runs: {other.reason}"))
    return Evidence(tuple(rows), tuple(dict.fromkeys(findings)))


def judged_by_truth(
    case: Case, feeds: Sequence[Feed], first: Outcomes, second: Outcomes, *, inside: bool
) -> Evidence:
    """The evidence of all feeds and levels, and where they agree and `inside` asks for it, of inner tensors.

    Raises:
        TruthUnavailableError: the original cannot be evaluated in float64, not with the first feed.
        BudgetSpentError: time is up before the first feed is judged.
    """
    folders = (case.original.folder, case.folded.folder)
    everything = Reals(case.original.proto, case.folded.proto, folders)
    behind = outputs_behind_jumps(case.original.proto.graph)
    evidence = Evidence()
    truths: list[Mapping[str, Any]] = []
    for number, feed in enumerate(feeds):
        stage = f"evaluating in float64 ({number + 1}/{len(feeds)})"
        reals = everything.watched(Watch(stage, case.say, case.deadline))
        try:
            found, truth = _judged_feed(reals, feed, first, second, behind, whole=number == 0)
        except BudgetSpentError:
            if number == 0:
                raise
            said = (
                f"the time budget of {case.budget:g} s was spent: {number} of {len(feeds)} feeds are judged"
            )
            evidence += Evidence(findings=(said,))
            break
        except TruthUnavailableError as error:
            # At another size a model may leave what is defined; onnxruntime runs a pool that has no window.
            if number == 0:
                raise
            evidence += Evidence(findings=(f"feed {feed.name!r} is not judged, for want of truth: {error}",))
            continue
        evidence += found
        truths.append(truth)
    evidence += Evidence(findings=_unmoved(truths) + _saturated(case.original.proto.graph, truths))
    evidence += unrun(case, everything, feeds[0])
    # Where rounding hides the outputs, it may hide inside, even in float64, what a weight does.
    drowned = any(row.outcome == "ill-conditioned" and row.feed == feeds[0].name for row in evidence.rows)
    if not inside or any(row.outcome == "fail" for row in evidence.rows):
        return evidence
    return evidence + _inside(case, everything, feeds[0], drowned=drowned)


def _inside(case: Case, everything: Reals, feed: Feed, *, drowned: bool) -> Evidence:
    """What layers and tensors inside the models say where the outputs agree."""
    reals = everything.watched(Watch("comparing layer by layer", case.say, case.deadline))
    try:
        rows, unknown = reals.answers(feed)
        return Evidence(rows if rows or drowned else reals.layers(feed), _unknown(unknown))
    except BudgetSpentError:
        why = f"the time budget of {case.budget:g} s was spent"
    except TruthUnavailableError as error:
        why = str(error)
    return Evidence(findings=(f"the models were not compared layer by layer: {why}",))


def _unknown(layers: Sequence[str]) -> tuple[str, ...]:
    """What there is to say of layers whose weights could not be compared one by one."""
    if not layers:
        return ()
    said = (
        f"{len(layers)} layers could not be compared weight by weight, for want of tensors of the same names "
        f"around them ({few(layers)}): an error there that moves no output beyond rounding is not seen"
    )
    return (said,)


def _judged_feed(
    reals: Reals, feed: Feed, first: Outcomes, second: Outcomes, behind: frozenset[str], *, whole: bool
) -> tuple[Evidence, Mapping[str, Any]]:
    """The evidence of one feed, and truth; `whole` has the folded model evaluated in float64 too."""
    real = reals.evidence(feed) if whole else None
    truth = real.truth if real else reals.truth(feed)
    for outcome in (first[level, feed.name] for level in LEVELS):
        unknown = outcome.outputs.keys() - truth.keys() if isinstance(outcome, Ran) else ()
        if unknown:
            raise TruthUnavailableError(f"in float64 there is no {min(unknown)}")
    moved = moved_by_optimizer(feed, truth, first, {}) - behind
    rows = judged_levels(feed, truth, first, second, allowances={}, moved=moved)
    if moved or any(row.outcome == "fail" for row in rows):
        allowances = reals.runtime_allowances(feed)
        moved = moved_by_optimizer(feed, truth, first, allowances) - behind
        rows = judged_levels(feed, truth, first, second, allowances=allowances, moved=moved)
    if any(row.outcome == "fail" for row in rows):
        real = real or reals.evidence(feed)
        rows = _excuse(rows, real, behind)
    evidence = Evidence(*_about_the_optimizer(rows, moved))
    if real is not None:
        evidence += Evidence(real.rows, _flips(real))
    return evidence, truth


def _unmoved(truths: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Outputs that are the same for every feed: a fold that they depend on could be wrong unnoticed."""
    findings = []
    for name, value in truths[0].items():
        others = [truth[name] for truth in truths[1:] if name in truth]
        if not is_float(value) or not others or not value.size or any(o.shape != value.shape for o in others):
            continue
        scale = Error.of(value).rms
        if np.isfinite(scale) and all(difference(value, other).rms <= UNMOVED * scale for other in others):
            findings.append(
                f"output {name!r} is the same for every feed: these feeds do not exercise the model"
            )
    return tuple(findings)


def _saturated(graph: onnx.GraphProto, truths: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Outputs at the ends of what their operator can give, for every feed: little of a fold shows there."""
    producers = {name: node.op_type for node in graph.node for name in node.output}
    findings = []
    for name in truths[0]:
        operator = producers.get(name, "")
        given = [truth[name] for truth in truths if name in truth]
        values = [value for value in given if is_float(value) and value.size]
        if operator not in SATURATING or not values:
            continue
        if all(bool((np.abs(np.abs(value) - (np.abs(value) > HALF)) < ENDS).all()) for value in values):
            findings.append(
                f"output {name!r} is saturated for every feed ({operator} gives nothing but extremes): it "
                "says little of what is in front of it; feed real data (--input)"
            )
    return tuple(findings)


def judged_levels(
    feed: Feed,
    truth: Mapping[str, Any],
    first: Outcomes,
    second: Outcomes,
    *,
    allowances: Mapping[str, Error],
    moved: Collection[str] = (),
) -> tuple[OutputEvidence, ...]:
    """Every output at every level for one feed.

    Args:
        feed: the feed.
        truth: the original's outputs in float64.
        first: what the original gave in onnxruntime.
        second: what the folded model gave.
        allowances: effect of half-ulp changes, where it was measured.
        moved: outputs of the original that onnxruntime's optimizer moves itself.
    """
    rows = []
    for level in LEVELS:
        for name, value, other in _pairs(first[level, feed.name], second[level, feed.name]):
            place, allowance = Place(name, feed.name, level), allowances.get(name)
            if name in moved and level != LEVELS[0]:
                plain = _output(first[LEVELS[0], feed.name], name)
                row = judge(place, truth[name], plain, other, allowance=allowance)
                own = difference(np.asarray(truth[name], dtype=np.float64), plain.astype(np.float64))
                rows.append(_beside(row, value, other, own.beyond(allowance or Error())))
            else:
                rows.append(judge(place, truth[name], value, other, allowance=allowance))
    return tuple(rows)


def _pairs(a: Outcome, b: Outcome) -> Iterator[tuple[str, Array, Array]]:
    """Outputs that are tensors in both outcomes."""
    if isinstance(a, Ran) and isinstance(b, Ran):
        for name, value in a.outputs.items():
            other = b.outputs.get(name, "")
            if not isinstance(value, str) and not isinstance(other, str):
                yield name, value, other


def _output(outcome: Outcome, name: str) -> Array:
    value = outcome.outputs[name] if isinstance(outcome, Ran) else ""
    if isinstance(value, str):
        raise TypeError(f"{name!r} is no tensor at {LEVELS[0]}")
    return value


def moved_by_optimizer(
    feed: Feed, truth: Mapping[str, Any], first: Outcomes, allowances: Mapping[str, Error]
) -> frozenset[str]:
    """Outputs of the original that onnxruntime's optimizer moves beyond rounding.

    The original at ENABLE_ALL is judged as a folded model would be by the original at DISABLE_ALL.
    """
    plain, optimized = (first[level, feed.name] for level in LEVELS)
    return frozenset(
        name
        for name, value, other in _pairs(plain, optimized)
        if is_float(value)
        and judge(
            Place(name, feed.name, ""), truth[name], value, other, allowance=allowances.get(name)
        ).outcome
        == "fail"
    )


def _beside(row: OutputEvidence, optimized: Array, folded: Array, yardstick: Error) -> OutputEvidence:
    """Judge a folded model where onnxruntime's optimizer moves the original itself.

    It is right where it is as near to truth as the original without the optimizer (`row`), and no worse than
    the original where it is as near to what the optimizer makes of that. Otherwise nothing can be said here.
    """
    if row.outcome == "pass":
        return replace(row, note=_MOVED_ORIGINAL)
    place = Place(row.output, row.feed, row.level)
    row = judge_bound(place, optimized, folded, yardstick if np.isfinite(yardstick.max) else Error())
    if row.outcome == "pass":
        return replace(row, note=f"{_MOVED_ORIGINAL}; the folded model moves with it")
    return replace(
        row, outcome="ill-conditioned", note=f"{_MOVED_ORIGINAL}; the folded model moves elsewhere"
    )


def judged_by_bound(case: Case, feeds: Sequence[Feed], first: Outcomes, second: Outcomes) -> Evidence:
    """The folded model against the original, by what half-ulp changes of the weights do in onnxruntime."""
    effects = _effects(case, feeds, first)
    rows = []
    for (level, feed), outcome in first.items():
        other = second[level, feed]
        for name, value, result in _pairs(outcome, other):
            allowed = effects.get((level, feed, name), Error())
            rows.append(judge_bound(Place(name, feed, level), value, result, allowed))
    unseen = unknown(case)
    if effects:
        return Evidence(tuple(rows), unseen)
    # Without a measured effect there is no bound: equal results are equal, others say nothing.
    undecided = [
        replace(row, outcome="ill-conditioned")
        if row.outcome == "fail" and row.limit_rms is not None
        else row
        for row in rows
    ]
    said = "no weight could be moved to find a bound; only equal results count"
    return Evidence(tuple(undecided), (said, *unseen))


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
        moved = run_model(path, runs, provider=case.provider, timeout=case.left)
        for (level, feed), outcome in moved.items():
            for name, value, result in _pairs(first[level, feed], outcome):
                key = (level, feed, name)
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


def _about_the_optimizer(
    rows: Sequence[OutputEvidence], moved: Collection[str]
) -> tuple[tuple[OutputEvidence, ...], tuple[str, ...]]:
    """The rows, and findings about onnxruntime: a result that its optimizer moves is no fault of a fold."""
    plain = {row.output: row for row in rows if row.level == LEVELS[0]}
    told, findings = [], []
    for row in rows:
        before = plain.get(row.output)
        if row.level == LEVELS[0] or before is None:
            told.append(row)
        elif row.output in moved:
            told.append(row)
            findings.append(
                f"onnxruntime's optimizer moves output {row.output!r} of the original itself beyond rounding "
                f"(feed {row.feed!r}): an error of the runtime, whatever the fold does"
            )
        elif row.outcome == "fail" and before.outcome == "pass":
            said = "onnxruntime's optimizer moves the folded model alone: at disable_all it agrees"
            told.append(replace(row, note=f"{said}; {row.note}" if row.note else said))
            findings.append(f"{said} (output {row.output!r}, feed {row.feed!r})")
        else:
            told.append(row)
    return tuple(told), tuple(findings)
