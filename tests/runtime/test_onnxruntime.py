from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import onnxruntime_batchnorm
from support.batchnorm import Case, make_case

from bnfold import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As the attribute stores it, a float32.
EPSILON = float(np.float32(1e-3))
MOMENTUM = 0.75
SHAPES: dict[str, tuple[int, ...]] = {
    "1d": (7,),
    "2d": (5, 3),
    "3d": (4, 3, 7),
    "4d": (2, 3, 4, 5),
    "5d": (2, 3, 2, 3, 4),
    "image": (2, 16, 14, 14),
    "empty": (0, 3, 4),
}
FLOATS = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
INFERENCE = [f"{s}-{t}-{opset}" for s in SHAPES for t in FLOATS for opset in (9, 15)]
# An empty batch has no mini-batch statistics; the runtime refuses what onnxruntime divides by zero.
TRAINING = [f"{s}-{t}-{opset}-training" for s in SHAPES if s != "empty" for t in FLOATS for opset in (14, 15)]


def case_of(name: str) -> tuple[Case, int, bool]:
    shape, kind, opset, *training = name.split("-")
    return make_case(SHAPES[shape], dtype=FLOATS[kind], seed=len(name)), int(opset), bool(training)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    arrays: dict[str, Any] = {}
    for name in INFERENCE + TRAINING:
        case, opset, training = case_of(name)
        for key, value in {
            "x": case.x,
            "scale": case.scale,
            "bias": case.bias,
            "mean": case.mean,
            "var": case.var,
            "opset": opset,
            "epsilon": EPSILON,
            "momentum": MOMENTUM if training else -1.0,
        }.items():
            arrays[f"{name}/{key}"] = value
    folder = tmp_path_factory.mktemp("onnxruntime")
    np.savez(folder / "in.npz", **arrays)
    script = Path(onnxruntime_batchnorm.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "in.npz"), str(folder / "out.npz")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as file:
        return {key: file[key] for key in file.files}


def close(mine: NDArray[Any], other: NDArray[Any], terms: int) -> None:
    assert mine.dtype == other.dtype
    assert mine.shape == other.shape
    # Whether it computes float16 in float32 or in float16, its own dtype bounds a step. The inference form
    # x*s + (b - m*s) cancels up to |m*s|, a few times the largest result here.
    unit = float(np.finfo(mine.dtype).eps)
    wide = other.astype(np.float64)
    largest = float(np.abs(wide).max(initial=1.0))
    np.testing.assert_allclose(mine.astype(np.float64), wide, rtol=0, atol=terms * unit * largest)


@pytest.mark.parametrize("name", INFERENCE)
def test_inference(theirs: dict[str, NDArray[Any]], name: str) -> None:
    case, _, _ = case_of(name)
    close(
        runtime.infer(case.x, *case.parameters, epsilon=EPSILON, backend="numpy"),
        theirs[f"{name}/y"],
        8,
    )


@pytest.mark.parametrize("name", TRAINING)
def test_training_mode_with_three_outputs(theirs: dict[str, NDArray[Any]], name: str) -> None:
    case, _, _ = case_of(name)
    step = runtime.train(case.x, *case.parameters, epsilon=EPSILON, momentum=MOMENTUM, backend="numpy")
    close(step.y, theirs[f"{name}/y"], 16)
    close(step.running_mean, theirs[f"{name}/mean"], 16)
    close(step.running_var, theirs[f"{name}/var"], 16)
