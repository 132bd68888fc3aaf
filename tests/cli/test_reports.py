"""`--report`: a file for each suffix, of every command that has one; and that a page can be repeated."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support import command, page
from support.command import Outcome

from bnfold.cli import Exit

if TYPE_CHECKING:
    from pathlib import Path

Call = Callable[..., Outcome]


def test_a_page_of_a_model(folder: Path, call: Call) -> None:
    assert call("optimize", "model.onnx", "--report", "r.html").code == Exit.DONE
    text = page.read((folder / "r.html").read_text(encoding="utf-8")).text
    assert "Equivalent" in text
    assert "bnfold optimize model.onnx -o model.folded.onnx" in text


def test_a_page_of_an_inspected_model(folder: Path, call: Call) -> None:
    assert call("inspect", "model.onnx", "--report", "r.html").code == Exit.DONE
    assert "Inspected" in page.read((folder / "r.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(("other", "code"), [("model.onnx", Exit.DONE), ("other.onnx", Exit.FINDING)])
def test_reports_of_a_pair(folder: Path, call: Call, other: str, code: Exit) -> None:
    reports = ("--report", "r.html", "--report", "r.md", "--report", "r.json")
    found = call("verify", "model.onnx", other, "--seed", "5", *reports)
    assert found.code == code
    status = "equivalent" if code == Exit.DONE else "different"
    data = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    assert data["status"] == status
    text = page.read((folder / "r.html").read_text(encoding="utf-8")).text
    assert status.capitalize() in text
    assert data["original_sha256"] in text
    assert f"bnfold verify model.onnx {other} --seed 5" in text
    assert f"**{status}**" in (folder / "r.md").read_text(encoding="utf-8")


def test_reports_of_a_benchmark(folder: Path, call: Call) -> None:
    reports = ("--report", "r.html", "--report", "r.md", "--report", "r.json")
    found = call("bench", "model.onnx", "other.onnx", "--level", "all", "--seconds", "0.01", *reports)
    assert found.code == Exit.DONE
    assert json.loads((folder / "r.json").read_text(encoding="utf-8"))["schema"] == "bnfold.bench/1"
    # One block is measured, of which nothing can be said.
    assert "Too few" in page.read((folder / "r.html").read_text(encoding="utf-8")).text
    assert "| too few |" in (folder / "r.md").read_text(encoding="utf-8")


def test_a_page_of_several(folder: Path, call: Call) -> None:
    call("optimize", ".", "--out-dir", "out", "--no-verify", "-j", "1", "--report", "r.html")
    text = page.read((folder / "r.html").read_text(encoding="utf-8")).text
    assert "2 models" in text
    assert "other.onnx" in text


@pytest.mark.parametrize(
    "verb", [("verify", "model.onnx", "other.onnx"), ("bench", "model.onnx", "other.onnx")]
)
def test_what_there_is_not_is_told_first(folder: Path, call: Call, verb: tuple[str, ...]) -> None:
    found = call(*verb, "--report", "r.sarif")
    assert found.code == Exit.USAGE
    assert "must be of .json, .html, .md" in found.error
    assert call(*verb, "--report", "model.onnx").code == Exit.USAGE
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "other.onnx"]


@pytest.mark.parametrize(
    "options",
    [
        ("--no-verify", "--no-provenance", "--exclude", "he*d", "--no-merge", "--freeze"),
        ("--seed", "7", "--range", "x=0,2", "--input", "x=1x3x6x6", "--truth", "bound", "--per-fold"),
        ("--dry-run", "--keep-going", "--budget", "100.5"),
    ],
)
def test_the_command_of_a_page_repeats_it(folder: Path, call: Call, options: tuple[str, ...]) -> None:
    """The command on the page, run again, makes the same page but for the time it took."""
    pages = []
    said = [*("optimize", "model.onnx"), *options]
    for _ in range(2):
        assert call(*said, "--report", "r.html").code in {Exit.DONE, Exit.INCONCLUSIVE}
        made = (folder / "r.html").read_text(encoding="utf-8")
        (shown,) = page.read(made).all("pre")
        program, *said = shlex.split(shown.text)
        assert program == "bnfold"
        pages.append(re.sub(r"<dt>seconds</dt>.*?</dd>", "", made))
    assert pages[0] == pages[1]


def test_pages_are_the_same_bytes_in_any_process(folder: Path) -> None:
    """Whatever order sets have there."""
    for seed in ("1", "2"):
        found = command.run(
            "inspect", "model.onnx", "--report", f"{seed}.html", cwd=folder, env={"PYTHONHASHSEED": seed}
        )
        assert found.returncode == Exit.DONE, found.stderr
    made = [(folder / f"{seed}.html").read_text(encoding="utf-8") for seed in ("1", "2")]
    first, second = (re.sub(r"<dt>seconds</dt>.*?</dd>", "", text) for text in made)
    assert first == second


def test_no_page_no_template_engine(folder: Path) -> None:
    code = "import sys\nsys.argv = ['bnfold', 'inspect', 'model.onnx', '--report', 'r.md']\n"
    code += "from bnfold.cli import main\ntry:\n    main()\nfinally:\n    assert 'jinja2' not in sys.modules"
    found = command.run(cwd=folder, program=(sys.executable, "-c", code))
    assert found.returncode == Exit.DONE, found.stderr
