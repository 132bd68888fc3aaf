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
    Seed,
    Truth,
    TruthChoice,
)
from bnfold.cli.output import print_data, print_text
from bnfold.cli.settings import first, runner, settings
from bnfold.urls import located


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
    json: Json = False,
) -> None:
    """Say whether two models compute the same.

    Whatever tool made the second one.
    """
    settled = settings()

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
    if json:
        import json as encoder  # noqa: PLC0415  # the option has its name

        print_data(encoder.dumps(verdict.to_dict(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from bnfold.report.text import render_verdict  # noqa: PLC0415  # slow

        print_text(render_verdict(verdict))
    raise typer.Exit(verdict.exit_code)
