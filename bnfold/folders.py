"""The model files below a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bnfold.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIX = ".onnx"


def is_model(name: str) -> bool:
    """Whether a file is called as models are."""
    return name.lower().endswith(SUFFIX)


def models_below(folder: Path, leave: Callable[[Path], bool] = lambda _folder: False) -> list[Path]:
    """Every model that is not hidden, by name.

    Args:
        folder: where to look, at any depth.
        leave: which of the folders in it not to look into.

    Raises:
        EnvironmentFault: a folder cannot be read; what is in it must not pass for nothing.
    """
    found: list[Path] = []
    for where, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and not leave(Path(where, name))]
        found += [Path(where, name) for name in files if is_model(name) and not name.startswith(".")]
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise EnvironmentFault(f"the folder {error.filename} cannot be read: {error.strerror}") from None
