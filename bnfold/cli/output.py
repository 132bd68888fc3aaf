"""What a command prints and writes besides models."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from bnfold.pipeline import Result
    from bnfold.report.schema import Report

_UNBROKEN = 10_000  # columns


def check_reports(paths: list[Path] | None, *models: Path | None) -> None:
    """Complain before any work: a report that cannot be written must not come to light after it."""
    taken = {os.path.realpath(model) for model in models if model is not None}
    for path in paths or ():
        if path.suffix != ".json":
            raise UsageError(f"--report {path}: the format follows from the suffix, which must be .json")
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"--report {path}: no file can be written there; is the folder right?")
        if os.path.realpath(path) in taken:
            raise UsageError(f"--report {path}: that is the model; give the report a name of its own")


def print_result(result: Result, reports: list[Path] | None, *, as_json: bool, every: bool = False) -> None:
    """Write the reports that were asked for, and show the result; `every` names what was folded, too."""
    for path in reports or ():
        _write_report(result.report, path)
    if as_json:
        print_json(result.report.to_json())
        return
    from bnfold.report.text import render  # noqa: PLC0415  # slow

    print_text(render(result.report, every=every))


def _write_report(report: Report, path: Path) -> None:
    try:
        path.write_bytes(_utf8(report.to_json()))
    except OSError as error:
        raise EnvironmentFault(f"the report {path} cannot be written: {error.strerror}") from error


def print_json(text: str) -> None:
    """Print for a program."""
    _print_bytes(_utf8(text))


def _utf8(text: str) -> bytes:
    """JSON is UTF-8 whatever the locale; a file name that is no text becomes escapes that JSON reads."""
    return (text + "\n").encode("utf-8", "backslashreplace")


def print_text(renderable: object) -> None:
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
