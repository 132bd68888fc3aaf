"""The steps of action.yml, run by bash in a bare environment; test_acceptance installs, too."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import command
from support.pipelines import ROOT, Action, Ran, stand_in, tools

from bnfold.cli import Exit
from bnfold.gate.policy import CHOICES

RUN = "Run bnfold"


@pytest.fixture
def action(tmp_path: Path) -> Action:
    made = Action(ROOT / "action.yml", tmp_path / "work")
    tools(made.work / "bin")
    stand_in(made.temp / "bnfold" / "venv")
    return made


def errors(ran: Ran) -> list[str]:
    return re.findall(r"^::error(?: file=([^,]*))?", ran.log, flags=re.MULTILINE)


def test_no_expression_stands_in_a_script(action: Action) -> None:
    """What GitHub puts in place of one would be run as it is."""
    for step in action.made["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"


def test_what_it_says_of_itself(action: Action) -> None:
    assert action.made["inputs"].keys() == {"paths", "command", "fail-on", "baseline", "version"}
    for about in (*action.made["inputs"].values(), *action.made["outputs"].values()):
        assert about["description"].endswith((".", "table.", "upload-sarif."))
    for kind in CHOICES:
        assert kind.value in action.made["inputs"]["fail-on"]["description"]


def test_a_check(repository: Path, action: Action) -> None:
    ran = action.run(repository, only=RUN, paths="models")
    assert ran.code == Exit.FINDING
    assert errors(ran) == ["models/broken.onnx", "models/foldable.onnx"]
    assert "5 models, 2 failing (invalid 1, foldable 3)" in ran.log
    assert ran.summary.startswith("### bnfold: failed\n")
    counts = {name: ran.outputs[name] for name in ("exit-code", "models", "failing", "foldable", "kept")}
    assert counts == {"exit-code": "1", "models": "5", "failing": "2", "foldable": "3", "kept": "2"}
    assert ran.outputs["folded"] == ""
    assert json.loads(Path(ran.outputs["report"]).read_text("utf-8"))["schema"] == "bnfold.check/1"
    assert json.loads(Path(ran.outputs["sarif"]).read_text("utf-8"))["version"] == "2.1.0"


def test_several_paths(repository: Path, action: Action) -> None:
    paths = "\n models/clean.onnx \r\n\n  models/k*.onnx\n"
    ran = action.run(repository, only=RUN, paths=paths)
    assert (ran.code, ran.outputs["models"], errors(ran)) == (0, "2", [])


def test_optimize(repository: Path, action: Action) -> None:
    ran = action.run(repository, only=RUN, command="optimize", paths="models/foldable.onnx\nmodels/kept.onnx")
    assert ran.code == 0, ran.log
    counts = {name: ran.outputs[name] for name in ("exit-code", "models", "failing", "foldable", "kept")}
    assert counts == {"exit-code": "0", "models": "2", "failing": "0", "foldable": "3", "kept": "1"}
    folded = [Path(name) for name in ran.outputs["folded"].splitlines()]
    assert [path.name for path in folded] == ["foldable.onnx", "kept.onnx"]
    for path in folded:
        assert not path.is_relative_to(repository)
        original = repository / "models" / path.name
        assert command.run("verify", original, path, cwd=repository).returncode == Exit.DONE
    assert json.loads(Path(ran.outputs["sarif"]).read_text("utf-8"))["version"] == "2.1.0"


def test_optimize_with_a_broken_model(repository: Path, action: Action) -> None:
    """The others are made, and it is told."""
    ran = action.run(repository, only=RUN, command="optimize", paths="models")
    assert ran.code == Exit.MODEL, ran.log
    assert (ran.outputs["models"], ran.outputs["failing"], ran.outputs["foldable"]) == ("5", "1", "3")
    assert len(ran.outputs["folded"].splitlines()) == 4
    assert "broken.onnx" in ran.log


@pytest.mark.parametrize("given", [{"fail_on": "foldable"}, {"baseline": "b.json"}])
def test_optimize_has_no_gate(repository: Path, action: Action, given: dict[str, str]) -> None:
    ran = action.run(repository, only=RUN, command="optimize", paths="models/kept.onnx", **given)
    assert ran.code == Exit.USAGE


def test_options(repository: Path, action: Action) -> None:
    command.run("check", "models", "--baseline", "b.json", "--update-baseline", cwd=repository)
    assert action.run(repository, only=RUN, paths="models", baseline="b.json").code == 0
    assert action.run(repository, only=RUN, paths="models", fail_on="none").code == 0
    (repository / "bnfold.toml").write_text("models = ['models/clean.onnx']")
    assert action.run(repository, only=RUN).outputs["models"] == "1"


@pytest.mark.parametrize(
    "given",
    [
        {"paths": "$(touch hacked)"},
        {"paths": "models; touch hacked"},
        {"paths": "`touch hacked`\nmodels"},
        {"paths": "--help"},
        {"paths": "-o\nhacked"},
        {"paths": "models", "baseline": '"; touch hacked; "'},
        {"paths": "models", "fail_on": "$(touch hacked)"},
        {"paths": "models", "fail_on": "none --baseline hacked --update-baseline"},
        {"paths": "models", "command": "check models; touch hacked #"},
        {"paths": "models", "command": "$(touch hacked)"},
        {"paths": "models", "command": "doctor"},
        {"paths": "nothing"},
        {"paths": ""},
    ],
    ids=str,
)
def test_inputs_are_never_run(repository: Path, action: Action, given: dict[str, str]) -> None:
    before = sorted(repository.iterdir())
    ran = action.run(repository, only=RUN, **given)
    assert ran.code == Exit.USAGE
    assert sorted(repository.iterdir()) == before
    assert not (action.work / "hacked").exists()
    assert ran.outputs["models"] == ""


def test_a_name_gives_no_command(repository: Path, action: Action) -> None:
    """Nor does it reach the outputs."""
    odd = repository / "models" / "x\nfolded=hacked\n::set-output name=y::z.onnx"
    try:
        command.save(command.small(), odd)
    except OSError:
        pytest.skip("no such names here")
    ran = action.run(repository, only=RUN, paths="models")
    assert ran.outputs["folded"] == ""
    assert not re.search(r"^\s*::set-output", ran.log.split("::stop-commands")[0], flags=re.MULTILINE)
    after = ran.log.rsplit("::\n", 1)[1]
    assert all(line.startswith("::error ") for line in after.splitlines() if line)


@pytest.mark.parametrize(
    "version", ["1.0; touch hacked", "$(touch hacked)", "-r hacked", "1.0\n-r hacked", "1.0 @ file:///hacked"]
)
def test_a_version_is_never_run(repository: Path, action: Action, version: str) -> None:
    ran = action.run(repository, only="Install bnfold", version=version)
    assert ran.code == Exit.USAGE
    assert "must be a version" in ran.log
    assert not (repository / "hacked").exists()


def test_an_old_python_is_told(repository: Path, action: Action) -> None:
    old = action.work / "bin" / "python3"
    old.unlink()
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    ran = action.run(repository, only="Install bnfold")
    assert ran.code == Exit.FAULT
    assert "Python 3.11 or newer" in ran.log
