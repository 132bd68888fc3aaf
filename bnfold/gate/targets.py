"""Which model files a command line means: files, globs, and folders with everything in them."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import UsageError
from bnfold.folders import SUFFIX, is_model, models_below
from bnfold.urls import is_url, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True)
class Target:
    """A model file.

    Attributes:
        path: absolute.
        name: what reports call it: relative to the root where it lies below it, with forward slashes.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class Targets:
    """The model files of a run, in the order of their names, and how many patterns left out."""

    chosen: tuple[Target, ...]
    excluded: int


def expand(wanted: Sequence[str], *, base: Path, root: Path, exclude: Sequence[str] = ()) -> Targets:
    """Find the files.

    Args:
        wanted: each a file, a glob (`**` goes through folders), or a folder, which means every `.onnx` file
            below it that is not hidden.
        base: the folder that relative ones are relative to.
        root: the folder that names are relative to.
        exclude: patterns (shell style, `*` matches slashes) of names that are left out.

    Raises:
        UsageError: one of them names no model; a gate that silently checks nothing is none.
        EnvironmentFault: a folder cannot be read.
        OSError: a file may not be looked at.
    """
    found: dict[str, Target] = {}
    for each in wanted:
        paths = [_target(path, root) for path in _matches(each, base)]
        if not paths:
            raise UsageError(_nothing(each, base))
        found.update((target.name, target) for target in paths)
    chosen = [
        found[name] for name in sorted(found) if not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]
    return Targets(tuple(chosen), len(found) - len(chosen))


def root_of(folder: Path) -> Path:
    """The repository that a folder belongs to, or the folder itself.

    Names relative to it are those that continuous integration uses, and the same in every folder of it.
    """
    real = Path(os.path.realpath(folder))
    return next((each for each in (real, *real.parents) if (each / ".git").exists()), real)


def _matches(wanted: str, base: Path) -> Iterable[Path]:
    path = base / wanted
    if path.is_dir():
        return models_below(path)
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(wanted):
        return _globbed(wanted, base)
    return []


def _globbed(pattern: str, base: Path) -> Iterator[Path]:
    """A glob finds models, and other files only where it says how they end (`*.pb`)."""
    suffix = Path(pattern).suffix
    for name in glob.iglob(pattern, root_dir=base, recursive=True):  # noqa: PTH207  # those of pathlib refuse absolute ones
        path = base / name
        if path.is_file() and (is_model(name) or path.suffix == suffix):
            yield path


def _target(path: Path, root: Path) -> Target:
    # Of the folder alone: a model that is a link keeps the name that it has in the repository.
    real = Path(os.path.realpath(path.parent), path.name)
    name = real.relative_to(root) if real.is_relative_to(root) else real
    return Target(real, name.as_posix())


def _nothing(wanted: str, base: Path) -> str:
    if is_url(wanted):
        return f"{shown(wanted)}: models at URLs cannot be checked; fetch them into a folder first"
    if (base / wanted).is_dir():
        return f"{wanted}: no {SUFFIX} file in this folder; is it the right one?"
    if glob.has_magic(wanted):
        return f"{wanted}: no {SUFFIX} file matches; is it quoted, and relative to the right folder?"
    with suppress(FileNotFoundError, NotADirectoryError):
        (base / wanted).lstat()  # what may not be looked at is not the same as what is not there
    return f"{wanted}: no such file or folder"
