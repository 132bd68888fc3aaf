"""The examples of docs/python.md, run in their order as one script; with PyTorch in the lane of peers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import command

if TYPE_CHECKING:
    import subprocess

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def examples() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def without_torch() -> str:
    """The examples behind the export; its place is taken by a model file with the same input."""
    export, *others = examples()
    assert "torch.onnx.export" in export
    code = "".join(others)
    for torch, file in (
        ("model = program  #", 'model = "model.onnx"  #'),
        ("16, 16", "6, 6"),
        ('"image":', '"x":'),
    ):
        assert torch in code
        code = code.replace(torch, file)
    return code


def run(code: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code, encoding="utf-8")
    return command.run(cwd=folder, program=(sys.executable, *options, "script.py"))


def test_the_examples_run(tmp_path: Path) -> None:
    """As a script without `if __name__ == "__main__":`, which must run once."""
    command.save(command.small(), tmp_path / "model.onnx")
    found = run(without_torch(), tmp_path, "-W", "error")
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "1.0 1.0 1.0"
    assert found.stdout.count("1.0 1.0 1.0") == 1
    assert (tmp_path / "model.folded.onnx").exists()
    assert (tmp_path / "report.json").exists()


def test_the_examples_are_typed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(without_torch(), encoding="utf-8")
    found = command.run(cwd=tmp_path, program=(sys.executable, "-m", "mypy", "--strict", "script.py"))
    assert found.returncode == 0, found.stdout


@pytest.mark.peers
def test_the_examples_run_with_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = run("".join(examples()), tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "1.0 0.0 1.0"
