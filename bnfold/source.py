"""What a caller may pass as a model, and what the verbs work on.

A `torch.onnx.ONNXProgram` is known by its `model_proto`, so that torch need not be there.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import onnx

from bnfold.errors import ModelError, UsageError
from bnfold.model.store import ModelFile, open_model
from bnfold.model.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator


class Program(Protocol):
    """An exported program that knows its model, as `torch.onnx.ONNXProgram` does."""

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The model, made anew or not; it is not changed."""


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto | Program
Model = str | Path | bytes | onnx.ModelProto


# A scheme has two letters at least: `C:/` is a drive of Windows.
_WAS_A_URL = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]", re.IGNORECASE)


def model_of(source: Source) -> Model:
    """The path, bytes or ModelProto that a source stands for.

    Raises:
        UsageError: it is nothing that stands for a model, or a URL in a Path.
        ModelError: the program is too large for a ModelProto.
    """
    if isinstance(source, (str, bytes, onnx.ModelProto)):
        return source
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, os.PathLike):
        path = Path(source)
        if _WAS_A_URL.match(path.as_posix()) and not path.exists():
            # Said without the URL, whose password nobody would make unreadable any more.
            raise UsageError("a URL is given as a str: a Path drops one of its slashes")
        return path
    try:
        proto = getattr(source, "model_proto", None)
    except Exception as error:
        # Of whatever kind: protobuf, torch and onnx_ir each have their own for a message over 2 GiB.
        raise ModelError(
            f"the {type(source).__name__} gives no model ({_first_line(error)}); "
            "save it with external data and pass its path"
        ) from error
    if isinstance(proto, onnx.ModelProto):
        return proto
    raise UsageError(
        f"a model is a path, bytes, a ModelProto or a torch.onnx.ONNXProgram, not {type(source).__name__}"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def naming(model: Model) -> Iterator[None]:
    """Errors in a model name the file they are in."""
    try:
        yield
    except ModelError as error:
        if not isinstance(model, (str, Path)) or str(model) in str(error):
            raise
        raise ModelError(f"{model}: {error}") from error


def valid(model: Model) -> ModelFile:
    """The model, opened and looked through.

    Raises:
        ModelError: it cannot be read or is not valid.
    """
    opened = open_model(model)
    validate(opened)
    return opened


def path_or_bytes(model: Model) -> Path | bytes:
    """The model as another process can be given it."""
    if isinstance(model, onnx.ModelProto):
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized
    return Path(model) if isinstance(model, str) else model
