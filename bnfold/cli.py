"""The command line: parse, call, print. Whatever takes time to import is imported where it is used."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from enum import IntEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bnfold.errors import BnfoldError, EnvironmentFault, UsageError
from bnfold.version import __version__

if TYPE_CHECKING:
    from bnfold.pipeline import Result
    from bnfold.report.schema import Report

app = typer.Typer(
    name="bnfold",
    help="Remove BatchNormalization from trained ONNX models by exact folding, and prove the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its help pages take rich, which takes time
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


_UNBROKEN = 10_000  # columns

# Not typer's business whether they can be read: what is wrong with a model has its own exit code.
Model = Annotated[
    Path, typer.Argument(help="The ONNX model.", metavar="MODEL", readable=False, show_default=False)
]
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
Merge = Annotated[
    bool,
    typer.Option("--merge/--no-merge", help="Join parallel linear branches that are summed into one Conv."),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", help="Also write the report here; repeatable.", metavar="FILE.json", show_default=False
    ),
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
            "-o",
            "--output",
            help="Where to write; model.folded.onnx beside model.onnx by default.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the model itself.")] = False,
    verify: Annotated[bool, typer.Option(help="Compare the results of both models before writing.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but write.")] = False,
    freeze: Freeze = False,
    include: Include = None,
    exclude: Exclude = None,
    merge: Merge = True,
    report: Reports = None,
    seed: Annotated[int, typer.Option(help="Seed of the random feeds.", metavar="N", min=0)] = 0,
    json: Json = False,
) -> None:
    """Fold, verify and write a model.

    Every BatchNormalization that can be folded exactly is; the others are reported with the reason. The
    result is written only after it was shown to compute the same as the original.
    """
    if not in_place and output is None:
        output = model.parent / f"{model.stem}.folded.onnx"
    _check_reports(report, model, output)

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
            merge=merge,
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
    merge: Merge = True,
    report: Reports = None,
    json: Json = False,
) -> None:
    """Say where each normalization would go.

    Or why it stays, and what to do about it. Writes nothing.
    """
    _check_reports(report, model)

    from bnfold import pipeline  # noqa: PLC0415  # slow

    result = pipeline.inspect(model, freeze=freeze, include=include or (), exclude=exclude or (), merge=merge)
    _print_result(result, report, as_json=json, every=True)


@app.command()
def verify(
    original: Annotated[
        Path,
        typer.Argument(help="The model that is right by definition.", metavar="ORIGINAL", show_default=False),
    ],
    folded: Annotated[
        Path,
        typer.Argument(
            help="The model to compare with it.", metavar="FOLDED", readable=False, show_default=False
        ),
    ],
    *,
    seed: Annotated[int, typer.Option(help="Seed of the random feeds.", metavar="N", min=0)] = 0,
    json: Json = False,
) -> None:
    """Say whether two models compute the same.

    Whatever tool made the second one.
    """
    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow

    with progress() as tell:
        tell("verifying")
        verdict = pipeline.verify(original, folded, seed=seed)
    if json:
        import json as encoder  # noqa: PLC0415  # the option has its name

        _print_json(encoder.dumps(verdict.to_dict(), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        from bnfold.report.text import render_verdict  # noqa: PLC0415  # slow

        _print_text(render_verdict(verdict))
    raise typer.Exit(verdict.exit_code)


@app.command()
def doctor() -> None:
    """Show whether bnfold can work here.

    Versions, the execution providers that really start, and a self-test of the semantics.
    """
    from bnfold.doctor import examine  # noqa: PLC0415  # slow
    from bnfold.report.checkup import render_checkup  # noqa: PLC0415  # slow

    checkup = examine()
    _print_text(render_checkup(checkup))
    raise typer.Exit(Exit.DONE if checkup.healthy else Exit.FAULT)


def main() -> NoReturn:
    """Run the command line; every error becomes one line on stderr and an exit code."""
    # Reading a model makes many objects and no garbage; looking for some again and again takes a tenth of
    # a short run.
    gc.set_threshold(100_000, 20, 20)
    _open_streams()
    try:
        app()
    except BnfoldError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", Exit.INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code == Exit.INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            _fail("interrupted", Exit.INTERRUPTED)
        raise
    except MemoryError:
        _fail("out of memory", Exit.FAULT)
    except ModuleNotFoundError as error:
        if os.environ.get("BNFOLD_TRACEBACK"):
            raise
        _fail(f"{error}: this installation is incomplete; `bnfold doctor` shows more", Exit.FAULT)
    except Exception as error:  # the last line of defence: a user never sees a traceback
        if os.environ.get("BNFOLD_TRACEBACK"):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        _fail(f"internal error, please report it ({what}); BNFOLD_TRACEBACK=1 shows where", Exit.FAULT)
    sys.exit(Exit.DONE)


def _open_streams() -> None:
    """Python has none where the caller closed it (`bnfold ... >&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # to the end


def _fail(message: str, code: int) -> NoReturn:
    # The exit code must be true even where nobody can be told why.
    with suppress(OSError):
        print(f"bnfold: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201  # the plainest way out
    sys.exit(code)


def _exit_code(result: Result, *, verified: bool) -> int:
    if not verified:
        return Exit.DONE
    return Exit.INCONCLUSIVE if result.verdict is None else result.verdict.exit_code


def _check_reports(paths: list[Path] | None, *models: Path | None) -> None:
    """Before any work: a report that cannot be written must not come to light after it."""
    taken = {os.path.realpath(model) for model in models if model is not None}
    for path in paths or ():
        if path.suffix != ".json":
            raise UsageError(f"--report {path}: the format follows from the suffix, which must be .json")
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"--report {path}: no file can be written there; is the folder right?")
        if os.path.realpath(path) in taken:
            raise UsageError(f"--report {path}: that is the model; give the report a name of its own")


def _print_result(result: Result, reports: list[Path] | None, *, as_json: bool, every: bool = False) -> None:
    for path in reports or ():
        _write_report(result.report, path)
    if as_json:
        _print_json(result.report.to_json())
        return
    from bnfold.report.text import render  # noqa: PLC0415  # slow

    _print_text(render(result.report, every=every))


def _write_report(report: Report, path: Path) -> None:
    try:
        path.write_bytes(_utf8(report.to_json()))
    except OSError as error:
        raise EnvironmentFault(f"the report {path} cannot be written: {error.strerror}") from error


def _print_json(text: str) -> None:
    _print_bytes(_utf8(text))


def _utf8(text: str) -> bytes:
    """JSON is UTF-8 whatever the locale; a file name that is no text becomes escapes that JSON reads."""
    return (text + "\n").encode("utf-8", "backslashreplace")


def _print_text(renderable: object) -> None:
    """Print for a person; lines of a pipe or a log are not broken, so that they can be searched."""
    from rich.console import Console  # noqa: PLC0415  # slow

    terminal = sys.stdout.isatty()
    console = Console(
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        emoji=False,
        file=StringIO(),  # rich has a mind of its own about pipes that break
        force_terminal=terminal or None,
        highlight=False,
        markup=False,  # names of nodes hold brackets and colons
        width=None if terminal or os.environ.get("COLUMNS") else _UNBROKEN,
    )
    with console.capture() as captured:
        console.print(renderable)
    lines = (line.rstrip() for line in captured.get().splitlines())
    _print_bytes(("\n".join(lines) + "\n").encode(sys.stdout.encoding, "backslashreplace"))


def _print_bytes(data: bytes) -> None:
    """Write to stdout; a reader that went away (`| head`) has all it wanted, and the exit code stays true."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise EnvironmentFault(f"the report cannot be printed: {error.strerror}") from error
