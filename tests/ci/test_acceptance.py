"""Five models go through the action, pre-commit and GitLab's script, each as it installs bnfold itself.

The first time each fails and says why; with a baseline each passes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import command
from support.pipelines import ROOT, Action, bare, tools

from bnfold.cli import Exit

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.net

BASELINE = "bnfold-baseline.json"
CONCLUSION = "5 models, 2 failing (invalid 1, foldable 3)"


def source(folder: Path) -> Path:
    """What a release holds, as a repository of its own; this one may be no clone."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "action.yml", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "bnfold", folder / "bnfold", ignore=shutil.ignore_patterns("__pycache__"))
    for arguments in (["init"], ["add", "."], ["commit", "-m", "all"], ["tag", "v1"]):
        git(folder, *arguments)
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", *who, *arguments], capture_output=True, check=True, cwd=folder)  # noqa: S607


def make_baseline(repository: Path) -> None:
    made = command.run("check", "models", "--baseline", BASELINE, "--update-baseline", cwd=repository)
    assert made.returncode == Exit.DONE, made.stderr


def shell(script: str, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    found = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],  # noqa: S607 - wherever it is
        check=False,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    return found.returncode, found.stdout


def test_the_action(repository: Path, tmp_path: Path) -> None:
    action = Action(source(tmp_path / "source") / "action.yml", tmp_path / "work")
    tools(action.work / "bin")
    first = action.run(repository, paths="models")
    assert first.code == Exit.FINDING, first.log
    assert CONCLUSION in first.log
    assert first.log.count("\n::error file=") == 2
    assert "BNF001" in first.summary
    assert (first.outputs["failing"], first.outputs["foldable"]) == ("2", "3")
    make_baseline(repository)
    second = action.run(repository, paths="models", baseline=BASELINE)
    assert second.code == Exit.DONE, second.log
    assert second.summary.startswith("### bnfold: passed\n")
    assert "::error" not in second.log


def test_pre_commit(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = bare(home, tools(home / "bin"), PRE_COMMIT_HOME=str(home / "cache"), GIT_CONFIG_GLOBAL="/dev/null")
    venv = home / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", "pre-commit"], check=True)
    run = f"'{venv}/bin/pre-commit' run --all-files --color never"

    def settle(*arguments: str) -> None:
        hook = {"id": "bnfold-check", **({"args": list(arguments)} if arguments else {})}
        settings = {"repos": [{"repo": str(tmp_path / "source"), "rev": "v1", "hooks": [hook]}]}
        (repository / ".pre-commit-config.yaml").write_text(yaml.safe_dump(settings))
        git(repository, "add", ".")

    source(tmp_path / "source")
    settle()
    code, log = shell(run, repository, env)
    assert code == 1, log
    assert "- exit code: 1" in log
    assert CONCLUSION in log
    make_baseline(repository)
    settle("--baseline", BASELINE)
    code, log = shell(run, repository, env)
    assert (code, "Passed" in log) == (0, True), log
    # One model alone, as a commit has it: what the baseline knows about the others stays.
    code, log = shell(f"{run.replace('--all-files', '--files models/kept.onnx')} --verbose", repository, env)
    assert (code, "1 model, none failing" in log) == (0, True), log


def test_gitlab(repository: Path, tmp_path: Path) -> None:
    job: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text("utf-8"))["bnfold-check"]
    place = job["script"][0].split()[-1]
    script = "\n".join(job["script"]).replace(place, str(tmp_path / "bnfold"))
    env = bare(tmp_path, tools(tmp_path / "bin"), BNFOLD_PATHS="models")
    env["BNFOLD_PACKAGE"] = str(source(tmp_path / "source"))
    code, log = shell(script, repository, env)
    assert (code, CONCLUSION in log) == (Exit.FINDING, True), log
    make_baseline(repository)
    code, log = shell(script, repository, env | {"BNFOLD_BASELINE": BASELINE})
    assert (code, "5 models, none failing, 4 known to the baseline" in log) == (Exit.DONE, True), log
