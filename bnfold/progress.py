"""Which stage is running, on stderr, for a person who has waited more than a second."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE = 1.0  # seconds without a word


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that takes the name of the stage that begins; silent without a terminal."""
    if not sys.stderr.isatty():
        yield lambda _stage: None
        return
    from rich.console import Console  # noqa: PLC0415  # slow, and for terminals alone

    status = Console(stderr=True).status("starting")
    timer = threading.Timer(_PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda stage: status.update(f"{stage} ...")
    finally:
        timer.cancel()
        timer.join()
        status.stop()
