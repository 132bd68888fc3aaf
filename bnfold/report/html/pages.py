"""The pages: what each shows, as plain values for the templates."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jinja2

from bnfold.report.command import of_benchmark, of_pair, of_report
from bnfold.report.evidence import nearness, relative, used
from bnfold.report.html import plots
from bnfold.report.html.diagram import picture
from bnfold.report.rules import RULES
from bnfold.report.units import binary_size
from bnfold.report.wording import level_name, one_line, shortened
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnfold.benchmarking.result import Benchmark
    from bnfold.fleet.outcome import Outcome
    from bnfold.fold.obstructions import Obstruction
    from bnfold.fold.patterns import Pattern
    from bnfold.fold.reasons import Reason, Refusal
    from bnfold.report.pair import PairReport
    from bnfold.report.schema import Report
    from bnfold.verification.verdict import FoldEvidence, OutputEvidence, Verdict

_LONGEST_NAME = 160  # letters that are shown without being asked for
_PICTURES = 40  # of the graph around folds, and as many around what stays
_PICTURE_NAMES = 200  # behind one of them
_BROAD = 460  # pixels; a wider picture stands by itself


def render(report: Report) -> str:
    """The report of one model."""
    return _page("report.html.j2", title=_name(report.source), **_model(report))


def render_benchmark(benchmark: Benchmark) -> str:
    """A benchmark by itself."""
    title = f"{_name(benchmark.a.source)} and {_name(benchmark.b.source)}"
    return _page(
        "benchmark.html.j2",
        title=title,
        speed=_speed(benchmark),
        command=of_benchmark(benchmark),
        options=_options(benchmark.options),
        environment={"onnxruntime": benchmark.machine.onnxruntime},
    )


def render_pair(pair: PairReport) -> str:
    """The verdict on two models."""
    return _page(
        "pair.html.j2",
        title=f"{pair.original} and {pair.folded}",
        pair=pair,
        verdict=_verdict(pair.verdict),
        command=of_pair(pair.original, pair.folded, pair.options),
        options=_options(pair.options),
    )


def render_several(outcomes: Sequence[Outcome]) -> str:
    """Many models: a table, then each by itself."""
    from bnfold.report import fleet  # noqa: PLC0415  # it draws tables for terminals, too

    models = [
        {
            "source": outcome.source,
            "output": outcome.output,
            "status": fleet.status_of(outcome),
            "remark": fleet.remark(outcome),
            "counts": _counts(None if outcome.result is None else outcome.result.report),
            "report": None if outcome.result is None else outcome.result.report,
            "command": "" if outcome.result is None else of_report(outcome.result.report),
            "kept": [] if outcome.result is None else _kept_groups(outcome.result.report.kept),
        }
        for outcome in outcomes
    ]
    summary = fleet.to_dict(outcomes)["summary"]
    return _page(
        "several.html.j2",
        title=f"{len(models)} models",
        models=models,
        summary=summary,
        version=__version__,
        environment=next(
            (each.result.report.environment for each in outcomes if each.result is not None), {}
        ),
    )


def _counts(report: Report | None) -> list[tuple[str, int | None]]:
    if report is None:
        return [("found", None), ("folded", None), ("kept", None)]
    return [("found", report.found), ("folded", len(report.folds)), ("kept", len(report.kept))]


@dataclass(frozen=True)
class Item:
    """A normalization in the table of all of them.

    Attributes:
        node: its name.
        scope: the graph it stands in.
        op: its operator.
        outcome: "folded", "foldable" or "kept".
        code: why it stays; empty where it goes.
        into: operators and names of what takes it in.
        through: names of what its map passes.
        direction: as `Fold.direction`.
        reasons: why it stays, the gravest first.
        error: its own relative error, where that was measured.
    """

    node: str
    scope: str
    op: str
    outcome: str
    code: str = ""
    into: tuple[tuple[str, str], ...] = ()
    through: tuple[str, ...] = ()
    direction: str = ""
    reasons: tuple[Reason, ...] = ()
    error: float | None = None


def _model(report: Report) -> dict[str, Any]:
    return {
        "report": report,
        "items": list(_items(report)),
        "funnel": list(_funnel(report)),
        "kept_groups": _kept_groups(report.kept, _obstructions(report)),
        "into": Counter(op for fold in report.folds for op in fold.into_op).most_common(),
        "patterns": [_pattern(report, pattern) for pattern in report.patterns[:_PICTURES]],
        "verdict": None if report.verdict is None else _verdict(report.verdict),
        "speed": None if report.benchmark is None else _speed(report.benchmark),
        "command": of_report(report),
        "options": _options(report.options),
        "seconds": report.to_dict()["seconds"],
    }


def _items(report: Report) -> Iterator[Item]:
    """Those that stay first, for they are what there is something to do about."""
    alone = {} if report.verdict is None else {(e.node, e.scope): e for e in report.verdict.per_fold}
    for refusal in report.kept:
        yield Item(
            refusal.node,
            refusal.scope,
            refusal.op,
            "kept",
            code=refusal.code.value,
            reasons=refusal.reasons,
        )
    for fold in report.folds:
        evidence = alone.get((fold.node, fold.scope))
        yield Item(
            fold.node,
            fold.scope,
            fold.op,
            "folded" if report.after is not None else "foldable",
            into=tuple(zip(fold.into_op, fold.into, strict=True)),
            through=fold.through,
            direction=fold.direction,
            error=None if evidence is None else evidence.relative_l2,
        )


def _funnel(report: Report) -> Iterator[dict[str, Any]]:
    """Rows of the funnel: found, what of them goes, and for each code what stays."""
    total = report.found or 1
    gone = "folded" if report.after is not None else "can be folded"

    def row(form: str, label: str, detail: str, count: int) -> dict[str, Any]:
        share = round(100 * count / total, 2)
        return {"form": form, "label": label, "detail": detail, "count": count, "share": share}

    yield row("found", "found", "", report.found)
    yield row("folded", gone, "", len(report.folds))
    for code, count in report.kept_by_code.items():
        yield row("kept", f"kept {code}", RULES[code].meaning, count)


def _kept_groups(
    kept: Sequence[Refusal], pictures: Mapping[tuple[str, str], list[object]] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Those with one reason and one remedy together: nobody reads the same hint fifty times."""
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in sorted(kept, key=lambda each: each.code):
        groups.setdefault((refusal.code.value, refusal.reason.hint), []).append(refusal)
    return [
        {
            "code": code,
            "meaning": RULES[code].meaning,
            "hint": hint,
            "refusals": refusals,
            "pictures": pictures.get((code, hint), []),
        }
        for (code, hint), refusals in groups.items()
    ]


