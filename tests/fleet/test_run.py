"""`optimize_many` by every sort of executor: the same outcomes, and none is lost."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from support import command
from support.claims import batch_norms

import bnfold
from bnfold import job
from bnfold.errors import EnvironmentFault, ModelError, UsageError
from bnfold.fleet.outcome import Outcome, worst

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

LEDGER = ".bnfold-resume.json"
NAMES = ["a.onnx", "broken.onnx", "external.onnx", "kept.onnx", "sub/a.onnx"]


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != LEDGER
    }


def alone(name: str) -> dict[str, bytes]:
    """The files that `optimize` makes of one model."""
    folder = Path("alone") / name
    folder.mkdir(parents=True)
    bnfold.optimize(f"models/{name}", output=folder / Path(name).name, verify=False)
    return {f"{Path(name).parent / file}": data for file, data in files(folder).items()}


def executors() -> dict[str, AbstractContextManager[Executor | None]]:
    return {
        "own processes": nullcontext(),
        "threads": ThreadPoolExecutor(3),
        "processes": ProcessPoolExecutor(2, mp_context=get_context("spawn")),
    }


@pytest.mark.parametrize("kind", ["own processes", "threads", "processes", "one at a time"])
def test_every_model_has_its_outcome(fleet: Path, kind: str) -> None:
    before = files(fleet / "models")
    told: list[Outcome] = []
    arguments: dict[str, Any] = {"verify": False, "progress": told.append}
    if kind == "one at a time":
        outcomes = bnfold.optimize_many(["models"], out_dir="out", jobs=1, **arguments)
    else:
        with executors()[kind] as executor:
            outcomes = bnfold.optimize_many(["models"], out_dir="out", executor=executor, **arguments)
    assert [o.source for o in outcomes] == [f"models/{name}" for name in NAMES]
    assert [o.output for o in outcomes] == [f"out/{name}" for name in NAMES]
    assert sorted(told, key=lambda o: o.source) == list(outcomes)
    error = outcomes[1].error
    assert isinstance(error, ModelError)
    assert "models/broken.onnx" in str(error)
    assert outcomes[1].result is None
    results = [o.result for o in outcomes if o.result is not None]
    assert [len(r.folds) for r in results] == [1, 1, 0, 1]
    assert [r.report.output for r in results] == [f"out/{name}" for name in NAMES if name != "broken.onnx"]
    expected = alone("a.onnx") | alone("external.onnx") | alone("kept.onnx") | alone("sub/a.onnx")
    assert files(fleet / "out") == expected
    assert files(fleet / "models") == before
    assert [o.exit_code for o in outcomes] == [0, 3, 0, 0, 0]
    assert pickle.loads(pickle.dumps(outcomes[0])) == outcomes[0]  # noqa: S301  # bytes of our own


def test_it_verifies_by_default(fleet: Path) -> None:
    command.save(command.ill_conditioned(), fleet / "models" / "ill.onnx")
    outcomes = bnfold.optimize_many(["models/a.onnx", "models/ill.onnx"], out_dir="out", jobs=2)
    assert [o.result.verdict.status for o in outcomes if o.result and o.result.verdict] == [
        "equivalent",
        "inconclusive",
    ]
    assert [o.exit_code for o in outcomes] == [0, 5]


def test_a_dry_run_writes_nothing_and_sends_no_model(fleet: Path) -> None:
    outcomes = bnfold.optimize_many(["models"], out_dir="out", verify=False, dry_run=True, jobs=1)
    assert not (fleet / "out").exists()
    assert all(o.result.content is None and o.result.report.output is None for o in outcomes if o.result)


@pytest.mark.usefixtures("fleet")
def test_options_reach_every_model() -> None:
    outcomes = bnfold.optimize_many(["models"], out_dir="out", verify=False, exclude=["b*"], jobs=1)
    assert [len(o.result.folds) for o in outcomes if o.result] == [0, 0, 0, 1]
    plain = bnfold.optimize_many(["models/a.onnx"], out_dir="plain", verify=False, provenance=False)
    assert plain[0].error is None
    assert len(onnx.load("plain/a.onnx").metadata_props) == 0


def test_contradictions_come_before_any_work(fleet: Path) -> None:
    with pytest.raises(UsageError, match=r"s3://\*\*\*b/out: it must be on this machine"):
        bnfold.optimize_many(["models"], out_dir="s3://me:secret@b/out")
    with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match="jobs"):
        bnfold.optimize_many(["models"], out_dir="out", executor=executor, jobs=2)
    with pytest.raises(UsageError, match="jobs=0"):
        bnfold.optimize_many(["models"], out_dir="out", jobs=0)
    with pytest.raises(UsageError, match="both go there"):
        bnfold.optimize_many(["models/a.onnx", "models/sub/a.onnx"], out_dir="out")
    assert not (fleet / "out").exists()


@pytest.mark.usefixtures("fleet")
def test_a_bug_with_one_model_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = vars(job)["plan_through_calls"]

    def bug(model: Any, options: Any) -> Any:  # noqa: ANN401  # whatever the real one takes
        if str(model.path).endswith("kept.onnx"):
            raise ZeroDivisionError("over\n several lines")
        if str(model.path).endswith("external.onnx"):
            raise MemoryError
        return plan(model, options)

    monkeypatch.setattr(job, "plan_through_calls", bug)
    outcomes = bnfold.optimize_many(["models"], out_dir="out", verify=False, jobs=1)
    said = {Path(o.source).name: str(o.error) for o in outcomes if o.error}
    assert set(said) == {"broken.onnx", "external.onnx", "kept.onnx"}
    assert "ZeroDivisionError: over several lines" in said["kept.onnx"]
    assert "out of memory" in said["external.onnx"]
    assert worst(outcomes) == 4


def test_the_gravest_counts() -> None:
    def of(error: bnfold.errors.BnfoldError | None) -> Outcome:
        return Outcome("a", "b", error=error)

    fine, invalid, fault = of(None), of(ModelError("m")), of(EnvironmentFault("e"))
    assert worst([]) == 0
    assert worst([fine, fine]) == 0
    assert worst([fine, invalid, fine]) == 3
    assert worst([invalid, fault]) == 4


# --- resume -------------------------------------------------------------------------------------------------


DONE = [name for name in NAMES if name != "broken.onnx"]


def resumed(outcomes: Sequence[Outcome]) -> list[str]:
    return [o.source.removeprefix("models/") for o in outcomes if o.resumed]


def again(**options: Any) -> list[str]:  # noqa: ANN401  # of optimize_many
    return resumed(
        bnfold.optimize_many(["models"], out_dir="out", jobs=1, resume=True, **{"verify": False, **options})
    )


def test_resume_leaves_what_is_done(fleet: Path) -> None:
    assert again() == []
    done = {name: (fleet / "out" / name).stat().st_mtime_ns for name in ("a.onnx", "sub/a.onnx")}
    before = files(fleet / "out")
    assert again() == DONE
    assert {name: (fleet / "out" / name).stat().st_mtime_ns for name in done} == done
    assert files(fleet / "out") == before


@pytest.mark.usefixtures("fleet")
def test_without_resume_everything_is_done_again() -> None:
    again()
    assert resumed(bnfold.optimize_many(["models"], out_dir="out", verify=False, jobs=1)) == []


def test_resume_goes_by_content(fleet: Path) -> None:
    again()
    os.utime(fleet / "models" / "a.onnx", (0, 0))
    assert again() == DONE
    command.save(command.other(), fleet / "models" / "a.onnx")
    assert again() == DONE[1:]
    assert again() == DONE


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    "option", [{"merge": False}, {"freeze": True}, {"exclude": ["head"]}, {"include": ["*"]}], ids=str
)
def test_resume_minds_the_options(option: dict[str, Any]) -> None:
    again()
    assert again(**option) == []
    assert again(**option) == DONE


@pytest.mark.usefixtures("fleet")
def test_resume_minds_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    again()
    monkeypatch.setattr("bnfold.version.__version__", "9.9.9")
    assert again() == []


@pytest.mark.parametrize("how", ["missing", "cut off", "another", "folder's own copy"])
def test_resume_minds_the_result(fleet: Path, how: str) -> None:
    again()
    result = fleet / "out" / "a.onnx"
    expected = result.read_bytes()
    if how == "missing":
        result.unlink()
    elif how == "cut off":
        result.write_bytes(expected[:-100])
    else:
        result.write_bytes((fleet / "models" / ("sub/a.onnx" if how == "another" else "a.onnx")).read_bytes())
    assert again() == DONE[1:]
    assert result.read_bytes() == expected


def test_resume_after_the_external_data_changed(fleet: Path) -> None:
    """The digest of the model file does not tell."""
    again()
    old = files(fleet / "out")
    weights = bytearray((fleet / "models" / "weights").read_bytes())
    weights[0:4] = b"\0\0\x80\x3f"
    (fleet / "models" / "weights").write_bytes(weights)
    assert "external.onnx" not in again()
    assert files(fleet / "out") != old
    data = next(p for p in (fleet / "out").iterdir() if p.name.endswith(".data"))
    data.write_bytes(bytes(data.stat().st_size))
    assert "external.onnx" not in again()
    assert "external.onnx" in again()


@pytest.mark.usefixtures("fleet")
def test_resume_minds_how_a_result_was_judged() -> None:
    again()
    assert again(verify=True) == []
    assert again(verify=True) == DONE
    assert again(verify=False) == DONE


def test_what_is_inconclusive_is_judged_again(fleet: Path) -> None:
    command.save(command.ill_conditioned(), fleet / "models" / "ill.onnx")
    arguments: dict[str, Any] = {"out_dir": "out", "jobs": 1, "resume": True}
    for _ in range(2):
        (outcome,) = bnfold.optimize_many(["models/ill.onnx"], **arguments)
        assert (outcome.resumed, outcome.exit_code) == (False, 5)
    (outcome,) = bnfold.optimize_many(["models/ill.onnx"], verify=False, **arguments)
    assert outcome.resumed


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[]", b"null", b'{"schema": "bnfold.resume/1", "results": [1]}', b"\xff"],
    ids=str,
)
def test_without_a_ledger_everything_is_done_again(fleet: Path, content: bytes | None) -> None:
    again()
    ledger = fleet / "out" / LEDGER
    ledger.unlink() if content is None else ledger.write_bytes(content)
    assert again() == []
    assert again() == DONE
    assert [p.name for p in (fleet / "out").iterdir() if "resume" in p.name] == [LEDGER]


@pytest.mark.usefixtures("fleet")
def test_a_dry_run_remembers_nothing() -> None:
    again()
    again(dry_run=True, exclude=["*"])
    assert again() == DONE


@pytest.mark.usefixtures("fleet")
def test_results_without_provenance_are_resumed() -> None:
    again(provenance=False)
    assert again() == []
    assert again(provenance=False) == []
    assert again(provenance=False) == DONE


# --- processes that die -------------------------------------------------------------------------------------

DEADLY = """
import os, signal, sys
from pathlib import Path
import bnfold
from bnfold import pipeline

