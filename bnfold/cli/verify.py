"""`bnfold verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bnfold.cli.options import (
    DEFAULT_BUDGET,
    Budget,
    Inputs,
    Json,
    ProviderChoice,
    Ranges,
    ReportsOfTwo,
    Seed,
    Truth,
    TruthChoice,
)
from bnfold.cli.output import check_reports, print_data, print_text, write_report
from bnfold.cli.settings import first, runner, settings
from bnfold.urls import located, shown


def verify(
    original: Annotated[
        str,
        typer.Argument(help="The model that is right by definition.", metavar="ORIGINAL", show_default=False),
    ],
    folded: Annotated[
        str,
        typer.Argument(help="The model to compare with it.", metavar="FOLDED", show_default=False),
    ],
    *,
    inputs: Inputs = None,
    ranges: Ranges = None,
    seed: Seed = 0,
    truth: TruthChoice = Truth.auto,
    provider: ProviderChoice = None,
    budget: Budget = DEFAULT_BUDGET,
    report: ReportsOfTwo = None,
    json: Json = False,
) -> None:
    """Say whether two models compute the same.

    Whatever tool made the second one.
    """
    settled = settings()
    if report:
        from bnfold.report.formats import PAIRS  # noqa: PLC0415  # for reports alone

        check_reports(report, located(original), located(folded), formats=PAIRS)

    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow
    from bnfold.verification.inputs import parse  # noqa: PLC0415  # slow

    wishes = parse(first(inputs, default=settled.feeds.of(Path(original))), ranges or ())
    with progress() as tell:
        tell("verifying")
        verdict = pipeline.verify(
            located(original),
            located(folded),
            inputs=wishes,
            seed=seed,
            truth=truth.value,
            provider=runner(provider, settled),
            budget=budget,
            progress=tell,
        )
    if report:
        from bnfold.environment import environment  # noqa: PLC0415  # for reports alone
        from bnfold.report.pair import PairReport  # noqa: PLC0415  # as above
        from bnfold.verification.options import Verification  # noqa: PLC0415  # as above
        from bnfold.version import __version__  # noqa: PLC0415  # as above

        how = Verification(wishes, None, seed, truth.value, runner(provider, settled), budget=budget)
        pair = PairReport(shown(original), shown(folded), verdict, how.asked(), environment(), __version__)
        for path in report:
            write_report(path, PAIRS[path.suffix](pair))
    if json:
        print_data(verdict.to_json())
    else:
        from bnfold.report.text import render_verdict  # noqa: PLC0415  # slow

        print_text(render_verdict(verdict))
    raise typer.Exit(verdict.exit_code)
