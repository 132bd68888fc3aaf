"""Does batch normalization on this machine give the numbers worked out by hand?

And, on a GPU, those of the reference on a tensor that fills many blocks?

The example worked out by hand is chosen so that every intermediate is exact in binary, in any dtype: two
channels whose two values lie 2 on either side of the mean (variance 4), and epsilon 12, so the standard
deviation is 4 and xhat is -1/2 and 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import BnfoldError
from bnfold.runtime.arguments import FLOAT_DTYPES
from bnfold.runtime.backends import cuda_unavailable, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from bnfold.runtime.results import BackendName

    Array = npt.NDArray[Any]

_X = ((0.0, 10.0), (4.0, 14.0))
_SCALE = (2.0, -1.0)
_BIAS = (1.0, 0.5)
_MEAN = (2.0, 12.0)
_VAR = (4.0, 4.0)
_RUNNING_MEAN = (8.0, -4.0)
_RUNNING_VAR = (16.0, 0.0)
_EPSILON = 12.0
_MOMENTUM = 0.75
_Y = ((0.0, 1.0), (2.0, 0.0))
_MOVED_MEAN = (6.5, 0.0)
_MOVED_VAR = (13.0, 1.0)
_DY = ((1.0, 0.0), (0.0, 8.0))
_DSCALE = (-0.5, 4.0)
_DBIAS = (1.0, 8.0)
_DX_TRAINING = ((0.1875, 0.75), (-0.1875, -0.75))
_DX_INFERENCE = ((0.5, 0.0), (0.0, -2.0))

# The reference must be exact here. A GPU may take the root with two units of float32 in the last place, and
# the products after it add one each.
_UNITS_ALLOWED: Mapping[BackendName, int] = {"numpy": 0, "cuda": 4}
# On random data: the statistics are good to one unit of float32, and fewer than eight roundings follow, of
# values up to twice the largest result.
_AGREEMENT_UNITS = 16


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the self-test.

    Attributes:
        name: backend, dtype and what was checked.
        ok: whether it holds; None where it could not be run.
        detail: one line: what was seen, or why nothing was.
    """

    name: str
    ok: bool | None
    detail: str


def self_test() -> tuple[Check, ...]:
    """Compare every backend that runs here with the example, and CUDA with the reference on random data."""
    rows = [_check("numpy", dtype) for dtype in FLOAT_DTYPES]
    reason = cuda_unavailable()
    if reason is None:
        rows += [_check("cuda", dtype) for dtype in FLOAT_DTYPES]
        rows += [_agreement(last=last) for last in (False, True)]
    else:
        rows.append(Check("cuda", None, reason))
    return tuple(rows)


def _check(backend: BackendName, dtype: np.dtype[Any]) -> Check:
    name = f"{backend} {dtype}"
    try:
        results = [result for last in (False, True) for result in _results(backend, dtype, last=last)]
    except BnfoldError as error:
        return Check(name, ok=False, detail=str(error))
    unit = max(float(np.finfo(np.float32).eps), _spacing(dtype))
    allowed = _UNITS_ALLOWED[backend] * unit
    for what, got, expected in results:
        off = float(np.max(np.abs(np.asarray(got, np.float64).ravel() - np.ravel(expected)), initial=0.0))
        if not off <= allowed * float(np.max(np.abs(expected))):
            return Check(name, ok=False, detail=f"{what} is {np.ravel(got)}, expected {np.ravel(expected)}")
    return Check(name, ok=True, detail=f"{len(results)} results as worked out by hand")


def _agreement(*, last: bool) -> Check:
    """Compare CUDA with the reference on float32 activations of a common size, with odd tails."""
    shape, axis = ((4, 27, 29, 65), -1) if last else ((4, 65, 27, 29), 1)
    name = f"cuda against numpy, {'channels-last' if last else 'channels-first'}"
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape).astype(np.float32) + np.float32(offset) for offset in (3, 0))
    scale, bias, mean, var = (rng.uniform(0.5, 2, 65).astype(np.float32) for _ in range(4))
    given = {"epsilon": 1e-5, "axis": axis}

    def compute(backend: BackendName) -> dict[str, Array]:
        run = load(backend)
        step = run.train(x, scale, bias, mean, var, momentum=0.9, unbiased=False, **given)
        slopes = run.backward(dy, x, scale, mean=step.mean, var=step.var, training=True, **given)
        return {
            "inference y": run.infer(x, scale, bias, mean, var, **given),
            "training y": step.y,
            "batch mean": step.mean,
            "batch variance": step.var,
            "running mean": step.running_mean,
            "running variance": step.running_var,
            "dx": slopes.dx,
            "dscale": slopes.dscale,
            "dbias": slopes.dbias,
        }

    expected = compute("numpy")
    try:
        got = compute("cuda")
    except BnfoldError as error:
        return Check(name, ok=False, detail=str(error))
    allowed = _AGREEMENT_UNITS * float(np.finfo(np.float32).eps)
    worst = 0.0
    for what, reference in expected.items():
        wide = reference.astype(np.float64)
        off = float(np.max(np.abs(got[what].astype(np.float64) - wide)) / np.max(np.abs(wide)))
        if not off <= allowed:
            return Check(name, ok=False, detail=f"{what} is off by {off:.1e} of its largest value")
        worst = max(worst, off)
    return Check(name, ok=True, detail=f"off by at most {worst:.1e} of the largest value")


def _results(
    backend: BackendName, dtype: np.dtype[Any], *, last: bool
) -> list[tuple[str, Array, tuple[Any, ...]]]:
    run = load(backend)
    shape, axis = ((2, 1, 2), -1) if last else ((2, 2, 1), 1)

    def array(values: tuple[Any, ...]) -> Array:
        return np.array(values, dtype)

    x, dy = array(_X).reshape(shape), array(_DY).reshape(shape)
    scale, bias, mean, var = array(_SCALE), array(_BIAS), array(_MEAN), array(_VAR)
    common = {"epsilon": _EPSILON, "axis": axis}
    step = run.train(
        x,
        scale,
        bias,
        array(_RUNNING_MEAN),
        array(_RUNNING_VAR),
        momentum=_MOMENTUM,
        unbiased=False,
        **common,
    )
    training = run.backward(dy, x, scale, mean=step.mean, var=step.var, training=True, **common)
    inference = run.backward(dy, x, scale, mean=mean, var=var, training=False, **common)
    layout = "channels-last" if last else "channels-first"
    return [
        (f"{layout} inference y", run.infer(x, scale, bias, mean, var, **common), _Y),
        (f"{layout} training y", step.y, _Y),
        (f"{layout} batch mean", step.mean, _MEAN),
        (f"{layout} batch variance", step.var, _VAR),
        (f"{layout} running mean", step.running_mean, _MOVED_MEAN),
        (f"{layout} running variance", step.running_var, _MOVED_VAR),
        (f"{layout} training dx", training.dx, _DX_TRAINING),
        (f"{layout} training dscale", training.dscale, _DSCALE),
        (f"{layout} training dbias", training.dbias, _DBIAS),
        (f"{layout} inference dx", inference.dx, _DX_INFERENCE),
        (f"{layout} inference dscale", inference.dscale, _DSCALE),
        (f"{layout} inference dbias", inference.dbias, _DBIAS),
    ]


def _spacing(dtype: np.dtype[Any]) -> float:
    return float(np.nextafter(dtype.type(1), dtype.type(2)) - dtype.type(1))
