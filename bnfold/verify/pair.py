"""Do two models compute the same function? The verdict, step by step.

1. Feeds are made in sizes that the original accepts.
2. onnxruntime runs both models, at DISABLE_ALL and at ENABLE_ALL, in a process of its own.
3. The original is evaluated in float64: the truth. At each level the folded model's error against it is judged
   by the original's (`judge`).
4. For the first feed the folded model is evaluated in float64 too: what is left is the effect of its stored
   weights, judged by what half-ulp changes of the original's weights do (`real`, `sensitivity`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from bnfold.errors import ModelError, UsageError
from bnfold.verify.bound import DRAWS, effect, moved_copies
from bnfold.verify.errors import Error
from bnfold.verify.feeds import (
    Feed,
    InputSpec,
    Kind,
    NoFeedError,
    Sizes,
    candidate_sizes,
    input_specs,
    make_feed,
    other_sizes,
    user_feeds,
)
from bnfold.verify.judge import Place, judge, judge_bound
from bnfold.verify.real import RealEvidence, Reals
from bnfold.verify.sensitivity import outputs_behind_jumps
from bnfold.verify.sessions import Failure, Level, Outcome, Ran, Run, run_model
from bnfold.verify.truth import TruthUnavailableError
from bnfold.verify.verdict import OutputEvidence, Status, Verdict

Array = np.ndarray[Any, np.dtype[Any]]
Progress = Callable[[str], None]
TruthMode = Literal["auto", "full", "bound"]
Outcomes = Mapping[tuple[Level, str], Outcome]
LEVELS: tuple[Level, ...] = ("disable_all", "enable_all")
# An original that is ten times further from truth at one level than at the other was moved by onnxruntime.
MOVED_BY_RUNTIME = 10.0


@dataclass(frozen=True)
class Model:
    """A model to compare: what onnxruntime loads, and what is read here."""

    proto: onnx.ModelProto
    path: Path
    folder: Path


@dataclass(frozen=True)
class Case:
    """Everything that the steps of one verification share."""

    original: Model
    folded: Model
    provider: str
    timeout: float
    seed: int
    say: Progress
    scratch: Path


@dataclass(frozen=True)
class Evidence:
    """What a step found."""

    rows: tuple[OutputEvidence, ...] = ()
    findings: tuple[str, ...] = ()

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.rows + other.rows, self.findings + other.findings)


def verify(
    original: Path | bytes,
    folded: Path | bytes,
    *,
    feeds: Mapping[str, Array] | Sequence[Mapping[str, Array] | Feed] | None = None,
    seed: int = 0,
    provider: str = "cpu",
    truth: TruthMode = "auto",
    timeout: float = 600.0,
    progress: Progress | None = None,
) -> Verdict:
    """Say whether two models compute the same function.

    Args:
        original: the model to be trusted, a file or serialized bytes.
        folded: the model to be judged.
        feeds: arrays by input name, or several such mappings; None makes seeded feeds.
        seed: of the feeds that are made.
        provider: "cpu", "cuda" or "tensorrt"; a silent fall back to the CPU is reported, never accepted.
        truth: "auto" evaluates the original in float64 and says so where it cannot; "full" treats that as
            "not verified"; "bound" does without.
        timeout: seconds that one onnxruntime process may take.
        progress: is told what happens, one short line at a time.

    Raises:
        ModelError: a model cannot be read.
        UsageError: feeds that do not fit the model, or an unknown provider.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bnfold-verify-") as scratch:
        case = Case(
            original=_open(original, Path(scratch, "original.onnx")),
            folded=_open(folded, Path(scratch, "folded.onnx")),
            provider=provider,
            timeout=timeout,
            seed=seed,
            say=progress or (lambda _line: None),
            scratch=Path(scratch),
        )
        verdict = _verify(case, feeds, truth)
    return replace(verdict, seconds=time.monotonic() - started)


