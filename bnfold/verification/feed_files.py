"""Feeds from files: .npz, .npy, .pb, folders of them, and patterns such as `set_*/x.npy`.

A folder laid out as onnx's test data (`test_data_set_0/input_0.pb`, onnx/backend/test) gives one feed for
each data set; its tensors go to the inputs by their number. Any other folder gives one feed for each .npz,
or for a model with one input, or for an input named beside it, for each array.
"""

from __future__ import annotations

import glob
import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from bnfold.errors import UsageError
from bnfold.verification.feeds import Feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.verification.sessions import Array

_ARRAYS = frozenset({".npy", ".npz", ".pb"})
_DATA_SET = re.compile(r"input_\d+\.pb")


def read_feeds(path: Path, inputs: Sequence[str]) -> tuple[Feed, ...]:
    """Read feeds.

    Args:
        path: a .npz (arrays by input name), a .npy or .pb (for a model with one input), or a folder.
        inputs: names of the model's inputs, in order, those backed by an initializer left out.

    Raises:
        UsageError: nothing there can be read as feeds; the message names the file.
    """
    if _is_pattern(path):
        folders = sorted({file.parent for file in _matching(path)}, key=_number)
        if path.name.endswith(".pb") and all(any(folder.glob("input_*.pb")) for folder in folders):
            return tuple(_data_set(folder, inputs) for folder in folders)
        return tuple(feed for file in _matching(path) for feed in read_feeds(file, inputs))
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if path.is_dir():
        return _folder(path, inputs)
    if path.suffix == ".npz":
        return (Feed(path.name, _npz(path)),)
    if path.suffix in {".npy", ".pb"}:
        if len(inputs) != 1:
            raise UsageError(
                f"{path}: one array, but the model has {len(inputs)} inputs; put all into a .npz, "
                f"or name the input"
            )
        return (Feed(path.name, {inputs[0]: _array(path)}),)
    raise UsageError(f"{path}: feeds are .npz, .npy or .pb files, or folders of them")


def read_input(path: Path, name: str, position: int) -> list[tuple[str, Array]]:
    """Read values of one input.

    Args:
        path: an array (.npy, .pb), a .npz that holds one under the name or holds no other, a folder of such
            files, or a pattern. Where files are named `input_3.pb`, only those of `position` count.
        name: the input.
        position: its place among the inputs.

    Returns:
        A label and an array for each set of values.

    Raises:
        UsageError: nothing there can be read as values; the message names the file.
    """
    if _is_pattern(path):
        files = _matching(path)
    elif path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix in _ARRAYS), key=_number)
        if not files:
            raise UsageError(f"{path}: no .npy, .npz or .pb files are in it")
    elif path.exists():
        return [(path.name, _one(path, name))]
    else:
        raise UsageError(f"{path}: no such file or folder")
    if any(_DATA_SET.fullmatch(file.name) for file in files):
        files = [file for file in files if file.name == f"input_{position}.pb"]
        if not files:
            raise UsageError(f"{path}: no input_{position}.pb for input {name!r}")
    return [(file.name, _one(file, name)) for file in files]


def _one(path: Path, name: str) -> Array:
    if path.suffix == ".npz":
        arrays = _npz(path)
        if name not in arrays and len(arrays) != 1:
            raise UsageError(f"{path}: no array {name!r} in it; it holds {', '.join(arrays) or 'nothing'}")
        return arrays.get(name, next(iter(arrays.values())))
    if path.suffix not in _ARRAYS:
        raise UsageError(f"{path}: feeds are .npz, .npy or .pb files, or folders of them")
    return _array(path)


def _is_pattern(path: Path) -> bool:
    return not path.exists() and any(sign in str(path) for sign in "*?[")


def _matching(path: Path) -> list[Path]:
    files = sorted((Path(found) for found in glob.glob(str(path))), key=_number)  # noqa: PTH207  # patterns may be absolute
    if not files:
        raise UsageError(f"{path}: no file matches")
    return files


def _folder(path: Path, inputs: Sequence[str]) -> tuple[Feed, ...]:
    sets = sorted(path.glob("test_data_set_*"), key=_number) or (
        [path] if any(path.glob("input_*.pb")) else []
    )
    if sets:
        return tuple(_data_set(folder, inputs) for folder in sets)
    kinds = _ARRAYS if len(inputs) == 1 else {".npz"}
    files = sorted((f for f in path.iterdir() if f.suffix in kinds), key=_number)
    if not files:
        wanted = "" if len(inputs) == 1 else f" (of all {len(inputs)} inputs)"
        raise UsageError(f"{path}: neither test_data_set_*/input_*.pb nor .npz files{wanted} are in it")
    return tuple(feed for file in files for feed in read_feeds(file, inputs))


def _number(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else 0, path.name)


def _data_set(folder: Path, inputs: Sequence[str]) -> Feed:
    files = sorted(folder.glob("input_*.pb"), key=_number)
    if len(files) != len(inputs):
        raise UsageError(f"{folder}: {len(files)} input_*.pb files, but the model has {len(inputs)} inputs")
    return Feed(folder.name, {name: _array(file) for name, file in zip(inputs, files, strict=True)})


def _npz(path: Path) -> dict[str, Array]:
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: not a readable .npz file (it is no ZIP archive)")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"{path}: not a readable .npz file ({error})") from error
    strange = [name for name, array in found.items() if not isinstance(array, np.ndarray)]
    if strange or not found:
        raise UsageError(f"{path}: {f'{strange[0]!r} in it is no array' if strange else 'no array is in it'}")
    return found


def _array(path: Path) -> Array:
    try:
        if path.suffix == ".npy":
            # As np.load does it, but that also opens a .npz by another name.
            with path.open("rb") as file:
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
            return array
        tensor = onnx.load_tensor(str(path))
        if uses_external_data(tensor):
            raise UsageError(f"{path}: its values lie in another file; save them inside")
        return numpy_helper.to_array(tensor)
    except KeyError as error:
        raise UsageError(f"{path}: not a readable tensor (onnx knows no element type {error})") from error
    except (OSError, ValueError, TypeError, EOFError, DecodeError) as error:
        raise UsageError(f"{path}: not a readable tensor ({error})") from error
