"""A folder of models, one of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from support import command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `models`: foldable or not, broken, with external data, in a folder."""
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "models"
    (models / "sub").mkdir(parents=True)
    command.save(command.small(), models / "a.onnx")
    (models / "broken.onnx").write_bytes(b"\x08\xff")
    onnx.save(
        command.small(),
        str(models / "external.onnx"),
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    command.save(command.many(2, "kept"), models / "kept.onnx")
    command.save(command.folding("other").model(), models / "sub" / "a.onnx")
    return tmp_path