def _open(source: Path | bytes, scratch: Path) -> Model:
    path = source if isinstance(source, Path) else scratch
    try:
        if isinstance(source, bytes):
            path.write_bytes(source)
            proto = onnx.load_model_from_string(source)
        else:
            proto = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model ({error})") from error
    return Model(proto, path, path.parent)


def _verify(case: Case, given: Any, mode: TruthMode) -> Verdict:
    mismatch = _interface(case)
    if mismatch:
        return _verdict(case, "different", f"different: {mismatch}", Evidence(), ())
    try:
        feeds, sizes = _feeds(case, given)
    except NoFeedError as error:
        return _verdict(case, "not verified", f"not verified: {error}", Evidence(), ())
    case.say("running both models in onnxruntime")
    runs = [Run(level, feed.name, feed.values) for level in LEVELS for feed in feeds]
    first = run_model(case.original.path, runs, provider=case.provider, timeout=case.timeout)
    second = run_model(case.folded.path, runs, provider=case.provider, timeout=case.timeout)
    evidence = Evidence(findings=sizes) + _failures(first, second)
    obstacle = "not asked for"
    if mode != "bound":
        try:
            evidence += _judged(case, feeds, first, second)
        except TruthUnavailableError as error:
            obstacle = str(error)
        else:
            return _conclude(case, evidence, feeds, first)
    if mode == "full":
        summary = f"not verified: no float64 truth; {obstacle}"
        return _verdict(case, "not verified", summary, evidence, feeds, first)
    evidence += Evidence(findings=(f"judged by a bound, without float64 truth: {obstacle}",))
    return _conclude(case, evidence + _bounded(case, feeds, first, second), feeds, first)


def _interface(case: Case) -> str:
    """How the models' inputs and outputs differ; empty when they do not."""
    for kind in ("input", "output"):
        first, second = (_signature(model.proto, kind) for model in (case.original, case.folded))
        if first != second:
            return f"{kind}s {_listed(first)} became {_listed(second)}"
    return ""


def _signature(model: onnx.ModelProto, kind: str) -> list[tuple[str, int]]:
    backed = {tensor.name for tensor in model.graph.initializer} if kind == "input" else set()
    backed |= {tensor.values.name for tensor in model.graph.sparse_initializer} if kind == "input" else set()
    return [
        (value.name, value.type.tensor_type.elem_type)
        for value in getattr(model.graph, kind)
        if value.name not in backed
    ]


def _listed(signature: list[tuple[str, int]]) -> str:
    return (
        ", ".join(f"{name} ({onnx.TensorProto.DataType.Name(number).lower()})" for name, number in signature)
        or "none"
    )


def _feeds(case: Case, given: Any) -> tuple[tuple[Feed, ...], tuple[str, ...]]:
    if given is not None:
        feeds = user_feeds(given, case.original.proto)
        if not feeds:
            raise UsageError("feeds is empty; pass at least one")
        return feeds, ()
    specs = input_specs(case.original.proto)
    chosen, other, findings = _sizes(case, specs)
    kinds: list[tuple[Kind, Sizes]] = [
        ("normal", chosen),
        ("uniform", other),
        ("zeros", chosen),
        ("large", chosen),
    ]
    if not specs:
        kinds = kinds[:1]
    return tuple(make_feed(specs, sizes, kind, case.seed) for kind, sizes in kinds), findings


def _sizes(case: Case, specs: Sequence[InputSpec]) -> tuple[Sizes, Sizes, tuple[str, ...]]:
    """Two choices of sizes that the original accepts, and what there is to say about them.

    Raises:
        NoFeedError: the original runs at none of the sizes tried.
    """
    candidates = candidate_sizes(specs)
    if not candidates[0].by_symbol:
        return candidates[0], candidates[0], ()
    case.say("looking for input sizes that the original accepts")
    chosen, reason = _first_accepted(case, specs, candidates)
    if chosen is None:
        raise NoFeedError(
            f"the original runs at none of {len(candidates)} input sizes tried; pass inputs ({reason})"
        )
    other, reason = _first_accepted(case, specs, other_sizes(specs, chosen))
    if other is None:
        return chosen, chosen, (f"only one input size was found that runs: {chosen} (others: {reason})",)
    kept = [name for name, size in chosen.by_symbol.items() if other.by_symbol[name] == size]
    findings = [f"sizes of dynamic dimensions: {chosen}; {other}"]
    if kept:
        findings.append(f"tested at one size only: {', '.join(kept)}")
    return chosen, other, tuple(findings)


