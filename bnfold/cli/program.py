"""The program `bnfold`: its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from bnfold.cli.bench import bench
from bnfold.cli.check import check
from bnfold.cli.doctor import doctor
from bnfold.cli.inspect import inspect
from bnfold.cli.optimize import optimize
from bnfold.cli.verify import verify
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
