"""What a caller may pass as a model, and what the verbs work on.

A `torch.onnx.ONNXProgram` is known by its `model_proto`, so that torch need not be there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import onnx

from bnfold.errors import ModelError, UsageError


class Program(Protocol):
    """An exported program that knows its model, as `torch.onnx.ONNXProgram` does."""

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The model, made anew or not; it is not changed."""


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto | Program
Model = str | Path | bytes | onnx.ModelProto


def model_of(source: Source) -> Model:
    """The path, bytes or ModelProto that a source stands for.

    Raises:
        UsageError: it is nothing that stands for a model.
        ModelError: the program is too large for a ModelProto.
    """
    if isinstance(source, (str, bytes, onnx.ModelProto)):
        return source
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, os.PathLike):
        return Path(source)
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
