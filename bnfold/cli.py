"""The command line: parse, call, print. Whatever takes time to import is imported where it is used."""

from __future__ import annotations

import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bnfold.errors import BnfoldError, UsageError
from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.pipeline import Result
    from bnfold.report.schema import Report

app = typer.Typer(
    name="bnfold",
    help="Remove BatchNormalization from trained ONNX models by exact folding, and prove the result.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Exit(IntEnum):
    """Exit codes; the full table is in the README."""

    DONE = 0
    FINDING = 1
    USAGE = 2
    MODEL = 3
    FAULT = 4
    INCONCLUSIVE = 5
    INTERRUPTED = 130


Model = Annotated[Path, typer.Argument(help="The ONNX model.", show_default=False)]
Json = Annotated[
    bool, typer.Option("--json", help="Print the report as JSON on stdout and nothing else there.")
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        help="Fold only normalizations whose name matches; repeatable.", metavar="GLOB", show_default=False
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave normalizations whose name matches; repeatable.", metavar="GLOB", show_default=False
    ),
]
Freeze = Annotated[
    bool, typer.Option("--freeze", help="First turn initializers that callers could override into constants.")
]
Reports = Annotated[
    list[Path] | None,
    typer.Option("--report", help="Also write the report here (.json); repeatable.", show_default=False),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bnfold {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Remove BatchNormalization from trained ONNX models by exact folding, and prove the result."""


@app.command()
def optimize(
    model: Model,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Where to write; MODEL.folded.onnx by default.", show_default=False
        ),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the model itself.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare the results of both models before writing.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False,
    freeze: Freeze = False,
    include: Include = None,
    exclude: Exclude = None,
    report: Reports = None,
    seed: Annotated[int, typer.Option(help="Seed of the random feeds.")] = 0,
    json: Json = False,
) -> None:
    """Fold every BatchNormalization that can be folded exactly, verify, and write the result."""
    _check_reports(report)
    if not in_place and output is None:
        output = model.with_name(f"{model.stem}.folded.onnx")

    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow

    with progress() as tell:
        result = pipeline.optimize(
            model,
            output=output,
            in_place=in_place,
            verify=verify,
            dry_run=dry_run,
            freeze=freeze,
            include=include or (),
            exclude=exclude or (),
            seed=seed,
            progress=tell,
        )
    _print_result(result, report, as_json=json)
    raise typer.Exit(_exit_code(result, verified=verify))


@app.command()
def inspect(
    model: Model,
    *,
    freeze: Freeze = False,
    include: Include = None,
    exclude: Exclude = None,
    report: Reports = None,
    json: Json = False,
) -> None:
    """Say of every BatchNormalization where it would go or why it stays. Writes nothing."""
    _check_reports(report)

    from bnfold import pipeline  # noqa: PLC0415  # slow

    result = pipeline.inspect(model, freeze=freeze, include=include or (), exclude=exclude or ())
    _print_result(result, report, as_json=json, every_fold=True)


@app.command()
def verify(
    original: Annotated[
        Path, typer.Argument(help="The model that is right by definition.", show_default=False)
    ],
    folded: Annotated[Path, typer.Argument(help="The model to compare with it.", show_default=False)],
    *,
    seed: Annotated[int, typer.Option(help="Seed of the random feeds.")] = 0,
    json: Json = False,
) -> None:
    """Say whether two models compute the same function, whatever tool made the second."""
    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow

    with progress() as tell:
        tell("verifying")
        verdict = pipeline.verify(original, folded, seed=seed)
    if json:
        import json as encoder  # noqa: PLC0415  # the option has its name

        typer.echo(encoder.dumps(verdict.to_dict(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from bnfold.report.text import render_verdict  # noqa: PLC0415  # slow

        _console_print(render_verdict(verdict))
    raise typer.Exit(verdict.exit_code)


@app.command()
def doctor() -> None:
    """Show versions, the providers that really start, and whether the semantics hold here."""
    from bnfold.doctor import examine  # noqa: PLC0415  # slow
    from bnfold.report.checkup import render_checkup  # noqa: PLC0415  # slow

    checkup = examine()
    _console_print(render_checkup(checkup))
    raise typer.Exit(Exit.DONE if checkup.healthy else Exit.FAULT)


def main() -> NoReturn:
    """Run the command line; every error becomes one line on stderr and an exit code."""
    try:
        app()
    except BnfoldError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written", Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`bnfold ... | head`); it has all it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.DONE)
    except MemoryError:
        _fail("out of memory", Exit.FAULT)
    except Exception as error:  # the last line of defence: a user never sees a traceback
        if os.environ.get("BNFOLD_TRACEBACK"):
            raise
        what = " ".join(str(error).split()) or "no message"
        _fail(
            f"internal error, please report it ({type(error).__name__}: {what}); BNFOLD_TRACEBACK=1 shows where",
            Exit.FAULT,
        )
    sys.exit(Exit.DONE)


def _fail(message: str, code: int) -> NoReturn:
    print(f"bnfold: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201  # works when nothing else does
    sys.exit(code)


def _exit_code(result: Result, *, verified: bool) -> int:
    if not verified:
        return Exit.DONE
    return Exit.INCONCLUSIVE if result.verdict is None else result.verdict.exit_code


def _check_reports(paths: list[Path] | None) -> None:
    for path in paths or ():
        if path.suffix != ".json":
            raise UsageError(f"--report {path}: the format follows from the suffix, which must be .json")


def _print_result(
    result: Result, reports: list[Path] | None, *, as_json: bool, every_fold: bool = False
) -> None:
    for path in reports or ():
        _write_report(result.report, path)
    if as_json:
        typer.echo(result.report.to_json())
        return
    from bnfold.report.text import render  # noqa: PLC0415  # slow

    _console_print(render(result.report, every_fold=every_fold))


def _write_report(report: Report, path: Path) -> None:
    from bnfold.errors import EnvironmentFault  # noqa: PLC0415  # beside its one use

    try:
        path.write_text(report.to_json() + "\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"the report {path} cannot be written: {error.strerror}") from error


def _console_print(renderable: object) -> None:
    from rich.console import Console  # noqa: PLC0415  # slow

    Console(highlight=False, soft_wrap=not sys.stdout.isatty()).print(renderable)
