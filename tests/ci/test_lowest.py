"""bnfold works with the oldest packages that it says it takes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from support.pipelines import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(
        sys.version_info >= (3, 13), reason="there are no wheels of NumPy 2.0 for this Python"
    ),
]

COMMANDS = [
    "optimize digits.onnx --per-fold --bench --report r.html --report r.md --report r.xml --report r.sarif",
    "optimize digits.onnx --out-dir results --truth bound",
    "inspect digits.onnx --explain stem.bn",
    "verify digits.onnx digits.folded.onnx",
    "bench digits.onnx digits.folded.onnx --seconds 2 --level all",
    "check digits.folded.onnx",
    "doctor",
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bnfold in an environment of its own, each of its requirements at its lower bound."""
    folder = tmp_path_factory.mktemp("lowest")
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [each for each in map(Requirement, stated) if each.marker is None or each.marker.evaluate()]
    lowest = [f"{each.name}=={bound.version}" for each in wanted for bound in each.specifier]
    assert len(lowest) == len(wanted), "every requirement has one bound, and that a lower one"
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    pip = (str(scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, str(ROOT), *lowest], check=True, cwd=folder)
    return scripts / "bnfold"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "digits.onnx").write_bytes((ROOT / "models" / "digits.onnx").read_bytes())
    return folder


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command(line: str, program: Path, place: Path) -> None:
    run = subprocess.run([program, *line.split()], capture_output=True, check=False, cwd=place, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not run.stderr.strip()
