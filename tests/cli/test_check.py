"""`bnfold check`: exit codes, the baseline, settings, formats, many models at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from support import command, gate
from support.command import Outcome

from bnfold import pipeline
from bnfold.checking import Check
from bnfold.cli import Exit
from bnfold.report import formats
from bnfold.verification.verdict import Verdict

Call = Callable[..., Outcome]
SCHEMA = Path(__file__).parents[1] / "schemas" / "sarif-2.1.0-rtm.5.json"
PASSING = ("models/clean.onnx", "models/kept.onnx", "models/quantized.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with five models."""
    (tmp_path / ".git").mkdir()
    return gate.repository(tmp_path)


def states(outcome: Outcome) -> dict[str, list[tuple[str, str]]]:
    """The findings of each model of `--format json`: rule and standing."""
    assert outcome.err == ""
    models = json.loads(outcome.out)["models"]
    return {m["model"]: [(f["rule"], f["standing"]) for f in m["findings"]] for m in models}


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- findings -----------------------------------------------------------------------------------------------


def test_five_models(folder: Path, call: Call) -> None:
    before = digest(folder)
    found = call("check", "models", "--format", "json")
    assert found.code == Exit.FINDING
    assert states(found) == {
        "models/broken.onnx": [("BNF002", "fails")],
        "models/clean.onnx": [],
        "models/foldable.onnx": [("BNF001", "fails")] * 3,
        "models/kept.onnx": [("BNF010", "noted")],
        "models/quantized.onnx": [("BNF015", "noted")],
    }
    assert digest(folder) == before


def test_the_table_is_readable(call: Call) -> None:
    found = call("check", "models")
    lines = found.out.splitlines()
    assert lines[-1] == "5 models, 2 failing (invalid 1, foldable 3)"
    assert "FAIL  models/foldable.onnx  3 BatchNormalization, bnfold optimize folds 3" in lines
    assert "ok  models/clean.onnx  no BatchNormalization" in lines
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["ok"] * 3 + ["FAIL"] * 2 + [
        "5"
    ]
    assert any("BNF010  bn" in line for line in lines)


def test_the_table_is_not_endless(folder: Path, call: Call) -> None:
    """And what the baseline knows is counted, not listed."""
    command.save(command.many(100, "folded"), folder / "large.onnx")
    command.save(command.many(100, "kept"), folder / "kept.onnx")
    lines = call("check", "large.onnx", "kept.onnx").out.splitlines()
    assert len(lines) == 2 + 11 + 6 + 1
    assert any("and 90 more" in line for line in lines)
    assert any("and 95 more" in line for line in lines)
    call("check", "large.onnx", "--baseline", "b.json", "--update-baseline")
    known = call("check", "large.onnx", "--baseline", "b.json").out.splitlines()
    assert known == [
        "ok  large.onnx  100 BatchNormalization, bnfold optimize folds 100 (100 known)",
        "1 model, none failing, 100 known to the baseline",
    ]


def test_kept_normalizations_pass(call: Call) -> None:
    assert call("check", *PASSING).code == Exit.DONE


def test_every_normalization_must_be_gone(call: Call) -> None:
    assert call("check", *PASSING, "--require-all").code == Exit.FINDING
    assert call("check", "models/clean.onnx", "--require-all").code == Exit.DONE


@pytest.mark.parametrize(
    ("name", "fail_on", "code"),
    [
        ("foldable", "foldable", 1),
        ("foldable", "invalid,nonfinite", 0),
        ("broken", "invalid", 1),
        ("broken", "foldable", 0),
        ("broken", "none", 0),
    ],
)
def test_what_fails(call: Call, name: str, fail_on: str, code: int) -> None:
    assert call("check", f"models/{name}.onnx", "--fail-on", fail_on).code == code


def test_statistics_that_are_not_finite(folder: Path, call: Call) -> None:
    command.save(gate.nonfinite(), folder / "models" / "nan.onnx")
    assert call("check", "models/nan.onnx").code == Exit.DONE
    found = call("check", "models/nan.onnx", "--fail-on", "nonfinite", "--format", "json")
    assert found.code == Exit.FINDING
    assert ("BNF020", "fails") in states(found)["models/nan.onnx"]


