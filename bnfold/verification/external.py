"""External data: where it lies when links are followed, and a tensor that holds it itself.

onnx's own reader refuses links, and its releases differ in what else they refuse; which files a model may
have is checked when it is opened (`model.store`).
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from onnx.external_data_helper import uses_external_data

from bnfold.model.store import tensors


def unlinked(model: onnx.ModelProto, folder: Path) -> Path:
    """Let a model name the files that hold its data, not the links that lead there.

    A download cache keeps links under the names that a model knows, and the files elsewhere. onnxruntime
    refuses such a link in a model that is not given as a file.

    Args:
        model: changed in place; where its data may lie was checked when it was opened.
        folder: the folder of its file.

    Returns:
        The folder that the new names count from.
    """
    places = [
        entry
        for tensor, _ in tensors(model)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    files = {place: Path(os.path.realpath(folder / place)) for place in {entry.value for entry in places}}
    if not files:
        return folder
    root = Path(os.path.commonpath([file.parent for file in files.values()]))
    for entry in places:
        entry.value = files[entry.value].relative_to(root).as_posix()
    return root


def loaded(tensor: onnx.TensorProto, folder: Path) -> onnx.TensorProto:
    """The tensor itself, or a copy that holds its external data.

    Args:
        tensor: is not changed.
        folder: what the place of its data counts from.
    """
    if not uses_external_data(tensor):
        return tensor
    place = {entry.key: entry.value for entry in tensor.external_data}
    with (folder / place["location"]).open("rb") as file:
        file.seek(int(place.get("offset", 0)))
        data = file.read(int(place.get("length", -1)))
    return onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=data)
