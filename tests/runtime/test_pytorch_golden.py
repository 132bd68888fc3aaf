"""PyTorch's own numbers, stored by golden/make_pytorch.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from bnfold import runtime

GOLDEN = Path(__file__).parent / "golden" / "pytorch.npz"
# PyTorch computes in float32 for the three narrower types and rounds to x's at the end. A result is a handful
# of roundings away from the reference: 16 units of the type it computes in, and one of the type it stores.
UNIT = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}

Arrays = dict[str, NDArray[Any]]


def load(rank: str, kind: str) -> Arrays:
    with np.load(GOLDEN) as file:
        prefix = f"{rank}/{kind}/"
        arrays = {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}
    return {
        name: array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array
        for name, array in arrays.items()
    }


@pytest.fixture(params=[f"{r}/{k}" for r in ("2d", "3d", "4d", "5d") for k in UNIT])
def golden(request: pytest.FixtureRequest) -> tuple[Arrays, str]:
    rank, kind = request.param.split("/")
    return load(rank, kind), kind


def close(got: NDArray[Any], expected: NDArray[Any], kind: str) -> None:
    assert got.dtype == expected.dtype
    computed = 16 * min(UNIT[kind], UNIT["float32"])
    stored = UNIT[kind] if got.dtype.itemsize == 2 else 0.0
    wide = expected.astype(np.float64)
    np.testing.assert_allclose(
        got.astype(np.float64), wide, rtol=stored, atol=computed * float(np.abs(wide).max())
    )


def test_training(golden: tuple[Arrays, str]) -> None:
    a, kind = golden
    got = runtime.train(
        a["x"],
        a["scale"],
        a["bias"],
        a["mean"],
        a["var"],
        momentum=0.3,
        epsilon=1e-3,
        convention="pytorch",
        backend="numpy",
    )
    close(got.y, a["train_y"], kind)
    close(got.running_mean, a["running_mean"], kind)
    close(got.running_var, a["running_var"], kind)
    gradients = runtime.backward(
        a["dy"], a["x"], a["scale"], mean=got.mean, var=got.var, epsilon=1e-3, backend="numpy"
    )
    for name in ("dx", "dscale", "dbias"):
        close(getattr(gradients, name), a[f"train_{name}"], kind)


def test_inference(golden: tuple[Arrays, str]) -> None:
    a, kind = golden
    y = runtime.infer(a["x"], a["scale"], a["bias"], a["mean"], a["var"], epsilon=1e-3, backend="numpy")
    close(y, a["infer_y"], kind)
    gradients = runtime.backward(
        a["dy"],
        a["x"],
        a["scale"],
        mean=a["mean"],
        var=a["var"],
        epsilon=1e-3,
        training=False,
        backend="numpy",
    )
    for name in ("dx", "dscale", "dbias"):
        close(getattr(gradients, name), a[f"infer_{name}"], kind)


def test_the_stored_statistics_tell_the_conventions_apart(golden: tuple[Arrays, str]) -> None:
    # Guards the comparison above: with ONNX's convention the same numbers must not come out.
    a, _ = golden
    got = runtime.train(
        a["x"], a["scale"], a["bias"], a["mean"], a["var"], momentum=0.7, epsilon=1e-3, backend="numpy"
    )
    assert np.abs(got.running_var.astype(np.float64) / a["running_var"] - 1).max() > 1e-3
