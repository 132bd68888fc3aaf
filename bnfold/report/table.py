"""What the gate found, for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.report.wording import conclusion, gone_lines, headline, one_line, place

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.gate.finding import Finding, Judged, ModelJudgement, Standing, Survey

_STYLES: dict[Standing, str] = {"fails": "bold red", "known": "dim", "noted": "yellow"}
_WORDS: dict[Standing, str] = {"fails": "fails", "known": "known", "noted": ""}
_NOTED_ROWS = 5  # of each model: what fails and what is known is always listed


def render(survey: Survey) -> RenderableType:
    """Every model with its findings, the worst last, where a reader of a log looks first."""
    parts: list[RenderableType] = []
    for model in reversed(survey.worst_first):
        parts += _model(model)
    if survey.gone:
        parts.append(Text("in the baseline and no longer found; --update-baseline forgets it:"))
        parts += [Padding(Text(line, style="dim"), (0, 0, 0, 2)) for line in gone_lines(survey)]
    passed = survey.exit_code == 0
    parts.append(Text(conclusion(survey), style="bold green" if passed else "bold red"))
    return Group(*parts)


def _model(model: ModelJudgement) -> list[RenderableType]:
    state = (
        ("error", "bold red") if model.fault else ("ok", "green") if model.passes else ("FAIL", "bold red")
    )
    line = Text.assemble(state, "  ", (one_line(model.name), "bold"), f"  {one_line(headline(model))}")
    return [line, *_findings(model)]


def _findings(model: ModelJudgement) -> list[RenderableType]:
    noted = [each for each in model.findings if each.standing == "noted"]
    shown = [each for each in model.findings if each.standing != "noted"] + noted[:_NOTED_ROWS]
    if not shown:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for each in shown:
        table.add_row(_code(each), one_line(place(each.finding)), _what(each.finding))
    if len(noted) > _NOTED_ROWS:
        table.add_row("...", f"and {len(noted) - _NOTED_ROWS} more", "`bnfold inspect` lists them")
    return [Padding(table, (0, 0, 0, 4))]


def _code(judged: Judged) -> Text:
    word = _WORDS[judged.standing]
    return Text(f"{judged.finding.rule} {word}".rstrip(), style=_STYLES[judged.standing])


def _what(finding: Finding) -> Text:
    hint = f"; {finding.hint}" if finding.hint else ""
    return Text.assemble(one_line(finding.message), (one_line(hint), "cyan"))
