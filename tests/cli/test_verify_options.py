"""What to feed, what to run on and what to judge by, from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bnfold.cli import Exit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.command import Outcome

    Call = Callable[..., Outcome]

VERBS = [("verify", "model.onnx", "model.onnx"), ("optimize", "model.onnx", "--dry-run")]


def feeds(out: str) -> list[str]:
    report = json.loads(out)
    found: list[str] = report.get("verdict", report)["feeds"]
    return found


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_values_and_shapes(folder: Path, call: Call, verb: tuple[str, ...]) -> None:
    np.save(folder / "batch.npy", np.ones((5, 3, 6, 6), np.float32))
    for text in ("batch.npy", "x=batch.npy"):
        found = call(*verb, "--input", text, "--json")
        assert (found.code, found.err) == (Exit.DONE, "")
        assert feeds(found.out) == ["batch.npy"]
    found = call(*verb, "--input", "x=7x3x6x6", "--range", "x=0,1", "--json")
    assert found.code == Exit.DONE
    assert {feed.split()[1] for feed in feeds(found.out)} == {"7x3x6x6"}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input", "missing.npy"), "missing.npy: no such file or folder"),
        (("--input", "y=1x3x6x6"), "the model has no input 'y'; its inputs: x"),
        (("--input", "x=1x4x6x6"), "input 'x' has shape Nx3x6x6, not 1x4x6x6"),
        (("--input", "1x3x6x6"), "--input 1x3x6x6: a shape needs the name of its input, as in x=1x3x6x6"),
        (("--range", "x"), "--range x: expected two numbers, as in x=0,255"),
    ],
)
def test_what_makes_no_sense_is_usage(
    folder: Path, call: Call, verb: tuple[str, ...], options: tuple[str, ...], said: str
) -> None:
    found = call(*verb, *options)
    assert (found.code, found.error) == (Exit.USAGE, said)
    assert not (folder / "model.folded.onnx").exists()


@pytest.mark.parametrize("option", ["--truth", "--provider"])
def test_choices(call: Call, option: str) -> None:
    assert call("verify", "model.onnx", "model.onnx", option, "magic").code == Exit.USAGE


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_budget(call: Call, verb: tuple[str, ...]) -> None:
    assert call(*verb, "--budget", "100").code == Exit.DONE
    for wrong in ("0.0", "-1.0", "nan", "inf", "1e+300"):
        found = call(*verb, "--budget", wrong)
        said = f"budget={wrong}; expected a number of seconds above zero"
        assert (found.code, found.error) == (Exit.USAGE, said)


def test_truth_by_the_bound_alone(call: Call) -> None:
    found = call("optimize", "model.onnx", "--dry-run", "--truth", "bound", "--json")
    assert found.code == Exit.DONE
    assert {row["against"] for row in json.loads(found.out)["verdict"]["outputs"]} == {"original"}


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_silent_fall_back_to_the_cpu_is_a_fault(
    call: Call, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], provider: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = call(*verb, "--provider", provider)
    assert found.code == Exit.FAULT
    assert "ExecutionProvider" in found.error


def test_the_provider_that_ran_is_printed(call: Call) -> None:
    assert "onnxruntime on CPUExecutionProvider" in call("verify", "model.onnx", "model.onnx").out


def test_fold_by_fold(call: Call) -> None:
    found = call("optimize", "model.onnx", "--dry-run", "--per-fold")
    assert found.code == Exit.DONE
    (line,) = (each for each in found.out.splitlines() if "with the reference BatchNormalization" in each)
    assert line.split()[0] == "bn"


def test_keep_going_where_all_is_well_changes_nothing(folder: Path, call: Call) -> None:
    assert call("optimize", "model.onnx", "--keep-going", "-o", "one.onnx").code == Exit.DONE
    assert call("optimize", "model.onnx", "-o", "two.onnx").code == Exit.DONE
    assert (folder / "one.onnx").read_bytes() == (folder / "two.onnx").read_bytes()
