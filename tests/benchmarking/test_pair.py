"""The whole benchmark, short. What it says of speed is not asserted: a clock tells the weather."""

from __future__ import annotations

import json
import pickle
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from support import command
from support.build import Net

import bnfold
from bnfold.benchmarking import pair
from bnfold.benchmarking.measuring import Block
from bnfold.benchmarking.result import Runtime
from bnfold.errors import EnvironmentFault, ModelError, UsageError
from bnfold.verification.sessions import Failure

if TYPE_CHECKING:
    from pathlib import Path

    from bnfold.benchmarking.measuring import Setup
    from bnfold.benchmarking.result import Benchmark, Level

SHORT = 0.01  # seconds: each level is measured once then


@pytest.fixture(scope="module")
def measured() -> Benchmark:
    """Two batch sizes at all levels."""
    return bnfold.benchmark(command.small(), command.other(), batches=(1, 3), seconds=SHORT)


def test_everything_is_there(measured: Benchmark) -> None:
    assert [level.level for level in measured.levels] == ["disable_all", "enable_basic", "enable_all"]
    assert measured.machine.provider == "CPUExecutionProvider"
    assert measured.machine.onnxruntime
    assert (measured.threads, measured.seed) == (1, 0)
    for level in measured.levels:
        assert level.failure == ""
        assert level.load is not None
        assert (level.load.work, level.load.batch) == ("load", None)
        assert [timing.batch for timing in level.steady] == [1, 3]
        assert [timing.work for timing in level.steady] == ["x 1x3x6x6", "x 3x3x6x6"]
        for timing in (level.load, *level.steady):
            assert 0 < timing.a.p50 < 10
            assert 0 < timing.b.p50 < 10
    assert [level.a.bn_left for level in measured.levels] == [2, 1, 1]


def test_facts_of_the_models(measured: Benchmark) -> None:
    model = command.small().SerializeToString(deterministic=True)
    assert measured.a.source is None
    assert (measured.a.nodes, measured.a.bn, measured.a.nbytes) == (4, 2, len(model))
    assert measured.a.macs == 4 * 4 * 4 * 3 * 9
    assert measured.a.sha256 != measured.b.sha256


def test_one_block_says_nothing(measured: Benchmark) -> None:
    """And the reader is told how long it would take to say something."""
    for level in measured.levels:
        assert level.load is not None
        for timing in (level.load, *level.steady):
            assert (timing.comparison.finding, timing.comparison.speedup) == ("too few", None)
    assert any("6 blocks" in finding for finding in measured.findings)


def test_it_pickles(measured: Benchmark) -> None:
    assert pickle.loads(pickle.dumps(measured)) == measured  # noqa: S301 - our own


def test_it_is_strict_json(measured: Benchmark) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(measured.to_json(), parse_constant=refuse) == json.loads(json.dumps(measured.to_dict()))


LATENCY = {
    "times": "int", "p50": "float", "p90": "float", "p99": "float", "p10": "float", "p25": "float",
    "p75": "float",
}  # fmt: skip
RATIO = {"value": "float", "low": "float", "high": "float"}
TIMING = {
    "work": "str", "batch": "int", "a": LATENCY, "b": LATENCY,
    "comparison": {"speedup": RATIO, "noise": RATIO, "finding": "str", "blocks": "int", "ratios": ["float"]},
}  # fmt: skip
FACTS = {"source": "str", "sha256": "str", "nbytes": "int", "nodes": "int", "bn": "int", "macs": "int"}
RUNTIME = {"bn_left": "int", "nodes": "int", "peak_memory": "int"}
# The structure of version 1. Keys may be added, here and in the code; to change or remove one is version 2.
GOLDEN = {
    "schema": "str",
    "version": "str",
    "a": FACTS,
    "b": FACTS,
    "threads": "int",
    "seed": "int",
    "seconds": "float",
    "machine": {
        "processor": "str", "cores": "int", "system": "str", "onnxruntime": "str", "provider": "str",
    },
    "levels": [
        {"level": "str", "failure": "str", "a": RUNTIME, "b": RUNTIME, "load": TIMING, "steady": [TIMING]}
    ],
    "findings": ["str"],
    "options": {
        "levels": ["str"], "batches": ["int"], "inputs": ["str"], "threads": "int", "provider": "str",
        "seconds": "float", "seed": "int",
    },
}  # fmt: skip


