"""The command line over the settings of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from bnfold.cli.options import Provider
    from bnfold.config import Config
    from bnfold.verification.options import Provider as ProviderName

_T = TypeVar("_T")


def settings() -> Config:
    """Those of the current folder."""
    from bnfold import config  # noqa: PLC0415  # not needed for help

    return config.load(Path.cwd())


def first(*values: _T | None, default: _T) -> _T:
    """The first that somebody has set."""
    return next((value for value in values if value is not None), default)


def runner(provider: Provider | None, settled: Config) -> ProviderName:
    """What runs models that are verified."""
    return provider.value if provider is not None else settled.provider or "cpu"
