"""What runs steps of continuous integration, as far as one machine can stand for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
# What GitHub starts for `shell: bash`.
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


def tools(folder: Path) -> Path:
    """A folder of programs with the Python that runs the tests, outside of its virtual environment."""
    folder.mkdir(exist_ok=True)
    python = Path(sys.base_prefix) / "bin" / "python3"
    (folder / "python3").symlink_to(python if python.exists() else sys.executable)
    return folder


def bare(home: Path, *programs: Path, **extra: str) -> dict[str, str]:
    """The environment of a machine that was just made: nothing of ours, but where pip finds packages."""
    kept = {k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.lower().endswith("_proxy")}
    path = os.pathsep.join([*map(str, programs), "/usr/local/bin", "/usr/bin", "/bin"])
    return {**kept, "PATH": path, "HOME": str(home), "LANG": "C.UTF-8", **extra}


def stand_in(venv: Path) -> None:
    """In place of an installation: the package under test, as this process has it."""
    (venv / "bin").mkdir(parents=True)
    for name, arguments in (("bnfold", "-m bnfold"), ("python", "")):
        program = venv / "bin" / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" {arguments} "$@"\n')
        program.chmod(0o755)


@dataclass(frozen=True)
class Ran:
    """What the steps of an action left behind."""

    code: int
    log: str
    summary: str
    outputs: Mapping[str, str]
    steps: Sequence[str] = field(default_factory=tuple)


class Action:
    """A composite action, run the way GitHub's runner does.

    Args:
        path: its `action.yml`.
        work: a folder for the files of the runner.
    """

    def __init__(self, path: Path, work: Path) -> None:
        self.path = path
        self.work = work
        self.made: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        self.temp = work / "runner temp"  # with a blank, as some have
        self.temp.mkdir(parents=True)

    def run(self, workspace: Path, *, only: str = "", **given: str) -> Ran:
        """Run all steps, or the one of a name, until one fails.

        Args:
            workspace: the repository.
            only: name of a step.
            given: inputs, with underscores for hyphens.
        """
        inputs = {name: about.get("default", "") for name, about in self.made["inputs"].items()}
        given = {name.replace("_", "-"): value for name, value in given.items()}
        assert not given.keys() - inputs.keys()
        known = {f"inputs.{name}": value for name, value in (inputs | given).items()}
        known["github.action_path"] = str(self.path.parent)
        log, names, code, outputs = "", [], 0, {}
        summary = self.work / "summary.md"
        summary.write_text("")
        for step in self.made["runs"]["steps"]:
            if only and step["name"] != only:
                continue
            output = self.work / "output.txt"
            output.write_text("")
            variables = {name: _filled(text, known) for name, text in step.get("env", {}).items()}
            files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
            script = self.work / "step.sh"
            script.write_text(step["run"])
            found = subprocess.run(
                [*BASH, str(script)],
                check=False,
                cwd=workspace,
                env=bare(
                    self.work,
                    self.work / "bin",
                    **files,
                    **variables,
                    GITHUB_ACTIONS="true",
                    GITHUB_WORKSPACE=str(workspace),
                    RUNNER_TEMP=str(self.temp),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=1200,
            )
            log += found.stdout
            names.append(step["name"])
            for name, value in read_outputs(output.read_text("utf-8")).items():
                known[f"steps.{step['id']}.outputs.{name}"] = value
            code = found.returncode
            if code:
                break
        for name, about in self.made["outputs"].items():
            outputs[name] = _filled(about["value"], known)
        return Ran(code, log, summary.read_text("utf-8"), outputs, names)


def read_outputs(text: str) -> dict[str, str]:
    """`name=value`, or `name<<END`, lines, `END`."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, several, end = line.partition("<<")
        if several and "=" not in name:
            value = []
            for each in lines:
                if each == end:
                    break
                value.append(each)
            else:
                raise AssertionError(f"{name} has no end")
            found[name] = "\n".join(value)
        else:
            name, equals, rest = line.partition("=")
            assert equals, line
            found[name] = rest
    return found


def _filled(text: str, known: Mapping[str, str]) -> str:
    """A template with the values of its expressions; an output that was not set is empty."""

    def value(match: re.Match[str]) -> str:
        assert match[1] in known or match[1].startswith("steps."), match[1]
        return known.get(match[1], "")

    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, text)
