"""Which models are meant, and where the result of each goes: all of it settled before any work."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import UsageError
from bnfold.folders import SUFFIX, is_model, models_below
from bnfold.urls import is_url, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Place:
    """A model, and where its result goes."""

    source: Path
    output: Path


def places(wanted: Iterable[str | Path], out_dir: Path) -> tuple[Place, ...]:
    """Find the models, and give each a place in a folder.

    A file goes there under its own name. What is found in a folder, or by a glob, keeps its way down from
    that folder, or from the part of the glob before the first wildcard.

    Args:
        wanted: files; globs (`**` goes through folders); or folders, which mean every `.onnx` file below them
            that is not hidden. What lies in `out_dir` is meant only where it is named itself.
        out_dir: the folder for the results.

    Returns:
        In the order of `wanted`, and by name within a folder or glob; a model that is named twice, once.

    Raises:
        UsageError: one of them names no model, two results would have the same place, or a result that of a
            model; or `out_dir` is a file.
        EnvironmentFault: a folder cannot be read.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError(f"{out_dir} is a file; the results go to a folder")
    found: dict[Place, None] = {}
    for each in wanted:
        if is_url(each):
            raise UsageError(
                f"{shown(str(each))}: models at URLs are done one at a time, without a folder for results"
            )
        here = [Place(source, out_dir / way) for source, way in _models(each, out_dir)]
        if not here:
            raise UsageError(_nothing(each))
        found.update(dict.fromkeys(here))
    _check(tuple(found))
    return tuple(found)


def _models(wanted: str | Path, out_dir: Path) -> Iterator[tuple[Path, Path]]:
    """Each model, and its way down."""
    path, text = Path(wanted), os.fspath(wanted)
    if path.is_dir():
        below = models_below(path, leave=lambda folder: _is_inside(folder, out_dir))
        yield from ((model, model.relative_to(path)) for model in below)
    elif os.path.lexists(path) or not glob.has_magic(text):
        # One that does not exist is an error of its own, which stops no other.
        yield path, Path(path.name)
    else:
        top = _before_wildcards(path)
        matches = sorted(Path(name) for name in glob.iglob(text, recursive=True))  # noqa: PTH207  # `~`, `[`
        for model in matches:
            if model.is_file() and is_model(model.name) and not _is_inside(model, out_dir):
                yield model, model.relative_to(top)


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _before_wildcards(pattern: Path) -> Path:
    plain = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        plain.append(part)
    return Path(*plain)


def _nothing(wanted: str | Path) -> str:
    if Path(wanted).is_dir():
        return f"{wanted}: there is no {SUFFIX} file in this folder"
    return f"{wanted}: no {SUFFIX} file matches"


def _check(found: tuple[Place, ...]) -> None:
    """Refuse what would overwrite a model, or one result by another."""
    sources = {_key(place.source): place.source for place in found}
    results: dict[str, list[Path]] = defaultdict(list)
    for place in found:
        results[_key(place.output)].append(place.source)
        model = sources.get(_key(place.output))
        if model is not None:
            raise UsageError(
                f"{place.output}: the result would replace the model {model}; choose another folder"
            )
        if place.output.is_dir():
            raise UsageError(f"{place.output} is a folder, and the result of {place.source} would go there")
    for key, models in results.items():
        if len(models) > 1:
            raise UsageError(
                f"{key}: {models[0]} and {models[1]} would both go there; name the folder that holds both, "
                f"or give each an --out-dir of its own"
            )


def _key(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))
