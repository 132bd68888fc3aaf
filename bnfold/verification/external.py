"""Where external data lies when links are followed, for readers that follow none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnx.external_data_helper import uses_external_data

from bnfold.model.store import tensors

if TYPE_CHECKING:
    import onnx


def unlinked(model: onnx.ModelProto, folder: Path) -> Path:
    """Let a model name the files that hold its data, not the links that lead there.

    A download cache keeps links under the names that a model knows, and the files elsewhere. onnx's own
    reader refuses a link, and onnxruntime refuses one in what it is not given as a file.

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
