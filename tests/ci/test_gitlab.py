"""The script of ci/gitlab.yml, run line by line as GitLab's runner does."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import junitparser
import pytest
import yaml
from support import command
from support.pipelines import ROOT, bare, stand_in, tools

from bnfold.cli import Exit

if TYPE_CHECKING:
    from pathlib import Path

JOB: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text("utf-8"))["bnfold-check"]
PLACE = JOB["script"][0].split()[-1]
SHELLS = [("bash", "-eo", "pipefail"), ("sh", "-e")]


@pytest.fixture(params=SHELLS, ids=lambda shell: str(shell[0]))
def shell(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """GitLab takes what the image has."""
    return request.param  # type: ignore[no-any-return]  # one of SHELLS


def run(repository: Path, work: Path, shell: tuple[str, ...], **variables: str) -> tuple[int, str]:
    """The last command alone: the others install. Of the artifacts all must be there."""
    venv = work / "venv"
    if not venv.exists():
        stand_in(venv)
        tools(work / "bin")
    script = JOB["script"][-1].replace(f"{PLACE}/", f"{venv}/")
    found = subprocess.run(
        [*shell, "-c", script],
        check=False,
        cwd=repository,
        env=bare(work, work / "bin", **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return found.returncode, found.stdout


def test_the_check(repository: Path, tmp_path: Path, shell: tuple[str, ...]) -> None:
    code, log = run(repository, tmp_path, shell, BNFOLD_PATHS="models")
    assert code == Exit.FINDING
    assert "5 models, 2 failing (invalid 1, foldable 3)" in log
    artifacts = JOB["artifacts"]
    assert JOB["artifacts"]["when"] == "always"
    assert all((repository / name).exists() for name in artifacts["paths"])
    read = junitparser.JUnitXml.fromfile(str(repository / artifacts["reports"]["junit"]))
    assert (read.tests, read.failures, read.errors) == (5, 2, 0)


def test_options(repository: Path, tmp_path: Path, shell: tuple[str, ...]) -> None:
    command.run("check", "models", "--baseline", "b.json", "--update-baseline", cwd=repository)
    assert run(repository, tmp_path, shell, BNFOLD_PATHS="models", BNFOLD_BASELINE="b.json")[0] == 0
    assert run(repository, tmp_path, shell, BNFOLD_PATHS="models", BNFOLD_FAIL_ON="none")[0] == 0
    several = run(repository, tmp_path, shell, BNFOLD_PATHS="models/clean.onnx\n models/k*.onnx")
    assert (several[0], "2 models, none failing" in several[1]) == (0, True)
    (repository / "bnfold.toml").write_text("models = ['models/clean.onnx']")
    assert "1 model, none failing" in run(repository, tmp_path, shell)[1]


@pytest.mark.parametrize("paths", ["$(touch hacked)", "`touch hacked`", "models; touch hacked", "--help", ""])
def test_variables_are_never_run(
    repository: Path, tmp_path: Path, shell: tuple[str, ...], paths: str
) -> None:
    before = sorted(repository.iterdir())
    assert run(repository, tmp_path, shell, BNFOLD_PATHS=paths)[0] == Exit.USAGE
    assert sorted(repository.iterdir()) == before
