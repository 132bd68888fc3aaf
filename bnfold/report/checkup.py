"""The checkup of an installation for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.doctor import Checkup


def render_checkup(checkup: Checkup) -> RenderableType:
    """All of it, and one line at the end that sums it up."""
    return Group(
        _versions(checkup),
        Text(),
        _rows("execution provider", [(p.starts, p.name, p.detail) for p in checkup.providers], bad=""),
        Text(),
        _rows("BatchNormalization", [(c.ok, c.name, c.detail) for c in checkup.checks], bad="bold red"),
        Text(),
        *(Text.assemble(("warning: ", "yellow"), warning) for warning in checkup.warnings),
        _conclusion(checkup),
    )


def _versions(checkup: Checkup) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    table.add_row("bnfold", checkup.bnfold)
    table.add_row("Python", checkup.python)
    table.add_row("platform", checkup.platform)
    for package in checkup.packages:
        table.add_row(package.name, package.version or Text("not installed", style="dim"))
    return table


def _rows(title: str, rows: list[tuple[bool | None, str, str]], *, bad: str) -> Table:
    """`bad` is the style of a row that fails: a machine without a GPU is not alarming."""
    marks = {True: ("ok", "green"), False: ("no", bad), None: ("-", "dim")}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column(title, overflow="fold")
    table.add_column("", overflow="fold")
    for state, name, detail in rows:
        table.add_row(Text(*marks[state]), name, Text(detail, style="dim" if state is None else ""))
    return table


def _conclusion(checkup: Checkup) -> Text:
    if checkup.healthy:
        return Text("healthy: bnfold has all it needs", style="bold green")
    return Text("not healthy: bnfold cannot fold and verify here", style="bold red")
