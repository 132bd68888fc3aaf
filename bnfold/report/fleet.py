"""Many models in one report: as data, and as a table for a person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bnfold.fleet.outcome import worst
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from bnfold.errors import BnfoldError
    from bnfold.fleet.outcome import Outcome

SCHEMA = "bnfold.reports/1"

_STYLES = {"equivalent": "green", "different": "bold red", "failed": "bold red", "done before": "dim"}


def to_dict(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Plain data; keys are only ever added within one version of the schema."""
    reports = [outcome.result.report for outcome in outcomes if outcome.result is not None]
    failures = [(outcome, outcome.error) for outcome in outcomes if outcome.error is not None]
    resumed = [outcome for outcome in outcomes if outcome.resumed]
    return {
        "schema": SCHEMA,
        "bnfold": __version__,
        "summary": {
            "models": len(outcomes),
            "optimized": len(reports),
            "failed": len(failures),
            "resumed": len(resumed),
            "found": sum(report.found for report in reports),
            "folded": sum(len(report.folds) for report in reports),
            "kept": sum(len(report.kept) for report in reports),
            "exit_code": worst(outcomes),
        },
        "reports": [report.to_dict() for report in reports],
        "failures": [_failure(outcome, error) for outcome, error in failures],
        "resumed": [{"source": outcome.source, "output": outcome.output} for outcome in resumed],
    }


def to_json(outcomes: Sequence[Outcome]) -> str:
    """Strict JSON, indented, keys in the order of the schema."""
    return json.dumps(to_dict(outcomes), indent=2, allow_nan=False, ensure_ascii=False)


def _failure(outcome: Outcome, error: BnfoldError) -> dict[str, Any]:
    return {
        "source": outcome.source,
        "output": outcome.output,
        "error": type(error).__name__,
        "exit_code": error.exit_code,
        "message": _line(error),
    }


def render(outcomes: Sequence[Outcome]) -> RenderableType:
    """A line for each model, and what went wrong below."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("model", overflow="fold")
    for column in ("found", "folded", "kept"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for outcome in outcomes:
        report = None if outcome.result is None else outcome.result.report
        counts = (
            ("-",) * 3
            if report is None
            else (str(report.found), str(len(report.folds)), str(len(report.kept)))
        )
        status = status_of(outcome)
        table.add_row(outcome.source, *counts, Text(status, style=_STYLES.get(status, "yellow")))
    remarks = [Text(said) for outcome in outcomes if (said := remark(outcome))]
    return Group(table, *([Text(), *remarks] if remarks else []), Text(), _sum(outcomes))


def status_of(outcome: Outcome) -> str:
    """In a word or two."""
    if outcome.error is not None:
        return "failed"
    if outcome.resumed or outcome.result is None:
        return "done before"
    verdict = outcome.result.verdict
    return "not verified" if verdict is None else verdict.status


def remark(outcome: Outcome) -> str:
    """What is wrong with it, and which it is; empty where nothing is."""
    if outcome.error is not None:
        said = _line(outcome.error)
    elif outcome.exit_code and outcome.result is not None and outcome.result.verdict is not None:
        said = outcome.result.verdict.summary
    else:
        return ""
    return said if outcome.source in said else f"{outcome.source}: {said}"


def _sum(outcomes: Sequence[Outcome]) -> Text:
    summary = to_dict(outcomes)["summary"]
    parts = [f"{summary['optimized']} of {summary['models']} models optimized"]
    parts += [f"{summary[name]} {said}" for name, said in _OTHERS.items() if summary[name]]
    said = f"{summary['found']} normalizations found, {summary['folded']} folded, {summary['kept']} kept"
    return Text(f"{', '.join(parts)}; {said}")


_OTHERS = {"resumed": "done before", "failed": "failed"}


def _line(error: BnfoldError) -> str:
    return " ".join(str(error).split())