# Models that let the process die, as often as there are bytes in a file of their name.
def deadly(source, **options):
    fuse = Path("fuses", Path(source).stem)
    if fuse.exists() and (left := fuse.read_bytes()):
        fuse.write_bytes(left[1:])
        os.kill(os.getpid(), signal.SIGKILL if b"k" in left else signal.SIGTERM)
        import time; time.sleep(60)
    return real(source, **options)

real, pipeline.optimize = pipeline.optimize, deadly

if __name__ == "__main__":
    outcomes = bnfold.optimize_many(["many"], out_dir="out", jobs=2, verify=False)
    for outcome in outcomes:
        print(outcome.source, outcome.exit_code, "" if outcome.error is None else outcome.error)
"""


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("many", "fuses"):
        (tmp_path / name).mkdir()
    for index in range(8):
        command.save(command.folding(f"bn{index}").model(), tmp_path / "many" / f"{index}.onnx")
    (tmp_path / "deadly.py").write_text(DEADLY)
    return tmp_path


def run_deadly(folder: Path) -> list[list[str]]:
    found = command.run(cwd=folder, program=(sys.executable, "deadly.py"))
    assert (found.returncode, found.stderr) == (0, "")
    return [line.split(maxsplit=2) for line in found.stdout.splitlines()]


def all_there(folder: Path, *, without: str = "") -> bool:
    """Whether the results of all models are there, and nothing else."""
    assert sorted(p.name for p in (folder / "out").iterdir() if not p.name.startswith(".")) == [
        f"{index}.onnx" for index in range(8) if str(index) != without
    ]
    return all(
        [n.name for n in batch_norms(onnx.load(str(p)))] == ["head"] for p in (folder / "out").glob("*.onnx")
    )


@pytest.mark.parametrize("fuse", [b"k", b"t"], ids=["killed", "told to stop"])
def test_a_process_that_dies_loses_no_model(eight: Path, fuse: bytes) -> None:
    (eight / "fuses" / "3").write_bytes(fuse)
    assert [row[:2] for row in run_deadly(eight)] == [[f"many/{i}.onnx", "0"] for i in range(8)]
    assert (eight / "fuses" / "3").read_bytes() == b""
    assert all_there(eight)


def test_a_model_that_lets_every_process_die_is_found_out(eight: Path) -> None:
    (eight / "fuses" / "3").write_bytes(b"k" * 10)
    rows = run_deadly(eight)
    assert [row[1] for row in rows] == ["0", "0", "0", "4", "0", "0", "0", "0"]
    assert "died, twice" in rows[3][2]
    assert (eight / "fuses" / "3").read_bytes() == b"k" * 8
    assert all_there(eight, without="3")


@pytest.mark.usefixtures("eight")
def test_a_foreign_pool_that_breaks_is_an_error_of_each_model() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(os._exit, 1)
        assert future.exception() is not None
        outcomes = bnfold.optimize_many(["many"], out_dir="out", executor=pool, verify=False)
    assert len(outcomes) == 8
    assert all(isinstance(o.error, EnvironmentFault) and "resume" in str(o.error) for o in outcomes)


def test_a_script_without_a_guard_is_told(eight: Path) -> None:
    (eight / "script.py").write_text("import bnfold\nbnfold.optimize_many(['many'], out_dir='out', jobs=2)\n")
    found = command.run(cwd=eight, program=(sys.executable, "script.py"))
    assert found.returncode == 1
    assert "__name__ == '__main__'" in found.stderr.splitlines()[-1]


# --- interrupts ---------------------------------------------------------------------------------------------

SLOW = """
import os, sys, time
from pathlib import Path
import bnfold
from bnfold.model import write

