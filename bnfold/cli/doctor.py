"""`bnfold doctor`."""

from __future__ import annotations

import typer

from bnfold.cli.exits import Exit
from bnfold.cli.output import print_text


def doctor() -> None:
    """Show whether bnfold can work here.

    Versions, the execution providers that really start, and a self-test of the semantics.
    """
    from bnfold.doctor import examine  # noqa: PLC0415  # slow
    from bnfold.report.checkup import render_checkup  # noqa: PLC0415  # slow

    checkup = examine()
    print_text(render_checkup(checkup))
    raise typer.Exit(Exit.DONE if checkup.healthy else Exit.FAULT)
