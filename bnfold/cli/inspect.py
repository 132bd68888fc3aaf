"""`bnfold inspect`."""

from __future__ import annotations

from bnfold.cli.options import Exclude, Freeze, Include, Json, Merge, Model, Reports
from bnfold.cli.output import check_reports, print_result
from bnfold.cli.settings import first, settings


def inspect(
    model: Model,
    *,
    freeze: Freeze = False,
    include: Include = None,
    exclude: Exclude = None,
    merge: Merge = True,
    report: Reports = None,
    json: Json = False,
) -> None:
    """Say where each normalization would go.

    Or why it stays, and what to do about it. Writes nothing.
    """
    check_reports(report, model)
    settled = settings()

    from bnfold import pipeline  # noqa: PLC0415  # slow

    result = pipeline.inspect(
        model,
        freeze=freeze,
        include=first(include, settled.include, default=()),
        exclude=first(exclude, settled.exclude, default=()),
        merge=merge,
    )
    print_result(result, report, as_json=json, every=True)
