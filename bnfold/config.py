"""The settings of a repository: `[tool.bnfold]` in pyproject.toml, or bnfold.toml.

    [tool.bnfold]
    models = ["models"]               # what `bnfold check` looks at when it is given no path
    exclude-models = ["models/old/*"]
    fail-on = ["foldable", "invalid"]
    require-all = false
    baseline = "bnfold-baseline.json"
    include = ["*"]                   # normalizations, like --include and --exclude
    exclude = ["head/*"]
    provider = "cpu"                  # what runs models that are verified, like --provider

    [tool.bnfold.feeds]               # what a model is fed, like --input
    "models/detector*.onnx" = ["image=calibration/images.npz"]

Paths are relative to the file. The command line goes over the file, the file over the default.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.errors import UsageError
from bnfold.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnfold.verification.options import Provider

_OWN, _SHARED = "bnfold.toml", "pyproject.toml"
_PROVIDERS: tuple[Provider, ...] = ("cpu", "cuda", "tensorrt")
_SHAPE = re.compile(r"\d+(x\d+)*")


@dataclass(frozen=True)
class Feeds:
    """What models are fed when they are verified.

    Attributes:
        folder: what patterns and paths are relative to.
        inputs: for patterns of models, what `--input` takes.
    """

    folder: Path = Path()
    inputs: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def of(self, model: Path) -> tuple[str, ...]:
        """What `--input` takes for a model: by the first pattern that matches; empty where none does."""
        real = Path(os.path.realpath(model.parent), model.name)
        folder = Path(os.path.realpath(self.folder))
        name = (real.relative_to(folder) if real.is_relative_to(folder) else real).as_posix()
        found = (texts for pattern, texts in self.inputs if fnmatchcase(name, pattern))
        return tuple(self._anchored(text) for text in next(found, ()))

    def _anchored(self, text: str) -> str:
        name, equals, what = text.partition("=")
        if is_url(text) or is_url(what):
            return text  # joined to a folder it would be a URL no more, and be shown with its password
        if not equals or (self.folder / text).exists():
            return str(self.folder / text)
        return text if _SHAPE.fullmatch(what) else f"{name}={self.folder / what}"


NO_FEEDS = Feeds()


@dataclass(frozen=True)
class Config:
    """What a repository has settled; None is what it leaves open.

    Attributes:
        folder: that of the file, which its paths are relative to; None where there is no file.
        models: what `check` looks at when it is given no path.
        exclude_models: patterns of names of models that it leaves out.
        fail_on: the kinds of findings that let it fail.
        require_all: whether every normalization must be gone.
        baseline: path of the baseline.
        include: patterns of normalizations that may be folded.
        exclude: patterns of normalizations that stay.
        provider: what runs models that are verified.
        feeds: what they are fed.
    """

    folder: Path | None = None
    models: tuple[str, ...] | None = None
    exclude_models: tuple[str, ...] | None = None
    fail_on: tuple[str, ...] | None = None
    require_all: bool | None = None
    baseline: str | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    provider: Provider | None = None
    feeds: Feeds = NO_FEEDS


def load(start: Path) -> Config:
    """The settings for work in a folder: of the nearest file, up to the top of the repository.

    Raises:
        UsageError: the file cannot be read, or says what makes no sense.
    """
    folder = start.absolute()
    for each in (folder, *folder.parents):
        table = _table(each)
        if table is not None:
            return _checked(*table, each)
        if (each / ".git").exists():
            break
    return Config()


def _table(folder: Path) -> tuple[Mapping[str, Any], str] | None:
    """The settings, and where they stand in words; None where the folder has none."""
    own = _read(folder / _OWN)
    if own is not None:
        return own, str(folder / _OWN)
    shared = _read(folder / _SHARED)
    tool = (shared or {}).get("tool")
    if not isinstance(tool, dict) or "bnfold" not in tool:
        return None
    where = f"{folder / _SHARED}: [tool.bnfold]"
    if not isinstance(tool["bnfold"], dict):
        raise UsageError(f"{where} must be a table")
    return tool["bnfold"], where


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}") from None


def _checked(table: Mapping[str, Any], where: str, folder: Path) -> Config:
    values = {}
    for key, value in table.items():
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1, cutoff=0.0)
            raise UsageError(f"{where}: unknown key {key!r}; did you mean {near[0]!r}?")
        values[key.replace("-", "_")] = KEYS[key](value, f"{where}: {key}")
    config = Config(folder, **values)
    return replace(config, feeds=replace(config.feeds, folder=folder)) if config.feeds.inputs else config


def _texts(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise UsageError(f"{where} must be a list of strings, and is {value!r}")


def _text(value: object, where: str) -> str:
    if isinstance(value, str) and value:
        return value
    raise UsageError(f"{where} must be a string, and is {value!r}")


def _flag(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise UsageError(f"{where} must be true or false, and is {value!r}")


def _provider(value: object, where: str) -> Provider:
    for provider in _PROVIDERS:
        if value == provider:
            return provider
    raise UsageError(f"{where} must be one of {', '.join(_PROVIDERS)}, and is {value!r}")


def _feeds(value: object, where: str) -> Feeds:
    if not isinstance(value, dict):
        raise UsageError(f"{where} must be a table of patterns and what --input takes, and is {value!r}")
    return Feeds(inputs=tuple((key, _texts(each, f"{where}.{key!r}")) for key, each in value.items()))


# Each is a field of `Config`.
KEYS: Mapping[str, Callable[[object, str], Any]] = {
    "models": _texts,
    "exclude-models": _texts,
    "fail-on": _texts,
    "require-all": _flag,
    "baseline": _text,
    "include": _texts,
    "exclude": _texts,
    "provider": _provider,
    "feeds": _feeds,
}
