"""Options that name a file or folder on this machine, for which a URL is a mistake.

A path made of a URL has lost a slash, and a password in it is recognised no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import UsageError
from bnfold.urls import located, shown

if TYPE_CHECKING:
    from collections.abc import Callable


def local(option: str) -> Callable[[str], Path]:
    """What reads the value of an option: a path, `file://` included; a URL is a UsageError."""

    def path(text: str) -> Path:
        place = located(text)
        if isinstance(place, Path):
            return place
        raise UsageError(f"{option} {shown(place)}: it must be on this machine, not at a URL")

    return path
