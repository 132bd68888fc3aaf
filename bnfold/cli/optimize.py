"""`bnfold optimize`."""

from __future__ import annotations

import os
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bnfold.cli.exits import Exit
from bnfold.cli.options import (
    DEFAULT_BUDGET,
    Budget,
    Exclude,
    Freeze,
    Include,
    Inputs,
    Json,
    Merge,
    Models,
    ProviderChoice,
    Ranges,
    Reports,
    Seed,
    Truth,
    TruthChoice,
)
from bnfold.cli.output import check_reports, print_result
from bnfold.cli.place import local
from bnfold.cli.settings import first, runner, settings
from bnfold.cli.several import Several, several
from bnfold.errors import ModelError, UsageError
from bnfold.urls import located, shown

if TYPE_CHECKING:
    from bnfold.fleet.task import Options
    from bnfold.result import Result


def optimize(
    models: Models,
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write, a file or a URL; model.folded.onnx beside model.onnx by default.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the model itself.")] = False,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            parser=local("--out-dir"),
            help="Folder for the results of several models.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "-j",
            "--jobs",
            help="Models at a time; one to a core by default.",
            metavar="N",
            min=1,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave results in --out-dir that are up to date.")
    ] = False,
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
    budget: Budget = DEFAULT_BUDGET,
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
    """Fold, verify and write a model, or several.

    Every BatchNormalization that can be folded exactly is; the others are reported with the reason. The
    result is written only after it was shown to compute the same as the original. Several models, globs and
    folders need --out-dir; what goes wrong with one then stops no other.
    """
    if not verify and (per_fold or keep_going):
        raise UsageError(
            "--per-fold and --keep-going are about the verification, which --no-verify leaves out"
        )
    settled = settings()

    def options(model: Path) -> Options:
        from bnfold.verification.inputs import parse  # noqa: PLC0415  # slow

        return {
            "verify": verify,
            "dry_run": dry_run,
            "freeze": freeze,
            "include": first(include, settled.include, default=()),
            "exclude": first(exclude, settled.exclude, default=()),
            "merge": merge,
            "provenance": provenance,
            "inputs": parse(first(inputs, default=settled.feeds.of(model)), ranges or ()),
            "seed": seed,
            "truth": truth.value,
            "provider": runner(provider, settled),
            "budget": budget,
            "per_fold": per_fold,
            "keep_going": keep_going,
        }

    if out_dir is not None:
        if in_place or output is not None or bench:
            raise UsageError("--out-dir is for several models; leave -o, --in-place and --bench out")
        several(
            Several([located(model) for model in models], out_dir, options, resume=resume),
            jobs,
            report,
            as_json=json,
        )
    if jobs is not None or resume:
        raise UsageError("--jobs and --resume are for several models, whose results go to an --out-dir")
    if len(models) > 1:
        raise UsageError(f"{len(models)} models: their results need an --out-dir")
    model = _single(models[0])
    target = None if output is None else _result(output)
    if not in_place and target is None:
        if isinstance(model, str):
            raise UsageError(f"{shown(model)}: say where the result goes (-o)")
        target = model.parent / f"{model.stem}.folded.onnx"
    check_reports(report, model, target)

    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow

    with progress() as tell:
        result = pipeline.optimize(
            model, output=target, in_place=in_place, bench=bench, progress=tell, **options(Path(model))
        )
    print_result(result, report, as_json=json)
    raise typer.Exit(_exit_code(result, verified=verify))


def _single(text: str) -> str | Path:
    """The one model; where several are meant, what is missing is said."""
    model = located(text)
    if isinstance(model, Path):
        if os.path.isdir(model):  # noqa: PTH112  # that of pathlib raises for a name that is too long
            raise ModelError(
                f"{model} is a folder; pass the .onnx file in it, or --out-dir for every one in it"
            )
        if has_magic(text) and not os.path.lexists(model):
            raise UsageError(f"{model}: what a pattern finds needs an --out-dir for the results")
    return model


def _result(text: str) -> str | Path:
    if text == "-":
        raise UsageError("-o -: models are not written to stdout; name a file, ./- if it is to be called so")
    return located(text)


def _exit_code(result: Result, *, verified: bool) -> int:
    if not verified:
        return Exit.DONE
    return Exit.INCONCLUSIVE if result.verdict is None else result.verdict.exit_code
