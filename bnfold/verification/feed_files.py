"""Feeds from files: .npz, .npy, .pb, and folders of them.

A folder laid out as onnx's test data (`test_data_set_0/input_0.pb`, onnx/backend/test) gives one feed for
each data set; its tensors go to the inputs by their number. Any other folder gives one feed for each .npz.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import numpy_helper

from bnfold.errors import UsageError
from bnfold.verification.feeds import Feed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bnfold.verification.sessions import Array


def read_feeds(path: Path, inputs: Sequence[str]) -> tuple[Feed, ...]:
    """Read feeds.

    Args:
        path: a .npz (arrays by input name), a .npy or .pb (for a model with one input), or a folder.
        inputs: names of the model's inputs, in order, those backed by an initializer left out.

    Raises:
        UsageError: nothing there can be read as feeds; the message names the file.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if path.is_dir():
        return _folder(path, inputs)
    if path.suffix == ".npz":
        return (Feed(path.name, _npz(path)),)
    if path.suffix in {".npy", ".pb"}:
        if len(inputs) != 1:
            raise UsageError(
                f"{path}: one array, but the model has {len(inputs)} inputs; put all into a .npz"
            )
        return (Feed(path.name, {inputs[0]: _array(path)}),)
    raise UsageError(f"{path}: feeds are .npz, .npy or .pb files, or folders of them")


def _folder(path: Path, inputs: Sequence[str]) -> tuple[Feed, ...]:
    sets = sorted(path.glob("test_data_set_*"), key=_number) or (
        [path] if any(path.glob("input_*.pb")) else []
    )
    if sets:
        return tuple(_data_set(folder, inputs) for folder in sets)
    files = sorted(path.glob("*.npz"))
    if not files:
        raise UsageError(f"{path}: neither test_data_set_*/input_*.pb nor .npz files are in it")
    return tuple(Feed(file.name, _npz(file)) for file in files)


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else 0, path.name)


def _data_set(folder: Path, inputs: Sequence[str]) -> Feed:
    files = sorted(folder.glob("input_*.pb"), key=_number)
    if len(files) != len(inputs):
        raise UsageError(f"{folder}: {len(files)} input_*.pb files, but the model has {len(inputs)} inputs")
    return Feed(folder.name, {name: _array(file) for name, file in zip(inputs, files, strict=True)})


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not a readable .npz file ({error})") from error


def _array(path: Path) -> Array:
    try:
        if path.suffix == ".npy":
            array: Array = np.load(path, allow_pickle=False)
            return array
        return numpy_helper.to_array(onnx.load_tensor(str(path)))
    except (OSError, ValueError, TypeError, EOFError, DecodeError) as error:
        raise UsageError(f"{path}: not a readable tensor ({error})") from error
