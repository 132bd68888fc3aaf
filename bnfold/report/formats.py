"""Which rendering a report file gets: its suffix says."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from bnfold.gate.examine import foldable, judgement, kept
from bnfold.gate.finding import Examined, Kind, Survey
from bnfold.gate.policy import judge
from bnfold.report import junit, markdown, model_markdown, sarif, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnfold.report.schema import Report


def _json(report: Report) -> str:
    return report.to_json()


def _sarif(report: Report) -> str:
    return sarif.render(as_survey(report))


def _junit(report: Report) -> str:
    return junit.render(as_survey(report))


# Of one model: `optimize --report`, `inspect --report`.
REPORTS: Mapping[str, Callable[[Report], str]] = {
    ".json": _json,
    ".md": model_markdown.render,
    ".sarif": _sarif,
    ".xml": _junit,
}

# Of the gate: `check --report`.
SURVEYS: Mapping[str, Callable[[Survey], str]] = {
    ".json": survey.render,
    ".md": markdown.render,
    ".sarif": sarif.render,
    ".xml": junit.render,
}


def as_survey(report: Report) -> Survey:
    """One model as the gate would see it: what stays is noted, and a result that differs fails."""
    fail_on = (Kind.MISMATCH,)
    left = report.folds if report.after is None else ()
    findings = (*map(foldable, left), *map(kept, report.kept), *judgement(report.verdict))
    name = PurePath(report.source or "model in memory").as_posix()
    model = judge(Examined(name, report.found, findings), fail_on, lambda _finding: False)
    return Survey(report.version, fail_on, (model,))