def conforms(value: Any, golden: Any) -> bool:  # noqa: ANN401 - whatever JSON can say
    """The same keys in the same order, and types that fit; anything may be null."""
    if isinstance(golden, dict):
        if not isinstance(value, dict):
            return value is None
        return list(value) == list(golden) and all(conforms(value[key], golden[key]) for key in golden)
    if isinstance(golden, list):
        return isinstance(value, list) and all(conforms(each, golden[0]) for each in value)
    return value is None or type(value).__name__ == golden


def test_the_structure_is_that_of_version_1(measured: Benchmark) -> None:
    data = json.loads(measured.to_json())
    assert data["schema"] == "bnfold.bench/1"
    assert conforms(data, GOLDEN)


# --- how the time is spent ----------------------------------------------------------------------------------


class Machine:
    """Stands in for processes and clock: a block costs what it is told to."""

    def __init__(self, cost: dict[str, float], failures: dict[str, tuple[int, Failure]]) -> None:
        self.now = 100.0
        self.cost = cost
        self.failures = failures
        self.log: list[tuple[str, int, float]] = []

    def monotonic(self) -> float:
        return self.now

    def measure(self, _setup: Setup, level: Level, number: int, seconds: float) -> Block | Failure:
        self.log.append((level, number, seconds))
        self.now += self.cost.get(level, 1.0) + seconds
        failing = self.failures.get(level)
        if failing is not None and failing[0] == number:
            return failing[1]
        # A takes 3 s, again 3 s, B 2 s.
        turn = {"a": [[3.0]] * 3, "again": [[3.0]] * 3, "b": [[2.0]] * 3}
        return Block("1.2.3", turn, (turn,))  # type: ignore[arg-type]  # seats


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a function
    def start(
        seconds: float,
        cost: dict[str, float] | None = None,
        failures: dict[str, tuple[int, Failure]] | None = None,
    ) -> tuple[Benchmark, Machine]:
        machine = Machine(cost or {}, failures or {})
        monkeypatch.setattr(time, "monotonic", machine.monotonic)
        monkeypatch.setattr(pair, "measure", machine.measure)
        monkeypatch.setattr(pair, "examine", lambda *_: Runtime(0, 1, 2))
        model = static().SerializeToString()
        return pair.benchmark(model, model, seconds=seconds), machine

    return start


def static() -> ModelProto:
    net = Net()
    net.output(net.conv(net.input("x", 1, 3, 6, 6), 3, 4, out="y"), shape=[1, 4, 4, 4])
    return net.model()


def test_the_levels_take_turns_until_the_time_is_over(run: Any) -> None:  # noqa: ANN401
    result, machine = run(90.0)
    blocks = [number for level, number, _ in machine.log if level == "disable_all"]
    assert blocks == list(range(len(blocks)))
    # 90 s for three levels and twelve blocks: 2.5 s for each, of which one is not for turns.
    assert len(blocks) == 12
    assert {round(seconds, 6) for _, _, seconds in machine.log} == {1.5}
    assert [level for level, _, _ in machine.log[:6]] == [*pair.LEVELS, *pair.LEVELS]
    assert machine.now - 100 <= 90
    for level in result.levels:
        assert level.steady[0].comparison.finding == "faster"
        assert level.steady[0].comparison.speedup.value == pytest.approx(1.5)


def test_slow_models_end_in_time(run: Any) -> None:  # noqa: ANN401
    result, machine = run(60.0, dict.fromkeys(pair.LEVELS, 8.0))
    assert machine.now - 100 <= 60
    assert result.levels[0].steady[0].comparison.finding == "too few"
    assert any("about" in finding for finding in result.findings)


def test_a_level_that_fails_costs_that_level_alone(run: Any) -> None:  # noqa: ANN401
    """Also where it fails in the third block: half of a series says nothing."""
    crash = Failure("crash", "model B: died")
    for number in (0, 2):
        result, machine = run(90.0, failures={"enable_basic": (number, crash)})
        assert [level.failure for level in result.levels] == ["", "model B: died", ""]
        assert (result.levels[1].load, result.levels[1].steady) == (None, ())
        assert sum(level == "enable_basic" for level, _, _ in machine.log) == number + 1
        assert result.levels[2].steady[0].comparison.finding == "faster"


def test_nothing_at_all_is_a_fault(run: Any) -> None:  # noqa: ANN401
    crash = (0, Failure("crash", "model A: died"))
    with pytest.raises(EnvironmentFault, match="model A: died"):
        run(90.0, failures=dict.fromkeys(pair.LEVELS, crash))


