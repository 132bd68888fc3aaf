"""`bnfold optimize` of several models: one table, one report, one exit code."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support import command
from support.command import Outcome

from bnfold import pipeline
from bnfold.checking import Check
from bnfold.cli import Exit

Call = Callable[..., Outcome]


@pytest.fixture
def models(folder: Path) -> Path:
    """Three in `models`, one of them below another folder, and one that is broken."""
    (folder / "models" / "sub").mkdir(parents=True)
    shutil.copy(folder / "model.onnx", folder / "models" / "a.onnx")
    command.save(command.many(3, "kept"), folder / "models" / "kept.onnx")
    command.save(command.folding("other").model(), folder / "models" / "sub" / "b.onnx")
    (folder / "models" / "broken.onnx").write_bytes(b"no model")
    return folder


def made(folder: Path) -> list[str]:
    """The files in a folder, but for what it remembers to resume."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".bnfold-resume.json")
    return sorted(p.relative_to(folder).as_posix() for p in files)


def test_a_folder(models: Path, call: Call) -> None:
    found = call("optimize", "models", "--out-dir", "out", "--jobs", "1")
    assert found.code == Exit.MODEL
    assert found.err == ""
    rows = [line.split() for line in found.out.splitlines()]
    assert rows[:5] == [
        ["model", "found", "folded", "kept"],
        ["models/a.onnx", "2", "1", "1", "equivalent"],
        ["models/broken.onnx", "-", "-", "-", "failed"],
        ["models/kept.onnx", "3", "0", "3", "equivalent"],
        ["models/sub/b.onnx", "2", "1", "1", "equivalent"],
    ]
    assert "models/broken.onnx cannot be read" in found.out or "models/broken.onnx is no" in found.out
    assert found.out.splitlines()[-1] == (
        "3 of 4 models optimized, 1 failed; 7 normalizations found, 2 folded, 5 kept"
    )
    assert made(models / "out") == ["a.onnx", "kept.onnx", "sub/b.onnx"]


def test_each_result_is_that_of_the_model_alone(models: Path, call: Call) -> None:
    call("optimize", "models", "--out-dir", "out", "--no-verify", "--jobs", "2")
    for name in ("a.onnx", "kept.onnx", "sub/b.onnx"):
        assert call("optimize", f"models/{name}", "-o", "alone.onnx", "--no-verify").code == Exit.DONE
        assert (models / "alone.onnx").read_bytes() == (models / "out" / name).read_bytes()


def test_one_report(models: Path, call: Call) -> None:
    found = call(
        "optimize", "models", "--out-dir", "out", "--no-verify", "--json", "--report", "r.json", "-j", "1"
    )
    data = json.loads(found.out)
    assert json.loads((models / "r.json").read_text()) == data
    assert data["schema"] == "bnfold.reports/1"
    assert data["summary"] == {
        "models": 4, "optimized": 3, "failed": 1, "resumed": 0,
        "found": 7, "folded": 2, "kept": 5, "exit_code": 3,
    }  # fmt: skip
    alone = json.loads(call("optimize", "models/a.onnx", "-o", "x.onnx", "--no-verify", "--json").out)
    (first, *_) = data["reports"]
    assert first.keys() == alone.keys()
    assert first["model"] == {**alone["model"], "output": "out/a.onnx"}
    assert [r["model"]["source"] for r in data["reports"]] == [
        "models/a.onnx", "models/kept.onnx", "models/sub/b.onnx",
    ]  # fmt: skip
    (failure,) = data["failures"]
    assert {k: failure[k] for k in ("source", "output", "error", "exit_code")} == {
        "source": "models/broken.onnx", "output": "out/broken.onnx", "error": "ModelError", "exit_code": 3,
    }  # fmt: skip
    assert data["resumed"] == []


@pytest.mark.usefixtures("models")
def test_reports_in_other_formats(call: Call) -> None:
    """Each speaks of the model that is broken and of what stays in the others."""
    names = ("r.md", "r.sarif", "r.xml")
    reports = [argument for name in names for argument in ("--report", name)]
    call("optimize", "models", "--out-dir", "out", "--no-verify", "-j", "1", *reports)
    for name in names:
        text = Path(name).read_text(encoding="utf-8")
        assert all(said in text for said in ("models/broken.onnx", "models/kept.onnx", "BNF019")), name
    results = json.loads(Path("r.sarif").read_text(encoding="utf-8"))["runs"][0]["results"]
    assert {r["ruleId"] for r in results} == {"BNF002", "BNF019"}
    assert ET.fromstring(Path("r.xml").read_bytes()).get("failures") == "1"  # noqa: S314 - our own


