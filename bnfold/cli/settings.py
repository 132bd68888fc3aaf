"""The command line over the settings of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

_T = TypeVar("_T")


def first(*values: _T | None, default: _T) -> _T:
    """The first that somebody has set."""
    return next((value for value in values if value is not None), default)


def patterns(
    include: Sequence[str] | None, exclude: Sequence[str] | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Which normalizations fold and which stay."""
    from bnfold import config  # noqa: PLC0415  # not needed for help

    settings = config.load(Path.cwd())
    return first(include, settings.include, default=()), first(exclude, settings.exclude, default=())
