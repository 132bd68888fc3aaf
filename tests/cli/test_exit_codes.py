"""Every exit code, by every way that leads to it; the README's table is checked in test_package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support import command
from support.command import Outcome

from bnfold import job, pipeline
from bnfold.checking import Check
from bnfold.cli import Exit

if TYPE_CHECKING:
    from pathlib import Path

Call = Callable[..., Outcome]
LONG = "x" * 300  # no file system that is known takes more than 255 bytes


def test_done_is_zero(folder: Path) -> None:
    done = command.run("optimize", "model.onnx", cwd=folder)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert "1 folded" in done.stdout
    assert "equivalent" in done.stdout
    assert (folder / "model.folded.onnx").exists()


def test_kept_normalizations_are_no_failure(call: Call) -> None:
    assert call("inspect", "model.onnx").code == Exit.DONE


def test_nothing_to_fold_is_no_failure(folder: Path, call: Call) -> None:
    """And the result is the model, byte for byte."""
    command.save(command.many(2, "kept"), folder / "kept.onnx")
    assert call("optimize", "kept.onnx", "--exclude", "*").code == Exit.DONE
    assert (folder / "kept.folded.onnx").read_bytes() == (folder / "kept.onnx").read_bytes()


def test_different_models_are_one(call: Call) -> None:
    found = call("verify", "model.onnx", "other.onnx")
    assert found.code == Exit.FINDING
    assert found.out.startswith("different: ")


def test_the_same_models_are_zero(call: Call) -> None:
    assert call("verify", "model.onnx", "model.onnx").code == Exit.DONE


def test_a_result_that_differs_is_one_and_not_written(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fold of ours differs, so the verdict is made up."""
    before = sorted(p.name for p in folder.iterdir())
    verdict = pipeline.verify(folder / "model.onnx", folder / "other.onnx")
    assert verdict.status == "different"
    monkeypatch.setattr(Check, "_verdict", lambda *_: verdict)
    found = call("optimize", "model.onnx")
    assert found.code == Exit.FINDING
    assert "written             nothing" in found.out
    assert "different: " in found.out
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fold", "model.onnx"),
        ("optimize",),
        ("optimize", "model.onnx", "--fold-everything"),
        ("optimize", "model.onnx", "--seed", "many"),
        ("optimize", "model.onnx", "--jobs", "0"),
        ("inspect", "model.onnx", "another.onnx"),
        ("verify", "model.onnx"),
    ],
    ids=lambda a: " ".join(a) or "nothing",
)
def test_wrong_arguments_are_two(call: Call, arguments: tuple[str, ...]) -> None:
    found = call(*arguments)
    assert found.code == Exit.USAGE
    assert "Usage: " in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "out.onnx", "--in-place"), "in-place"),
        (("other.onnx",), "2 models: their results need an --out-dir"),
        (("other.onnx", "-o", "out.onnx"), "need an --out-dir"),
        (("--jobs", "2"), "--out-dir"),
        (("--resume",), "--out-dir"),
        (("--out-dir", "out", "-o", "out.onnx"), "leave -o, --in-place and --bench out"),
        (("--out-dir", "out", "--in-place"), "leave -o, --in-place and --bench out"),
        (("--out-dir", "."), "would replace the model model.onnx"),
        (("nowhere/*.onnx", "--out-dir", "out"), "no .onnx file matches"),
        (("--out-dir", "out", "--report", "out/model.onnx"), "suffix, which must be"),
        (("-o", "model.onnx"), "model.onnx is the model itself"),
        (("-o", "nowhere/out.onnx"), "nowhere' does not exist"),
        (("-o", "."), "not a file"),
        (("-o", "-"), "not written to stdout"),
        (("--out-dir", "other.onnx"), "other.onnx is a file"),
        (("--report", "report.txt"), "report.txt"),
        (("--report", "nowhere/report.json"), "nowhere/report.json"),
        (("--no-verify", "--per-fold"), "--per-fold"),
        (("--no-verify", "--keep-going"), "--keep-going"),
        (("--input", "x="), "--input x="),
        (("--input", ""), "--input"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, tuple) else None,
)
def test_contradictions_are_two_and_one_line(
    folder: Path, call: Call, arguments: tuple[str, ...], says: str
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    found = call("optimize", "model.onnx", *arguments)
    assert found.code == Exit.USAGE
    assert says in found.error
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("verb", ["optimize", "inspect", "verify"])
@pytest.mark.parametrize("name", ["missing.onnx", "broken.onnx", ".", ""])
def test_a_model_that_cannot_be_read_is_three(folder: Path, call: Call, verb: str, name: str) -> None:
    """What else can be wrong with a model is tested in conformance/test_bad_input.py."""
    data = (folder / "model.onnx").read_bytes()
    (folder / "broken.onnx").write_bytes(data[: len(data) // 2])
    found = call(verb, name, *(["model.onnx"] if verb == "verify" else []))
    assert found.code == Exit.MODEL
    assert (name or ".") in found.error
    assert sorted(p.name for p in folder.iterdir()) == ["broken.onnx", "model.onnx", "other.onnx"]


def test_the_second_model_of_verify_is_named(folder: Path, call: Call) -> None:
    (folder / "broken.onnx").write_bytes(b"no model")
    assert "broken.onnx" in call("verify", "model.onnx", "broken.onnx").error


def test_a_full_disk_is_four(folder: Path) -> None:
    """A limit on the size of files stands for it: root and everybody else meet it."""
    limited = command.prepared("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))")
    found = command.run("optimize", "model.onnx", "--no-verify", cwd=folder, program=limited)
    assert found.returncode == Exit.FAULT
    assert "no space" in Outcome(4, found.stdout, found.stderr).error
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "other.onnx"]


@pytest.mark.parametrize("verb", ["verify", "bench", "optimize"])
def test_no_space_for_temporary_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, verb: str
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    limited = command.prepared("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))")
    models = ["model.onnx"] if verb == "optimize" else ["model.onnx", "other.onnx"]
    space = {"TMPDIR": str(scratch)}
    found = command.run(
        verb,
        *models,
        "--dry-run" if verb == "optimize" else "--seed=1",
        cwd=folder,
        program=limited,
        env=space,
    )
    assert found.returncode == Exit.FAULT
    said = Outcome(4, found.stdout, found.stderr).error
    assert f"no space is left for temporary files in {scratch}" in said
    assert list(scratch.iterdir()) == []


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """A way to start bnfold without root's power to ignore permissions."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search", *command.BNFOLD)


@pytest.fixture
def locked(folder: Path) -> Path:
    """A folder without write permission, with a model in it."""
    inner = folder / "locked"
    inner.mkdir()
    shutil.copy(folder / "model.onnx", inner)
    inner.chmod(0o555)
    return inner


def test_no_permission_to_write_is_four(folder: Path, locked: Path, unprivileged: tuple[str, ...]) -> None:
    found = command.run("optimize", locked / "model.onnx", cwd=folder, program=unprivileged)
    assert found.returncode == Exit.FAULT
    assert "no permission" in Outcome(4, found.stdout, found.stderr).error


def test_a_model_of_a_locked_folder_can_go_elsewhere(
    folder: Path, locked: Path, unprivileged: tuple[str, ...]
) -> None:
    found = command.run(
        "optimize", locked / "model.onnx", "-o", "out.onnx", "--no-verify", cwd=folder, program=unprivileged
    )
    assert found.returncode == Exit.DONE, found.stderr
    assert (folder / "out.onnx").exists()
    assert [p.name for p in locked.iterdir()] == ["model.onnx"]


def test_no_permission_to_read_is_four(folder: Path, unprivileged: tuple[str, ...]) -> None:
    (folder / "model.onnx").chmod(0)
    found = command.run("inspect", "model.onnx", cwd=folder, program=unprivileged)
    assert found.returncode == Exit.FAULT
    assert "model.onnx may not be read" in Outcome(4, found.stdout, found.stderr).error


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("optimize", LONG), Exit.MODEL),
        (("inspect", LONG), Exit.MODEL),
        (("check", LONG), Exit.FAULT),
        (("optimize", "model.onnx", "-o", LONG), Exit.FAULT),
        (("optimize", "model.onnx", "--report", f"{LONG}.json"), Exit.FAULT),
    ],
    ids=lambda value: " ".join(value).replace(LONG, "LONG") if isinstance(value, tuple) else "",
)
def test_a_name_too_long_for_the_disk_is_no_bug(call: Call, arguments: tuple[str, ...], code: Exit) -> None:
    found = call(*arguments)
    assert found.code == code
    assert "File name too long" in found.error
    assert LONG in found.error
    assert "report it" not in found.error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("optimize", "shut/model.onnx"), "shut/model.onnx may not be read"),
        (("check", "shut/model.onnx"), "shut/model.onnx' cannot be used: Permission denied"),
        (("optimize", "model.onnx", "-o", "shut/out.onnx"), "no permission to write in"),
        (("inspect", "model.onnx", "--report", "shut/r.json"), "shut/r.json"),
        (("inspect", "model.onnx", "--report", "locked/r.json"), "locked/r.json: no permission to write"),
        (("optimize", "model.onnx", "--report", "locked/r.json"), "locked/r.json: no permission to write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("locked")
def test_a_folder_that_is_shut_is_no_bug(
    folder: Path, unprivileged: tuple[str, ...], arguments: tuple[str, ...], says: str
) -> None:
    """Nothing is done before the report is known to have a place."""
    shut = folder / "shut"
    shut.mkdir()
    shutil.copy(folder / "model.onnx", shut)
    shut.chmod(0)
    found = command.run(*arguments, cwd=folder, program=unprivileged)
    shut.chmod(0o755)
    assert found.returncode == Exit.FAULT
    assert says in Outcome(4, found.stdout, found.stderr).error
    assert "report it" not in found.stderr
    assert not (folder / "model.folded.onnx").exists()


@pytest.mark.parametrize(
    ("wanted", "code", "says"),
    [
        (".", Exit.MODEL, "--out-dir"),
        ("*.onnx", Exit.USAGE, "*.onnx: what a pattern finds needs an --out-dir"),
    ],
)
def test_several_models_without_a_folder_for_them(call: Call, wanted: str, code: Exit, says: str) -> None:
    found = call("optimize", wanted)
    assert (found.code, says in found.error) == (code, True), found.error


def test_a_name_with_the_signs_of_a_pattern(folder: Path, call: Call) -> None:
    (folder / "model.onnx").rename(folder / "model[1].onnx")
    assert call("optimize", "model[1].onnx", "--no-verify").code == Exit.DONE
    assert (folder / "model[1].folded.onnx").exists()


def test_a_missing_package_is_four(folder: Path) -> None:
    without = command.prepared("import sys; sys.modules['onnx'] = None")
    found = command.run("inspect", "model.onnx", cwd=folder, program=without)
    assert found.returncode == Exit.FAULT
    assert "onnx" in Outcome(4, found.stdout, found.stderr).error


def test_a_bug_is_four_and_says_so(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("over\n  several lines")

    monkeypatch.setattr(job, "plan_through_calls", bug)
    found = call("inspect", "model.onnx")
    assert found.code == Exit.FAULT
    assert "ZeroDivisionError: over several lines" in found.error
    assert "report it" in found.error


def test_memory_that_runs_out_is_four(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(job, "plan_through_calls", starved)
    found = call("inspect", "model.onnx")
    assert (found.code, found.error) == (Exit.FAULT, "out of memory")


def test_an_ill_conditioned_model_is_five(folder: Path, call: Call) -> None:
    command.save(command.ill_conditioned(), folder / "ill.onnx")
    found = call("optimize", "ill.onnx", "--json")
    assert found.code == Exit.INCONCLUSIVE
    assert json.loads(found.out)["verdict"]["status"] == "inconclusive"
    assert (folder / "ill.folded.onnx").exists()


def test_without_verification_nothing_is_judged(folder: Path, call: Call) -> None:
    command.save(command.ill_conditioned(), folder / "ill.onnx")
    found = call("optimize", "ill.onnx", "--no-verify")
    assert found.code == Exit.DONE
    assert "not verified" in found.out
