"""Which rendering a report file gets: its suffix says."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from bnfold.errors import ModelError
from bnfold.gate.examine import foldable, judgement, kept
from bnfold.gate.finding import Examined, Finding, Kind, Survey
from bnfold.gate.policy import judge
from bnfold.report import fleet, junit, markdown, model_markdown, sarif, survey
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bnfold.benchmarking.result import Benchmark
    from bnfold.fleet.outcome import Outcome
    from bnfold.gate.finding import ModelJudgement
    from bnfold.report.pair import PairReport
    from bnfold.report.schema import Report


def _json(report: Report) -> str:
    return report.to_json()


def _sarif(report: Report) -> str:
    return sarif.render(as_survey(report))


def _junit(report: Report) -> str:
    return junit.render(as_survey(report))


def _html(report: Report) -> str:
    from bnfold.report import html  # noqa: PLC0415  # for pages alone

    return html.render(report)


def _html_of_pair(pair: PairReport) -> str:
    from bnfold.report import html  # noqa: PLC0415  # as above

    return html.render_pair(pair)


def _html_of_benchmark(benchmark: Benchmark) -> str:
    from bnfold.report import html  # noqa: PLC0415  # as above

    return html.render_benchmark(benchmark)


def _html_of_several(outcomes: Sequence[Outcome]) -> str:
    from bnfold.report import html  # noqa: PLC0415  # as above

    return html.render_several(outcomes)


# Of one model: `optimize --report`, `inspect --report`.
REPORTS: Mapping[str, Callable[[Report], str]] = {
    ".json": _json,
    ".html": _html,
    ".md": model_markdown.render,
    ".sarif": _sarif,
    ".xml": _junit,
}

# Of two models: `verify --report`.
PAIRS: Mapping[str, Callable[[PairReport], str]] = {
    ".json": lambda pair: pair.verdict.to_json(),
    ".html": _html_of_pair,
    ".md": model_markdown.render_pair,
}

# Of a benchmark: `bench --report`.
BENCHMARKS: Mapping[str, Callable[[Benchmark], str]] = {
    ".json": lambda benchmark: benchmark.to_json(),
    ".html": _html_of_benchmark,
    ".md": model_markdown.render_benchmark,
}

# Of the gate: `check --report`.
SURVEYS: Mapping[str, Callable[[Survey], str]] = {
    ".json": survey.render,
    ".md": markdown.render,
    ".sarif": sarif.render,
    ".xml": junit.render,
}


# Of several models: `optimize --out-dir DIR --report`.
FLEETS: Mapping[str, Callable[[Sequence[Outcome]], str]] = {
    ".json": fleet.to_json,
    ".html": _html_of_several,
    ".md": lambda outcomes: markdown.render(several_as_survey(outcomes)),
    ".sarif": lambda outcomes: sarif.render(several_as_survey(outcomes)),
    ".xml": lambda outcomes: junit.render(several_as_survey(outcomes)),
}


def as_survey(report: Report) -> Survey:
    """One model as the gate would see it: what stays is noted, and a result that differs fails."""
    fail_on = (Kind.MISMATCH,)
    left = report.folds if report.after is None else ()
    # Whoever asked for no verdict misses none.
    verdict = (
        report.verdict if report.verdict is not None and report.verdict.status != "not verified" else None
    )
    findings = (*map(foldable, left), *map(kept, report.kept), *judgement(verdict))
    name = PurePath(report.source or "model in memory").as_posix()
    model = judge(Examined(name, report.found, findings), fail_on, lambda _finding: False)
    return Survey(report.version, fail_on, (model,))


def several_as_survey(outcomes: Sequence[Outcome]) -> Survey:
    """Many models as the gate would see them; one that was done before is not among them."""
    fail_on = (Kind.INVALID, Kind.MISMATCH)
    models = tuple(_judged(outcome, fail_on) for outcome in outcomes if not outcome.resumed)
    return Survey(__version__, fail_on, models)


def _judged(outcome: Outcome, fail_on: tuple[Kind, ...]) -> ModelJudgement:
    if outcome.result is not None:
        (model,) = as_survey(outcome.result.report).models
        return model
    name, said = PurePath(outcome.source).as_posix(), " ".join(str(outcome.error).split())
    if isinstance(outcome.error, ModelError):
        examined = Examined(name, findings=(Finding("BNF002", Kind.INVALID, "", "", "", said),))
    else:
        examined = Examined(name, fault=said)
    return judge(examined, fail_on, lambda _finding: False)
