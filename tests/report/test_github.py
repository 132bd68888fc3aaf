"""Workflow commands, read back the way GitHub's runner reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from support import gate

from bnfold.gate.finding import ModelJudgement, Survey
from bnfold.report import github


@dataclass(frozen=True)
class Command:
    name: str
    properties: dict[str, str]
    data: str


def obeyed(log: str) -> list[Command]:
    """The commands that a runner obeys: `::name key=value,key=value::data`, also after blanks; what stands
    between `stop-commands` and its token is text."""
    commands, token = [], None
    for line in log.splitlines():
        assert not (token is None and "##[" in line), "the older form of a command"
        match = re.match(r"\s*::([\w-]+)(?: ([^:]*))?::(.*)", line)
        if match is None or (token is not None and match[1] != token):
            if token is not None and line.strip() == f"::{token}::":
                token = None
            continue
        if match[1] == token:
            token = None
        elif match[1] == "stop-commands":
            token = match[3]
        else:
            pairs = (pair.split("=", 1) for pair in (match[2] or "").split(",") if pair)
            commands.append(Command(match[1], {k: unescaped(v) for k, v in pairs}, unescaped(match[3])))
    assert token is None
    return commands


def unescaped(text: str) -> str:
    assert "\r" not in text
    for escape, character in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(escape, character)
    return text


def test_one_annotation_a_model() -> None:
    commands = obeyed(github.render(gate.survey(), "the log"))
    assert [(c.name, c.properties["file"]) for c in commands] == [
        ("error", "c/locked.onnx"),
        ("error", "b/invalid.onnx"),
        ("error", "a/folder, with: 100% odd/model.onnx"),
    ]
    assert (
        commands[2].properties["title"].startswith("bnfold: 4 BatchNormalization, 1 with broken statistics")
    )
    lines = commands[2].data.splitlines()
    assert len(lines) == 2
    assert lines[0] == "BNF020 first: what was found about 'first'"
    assert r"\n::error::x,%<b>" in lines[1]
    assert "no permission" in commands[0].data


def test_the_log_gives_no_commands() -> None:
    log = "::error::one\n  ::set-output name=x::y\n##[error]two\n::stop-commands::\n::::\n"
    clean = Survey("1", (), (ModelJudgement("m", 0, (), ""),))
    made = github.render(clean, log)
    assert obeyed(made) == []
    assert log in made + "\n"


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 500])
def test_ten_annotations_are_shown(count: int) -> None:
    """An eleventh would be dropped without a word."""
    commands = obeyed(github.render(gate.failing(count), ""))
    assert len(commands) == min(count, 10)
    if count > 10:
        assert f"{count - 9} more models" in commands[-1].data
        assert [c.properties["file"] for c in commands[:-1]] == [f"models/{i:05}.onnx" for i in range(9)]


def test_an_annotation_is_not_endless() -> None:
    (command,) = obeyed(github.render(gate.failing(1, findings=1000), ""))
    assert len(command.data.splitlines()) == 21
    assert command.data.endswith("... and 980 more")


@pytest.mark.parametrize("used", [0, 1_000_000, github.SUMMARY_BYTES - 60, github.SUMMARY_BYTES + 5])
def test_the_summary_keeps_its_limit(used: int) -> None:
    made = github.summary(gate.failing(30_000, findings=2), used)
    assert used + len(made.encode()) <= max(github.SUMMARY_BYTES, used)
    if used <= 1_000_000:
        assert "There is more" in made.splitlines()[-1]
        assert made.splitlines()[2].startswith("30000 models, 30000 failing")


def test_a_small_summary_is_complete() -> None:
    made = github.summary(gate.survey(), 0)
    assert "There is more" not in made
    assert "`fourth`" in made