def _first_accepted(
    case: Case, specs: Sequence[InputSpec], candidates: Sequence[Sizes]
) -> tuple[Sizes | None, str]:
    runs = [
        Run("disable_all", str(sizes), make_feed(specs, sizes, "normal", case.seed).values, group="sizes")
        for sizes in candidates
    ]
    outcomes = run_model(case.original.path, runs, provider=case.provider, timeout=case.timeout)
    reason = "none differ"
    for sizes in candidates:
        outcome = outcomes.get(("disable_all", str(sizes)))
        if isinstance(outcome, Ran):
            return sizes, ""
        if isinstance(outcome, Failure):
            reason = outcome.reason
    return None, reason


def _failures(first: Outcomes, second: Outcomes) -> Evidence:
    """What did not run. Where only the folded model fails, that is a difference."""
    rows, findings = [], []
    for (level, feed), outcome in first.items():
        other = second[level, feed]
        if isinstance(outcome, Failure):
            then = "so does the folded model" if isinstance(other, Failure) else "the folded model runs"
            findings.append(f"the original does not run at {level} ({then}): {outcome.reason}")
        elif isinstance(other, Failure):
            rows.append(
                _row_without_numbers(Place("", feed, level), f"only the original runs: {other.reason}")
            )
    return Evidence(tuple(rows), tuple(dict.fromkeys(findings)))


def _row_without_numbers(place: Place, note: str) -> OutputEvidence:
    nothing = dict.fromkeys(
        (
            "signal_rms",
            "original_rms",
            "original_max",
            "folded_rms",
            "folded_max",
            "ratio",
            "limit_rms",
            "limit_max",
        )
    )
    return OutputEvidence(
        output=place.output,
        feed=place.feed,
        level=place.level,
        against="original",
        rule="both models run",
        outcome="fail",
        note=note,
        **nothing,
    )


def _judged(case: Case, feeds: Sequence[Feed], first: Outcomes, second: Outcomes) -> Evidence:
    """The evidence of all feeds and levels.

    Raises:
        TruthUnavailableError: the original cannot be evaluated in float64.
    """
    folders = (case.original.folder, case.folded.folder)
    reals = Reals(case.original.proto, case.folded.proto, folders)
    behind = outputs_behind_jumps(case.original.proto.graph)
    evidence = Evidence()
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
    return evidence


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


def _bounded(case: Case, feeds: Sequence[Feed], first: Outcomes, second: Outcomes) -> Evidence:
    """The folded model against the original, by what half-ulp changes of the weights do in onnxruntime."""
    runs = [Run(level, feed.name, feed.values) for level in LEVELS for feed in feeds]
    effects: dict[tuple[Level, str, str], Error] = {}
    for number, copy in enumerate(moved_copies(case.original.proto, case.original.folder)):
        case.say(f"running the original with its weights moved by half an ulp ({number + 1}/{DRAWS})")
        path = case.scratch / "moved.onnx"
        path.write_bytes(copy)
        moved = run_model(path, runs, provider=case.provider, timeout=case.timeout)
        for (level, feed), outcome in moved.items():
            plain = first[level, feed]
            if isinstance(outcome, Ran) and isinstance(plain, Ran):
                for name, value in plain.outputs.items():
                    if isinstance(value, np.ndarray):
                        key = (level, feed, name)
                        effects[key] = effects.get(key, Error()).beyond(effect(value, outcome.outputs[name]))
    rows = []
    for (level, feed), outcome in first.items():
        other = second[level, feed]
        if not isinstance(outcome, Ran) or not isinstance(other, Ran):
            continue
        for name, value in outcome.outputs.items():
            result = other.outputs[name]
            if isinstance(value, np.ndarray) and isinstance(result, np.ndarray):
                place = Place(name, feed, level)
                rows.append(judge_bound(place, value, result, effects.get((level, feed, name), Error())))
    if not effects:
        # Without the effect there is no bound: equal results are equal, others say nothing.
        rows = [
            replace(row, outcome="ill-conditioned") if row.outcome == "fail" and row.limit_rms else row
            for row in rows
        ]
        return Evidence(tuple(rows), ("no weight could be moved to find a bound; only equal results count",))
    return Evidence(tuple(rows))


