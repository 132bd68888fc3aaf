"""The onnxruntime process: what it returns, and all the ways in which it can die."""

# ruff: noqa: ANN401 - dtypes and array-likes

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bnfold.errors import UsageError
from bnfold.verification import sessions
from bnfold.verification.sessions import Failure, Ran, Run, run_model


def save(
    path: Path, nodes: list[onnx.NodeProto], kind: int = TensorProto.FLOAT, out: int | None = None
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_tensor_value_info("y", kind if out is None else out, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def double(tmp_path: Path) -> Path:
    return save(tmp_path / "double.onnx", [helper.make_node("Add", ["x", "x"], ["y"])])


def runs(*feeds: Any, group: str = "") -> list[Run]:
    return [
        Run(level, str(index), {"x": np.asarray(feed)}, group)
        for level in ("disable_all", "enable_all")
        for index, feed in enumerate(feeds)
    ]


def use_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Let a script of the test's own stand in for onnxruntime."""
    script = tmp_path / "stand_in.py"
    head = """
        import json, os, signal, sys, time
        from pathlib import Path
        folder = Path(sys.argv[1]); events = open(folder / "events.jsonl", "a", buffering=1)
        job = json.loads((folder / "job.json").read_text())
        def report(**event): events.write(json.dumps(event) + "\\n")
    """
    script.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    monkeypatch.setattr(sessions, "_WORKER", script)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_outputs_come_back_bit_for_bit(tmp_path: Path, dtype: Any) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], kind)
    values = np.array([1, 2, -3], dtype=dtype)
    for outcome in run_model(model, runs(values)).values():
        assert isinstance(outcome, Ran)
        assert outcome.provider == "CPUExecutionProvider"
        result = outcome.outputs["y"]
        assert isinstance(result, np.ndarray)
        assert result.dtype == dtype
        assert result.tolist() == [2, 4, -6]


def test_bfloat16_travels_in_both_directions(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], TensorProto.BFLOAT16)
    values = np.array([1.5, np.inf, -2.0], dtype=ml_dtypes.bfloat16)
    (outcome, _) = run_model(model, runs(values)).values()
    assert isinstance(outcome, Ran)
    result = outcome.outputs["y"]
    assert isinstance(result, np.ndarray)
    assert result.dtype == ml_dtypes.bfloat16
    assert result.tolist() == [1.5, np.inf, -2.0]


def test_empty_and_scalar_arrays(double: Path) -> None:
    outcomes = run_model(double, runs(np.zeros(0, np.float32)))
    assert all(isinstance(o, Ran) and o.outputs["y"].shape == (0,) for o in outcomes.values())  # type: ignore[union-attr]  # an array


def test_a_run_that_fails_leaves_the_others(double: Path) -> None:
    outcomes = run_model(double, runs(np.ones(2, np.float32), np.ones((2, 2), np.float32)))
    assert isinstance(outcomes["disable_all", "0"], Ran)
    failure = outcomes["disable_all", "1"]
    assert isinstance(failure, Failure)
    assert failure.stage == "run"
    assert "rank" in failure.reason.lower()
    assert "\n" not in failure.reason


def test_a_model_that_does_not_load_is_named_without_its_folder(tmp_path: Path) -> None:
    model = save(tmp_path / "m.onnx", [helper.make_node("Nothing", ["x"], ["y"])])
    for outcome in run_model(model, runs(np.ones(2, np.float32))).values():
        assert isinstance(outcome, Failure)
        assert outcome.stage == "load"
        assert "Nothing" in outcome.reason
        assert str(tmp_path) not in outcome.reason


def test_of_a_group_only_the_first_success_runs(double: Path) -> None:
    wrong, right = np.ones((2, 2), np.float32), np.ones(2, np.float32)
    given = [Run("disable_all", str(i), {"x": feed}, "g") for i, feed in enumerate([wrong, right, right])]
    outcomes = run_model(double, given)
    assert isinstance(outcomes["disable_all", "0"], Failure)
    assert isinstance(outcomes["disable_all", "1"], Ran)
    assert ("disable_all", "2") not in outcomes


def test_a_provider_that_silently_falls_back_is_a_failure(double: Path) -> None:
    outcomes = run_model(double, runs(np.ones(2, np.float32)), provider="cuda")
    ran = [outcome for outcome in outcomes.values() if isinstance(outcome, Ran)]
    failed = [outcome for outcome in outcomes.values() if isinstance(outcome, Failure)]
    # Either a GPU really ran both levels, or neither counts.
    assert all(outcome.provider == "CUDAExecutionProvider" for outcome in ran)
    assert all(outcome.stage in {"fallback", "load"} for outcome in failed)
    assert len(ran) in {0, 2}