def _obstructions(report: Report) -> dict[tuple[str, str], list[object]]:
    """Pictures of the graph around what stays, by code and hint."""
    pictures: dict[tuple[str, str], list[object]] = {}
    for each in report.obstructions[:_PICTURES]:
        first = report.kept[each.kept[0]]
        pictures.setdefault((first.code.value, first.reason.hint), []).append(_obstruction(report, each))
    return pictures


def _obstruction(report: Report, obstruction: Obstruction) -> dict[str, Any]:
    kept = [report.kept[index] for index in obstruction.kept]
    return {
        "count": len(kept),
        "around": picture(obstruction.around, obstruction.obstacles),
        "far": obstruction.far,
        "left_out": obstruction.left_out,
        "names": [each.node for each in kept[:_PICTURE_NAMES]],
    }


def _pattern(report: Report, pattern: Pattern) -> dict[str, Any]:
    folds = [report.folds[index] for index in pattern.folds]
    return {
        "count": len(folds),
        "direction": pattern.direction,
        "before": picture(pattern.before),
        "after": picture(pattern.after),
        "left_out": pattern.left_out,
        "names": [fold.node for fold in folds[:_PICTURE_NAMES]],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    said = verdict.summary.removeprefix(verdict.status).removeprefix(": ")
    measured = [each for each in verdict.per_fold if each.tensor]
    missing = Counter(each.note for each in verdict.per_fold if not each.tensor)
    return {
        "verdict": verdict,
        "status": verdict.status,
        "said": said,
        "rows": [_evidence(row) for row in sorted(verdict.outputs, key=nearness, reverse=True)],
        "rules": [rule for rule in dict.fromkeys(row.rule for row in verdict.outputs) if rule],
        "errors": plots.errors(verdict.outputs),
        "fails": any(row.outcome == "fail" for row in verdict.outputs),
        "fold_errors": plots.per_fold(verdict.per_fold),
        "fold_rows": [_fold_evidence(each) for each in measured],
        "not_captured": list(missing.items()),
    }


def _evidence(row: OutputEvidence) -> dict[str, Any]:
    return {
        "row": row,
        "level": level_name(row.level),
        "used": used(row),
        "original": relative(row.original_rms, row.signal_rms),
        "folded": relative(row.folded_rms, row.signal_rms),
        "allowed": relative(row.limit_rms, row.signal_rms),
        "largest": relative(row.folded_max, row.signal_rms),
        "measures": row.folded,
    }


def _fold_evidence(each: FoldEvidence) -> dict[str, Any]:
    return {
        "fold": each,
        "error": relative(each.error_rms, each.signal_rms),
        "original": relative(each.original_rms, each.signal_rms),
    }


def _speed(benchmark: Benchmark) -> dict[str, Any]:
    return {
        "benchmark": benchmark,
        "headline": _headline(benchmark),
        "findings": [
            (level_name(level.level), plots.work(timing), timing.comparison)
            for level in benchmark.levels
            for timing in (*level.steady, *((level.load,) if level.load else ()))
        ],
        "failures": [(level_name(each.level), each.failure) for each in benchmark.levels if each.failure],
        "latencies": plots.latencies(benchmark),
        "loads": plots.loads(benchmark),
        "ratios": plots.ratios(benchmark),
    }


def _headline(benchmark: Benchmark) -> dict[str, str] | None:
    """What the last level says, which is the one that users run at; None where none was measured."""
    steady = [(level, timing) for level in benchmark.levels for timing in level.steady]
    if not steady:
        return None
    level, timing = steady[-1]
    finding, _, said = plots.finding(timing.comparison).partition(": ")
    where = level_name(level.level)
    word = f"B is {finding}" if finding in {"faster", "slower"} else finding.capitalize()
    return {"level": where, "finding": finding, "word": f"{word}, {where}", "said": said}


def _options(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    def said(value: object) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)

    return [(name.replace("_", " "), said(value)) for name, value in options.items()]


def _name(source: str | None) -> str:
    return source or "model in memory"


def _page(template: str, **values: Any) -> str:  # noqa: ANN401  # whatever the template shows
    environment = _environment()
    return environment.get_template(template).render(
        style_hash=_hash(environment, "style.css"), script_hash=_hash(environment, "behaviour.js"), **values
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("bnfold.report.html"),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "bytes": binary_size,
        "milliseconds": plots.milliseconds,
        "line": one_line,
        "shortened": shortened,
    }
    environment.globals |= {"broad": _BROAD, "longest_name": _LONGEST_NAME, "level_name": level_name}
    return environment


def _hash(environment: jinja2.Environment, name: str) -> str:
    """What the page's own security policy knows the style or script by."""
    text = environment.get_template(name).render()
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
