"""What goes to stdout, what to stderr, with and without a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from support import command
from support.command import Outcome

from bnfold.cli import Exit

Call = Callable[..., Outcome]
ESCAPE = "\x1b"


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["optimize", "inspect"])
def test_json_is_the_report_and_nothing_else(call: Call, verb: str) -> None:
    found = call(verb, "model.onnx", "--json", *(["--no-verify"] if verb == "optimize" else []))
    assert (found.code, found.err) == (Exit.DONE, "")
    report = json.loads(found.out)
    assert report["schema"] == "bnfold.report/1"
    assert report["model"]["source"] == "model.onnx"
    assert report["summary"]["folded"] == 1


def test_json_of_verify_is_the_verdict(call: Call) -> None:
    found = call("verify", "model.onnx", "other.onnx", "--json")
    assert (found.code, found.err) == (Exit.FINDING, "")
    data = json.loads(found.out)
    assert (data["schema"], data["status"]) == ("bnfold.verdict/1", "different")


def test_a_report_file_holds_the_same_as_json(folder: Path, call: Call) -> None:
    printed = json.loads(
        call("inspect", "model.onnx", "--json", "--report", "a.json", "--report", "b.json").out
    )
    for name in ("a.json", "b.json"):
        written = json.loads((folder / name).read_text(encoding="utf-8"))
        assert {**written, "seconds": {}} == {**printed, "seconds": {}}


def test_a_report_file_comes_beside_the_text(folder: Path, call: Call) -> None:
    found = call("optimize", "model.onnx", "--no-verify", "--report", "r.json")
    assert "1 folded" in found.out
    assert (
        json.loads((folder / "r.json").read_text(encoding="utf-8"))["model"]["output"] == "model.folded.onnx"
    )


def test_errors_leave_stdout_empty(call: Call) -> None:
    assert call("inspect", "missing.onnx", "--json").error


# --- text ---------------------------------------------------------------------------------------------------


def test_names_are_printed_as_they_are(folder: Path, call: Call) -> None:
    """No markup, no emoji, no matter what an exporter put into a name."""
    name = "[red]block[/red]/[0]:smile:/模块"
    command.save(command.folding(name).model(), folder / "odd.onnx")
    found = call("inspect", "odd.onnx")
    assert name in found.out


def test_lines_of_a_pipe_are_not_broken(folder: Path, call: Call) -> None:
    name = "/".join(["a_long_scope"] * 30)
    command.save(command.folding(name).model(), folder / "long.onnx")
    found = call("inspect", "long.onnx")
    assert any(name in line and "Conv conv" in line for line in found.out.splitlines())
    assert not any(line != line.rstrip() for line in found.out.splitlines())


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_columns_are_respected(folder: Path, columns: str) -> None:
    command.save(command.many(3, "kept"), folder / "kept.onnx")
    for name in ("model.onnx", "kept.onnx"):
        found = command.run("inspect", name, cwd=folder, env={"COLUMNS": columns})
        assert found.returncode == Exit.DONE
        assert max(map(len, found.stdout.splitlines())) <= int(columns)


def test_alike_normalizations_are_counted(folder: Path, call: Call) -> None:
    """A hundred rows are no help; `inspect` has them all."""
    command.save(command.many(100, "kept"), folder / "kept.onnx")
    short = call("optimize", "kept.onnx", "--dry-run", "--no-verify").out.splitlines()
    assert len(short) < 25
    assert any("BNF019" in line and "(100)" in line for line in short)
    assert any("and 95 more" in line for line in short)
    full = call("inspect", "kept.onnx").out
    assert all(f"/block.{index}/BatchNormalization" in full for index in range(100))


def test_folds_are_counted_too(folder: Path, call: Call) -> None:
    command.save(command.many(50, "folded"), folder / "folded.onnx")
    short = call("optimize", "folded.onnx", "--dry-run", "--no-verify").out.splitlines()
    assert len(short) < 15
    assert any("50 Conv" in line for line in short)
    full = call("inspect", "folded.onnx").out
    assert all(f"-> Conv conv{index}" in full for index in range(50))


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_locale_without_unicode(folder: Path, locale: str) -> None:
    command.save(command.folding("模块").model(), folder / "model.onnx")
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    text = command.run("inspect", "model.onnx", cwd=folder, env=env)
    assert text.returncode == Exit.DONE, text.stderr
    assert r"\u6a21\u5757" in text.stdout
    data = command.run("inspect", "model.onnx", "--json", cwd=folder, env=env)
    assert json.loads(data.stdout)["folds"][0]["node"] == "模块"


# --- terminals ----------------------------------------------------------------------------------------------


def in_terminal(
    *arguments: str,
    cwd: Path,
    columns: int = 80,
    stderr_only: bool = False,
    before: str = "",
    env: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Runs bnfold with a terminal as stdout and stderr, or as stderr alone: code, terminal, pipe."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*command.prepared(before), *arguments],
        cwd=cwd,
        env=command.environment(**{"TERM": "xterm-256color", **(env or {})}),
        stderr=theirs,
        stdin=theirs,
        stdout=subprocess.PIPE if stderr_only else theirs,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(mine, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(mine)
    piped = process.stdout.read() if process.stdout is not None else b""
    if process.stdout is not None:
        process.stdout.close()
    return process.wait(60), seen.decode(), piped.decode()


def without_escapes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_terminal_gets_colours(folder: Path) -> None:
    code, seen, _ = in_terminal("inspect", "model.onnx", cwd=folder)
    assert code == Exit.DONE
    assert ESCAPE in seen
    assert "1 folded, 1 kept" in without_escapes(seen)


@pytest.mark.parametrize("verb", ["inspect", "optimize", "check"])
def test_a_name_does_not_talk_to_the_terminal(folder: Path, verb: str) -> None:
    """Not even where colours do."""
    name = "bn\x1b]0;title\x07\x1b[2J\u202e\r"
    command.save(command.folding(name).model(), folder / "odd.onnx")
    for said in (
        in_terminal(verb, "odd.onnx", cwd=folder)[1],
        command.run(verb, "odd.onnx", cwd=folder).stdout,
    ):
        assert not {"\x07", "\u202e"} & set(said)
        assert "\x1b]" not in said
        assert "\x1b[2J" not in said
    found = command.run("inspect", "odd.onnx", "--explain", "\x1b[2J", cwd=folder)
    assert found.returncode == Exit.USAGE
    assert ESCAPE not in found.stderr


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_can_do_without(folder: Path, name: str, value: str) -> None:
    code, seen, _ = in_terminal("inspect", "model.onnx", cwd=folder, env={name: value})
    assert code == Exit.DONE
    assert ESCAPE not in seen


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_is_not_overrun(folder: Path, columns: int) -> None:
    command.save(command.many(30, "kept"), folder / "kept.onnx")
    for name in ("model.onnx", "kept.onnx"):
        _, seen, _ = in_terminal("optimize", name, "--no-verify", cwd=folder, columns=columns)
        assert max(map(len, without_escapes(seen).splitlines())) <= columns


# The stages of a small model are over before anybody would lose patience.
IMPATIENT = "import bnfold.progress; bnfold.progress._PATIENCE = 0.01"


def test_progress_goes_to_the_terminal_alone(folder: Path) -> None:
    code, seen, piped = in_terminal(
        "optimize", "model.onnx", "--json", cwd=folder, stderr_only=True, before=IMPATIENT
    )
    assert code == Exit.DONE
    assert "verifying" in seen
    assert json.loads(piped)["summary"]["folded"] == 1


def test_the_evaluation_has_a_bar(folder: Path) -> None:
    code, seen, _ = in_terminal(
        "verify", "model.onnx", "model.onnx", "--json", cwd=folder, stderr_only=True, before=IMPATIENT
    )
    assert code == Exit.DONE
    # Of stages that pass in a moment the terminal shows the last one.
    stages = r"(evaluating in float64 \(\d/4\)|comparing layer by layer)"
    assert re.search(rf"{stages} [#.]{{20}} +\d+%", without_escapes(seen))


def test_progress_waits_a_second(folder: Path) -> None:
    code, seen, _ = in_terminal("inspect", "model.onnx", cwd=folder, stderr_only=True)
    assert (code, seen) == (Exit.DONE, "")


def test_ctrl_c_gives_the_cursor_back(folder: Path) -> None:
    """The line with the stage is taken away, and the cursor that it hid is shown again."""
    interrupt = (
        "import os, signal, time\n"
        "def replace(*_):\n    time.sleep(0.2); os.kill(os.getpid(), signal.SIGINT)\n"
        "os.replace = replace"
    )
    code, seen, piped = in_terminal(
        "optimize", "model.onnx", cwd=folder, stderr_only=True, before=f"{IMPATIENT}\n{interrupt}"
    )
    assert (code, piped) == (Exit.INTERRUPTED, "")
    hidden, shown = f"{ESCAPE}[?25l", f"{ESCAPE}[?25h"
    assert hidden in seen
    assert seen.rindex(shown) > seen.rindex(hidden)
    assert without_escapes(seen).rstrip().splitlines()[-1].endswith("bnfold: interrupted")


def test_without_a_terminal_there_is_no_progress(folder: Path) -> None:
    found = command.run("optimize", "model.onnx", cwd=folder, program=command.prepared(IMPATIENT))
    assert (found.returncode, found.stderr) == (Exit.DONE, "")


# --- readers that go away -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_went_away_changes_nothing(folder: Path, options: tuple[str, ...]) -> None:
    """`bnfold optimize model.onnx | head -1` under `set -o pipefail` does what was asked for."""
    reader, writer = os.pipe()
    os.close(reader)
    found = command.run("optimize", "model.onnx", "--no-verify", *options, cwd=folder, stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (Exit.DONE, "")
    assert (folder / "model.folded.onnx").exists()


def test_a_finding_is_a_finding_though_nobody_reads(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = command.run("verify", "model.onnx", "other.onnx", cwd=folder, stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (Exit.FINDING, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_report_that_cannot_be_printed_is_four(folder: Path, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        found = command.run("inspect", "model.onnx", *options, cwd=folder, stdout=full)
    assert found.returncode == Exit.FAULT
    assert Outcome(4, "", found.stderr).error == "the report cannot be printed: No space left on device"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(folder: Path, closed: str) -> None:
    shell = ("bash", "-c", f'"$@" {closed}', "bash", *command.BNFOLD)
    found = command.run("optimize", "model.onnx", cwd=folder, program=shell)
    assert (found.returncode, found.stderr) == (Exit.DONE, "")
    assert ("1 folded" in found.stdout) == (">&-" not in closed.split())
    assert (folder / "model.folded.onnx").exists()
    missing = command.run("optimize", "missing.onnx", cwd=folder, program=shell)
    assert (missing.returncode, missing.stdout) == (Exit.MODEL, "")
