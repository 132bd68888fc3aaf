"""The program `bnfold`: its commands, and how it ends."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bnfold.cli.bench import bench
from bnfold.cli.check import check
from bnfold.cli.doctor import doctor
from bnfold.cli.exits import Exit
from bnfold.cli.inspect import inspect
from bnfold.cli.optimize import optimize
from bnfold.cli.verify import verify
from bnfold.errors import BnfoldError
from bnfold.version import __version__

app = typer.Typer(
    name="bnfold",
    help="Remove BatchNormalization from trained ONNX models by exact folding, and prove the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its help pages take rich, which takes time
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


# In the order of the help page.
for command in (optimize, inspect, verify, bench, check, doctor):
    app.command()(command)


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
