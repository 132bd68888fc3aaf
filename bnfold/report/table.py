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

    from bnfold.gate.finding import Finding, ModelJudgement, Standing, Survey

# How each standing looks, and how many findings of it are listed for one model: what is known is not news.
_STYLES: dict[Standing, tuple[str, int]] = {
    "fails": ("bold red", 10),
    "noted": ("yellow", 5),
    "known": ("dim", 0),
}


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
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for standing, (style, rows) in _STYLES.items():
        findings = model.having(standing)
        for each in findings[:rows]:
            table.add_row(Text(each.rule, style=style), one_line(place(each)), _what(each))
        if rows and len(findings) > rows:
            table.add_row("...", f"and {len(findings) - rows} more", "`bnfold inspect` lists them")
    return [Padding(table, (0, 0, 0, 4))] if table.row_count else []


def _what(finding: Finding) -> Text:
    hint = f"; {finding.hint}" if finding.hint else ""
    return Text.assemble(one_line(finding.message), (one_line(hint), "cyan"))
