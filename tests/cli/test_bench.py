"""`bnfold bench` and `bnfold optimize --bench`. No speed is asserted: a clock tells the weather."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from support import command
from support.command import Outcome

import bnfold
from bnfold import pipeline
from bnfold.benchmarking import pair
from bnfold.checking import Check
from bnfold.cli import Exit
from bnfold.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bnfold.benchmarking.result import Benchmark

Call = Callable[..., Outcome]
SHORT = ("--seconds", "0.01")  # each level is measured once then


@pytest.fixture(scope="module")
def short() -> Benchmark:
    return bnfold.benchmark(command.small(), command.other(), seconds=0.01)


def test_json_is_the_benchmark_and_nothing_else(folder: Path) -> None:
    found = command.run(
        "bench", "model.onnx", "other.onnx", "--json", "--level", "all", "--batch", "2", *SHORT, cwd=folder
    )
    assert (found.returncode, found.stderr) == (Exit.DONE, "")
    data = json.loads(found.stdout)
    assert data["schema"] == "bnfold.bench/1"
    assert (data["a"]["source"], data["b"]["source"]) == ("model.onnx", "other.onnx")
    assert [level["level"] for level in data["levels"]] == ["enable_all"]
    assert [timing["batch"] for timing in data["levels"][0]["steady"]] == [2]
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "other.onnx"]


def test_the_table(call: Call, monkeypatch: pytest.MonkeyPatch, short: Benchmark) -> None:
    given: dict[str, Any] = {}

    def benchmark(*models: Path, **options: Any) -> Benchmark:  # noqa: ANN401 - options
        given.update(options, models=tuple(map(str, models)))
        return short

    monkeypatch.setattr(pipeline, "benchmark", benchmark)
    arguments = ("--level", "ALL, disable", "--batch", "1, 8", "--threads", "2", "--seed", "3")
    found = call("bench", "model.onnx", "other.onnx", *arguments, "--provider", "cuda", "--seconds", "9")
    assert (found.code, found.err) == (Exit.DONE, "")
    del given["progress"]
    assert given == {
        "models": ("model.onnx", "other.onnx"),
        "levels": ("enable_all", "disable_all"),
        "batches": (1, 8),
        "inputs": None,
        "threads": 2,
        "provider": "cuda",
        "seconds": 9.0,
        "seed": 3,
    }
    assert "DISABLE_ALL" in found.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--level", "extreme"), "'extreme' is none of disable, basic, all"),
        (("--level", ""), "is none of"),
        (("--level", "all,all"), "each once"),
        (("--batch", "many"), "--batch many"),
        (("--batch", "0"), "--batch 0"),
        (("--batch", "1,,2"), "--batch 1,,2"),
        (("--batch", "2,2"), "each once"),
        (("--seconds", "0"), "seconds"),
        (("--seconds", "nan"), "seconds"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, tuple) else None,
)
def test_nonsense_is_two(call: Call, arguments: tuple[str, ...], says: str) -> None:
    found = call("bench", "model.onnx", "other.onnx", *arguments)
    assert found.code == Exit.USAGE
    assert says in found.error


def test_inputs_of_the_user(call: Call) -> None:
    found = call(
        "bench", "model.onnx", "other.onnx", "--json", "--level", "all", "--input", "x=3x3x6x6", *SHORT
    )
    (timing,) = json.loads(found.out)["levels"][0]["steady"]
    assert (timing["batch"], timing["work"]) == (3, "x 3x3x6x6")


def test_of_feeds_of_one_size_the_first_is_measured() -> None:
    feeds = [{"x": np.zeros((size, 3, 6, 6), np.float32)} for size in (2, 2, 5)]
    found = bnfold.benchmark(
        command.small(), command.other(), levels=["enable_all"], seconds=0.01, inputs=feeds
    )
    assert [timing.batch for timing in found.levels[0].steady] == [2, 5]


def test_texts_are_refused_in_words() -> None:
    text = onnx.helper.make_tensor_value_info("s", onnx.TensorProto.STRING, ["N"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, ["N"])
    node = onnx.helper.make_node("Identity", ["s"], ["y"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [text], [out]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(UsageError, match="input 's' holds strings; a model that reads them cannot be"):
        bnfold.benchmark(model, model, seconds=0.01, inputs=[{"s": np.array(["a"])}])


@pytest.mark.parametrize("arguments", [("--input", "z=1x3x6x6"), ("--input", "x=1x3x6x6", "--batch", "2")])
def test_inputs_that_make_no_sense_are_two(call: Call, arguments: tuple[str, ...]) -> None:
    assert call("bench", "model.onnx", "other.onnx", *arguments).code == Exit.USAGE


@pytest.mark.parametrize("arguments", [("model.onnx",), ("model.onnx", "other.onnx", "--provider", "tpu")])
def test_wrong_usage_is_two(call: Call, arguments: tuple[str, ...]) -> None:
    found = call("bench", *arguments)
    assert found.code == Exit.USAGE
    assert "Usage: " in found.err


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", ["missing.onnx", "broken.onnx", "."])
def test_a_model_that_cannot_be_read_is_three(folder: Path, call: Call, name: str, place: int) -> None:
    (folder / "broken.onnx").write_bytes((folder / "model.onnx").read_bytes()[:300])
    models = ["model.onnx", "model.onnx"]
    models[place] = name
    found = call("bench", *models)
    assert found.code == Exit.MODEL
    assert name in found.error


def test_a_provider_that_is_not_there_is_four(call: Call) -> None:
    found = call("bench", "model.onnx", "other.onnx", "--provider", "cuda", *SHORT)
    # With a GPU it is measured.
    assert found.code in {Exit.DONE, Exit.FAULT}
    if found.code == Exit.FAULT:
        assert "CUDAExecutionProvider" in found.error


def test_ctrl_c(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    arguments = ("bench", "model.onnx", "other.onnx", "--seconds", "600")
    with command.start(*arguments, cwd=folder, TMPDIR=str(scratch)) as process:
        command.wait_for(lambda: command.left_running(scratch), process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (Exit.INTERRUPTED, "", "bnfold: interrupted\n")
    command.wait_for(lambda: not command.left_running(scratch), process, 10)
    assert [p.name for p in scratch.iterdir() if p.name != ".ses"] == []


# --- optimize -----------------------------------------------------------------------------------------------


def test_optimize_measures_what_it_made(
    call: Call, monkeypatch: pytest.MonkeyPatch, short: Benchmark
) -> None:
    monkeypatch.setattr(pair, "benchmark", lambda *_, **__: short)
    report = json.loads(call("optimize", "model.onnx", "--bench", "--json").out)
    assert report["benchmark"]["schema"] == "bnfold.bench/1"
    assert report["verdict"]["status"] == "equivalent"
    text = call("optimize", "model.onnx", "--bench", "--no-verify").out
    assert all(level in text for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_ALL"))
    assert "bench" not in call("optimize", "model.onnx", "--no-verify").out


def test_where_nothing_was_folded_nothing_is_measured(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pair, "benchmark", never)
    found = call("optimize", "model.onnx", "--bench", "--exclude", "*")
    assert found.code == Exit.DONE
    assert "note: speed was not measured: nothing was folded" in found.out


def test_a_result_that_cannot_be_measured_is_written_all_the_same(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EnvironmentFault("no onnxruntime today")

    monkeypatch.setattr(pair, "benchmark", fails)
    found = call("optimize", "model.onnx", "--bench", "--no-verify")
    assert found.code == Exit.DONE
    assert "note: speed was not measured: no onnxruntime today" in found.out
    assert (folder / "model.folded.onnx").exists()


def test_a_wrong_result_is_not_measured(folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fold of ours differs, so the verdict is made up."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    verdict = pipeline.verify(folder / "model.onnx", folder / "other.onnx")
    monkeypatch.setattr(Check, "_verdict", lambda *_: verdict)
    monkeypatch.setattr(pair, "benchmark", never)
    assert call("optimize", "model.onnx", "--bench").code == Exit.FINDING
