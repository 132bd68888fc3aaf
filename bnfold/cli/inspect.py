"""`bnfold inspect`."""

from __future__ import annotations

from typing import Annotated

import typer

from bnfold.cli.options import Exclude, Freeze, Include, Json, Merge, Model, Reports
from bnfold.cli.output import check_reports, print_data, print_result, print_text
from bnfold.cli.settings import first, settings
from bnfold.errors import UsageError
from bnfold.urls import located


def inspect(
    model: Model,
    *,
    freeze: Freeze = False,
    include: Include = None,
    exclude: Exclude = None,
    merge: Merge = True,
    explain: Annotated[
        str | None,
        typer.Option(
            help="Print what was tried for the normalization of this name instead.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    report: Reports = None,
    json: Json = False,
) -> None:
    """Say where each normalization would go.

    Or why it stays, and what to do about it. Writes nothing.
    """
    check_reports(report, model)
    settled = settings()

    from bnfold import pipeline  # noqa: PLC0415  # slow

    included = first(include, settled.include, default=())
    excluded = first(exclude, settled.exclude, default=())
    if explain is not None:
        from bnfold.report.explanation import render, to_json  # noqa: PLC0415  # slow

        if report:
            raise UsageError("--explain prints what was tried; --report is for the whole model")
        found = pipeline.explain(
            located(model), explain, freeze=freeze, include=included, exclude=excluded, merge=merge
        )
        if json:
            print_data(to_json(found))
        else:
            print_text(render(found))
        return
    result = pipeline.inspect(located(model), freeze=freeze, include=included, exclude=excluded, merge=merge)
    print_result(result, report, as_json=json, every=True)