@pytest.mark.usefixtures("models")
def test_resume(call: Call) -> None:
    """What was not verified is, and then left by both."""
    call("optimize", "models", "--out-dir", "out", "--no-verify", "-j", "1")
    found = call("optimize", "models", "--out-dir", "out", "--no-verify", "-j", "1", "--resume", "--json")
    data = json.loads(found.out)
    assert data["resumed"] == [
        {"source": f"models/{name}", "output": f"out/{name}"}
        for name in ("a.onnx", "kept.onnx", "sub/b.onnx")
    ]
    assert data["summary"]["resumed"] == 3
    assert "done before" not in call("optimize", "models", "--out-dir", "out", "-j", "1", "--resume").out
    assert "3 done before" in call("optimize", "models", "--out-dir", "out", "-j", "1", "--resume").out


@pytest.mark.parametrize(
    "wanted", [("model.onnx",), ("*.onnx",), ("model.onnx", "other.onnx"), (".",)], ids=" ".join
)
def test_every_way_to_name_them(folder: Path, call: Call, wanted: tuple[str, ...]) -> None:
    found = call("optimize", *wanted, "--out-dir", "out", "--no-verify", "-j", "1")
    assert found.code == Exit.DONE, found.err
    assert made(folder / "out") == sorted(
        {"model.onnx", "other.onnx"} if wanted != ("model.onnx",) else wanted
    )


def test_a_dry_run_writes_nothing(models: Path, call: Call) -> None:
    before = made(models)
    found = call("optimize", "models/a.onnx", "models/sub", "--out-dir", "out", "--dry-run", "-j", "1")
    assert found.code == Exit.DONE
    assert made(models) == before
    assert not (models / "out").exists()


@pytest.mark.usefixtures("models")
def test_a_result_that_differs_is_the_gravest_but_an_error(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = pipeline.verify("model.onnx", "other.onnx")
    monkeypatch.setattr(Check, "_verdict", lambda *_: verdict)
    found = call("optimize", "model.onnx", "--out-dir", "out", "-j", "1")
    assert found.code == Exit.FINDING
    assert "model.onnx: different: " in found.out
    assert not Path("out/model.onnx").exists()
    assert (
        call("optimize", "model.onnx", "models/broken.onnx", "--out-dir", "out", "-j", "1").code == Exit.MODEL
    )


def test_inconclusive(folder: Path, call: Call) -> None:
    command.save(command.ill_conditioned(), folder / "ill.onnx")
    assert call("optimize", "ill.onnx", "--out-dir", "out", "-j", "1").code == Exit.INCONCLUSIVE
    assert call("optimize", "ill.onnx", "--out-dir", "out", "-j", "1", "--no-verify").code == Exit.DONE


def test_a_report_never_goes_over_a_model(models: Path, call: Call) -> None:
    (models / "models" / "odd.json").write_bytes((models / "model.onnx").read_bytes())
    for report in ("models/odd.json", "out/odd.json"):
        (models / "out").mkdir(exist_ok=True)
        found = call("optimize", "models/odd.json", "--out-dir", "out", "--report", report)
        assert found.code == Exit.USAGE
        assert "that is the model" in found.error


def test_ctrl_c_keeps_what_is_done(models: Path) -> None:
    interrupting = command.prepared(
        "import os, signal\n"
        "from bnfold.cli import several\n"
        "from bnfold import progress\n"
        "from contextlib import contextmanager\n"
        "@contextmanager\n"
        "def bar():\n"
        "    yield lambda done, *_: done == 2 and os.kill(os.getpid(), signal.SIGINT)\n"
        "progress.bar = bar\n"
    )
    for jobs in ("1", "2"):
        found = command.run(
            "optimize",
            "models",
            "--out-dir",
            f"out{jobs}",
            "--no-verify",
            "-j",
            jobs,
            cwd=models,
            program=interrupting,
        )
        assert found.returncode == Exit.INTERRUPTED
        assert found.stdout == ""
        first, second = found.stderr.splitlines()
        assert first == "bnfold: 2 of 4 models are done; --resume goes on from there"
        assert second == "bnfold: interrupted"
        assert not [name for name in made(models / f"out{jobs}") if "tmp" in name]


def test_a_person_sees_how_far_it_is(models: Path) -> None:
    """On a terminal, and on stderr alone."""
    mine, theirs = pty.openpty()
    with subprocess.Popen(
        [*command.BNFOLD, "optimize", "models", "--out-dir", "out", "-j", "1", "--json"],
        cwd=models,
        env=command.environment(TERM="xterm"),
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(mine, 4096):
                shown += data
        except OSError:  # what a terminal says when nobody writes to it any more
            pass
        finally:
            os.close(mine)
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["summary"]["models"] == 4
    assert process.returncode == Exit.MODEL
    assert b"0/4" in shown
    assert b"models/" in shown
