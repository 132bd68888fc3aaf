"""Help and version. That they are fast is asserted as what is not imported: a clock tells the weather."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support import command
from support.command import Outcome

from bnfold.cli import Exit
from bnfold.report import formats
from bnfold.version import __version__

Call = Callable[..., Outcome]
SLOW = ("numpy", "onnx", "onnx_graphsurgeon", "onnxruntime", "ml_dtypes", "google", "rich", "asyncio")


def imported(*arguments: str, cwd: Path) -> set[str]:
    """The top-level packages that `bnfold ARGUMENTS` imports, as `-X importtime` lists them."""
    found = command.run(*arguments, cwd=cwd, program=(sys.executable, "-X", "importtime", "-m", "bnfold"))
    assert found.returncode == Exit.DONE
    lines = [line for line in found.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("arguments", [("--help",), ("optimize", "--help"), ("--version",)], ids=" ".join)
def test_nothing_slow_is_imported(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    found = imported(*arguments, cwd=tmp_path)
    assert "typer" in found
    assert not found.intersection(SLOW)


def test_what_a_fold_needs_no_more_than(folder: Path) -> None:
    """onnxruntime belongs to another process."""
    found = imported("optimize", "model.onnx", cwd=folder)
    assert "onnx" in found
    assert "onnxruntime" not in found


def test_help_lists_the_verbs(call: Call) -> None:
    found = call("--help")
    assert (found.code, found.err) == (Exit.DONE, "")
    assert all(verb in found.out for verb in ("optimize", "inspect", "verify", "bench", "doctor"))
    assert call("-h").out == found.out


@pytest.mark.parametrize("verb", ["optimize", "inspect", "verify", "bench", "doctor"])
def test_every_verb_has_help(call: Call, verb: str) -> None:
    found = call(verb, "--help")
    assert (found.code, found.err) == (Exit.DONE, "")
    assert f"bnfold {verb}" in found.out


@pytest.mark.parametrize(
    ("verb", "table"),
    [
        ("optimize", formats.REPORTS),
        ("optimize", formats.FLEETS),
        ("inspect", formats.REPORTS),
        ("verify", formats.PAIRS),
        ("bench", formats.BENCHMARKS),
        ("check", formats.SURVEYS),
    ],
)
def test_help_names_the_reports_that_there_are(call: Call, verb: str, table: Mapping[str, object]) -> None:
    said = " ".join(call(verb, "--help").out.split())
    (suffixes,) = re.findall(r"Also write a report here: (.*?); repeatable", said)
    assert set(re.findall(r"\.[a-z]+", suffixes)) == set(table)


def test_version(call: Call) -> None:
    found = call("--version")
    assert (found.code, found.out, found.err) == (Exit.DONE, f"bnfold {__version__}\n", "")


def test_the_module_is_the_command(folder: Path) -> None:
    script = Path(sys.executable).with_name("bnfold")
    if not script.exists():
        pytest.skip("bnfold is not installed as a command here")
    one = subprocess.run(
        [script, "inspect", "model.onnx", "--json"], capture_output=True, check=True, cwd=folder
    )
    two = subprocess.run(
        [sys.executable, "-m", "bnfold", "inspect", "model.onnx", "--json"],
        capture_output=True,
        check=True,
        cwd=folder,
    )
    assert [line for line in one.stdout.splitlines() if b"e-" not in line and b"0.0" not in line] == [
        line for line in two.stdout.splitlines() if b"e-" not in line and b"0.0" not in line
    ]
