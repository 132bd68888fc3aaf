"""Models at URLs: fetched to a folder that passes, and results put in their place from there.

`s3://`, `gs://`, `https://`, `memory://` and whatever else fsspec knows; bnfold itself sees files alone.

Fetched are the model and the files that it wants beside it, by the rules of external data: nothing that
would leave the folder of the model. A result appears under its name as a whole: object stores show an
object when it is complete, elsewhere it is renamed. Its data file is there before it.

A URL may carry a password or a signature. What is printed or reported of it is `shown`, never the URL.
"""

from __future__ import annotations

import posixpath
import re
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import wraps
from inspect import signature
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from bnfold.benchmarking.result import Benchmark
from bnfold.errors import BnfoldError, EnvironmentFault, ModelError, UsageError
from bnfold.model.store import external_locations
from bnfold.urls import is_url, located, scheme, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_P = ParamSpec("_P")
_R = TypeVar("_R")

# What is put there is to be seen when it is complete, and a rename is a copy.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2"})
_READ_ONLY = frozenset({"http", "https"})


def elsewhere(verb: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a verb of the pipeline take URLs: as its models, and as `output`.

    It runs on files; its errors and its report speak of the URLs.
    """
    names = tuple(signature(verb).parameters)

    @wraps(verb)
    def on_files(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        if not any(_is_foreign(given.get(name)) for name in _PLACES):
            return verb(*args, **kwargs)
        given |= {name: located(given[name]) for name in _PLACES if _is_foreign(given.get(name))}
        if given.get("in_place") and is_url(given["model"]):
            raise UsageError("a model at a URL cannot be replaced in place; say where its result goes")
        with ExitStack() as stack:
            stage = _Stage(stack)
            output = given.get("output")
            given |= {name: stage.fetched(given[name]) for name in _MODELS if name in given}
            if is_url(output):
                given["output"] = stage.prepared(output)
            with stage.speaking():
                result: Any = verb(**given)  # type: ignore[call-arg] # the same, by name
            if is_url(output) and result.report.output is not None:
                _put_all(Path(result.report.output), output)
            return stage.renamed(result)  # type: ignore[no-any-return] # what the verb gave, but for names

    return on_files


def _is_foreign(place: object) -> bool:
    """Whether it is a URL, be it one of a file."""
    return isinstance(place, str) and scheme(place) != ""


_MODELS = ("model", "original", "folded", "a", "b")
_PLACES = (*_MODELS, "output")


class _Stage:
    """The folders in which files stand for URLs, as long as a verb runs."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.urls: dict[str, str] = {}

    def fetched(self, model: Any) -> Any:  # noqa: ANN401  # a model of any kind
        """The file of a model at a URL; any other model as it is."""
        if not is_url(model):
            return model
        path = self._place(model)
        if not _get(model, path):
            raise ModelError(f"{shown(model)} cannot be opened: there is no such file")
        with self.speaking():
            wanted = external_locations(path)
        for location in wanted:
            # What is not allowed is not fetched: opening the model says so.
            if _is_allowed(location) and path.parent / location != path:
                (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
                _get(_beside(model, location), path.parent / location)
        return path

    def prepared(self, output: str) -> Path:
        """The file that a result is to be written to."""
        if scheme(output) in _READ_ONLY:
            raise UsageError(
                f"{shown(output)}: no result can be written there; name a file, or an object store"
            )
        _filesystem(output)
        return self._place(output)

    def _place(self, url: str) -> Path:
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="bnfold-"))
        path = Path(folder, _name(url))
        self.urls[str(path)] = url
        return path

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Errors name the URLs."""
        try:
            yield
        except (ModelError, UsageError, EnvironmentFault) as error:
            raise type(error)(self._said(str(error))) from None

    def _said(self, text: str) -> str:
        for path, url in self.urls.items():
            text = text.replace(path, shown(url)).replace(str(Path(path).parent), shown(_beside(url, "")))
        return text

    def renamed(self, result: Any) -> Any:  # noqa: ANN401  # a Result, a Benchmark, or a Verdict, which names no file
        """The result, whose report names the URLs."""
        if isinstance(result, Benchmark):
            return self._measured(result)
        if not hasattr(result, "report"):
            return result
        names = {path: shown(url) for path, url in self.urls.items()}
        report = result.report
        source, output = names.get(report.source, report.source), names.get(report.output, report.output)
        return replace(result, report=replace(report, source=source, output=output))

    def _measured(self, found: Benchmark) -> Benchmark:
        a, b = (
            replace(facts, source=facts.source and self._said(facts.source)) for facts in (found.a, found.b)
        )
        levels = tuple(replace(level, failure=self._said(level.failure)) for level in found.levels)
        return replace(found, a=a, b=b, levels=levels, findings=tuple(map(self._said, found.findings)))


def _name(url: str) -> str:
    """The name that the file of a URL gets here."""
    last = unquote(urlsplit(url).path).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    name = re.sub(r"[^\w.-]", "_", last)
    return name if name.strip(".") else "model.onnx"


def _beside(url: str, location: str) -> str:
    """The URL of a file in the folder of another; a signature goes along, since some hold for all of it."""
    if scheme(url) not in _READ_ONLY:
        return posixpath.join(posixpath.dirname(url), location)
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=posixpath.join(posixpath.dirname(parts.path), quote(location))))


def _is_allowed(location: str) -> bool:
    windows = PureWindowsPath(location)
    return not (windows.anchor or ".." in windows.parts or "\0" in location)


def _filesystem(url: str) -> tuple[Any, str]:
    """What reads and writes there, and what it calls the file.

    Raises:
        EnvironmentFault: a package is missing, or it cannot be reached.
        UsageError: there is no such kind of URL.
    """
    try:
        import fsspec  # noqa: PLC0415  # an extra
    except ImportError:
        raise EnvironmentFault(f"{shown(url)}: URLs need fsspec; pip install 'bnfold[remote]'") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        said = " ".join(str(error).split())
        raise EnvironmentFault(f"{shown(url)}: {said}; pip install 'bnfold[remote]' has it") from None
    except ValueError as error:
        raise UsageError(f"{shown(url)} is no URL that can be read: {_told(error, url)}") from None
    except Exception as error:  # noqa: BLE001  # every kind of store has its own
        raise _fault(url, error) from None
    return system, path


def _get(url: str, target: Path) -> bool:
    """Fetch a file; whether it is there."""
    system, path = _filesystem(url)
    try:
        system.get_file(path, str(target))
    except FileNotFoundError:
        return False
    except Exception as error:  # noqa: BLE001  # every kind of store has its own
        raise _fault(url, error) from None
    return target.is_file()


def _put_all(local: Path, url: str) -> None:
    """Put a result into its place: its data first, so that the model is never without."""
    for path in sorted(local.parent.iterdir(), key=lambda path: path == local):
        _put(path, url if path == local else _beside(url, path.name))


def _put(local: Path, url: str) -> None:
    system, path = _filesystem(url)
    try:
        if scheme(url) in _OBJECT_STORES:
            system.put_file(str(local), path)
            return
        folder, name = posixpath.split(path)
        temporary = posixpath.join(folder, f".{name}.bnfold-tmp")
        try:
            system.put_file(str(local), temporary)
            system.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                system.rm(temporary)
            raise
    except Exception as error:  # noqa: BLE001  # every kind of store has its own
        raise _fault(url, error, "written") from None


def _fault(url: str, error: Exception, what: str = "read") -> BnfoldError:
    return EnvironmentFault(f"{shown(url)} cannot be {what}: {_told(error, url)}")


def _told(error: Exception, url: str) -> str:
    said = str(error).replace(url, shown(url))
    return f"{type(error).__name__}: {shown(' '.join(said.split())) or 'no message'}"
