"""Blocks from processes that die, lie or fall back."""

from __future__ import annotations

import os
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import command

from bnfold.benchmarking import measuring
from bnfold.benchmarking.measuring import Block, Setup, examine, measure
from bnfold.benchmarking.result import Runtime
from bnfold.verification.feeds import Feed
from bnfold.verification.sessions import Failure


def setup(a: Path, b: Path | None = None, *, provider: str = "cpu", timeout: float = 120.0) -> Setup:
    proto = onnx.load(a)
    shape = [dim.dim_value or 2 for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    values = {proto.graph.input[0].name: np.ones(shape, np.float32)}
    return Setup(a, b or a, (Feed("ones", values),), provider, 1, timeout)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    onnx.save(command.small(), tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.fixture
def hopeless(tmp_path: Path) -> Path:
    node = helper.make_node("Mystery", ["x"], ["y"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", info[:1], info[1:])
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]),
        tmp_path / "hopeless.onnx",
    )
    return tmp_path / "hopeless.onnx"


def use_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Let a script of the test's own stand in for onnxruntime."""
    head = """
        import json, os, signal, sys, time
        from pathlib import Path
        folder = Path(sys.argv[1]); events = open(folder / "events.jsonl", "a", buffering=1)
        job = json.loads((folder / "job.json").read_text())
        def report(**event): events.write(json.dumps(event) + "\\n")
    """
    path = tmp_path / "stand_in.py"
    path.write_text(textwrap.dedent(head) + textwrap.dedent(script))
    monkeypatch.setattr(measuring, "_WORKER", path)


def test_a_block(small: Path) -> None:
    block = measure(setup(small), "disable_all", 0, 0.0)
    assert isinstance(block, Block)
    assert block.onnxruntime
    for times in (block.load, *block.turns):
        assert set(times) == {"a", "again", "b"}
        assert len({len(rounds) for rounds in times.values()}) == 1
        assert all(seconds > 0 for rounds in times.values() for turn in rounds for seconds in turn)
    assert len(block.turns) == 1
    assert len(block.turns[0]["a"]) % 3 == 0


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("guilty", ["A", "B"])
def test_a_model_that_does_not_load_is_named(small: Path, hopeless: Path, guilty: str, number: int) -> None:
    a, b = (hopeless, small) if guilty == "A" else (small, hopeless)
    failure = measure(replace(setup(small), a=a, b=b), "disable_all", number, 0.0)
    assert isinstance(failure, Failure)
    assert failure.stage == "load"
    assert failure.reason.startswith(f"model {guilty}: ")
    assert "Mystery" in failure.reason
    assert str(hopeless.parent) not in failure.reason


def test_a_feed_that_does_not_fit(small: Path) -> None:
    wrong = Setup(small, small, (Feed("wrong", {"x": np.ones((1, 2), np.float32)}),), "cpu", 1, 120.0)
    failure = measure(wrong, "disable_all", 0, 0.0)
    assert isinstance(failure, Failure)
    assert failure.stage == "run"


def test_a_provider_that_is_not_there(small: Path) -> None:
    block = measure(setup(small, provider="cuda"), "disable_all", 0, 0.0)
    # Either a GPU really ran, or nothing counts.
    assert isinstance(block, Block) or block.stage in {"fallback", "load"}


def test_a_crash_is_a_value(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_worker(
        monkeypatch,
        tmp_path,
        """
        report(event="loading", seat="a")
        report(event="loading", seat="b")
        os.kill(os.getpid(), signal.SIGSEGV)
        """,
    )
    failure = measure(setup(small), "enable_all", 0, 0.0)
    assert isinstance(failure, Failure)
    assert failure.stage == "crash"
    assert failure.reason.startswith("model B: ")
    assert "SIGSEGV" in failure.reason
    assert examine(setup(small), "enable_all", small) == Runtime(None, None, None)


@pytest.mark.parametrize("script", ["", "sys.exit(7)", "raise RuntimeError('no onnxruntime here')"])
def test_a_process_that_says_nothing(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    use_worker(monkeypatch, tmp_path, script)
    failure = measure(setup(small), "enable_all", 0, 0.0)
    assert isinstance(failure, Failure)
    assert failure.stage == "crash"


def test_a_process_that_hangs(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = tmp_path / "pid"
    use_worker(monkeypatch, tmp_path, f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    failure = measure(setup(small, timeout=1.0), "enable_all", 0, 0.0)
    assert isinstance(failure, Failure)
    assert failure.stage == "timeout"
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_memory_is_known_though_the_graph_is_not(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_worker(monkeypatch, tmp_path, "report(event='memory', peak=123); os.abort()")
    assert examine(setup(small), "enable_all", small) == Runtime(None, None, 123)


def test_what_onnxruntime_makes_of_a_model(small: Path) -> None:
    """It folds the one behind the Conv from BASIC on, and never the other."""
    (written, basic) = (examine(setup(small), level, small) for level in ("disable_all", "enable_basic"))
    assert (written.bn_left, basic.bn_left) == (2, 1)
    assert written.nodes is not None
    assert basic.nodes == written.nodes - 1
    if os.path.exists("/proc/self/status"):  # noqa: PTH110 - a question to the system
        assert written.peak_memory is not None
        assert written.peak_memory > 1 << 20