def test_verification_is_run_where_it_is_asked_for(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fold of ours differs, so the verdict is made up."""
    command.save(command.small(), folder / "model.onnx")
    command.save(command.other(), folder / "other.onnx")
    before = digest(folder)
    assert call("check", "model.onnx", "--fail-on", "mismatch").code == Exit.DONE
    verdict = pipeline.verify(folder / "model.onnx", folder / "other.onnx")
    monkeypatch.setattr(Check, "_verdict", lambda *_: verdict)
    found = call("check", "model.onnx", "--fail-on", "mismatch", "--format", "json")
    assert (found.code, states(found)["model.onnx"][0]) == (Exit.FINDING, ("BNF030", "fails"))
    assert call("check", "model.onnx", "--fail-on", "invalid").code == Exit.DONE
    assert digest(folder) == before


def test_what_cannot_be_verified_is_five(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict is none, where one was asked for."""
    command.save(command.small(), folder / "model.onnx")
    verdict = Verdict("not verified", "not verified: the runtime cannot run it", (), (), (), "", 0, 0.0)
    monkeypatch.setattr(Check, "_verdict", lambda *_: verdict)
    found = call("check", "model.onnx", "--fail-on", "mismatch", "--format", "json")
    assert (found.code, ("BNF031", "noted") in states(found)["model.onnx"]) == (Exit.INCONCLUSIVE, True)
    assert call("check", "model.onnx", "--fail-on", "invalid").code == Exit.DONE


def test_speed_is_measured_where_it_is_asked_for(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times are made up; that they are measured is another test's business."""
    calls = []

    def measured(a: Path, b: bytes, **how: object) -> object:
        calls.append((a.name, len(b), how))
        found = next(verdicts)
        ratio = SimpleNamespace(value=0.8, low=0.75, high=0.85)
        comparison = SimpleNamespace(finding=found, speedup=ratio)
        timing = SimpleNamespace(work="batch 1", comparison=comparison)
        return SimpleNamespace(levels=[SimpleNamespace(level="enable_all", steady=[timing])])

    monkeypatch.setattr(pipeline, "benchmark", measured)
    command.save(command.small(), folder / "model.onnx")
    run = ("check", "model.onnx", "models/kept.onnx", "--fail-on", "slower", "-j", "2", "--format", "json")
    verdicts = iter(["slower", "too noisy", "faster"])
    found = call(*run)
    assert (found.code, states(found)["model.onnx"][0]) == (Exit.FINDING, ("BNF032", "fails"))
    assert "speedup 0.80, 95 % interval 0.75 to 0.85" in found.out
    assert call(*run).code == Exit.DONE
    assert call(*run).code == Exit.DONE
    assert [name for name, *_ in calls] == ["model.onnx"] * 3, "nothing is folded in the other"
    assert all(how["levels"] == ["enable_all"] for *_, how in calls)
    assert call("check", "model.onnx", "--fail-on", "invalid").code == Exit.DONE


@pytest.mark.slow
def test_speed_is_measured(folder: Path, call: Call) -> None:
    """Whatever comes of it, it is a finding or none."""
    command.save(command.small(), folder / "model.onnx")
    assert call("check", "model.onnx", "--fail-on", "slower").code in {Exit.DONE, Exit.FINDING}


def test_no_verdict_is_five(folder: Path, call: Call) -> None:
    command.save(command.ill_conditioned(), folder / "ill.onnx")
    assert call("check", "ill.onnx", "--fail-on", "mismatch").code == Exit.INCONCLUSIVE
    known = ("--baseline", "b.json")
    assert call("check", "ill.onnx", "--fail-on", "mismatch", *known, "--update-baseline").code == Exit.DONE
    assert call("check", "ill.onnx", "--fail-on", "mismatch", *known).code == Exit.DONE


def test_a_tool_that_breaks_is_no_bad_model(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others get their turn, and what was found is said."""
    real = pipeline.inspect

    def bug(model: Path, **options: object) -> object:
        if model.name == "clean.onnx":
            raise ZeroDivisionError("over\n  several lines")
        return real(model, **options)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(pipeline, "inspect", bug)
    found = call("check", "models", "--format", "json")
    assert found.code == Exit.FAULT
    data = json.loads(found.out)
    (broken,) = (model for model in data["models"] if model["fault"])
    assert broken["model"] == "models/clean.onnx"
    assert "ZeroDivisionError: over several lines" in broken["fault"]
    assert data["summary"]["failing_findings"] == 4
    starved = call("check", "models/clean.onnx")
    assert starved.out.startswith("error  models/clean.onnx  internal error")


def test_messages_do_not_say_where_the_repository_lies(folder: Path, call: Call) -> None:
    assert str(folder) not in call("check", "models").out


# --- usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to check"),
        (("none.onnx",), "none.onnx: no such file or folder"),
        (("models", "none/*.onnx"), "none/*.onnx: no .onnx file matches"),
        ((".git",), ".git: no .onnx file in this folder"),
        (("models", "--fail-on", "fold"), "--fail-on fold: no such finding"),
        (("models", "--baseline", "none.json"), "there is no baseline none.json"),
        (("models", "--update-baseline"), "--baseline FILE"),
        (("models", "--baseline", "no/b.json", "--update-baseline"), "no such folder"),
        (("models", "--baseline", "models/clean.onnx", "--update-baseline"), "is no baseline"),
        (("models", "--report", "r.txt"), ".json, .md, .sarif, .xml"),
        (("models", "--report", "no/r.json"), "no/r.json"),
        (("models", "--report", "r.json", "--baseline", "r.json", "--update-baseline"), "name of its own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage(folder: Path, call: Call, arguments: tuple[str, ...], says: str) -> None:
    before = digest(folder)
    found = call("check", *arguments)
    assert found.code == Exit.USAGE
    assert says in found.error
    assert digest(folder) == before


@pytest.mark.parametrize("several", [False, True])
def test_formats_that_only_another_command_has(
    call: Call, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """Each has a table of its own; a suffix that one lacks is found out before any work."""
    monkeypatch.setitem(formats.REPORTS, ".odd", lambda _report: "")
    verb = ("optimize", "models", "--out-dir", "out") if several else ("check", "models")
    found = call(*verb, "--report", "r.odd")
    assert (found.code, "r.odd" in found.error) == (Exit.USAGE, True)


def test_a_report_never_goes_over_a_model(folder: Path, call: Call) -> None:
    (folder / "models" / "clean.onnx").rename(folder / "clean.json")
    found = call("check", "clean.json", "models", "--report", "clean.json")
    assert found.code == Exit.USAGE
    assert "name of its own" in found.error


# --- the baseline -------------------------------------------------------------------------------------------


def test_a_second_run_with_a_baseline_passes(folder: Path, call: Call) -> None:
    with_it = ("check", "models", "--baseline", "b.json", "--format", "json")
    assert call(*with_it, "--update-baseline").code == Exit.DONE
    second = call(*with_it)
    assert second.code == Exit.DONE
    assert states(second)["models/foldable.onnx"] == [("BNF001", "known")] * 3
    before = (folder / "b.json").read_bytes()
    assert call(*with_it, "--update-baseline").code == Exit.DONE
    assert (folder / "b.json").read_bytes() == before


def test_what_is_new_fails_and_what_is_gone_is_said(folder: Path, call: Call) -> None:
    with_it = ("check", "models", "--baseline", "b.json")
    call(*with_it, "--update-baseline")
    command.save(command.many(4, "folded"), folder / "models" / "foldable.onnx")
    command.save(gate.clean(), folder / "models" / "broken.onnx")
    found = call(*with_it)
    assert found.code == Exit.FINDING
    assert "FAIL  models/foldable.onnx  4 BatchNormalization, bnfold optimize folds 4 (3 known)" in found.out
    assert "models/broken.onnx: BNF002" in found.out
    assert call(*with_it, "--update-baseline").code == Exit.DONE
    assert "broken" not in (folder / "b.json").read_text()
    (folder / "models" / "foldable.onnx").unlink()
    gone = json.loads(call(*with_it, "--format", "json").out)["gone"]
    assert [(each["model"], each["node"]) for each in gone] == [
        ("models/foldable.onnx", f"/block.{index}/BatchNormalization") for index in range(4)
    ]


def test_a_part_of_the_models_is_no_reason_to_forget_the_others(folder: Path, call: Call) -> None:
    """pre-commit gives the models that were changed."""
    call("check", "models", "--baseline", "b.json", "--update-baseline")
    before = (folder / "b.json").read_bytes()
    assert call("check", "models/clean.onnx", "--baseline", "b.json").out.splitlines()[-1] == (
        "1 model, none failing"
    )
    assert call("check", "models/clean.onnx", "--baseline", "b.json", "--update-baseline").code == Exit.DONE
    assert (folder / "b.json").read_bytes() == before


def test_a_baseline_means_the_same_from_everywhere(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("check", "models", "--baseline", "b.json", "--update-baseline")
    monkeypatch.chdir(folder / "models")
    assert call("check", ".", "--baseline", "../b.json").code == Exit.DONE
    moved = folder.rename(folder.with_name("moved"))
    monkeypatch.chdir(moved)
    assert call("check", "models", "--baseline", moved / "b.json").code == Exit.DONE


# --- settings -----------------------------------------------------------------------------------------------


def test_settings(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "pyproject.toml").write_text(
        "[tool.bnfold]\nmodels = ['models']\nbaseline = 'b.json'\nexclude-models = ['*/broken.*']\n"
        "exclude = ['/block.0/*']\n"
    )
    assert call("check", "--update-baseline").code == Exit.DONE
    monkeypatch.chdir(folder / "models")
    found = call("check", "--format", "json")
    assert found.code == Exit.DONE
    assert json.loads(found.out)["summary"]["excluded"] == 1
    assert states(found)["models/foldable.onnx"] == [
        ("BNF001", "known"),
        ("BNF001", "known"),
        ("BNF024", "noted"),
    ]


def test_the_command_line_goes_over_the_file(folder: Path, call: Call) -> None:
    (folder / "bnfold.toml").write_text(
        "fail-on = ['invalid']\nrequire-all = true\nexclude-models = ['*']\nexclude = ['*']\n"
    )
    assert call("check", "models").out.splitlines()[-1] == "0 models, none failing, 5 excluded"
    loose = ("--no-require-all", "--exclude-models", "nothing")
    assert call("check", "models/foldable.onnx", *loose).code == Exit.DONE
    assert call("check", "models/foldable.onnx", *loose, "--fail-on", "foldable").code == Exit.DONE
    strict = (*loose, "--exclude", "nothing", "--fail-on", "foldable")
    assert call("check", "models/foldable.onnx", *strict).code == Exit.FINDING
    assert call("check", "models/kept.onnx", "--exclude-models", "nothing").code == Exit.FINDING


@pytest.mark.parametrize("verb", ["check", "inspect", "optimize"])
def test_settings_that_make_no_sense(folder: Path, call: Call, verb: str) -> None:
    (folder / "bnfold.toml").write_text("fail_on = []")
    found = call(verb, "models/clean.onnx")
    assert found.code == Exit.USAGE
    assert found.error.endswith("bnfold.toml: unknown key 'fail_on'; did you mean 'fail-on'?")


def test_settings_hold_for_the_other_commands(folder: Path, call: Call) -> None:
    """What the gate lets stay, `optimize` leaves."""
    (folder / "bnfold.toml").write_text("exclude = ['/block.1/*']")
    inspected = call("inspect", "models/foldable.onnx", "--json")
    assert json.loads(inspected.out)["summary"] | {"status": 0} == {
        "found": 3,
        "folded": 2,
        "kept": 1,
        "kept_by_code": {"BNF024": 1},
        "status": 0,
    }
    assert "2 folded" in call("optimize", "models/foldable.onnx", "--dry-run", "--no-verify").out
    assert (
        "3 folded"
        in call("optimize", "models/foldable.onnx", "--dry-run", "--no-verify", "--exclude", "x").out
    )


@pytest.fixture
def fed(folder: Path) -> Path:
    """A model that is fed one file, and settings that say so."""
    (folder / "data").mkdir()
    command.save(command.small(), folder / "model.onnx")
    np.save(folder / "data" / "x.npy", np.ones((2, 3, 6, 6), np.float32))
    (folder / "bnfold.toml").write_text("[feeds]\n'*/model.onnx' = ['no']\n'model.onnx' = ['x=data/x.npy']\n")
    return folder


def feeds(outcome: Outcome) -> set[str]:
    data = json.loads(outcome.out)
    return set(data.get("verdict", data)["feeds"])


def test_models_are_fed_as_the_settings_say(fed: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    (fed / "sub").mkdir()
    monkeypatch.chdir(fed / "sub")
    assert feeds(call("verify", "../model.onnx", "../model.onnx", "--json")) == {"x.npy"}
    assert feeds(call("optimize", "../model.onnx", "--dry-run", "--json")) == {"x.npy"}
    assert "x.npy" not in feeds(
        call("optimize", "../model.onnx", "--dry-run", "--json", "--input", "x=1x3x6x6")
    )
    assert call("check", "../model.onnx", "--fail-on", "mismatch").code == Exit.DONE


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_feeds_that_do_not_fit_are_two(fed: Path, call: Call, jobs: str) -> None:
    """It is the settings that are wrong, neither the model nor the machine."""
    np.save(fed / "data" / "x.npy", np.ones((2, 3, 6, 6), np.float64))
    found = call("check", "model.onnx", "models/clean.onnx", "--fail-on", "mismatch", "-j", jobs)
    assert found.code == Exit.USAGE
    assert found.error.startswith("model.onnx: x.npy: input 'x' is float64")
    assert call("check", "model.onnx", "--fail-on", "invalid").code == Exit.DONE


def test_a_provider_that_does_not_start_is_four(fed: Path, call: Call) -> None:
    (fed / "bnfold.toml").write_text("provider = 'tensorrt'")
    found = call("check", "model.onnx", "--fail-on", "mismatch")
    assert (found.code, "error  model.onnx" in found.out) == (Exit.FAULT, True)
    assert call("check", "model.onnx", "--fail-on", "mismatch", "--provider", "cpu").code == Exit.DONE


# --- formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix"), [("json", ".json"), ("sarif", ".sarif"), ("junit", ".xml"), ("markdown", ".md")]
)
def test_a_report_is_what_is_printed(folder: Path, call: Call, name: str, suffix: str) -> None:
    found = call("check", "models", "--format", name, "--report", f"r{suffix}")
    assert found.code == Exit.FINDING
    assert (folder / f"r{suffix}").read_text(encoding="utf-8") == found.out


def test_sarif_of_real_models(call: Call) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft4Validator(schema).validate(json.loads(call("check", "models", "--format", "sarif").out))


def test_github(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = folder / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found = call("check", "models", "--format", "github")
    assert found.code == Exit.FINDING
    assert [line.split(",")[0] for line in found.out.splitlines() if line.startswith("::error")] == [
        "::error file=models/broken.onnx",
        "::error file=models/foldable.onnx",
    ]
    assert "5 models, 2 failing (invalid 1, foldable 3)" in found.out
    assert summary.read_text().startswith("before\n### bnfold: failed\n\n5 models, 2 failing")
    call("check", "models/clean.onnx")
    assert summary.read_text().count("### bnfold") == 1


def test_a_summary_that_cannot_be_written(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder))
    found = call("check", "models/clean.onnx", "--format", "github")
    assert (found.code, "step summary" in found.err) == (Exit.FAULT, True)


def test_names_of_files_that_are_no_text(folder: Path, call: Call) -> None:
    name = os.fsdecode(b"models/\xff.onnx")
    command.save(command.many(1, "folded"), folder / name)
    for form in ("table", "json", "github", "sarif", "junit", "markdown"):
        assert call("check", "models", "--format", form, "--fail-on", "foldable").code == Exit.FINDING
    assert call("check", "models", "--baseline", "b.json", "--update-baseline").code == Exit.DONE
    assert call("check", "models", "--baseline", "b.json").code == Exit.DONE


# --- many models --------------------------------------------------------------------------------------------


def test_the_same_bytes_whatever_the_circumstances(folder: Path) -> None:
    """Hash randomization, locale, current folder, the order of arguments, how many at a time."""
    backwards = sorted((path.name for path in (folder / "models").iterdir()), reverse=True)
    ways: list[tuple[list[str], Path, dict[str, str]]] = [
        (["models"], folder, {"PYTHONHASHSEED": "1"}),
        (["models", "-j", "2"], folder, {"PYTHONHASHSEED": "2", "LC_ALL": "C"}),
        (backwards, folder / "models", {"LC_ALL": "C.UTF-8", "TZ": "Asia/Tokyo", "COLUMNS": "30"}),
    ]
    reports = [folder / name for name in ("r.json", "r.sarif", "r.xml", "r.md")]
    wanted = [text for report in reports for text in ("--report", str(report))]
    made = set()
    for arguments, cwd, env in ways:
        found = command.run("check", *arguments, "--format", "github", *wanted, cwd=cwd, env=env)
        made.add((found.stdout, *(report.read_bytes() for report in reports)))
    assert len(made) == 1
    assert all(made.pop())


def test_a_process_that_dies_is_told_from_the_others(folder: Path) -> None:
    (folder / "hook.py").write_text(
        "import os, bnfold.gate.examine as examine, bnfold.gate.fleet as fleet\n"
        "real = examine.examine\n"
        "def deadly(target, questions):\n"
        "    if target.path.name == 'kept.onnx': os._exit(9)\n"
        "    return real(target, questions)\n"
        "fleet.examine = deadly\n"
    )
    (folder / "sitecustomize.py").write_text("import hook\n")
    found = command.run(
        "check",
        "models",
        "-j",
        "2",
        "--format",
        "json",
        cwd=folder,
        env={"PYTHONPATH": f"{folder}{os.pathsep}{command.environment()['PYTHONPATH']}"},
    )
    assert found.returncode == Exit.FAULT, found.stderr
    models = {m["model"]: m for m in json.loads(found.stdout)["models"]}
    assert {name for name, model in models.items() if model["fault"]} == {"models/kept.onnx"}
    assert "died, twice" in models["models/kept.onnx"]["fault"]
    assert len(models["models/foldable.onnx"]["findings"]) == 3


def onnxruntime_runs_in(scratch: Path) -> bool:
    """Whether a process was given a folder below this one."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            if str(scratch).encode() in process.read_bytes():
                return True
    return False


def gone(group: int) -> bool:
    """Whether all processes of a group end; those that only watch their parent take a moment."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize(
    ("number", "ending"),
    [
        (signal.SIGINT, (Exit.INTERRUPTED, "", "bnfold: interrupted\n")),
        (signal.SIGTERM, (Exit.TERMINATED, "", "bnfold: ended from outside\n")),
        (signal.SIGHUP, (Exit.TERMINATED, "", "bnfold: ended from outside\n")),
    ],
)
@pytest.mark.parametrize("how", [("one", 1), ("one", 2), ("all", 1), ("all", 2)])
def test_ctrl_c(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    how: tuple[str, int],
    number: signal.Signals,
    ending: tuple[int, str, str],
) -> None:
    """One line and its exit code, whether a terminal tells all processes or a program only the first."""
    whom, jobs = how
    command.save(command.many(400, "folded"), folder / "models" / "large.onnx")
    scratch = tmp_path_factory.mktemp("scratch")
    process = subprocess.Popen(
        [*command.BNFOLD, "check", "models", "-j", str(jobs), "--fail-on", "mismatch", "--report", "r.json"],
        cwd=folder,
        env=command.environment(TMPDIR=str(scratch)),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        end = time.monotonic() + 60
        while not onnxruntime_runs_in(scratch):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.01)
        if whom == "all":
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == ending
    assert not (folder / "r.json").exists()
    assert [p.name for p in scratch.iterdir() if p.name != ".ses"] == []
    assert gone(process.pid), "a process is left"


def test_ctrl_c_at_any_moment(folder: Path) -> None:
    """While processes start, too."""
    for delay in (0.3, 0.6, 0.9):
        process = subprocess.Popen(
            [*command.BNFOLD, "check", "models", "-j", "2"],
            cwd=folder,
            env=command.environment(),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            time.sleep(delay)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode in {Exit.INTERRUPTED, Exit.FINDING, -signal.SIGINT}
        if process.returncode == Exit.INTERRUPTED:
            assert err == "bnfold: interrupted\n"


def test_a_reader_that_went_away_changes_nothing(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = command.run("check", "models", "--format", "json", cwd=folder, stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (Exit.FINDING, "")
