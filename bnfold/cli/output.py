"""What a command prints and writes besides models."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold import atomic
from bnfold.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import RenderableType

    from bnfold.result import Result

_UNBROKEN = 10_000  # columns


def check_reports(
    paths: list[Path] | None, *taken_by: str | Path | None, formats: Collection[str] | None = None
) -> None:
    """Complain before any work: a report that cannot be written must not come to light after it.

    Args:
        paths: where reports are to go.
        taken_by: models and whatever else must not be written over.
        formats: suffixes that there are; None for those of the report of one model.
    """
    if not paths:
        return
    from bnfold.report.formats import REPORTS  # noqa: PLC0415  # for reports alone

    known = REPORTS if formats is None else formats
    taken = {os.path.realpath(model) for model in taken_by if model is not None}
    for path in paths:
        if path.suffix not in known:
            choices = ", ".join(known)
            raise UsageError(
                f"--report {path}: the format follows from the suffix, which must be of {choices}"
            )
        if path.is_dir() or not path.parent.is_dir():
            raise UsageError(f"--report {path}: no file can be written there; is the folder right?")
        if os.path.realpath(path) in taken:
            raise UsageError(f"--report {path}: that is the model; give the report a name of its own")
        folder = Path(os.path.realpath(path)).parent
        if (path.is_file() or not path.exists()) and not os.access(folder, os.W_OK):
            raise EnvironmentFault(f"--report {path}: no permission to write in that folder")


def print_result(result: Result, reports: list[Path] | None, *, as_json: bool, every: bool = False) -> None:
    """Write the reports that were asked for, and show the result; `every` names what was folded, too."""
    if reports:
        from bnfold.report.formats import REPORTS  # noqa: PLC0415  # for reports alone

        for path in reports:
            write_report(path, REPORTS[path.suffix](result.report))
    if as_json:
        print_data(result.report.to_json())
        return
    from bnfold.report.text import render  # noqa: PLC0415  # slow

    print_text(render(result.report, every=every))


def write_report(path: Path, text: str) -> None:
    """Write a report that a program reads."""
    try:
        atomic.write(path, encoded(text))
    except OSError as error:
        raise EnvironmentFault(f"the report {path} cannot be written: {error.strerror}") from error


def print_data(text: str) -> None:
    """Print for a program."""
    _print_bytes(encoded(text))


def encoded(text: str) -> bytes:
    """UTF-8 whatever the locale; a file name that is no text becomes escapes, which JSON reads."""
    return (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace")


def print_text(renderable: RenderableType) -> None:
    """Print for a person; lines of a pipe or a log are not broken, so that they can be searched."""
    terminal = sys.stdout.isatty()
    width = None if terminal or os.environ.get("COLUMNS") else _UNBROKEN
    _print_bytes(
        _text(renderable, terminal=terminal, width=width).encode(sys.stdout.encoding, "backslashreplace")
    )


def plain_text(renderable: RenderableType) -> str:
    """What a person reads, without colours, in lines that are not broken."""
    return _text(renderable, terminal=False, width=_UNBROKEN)


def _text(renderable: RenderableType, *, terminal: bool, width: int | None) -> str:
    from rich.console import Console  # noqa: PLC0415  # slow
    from rich.segment import Segment, Segments  # noqa: PLC0415  # slow, too

    from bnfold.report.wording import one_line  # noqa: PLC0415  # for text alone

    console = Console(
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        emoji=False,
        file=StringIO(),  # rich has a mind of its own about pipes that break
        force_terminal=terminal or None,
        highlight=False,
        markup=False,  # names of nodes hold brackets and colons
        width=width,
    )
    # The name of a node must not talk to the terminal.
    harmless = (
        Segment("\n".join(map(one_line, segment.text.split("\n"))), segment.style)
        for segment in console.render(renderable)
    )
    with console.capture() as captured:
        console.print(Segments(harmless), crop=False, end="")
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


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