def test_a_fall_back_is_a_fault_at_once(run: Any) -> None:  # noqa: ANN401
    with pytest.raises(EnvironmentFault, match="silently"):
        run(90.0, failures={"enable_all": (0, Failure("fallback", "silently took the CPU"))})


# --- what cannot be measured --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"levels": ()},
        {"levels": ("enable_all", "enable_all")},
        {"levels": ("fast",)},
        {"batches": (0,)},
        {"batches": (2, 2)},
        {"threads": 0},
        {"threads": 100_000},
        {"provider": "tpu"},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bnfold.benchmark(command.small(), command.other(), **options)


def test_a_batch_that_the_model_does_not_take() -> None:
    with pytest.raises(UsageError, match="first axis of input 'x' is 1"):
        bnfold.benchmark(static(), static(), batches=(1, 2))


def test_models_with_other_inputs() -> None:
    net = Net()
    net.output(net.conv(net.input("image", 1, 3, 6, 6), 3, 4, out="y"), shape=[1, 4, 4, 4])
    with pytest.raises(UsageError, match="cannot be compared"):
        bnfold.benchmark(static(), net.model())


def test_strings_cannot_be_made_up() -> None:
    net = Net()
    net.output(net.node("Identity", net.input("x", 1, elem=TensorProto.STRING), out="y"), shape=[1])
    net.outputs[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(UsageError, match="strings"):
        bnfold.benchmark(net.model(), net.model())


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        bnfold.benchmark(static(), tmp_path / "broken.onnx")


def test_a_model_that_onnxruntime_does_not_know() -> None:
    net = Net()
    net.output(net.node("Mystery", net.input("x", 1, 3), domain="vendor", out="y"), shape=[1, 3])
    model = net.model({"vendor": 1})
    with pytest.raises(EnvironmentFault, match="Mystery"):
        bnfold.benchmark(model, model, seconds=SHORT)


def test_a_model_without_a_batch() -> None:
    """Inputs of one axis have none, inputs that disagree have none in common."""
    net = Net()
    one, two = net.input("x", 4, 3), net.input("y", 3, 5)
    net.output(net.node("MatMul", one, two, out="z"), shape=[4, 5])
    result = bnfold.benchmark(net.model(), net.model(), levels=("enable_all",), seconds=SHORT)
    assert result.levels[0].steady[0].batch is None
    assert result.levels[0].steady[0].work == "x 4x3; y 3x5"
    assert result.a.macs == 4 * 5 * 3


def test_external_data(tmp_path: Path) -> None:
    onnx.save(static(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    result = bnfold.benchmark(tmp_path / "m.onnx", static(), levels=("enable_all",), seconds=SHORT)
    assert result.a.source == str(tmp_path / "m.onnx")
    files = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert result.a.nbytes == files


def test_a_crash_of_onnxruntime_takes_nobody_along() -> None:
    """1.31 dies of optional outputs named "" at opset 9 where it optimizes nothing; later ones may not."""
    net = Net(opset=9)
    x = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(x, 4, out=["y", "", "", "", ""]), shape=[1, 4, 4, 4])
    result = bnfold.benchmark(net.model(), net.model(), levels=("disable_all", "enable_basic"), seconds=SHORT)
    written, optimized = result.levels
    assert written.failure == "" or "model A: onnxruntime's process died" in written.failure
    assert (written.failure == "") == bool(written.steady)
    assert optimized.failure == ""


def test_types_that_numpy_does_not_know() -> None:
    info = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, [2, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = bnfold.benchmark(model, model, levels=("disable_all",), seconds=SHORT)
    assert result.levels[0].failure == ""


def test_quantiles_are_told_only_where_there_are_enough_times() -> None:
    few, some, many = (pair._latency([list(np.arange(count) + 1.0)]) for count in (9, 99, 100))
    assert (few.times, few.p50, few.p90, few.p99) == (9, 5.0, None, None)
    assert some.p90 == pytest.approx(89.2)
    assert some.p99 is None
    assert many.p99 == pytest.approx(99.01)


def test_a_ratio_is_that_of_neighbours() -> None:
    """The machine slows down tenfold on the way; each round still says 2."""
    a, b = [[2.0], [20.0], [2.0, 2.0, 200.0]], [[1.0], [10.0], [1.0]]
    assert pair._ratio(a, b) == 2.0