def slow(descriptor):
    Path(f"writing-{os.getpid()}").touch()
    time.sleep(120)

if __name__ == "__main__":
    bnfold.optimize_many(["many"], out_dir="out", jobs=2, verify=False)
elif Path("slow").exists():
    write.os.fsync = slow
"""


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def eventually(condition: Any, seconds: float = 60) -> None:  # noqa: ANN401  # a function without arguments
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_goes_on_after_the_end(eight: Path, how: signal.Signals) -> None:
    """Both processes are writing when theirs is interrupted or killed: they stop, and tidy up."""
    (eight / "slow").touch()
    (eight / "script.py").write_text(SLOW)
    with command.start(cwd=eight, program=(sys.executable, "script.py")) as process:
        eventually(lambda: len(list(eight.glob("writing-*"))) == 2)
        workers = children_of(process.pid)
        assert len(workers) >= 2
        process.send_signal(how)
        process.communicate(timeout=60)
    assert process.returncode != 0
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert list((eight / "out").iterdir()) == []


def test_what_is_done_stays(eight: Path) -> None:
    code = (
        "import bnfold\n"
        "def stop(outcome): raise KeyboardInterrupt\n"
        "bnfold.optimize_many(['many'], out_dir='out', jobs=1, verify=False, progress=stop)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=eight, env=command.environment(), capture_output=True, check=False
    )
    assert found.returncode != 0
    assert sorted(p.name for p in (eight / "out").iterdir()) == [LEDGER, "0.onnx"]
    outcomes = bnfold.optimize_many(["many"], out_dir="out", jobs=1, verify=False, resume=True)
    assert [o.source for o in outcomes if o.resumed] == ["many/0.onnx"]
    assert all_there(eight)
