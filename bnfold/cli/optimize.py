"""`bnfold optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnfold.cli.exits import Exit
from bnfold.cli.options import (
    Exclude,
    Freeze,
    Include,
    Inputs,
    Json,
    Merge,
    Model,
    ProviderChoice,
    Ranges,
    Reports,
    Seed,
    Truth,
    TruthChoice,
)
from bnfold.cli.output import check_reports, print_result
from bnfold.cli.settings import first, runner, settings

if TYPE_CHECKING:
    from bnfold.pipeline import Result


def optimize(
    model: Model,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write; model.folded.onnx beside model.onnx by default.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the model itself.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare the results of both models before writing.")] = True,
    bench: Annotated[
        bool, typer.Option("--bench", help="Also measure how fast both models run; takes a minute.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False,
    freeze: Freeze = False,
    include: Include = None,
    exclude: Exclude = None,
    merge: Merge = True,
    provenance: Annotated[
        bool, typer.Option(help="Note version, source and options in the metadata of a changed model.")
    ] = True,
    report: Reports = None,
    inputs: Inputs = None,
    ranges: Ranges = None,
    seed: Seed = 0,
    truth: TruthChoice = Truth.auto,
    provider: ProviderChoice = None,
    per_fold: Annotated[
        bool, typer.Option("--per-fold", help="Say of each fold by itself how exact it is, the worst first.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", help="Where results differ, drop the fold that is guilty, keep the rest."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Fold, verify and write a model.

    Every BatchNormalization that can be folded exactly is; the others are reported with the reason. The
    result is written only after it was shown to compute the same as the original.
    """
    if not in_place and output is None:
        output = model.parent / f"{model.stem}.folded.onnx"
    check_reports(report, model, output)
    settled = settings()

    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow
    from bnfold.verification.inputs import parse  # noqa: PLC0415  # slow

    wishes = parse(first(inputs, default=settled.feeds.of(model)), ranges or ())
    with progress() as tell:
        result = pipeline.optimize(
            model,
            output=output,
            in_place=in_place,
            verify=verify,
            bench=bench,
            dry_run=dry_run,
            freeze=freeze,
            include=first(include, settled.include, default=()),
            exclude=first(exclude, settled.exclude, default=()),
            merge=merge,
            provenance=provenance,
            inputs=wishes,
            seed=seed,
            truth=truth.value,
            provider=runner(provider, settled),
            per_fold=per_fold,
            keep_going=keep_going,
            progress=tell,
        )
    print_result(result, report, as_json=json)
    raise typer.Exit(_exit_code(result, verified=verify))


def _exit_code(result: Result, *, verified: bool) -> int:
    if not verified:
        return Exit.DONE
    return Exit.INCONCLUSIVE if result.verdict is None else result.verdict.exit_code