def _excuse(
    rows: Sequence[OutputEvidence], real: RealEvidence, behind: frozenset[str]
) -> tuple[OutputEvidence, ...]:
    """Differences behind a discontinuous operator, where float64 shows that the fold is right.

    The fold is right when the float64 rows pass, which compare every decision's operands. The difference is
    one of rounding when decisions do turn under half-ulp changes; when none does, nothing can be said.
    """
    if any(row.outcome == "fail" for row in real.rows):
        return tuple(rows)
    outcome: Any = "near-tie" if real.flips else "ill-conditioned"
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
                f"onnxruntime's optimizer moves output {name!r} of the original itself: RMS error {plain:.2g} "
                f"at disable_all, {optimized:.2g} at enable_all"
            )
    return tuple(findings)


def _conclude(case: Case, evidence: Evidence, feeds: Sequence[Feed], first: Outcomes) -> Verdict:
    rows = evidence.rows
    failed = [row for row in rows if row.outcome == "fail"]
    if failed:
        worst = max(failed, key=_excess)
        return _verdict(case, "different", f"different: {_told(worst)}", evidence, feeds, first)
    outputs = [value.name for value in case.original.proto.graph.output]
    shown = {row.output for row in rows if row.outcome in ("pass", "near-tie")}
    doubtful = [name for name in outputs if name not in shown]
    if doubtful:
        why = "; ".join(sorted({row.note for row in rows if row.output in doubtful and row.note}))
        text = f"inconclusive: the original's own rounding hides output {', '.join(doubtful)}" + (
            why and f" ({why})"
        )
        return _verdict(case, "inconclusive", text, evidence, feeds, first)
    return _verdict(case, "equivalent", _praise(rows, feeds), evidence, feeds, first)


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


def _praise(rows: Sequence[OutputEvidence], feeds: Sequence[Feed]) -> str:
    levels = [level for level in LEVELS if any(row.level == level for row in rows)]
    ratios = [row.ratio for row in rows if row.ratio is not None and row.level in levels]
    outputs = len({row.output for row in rows if row.level != "float64"}) or len({row.output for row in rows})
    where = (
        f"onnxruntime at {' and '.join(levels)}" if levels else "float64 only; onnxruntime ran neither model"
    )
    worst = f", RMS error at most {max(ratios):.2f} times the original's own" if ratios else ""
    return f"equivalent: {outputs} output{'s' * (outputs != 1)}, {len(feeds)} feeds, {where}{worst}"


def _verdict(
    case: Case,
    status: Status,
    summary: str,
    evidence: Evidence,
    feeds: Sequence[Feed],
    outcomes: Outcomes | None = None,
) -> Verdict:
    ran = {outcome.provider for outcome in (outcomes or {}).values() if isinstance(outcome, Ran)}
    return Verdict(
        status=status,
        summary=summary,
        outputs=evidence.rows,
        findings=tuple(dict.fromkeys(evidence.findings)),
        feeds=tuple(feed.name for feed in feeds),
        provider=", ".join(sorted(ran)),
        seed=case.seed,
        seconds=0.0,
    )