def test_an_unknown_provider_is_a_usage_error(double: Path) -> None:
    with pytest.raises(UsageError, match="expected one of cpu"):
        run_model(double, [], provider="tpu")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGINT, signal.SIGKILL, signal.SIGABRT])
def test_a_death_is_a_value_and_the_rest_still_runs(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    died = tmp_path / "died"
    use_worker(
        monkeypatch,
        tmp_path,
        f"""
        for level, some in job["runs"].items():
            report(event="loading", level=level)
            report(event="loaded", level=level, provider=job["provider"])
            for run in some:
                report(event="running", level=level, feed=run["feed"])
                if run["feed"] == "1" and not os.path.exists({str(died)!r}):
                    open({str(died)!r}, "w").close()
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                    os.kill(os.getpid(), {int(number)})
                report(event="done", level=level, feed=run["feed"], outputs=[])
        """,
    )
    outcomes = run_model(double, runs(*[np.ones(1, np.float32)] * 3))
    failure = outcomes["disable_all", "1"]
    assert isinstance(failure, Failure)
    assert failure.stage == "crash"
    assert number.name in failure.reason
    assert sum(isinstance(outcome, Ran) for outcome in outcomes.values()) == 5


def test_a_death_while_loading_costs_that_level_alone(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_worker(
        monkeypatch,
        tmp_path,
        """
        for level, some in job["runs"].items():
            report(event="loading", level=level)
            if level == "disable_all":
                os.kill(os.getpid(), signal.SIGSEGV)
            report(event="loaded", level=level, provider=job["provider"])
            for run in some:
                report(event="done", level=level, feed=run["feed"], outputs=[])
        """,
    )
    outcomes = run_model(double, runs(np.ones(1, np.float32), np.ones(1, np.float32)))
    assert all(isinstance(o, Failure) == (level == "disable_all") for (level, _), o in outcomes.items())
    assert len(outcomes) == 4


@pytest.mark.parametrize("body", ["sys.exit(7)", "sys.exit(0)", "raise RuntimeError('no onnxruntime here')"])
def test_a_process_that_says_nothing_fails_all_runs(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    use_worker(monkeypatch, tmp_path, body)
    outcomes = run_model(double, runs(np.ones(1, np.float32)))
    assert len(outcomes) == 2
    assert all(isinstance(outcome, Failure) and outcome.stage == "crash" for outcome in outcomes.values())


def test_a_timeout_kills_the_process(double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    use_worker(monkeypatch, tmp_path, f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    outcomes = run_model(double, runs(np.ones(1, np.float32)), timeout=1.0)
    assert {o.stage for o in outcomes.values() if isinstance(o, Failure)} == {"timeout"}
    assert not Path(f"/proc/{pid.read_text()}").exists()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="POSIX signals")
def test_the_process_ends_with_its_parent(double: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, subprocess, sys
        from bnfold.verification import sessions
        start = subprocess.Popen
        def spy(*args, **kwargs):
            process = start(*args, **kwargs)
            open({str(pid)!r}, "w").write(str(process.pid))
            os.kill(os.getpid(), 9)
        subprocess.Popen = spy
        from pathlib import Path
        import numpy as np
        run = sessions.Run("disable_all", "f", {{"x": np.ones(1, np.float32)}})
        sessions.run_model(Path({str(double)!r}), [run])
        """)
    )
    root = Path(sessions.__file__).parents[2]
    subprocess.run(
        [sys.executable, str(script)], check=False, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid.read_text()}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid.read_text()}/exe").exists()


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    (outcome, _) = run_model(path, runs(np.zeros(3, np.float32))).values()
    assert isinstance(outcome, Ran)
    assert np.asarray(outcome.outputs["y"]).tolist() == [1, 2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="file names elsewhere are Unicode")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [onnx.numpy_helper.from_array(np.array([3], np.float32), "w")],
    )
    (tmp_path / "f").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(
        model, tmp_path / "f" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    folder = (tmp_path / "f").rename(tmp_path / os.fsdecode(b"f\xff"))
    path = (folder / "m.onnx").rename(folder / os.fsdecode(b"m\xfe.onnx"))
    for outcome in run_model(path, runs(np.ones(1, np.float32))).values():
        assert isinstance(outcome, Ran), outcome
        assert np.asarray(outcome.outputs["y"]).tolist() == [4]


def test_nothing_is_left_among_temporary_files(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "import tempfile; tempfile.mkstemp('.ses'); os._exit(0)"
    use_worker(monkeypatch, tmp_path, body)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    run_model(double, runs(np.ones(1, np.float32)))
    assert not list(temporary.iterdir())
