"""What the README says about continuous integration: its commands are run, its files are read."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

import yaml
from support import command
from support.pipelines import ROOT

from bnfold import config
from bnfold.cli import Exit

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def settings(name: str) -> Any:  # noqa: ANN401 - any YAML
    """The file that a block is to become."""
    (text,) = (block for block in blocks("yaml") if block.startswith(f"# {name}\n"))
    return yaml.safe_load(text)


def test_the_commands(repository: Path) -> None:
    """In their order: it fails, a baseline is made, it passes."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    ours = [shlex.split(line.removeprefix("$ ")) for line in lines if line.startswith("$ bnfold check")]
    codes = []
    for program, *arguments in ours:
        assert program == "bnfold"
        codes.append(command.run(*arguments, cwd=repository).returncode)
    assert codes == [Exit.FINDING, Exit.DONE, Exit.DONE]


def test_the_settings(tmp_path: Path) -> None:
    """Every key that there is, once."""
    (text,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(text)
    settled = config.load(tmp_path)
    assert settled.feeds.of(tmp_path / "models" / "detector2.onnx") == (
        f"image={tmp_path}/calibration/images.npz",
    )
    assert set(tomllib.loads(text)["tool"]["bnfold"]) == set(config.KEYS)
    assert config.__doc__ is not None
    shown = re.findall(r"^    (.*)$", config.__doc__, flags=re.MULTILINE)
    assert tomllib.loads("\n".join(shown)) == tomllib.loads(text)


def test_the_workflow() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    text = next(block for block in blocks("yaml") if ".github/workflows" in block)
    steps = settings(".github/workflows/models.yml")["jobs"]["models"]["steps"]
    (ours,) = (step for step in steps if "bnfold@" in step["uses"])
    assert ours["with"].keys() <= action["inputs"].keys()
    used = set(re.findall(rf"steps\.{ours['id']}\.outputs\.([\w-]+)", text))
    assert used
    assert used <= action["outputs"].keys()


def test_the_job_of_gitlab() -> None:
    made = settings(".gitlab-ci.yml")
    (include,) = made["include"]
    name = re.fullmatch(r"https://[^/]+/OWNER/bnfold/v[\d.]+/(.*)", include["remote"])
    assert name is not None
    job = yaml.safe_load((ROOT / name[1]).read_text("utf-8"))["bnfold-check"]
    assert all(f"${{{variable}:-" in "".join(job["script"]) for variable in made["variables"])
    assert "variables" not in job, "those of a job would go over these"


def test_the_hook() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    (repo,) = settings(".pre-commit-config.yaml")["repos"]
    assert {hook["id"] for hook in repo["hooks"]} <= {hook["id"] for hook in hooks}
    (hook,) = hooks
    assert hook["entry"].split()[0] == "bnfold"
    assert re.search(hook["files"], "models/a.onnx")
    assert not re.search(hook["files"], "models/a.onnx.data")
