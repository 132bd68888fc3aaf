"""How far it is, on stderr, for a person at a terminal."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE = 1.0  # seconds without a word
_CELLS = 20


class Stage(str):
    """The name of a stage that knows how far it is.

    Attributes:
        fraction: the share that is done, from 0 to 1.
    """

    __slots__ = ("fraction",)
    fraction: float

    def __new__(cls, name: str, fraction: float) -> Self:
        """Name it."""
        stage = super().__new__(cls, name)
        stage.fraction = fraction
        return stage

    def prefixed(self, prefix: str) -> Stage:
        """The same stage, with something said before it."""
        return Stage(f"{prefix}{self}", self.fraction)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that takes the name of the stage that begins.

    Silent without a terminal, and for the first second.
    """
    if not sys.stderr.isatty():
        yield lambda _stage: None
        return
    from rich.console import Console  # noqa: PLC0415  # slow, and for terminals alone
    from rich.text import Text  # noqa: PLC0415  # likewise

    status = Console(stderr=True).status("starting")
    timer = threading.Timer(_PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        # Text, not markup: names of models may hold brackets.
        yield lambda stage: status.update(Text(_shown(stage)))
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def _shown(stage: str) -> str:
    if not isinstance(stage, Stage):
        return f"{stage} ..."
    filled = round(_CELLS * stage.fraction)
    return f"{stage} {'#' * filled}{'.' * (_CELLS - filled)} {stage.fraction:4.0%}"


@contextmanager
def bar() -> Iterator[Callable[[int, int, str], None]]:
    """A function that takes how many are done, of how many, and the last one; silent without a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, _name: None
        return
    from rich.console import Console  # noqa: PLC0415  # slow, and for terminals alone
    from rich.progress import (  # noqa: PLC0415  # as above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        row = shown.add_task("", total=None)
        yield lambda done, total, name: shown.update(row, completed=done, total=total, description=name)
