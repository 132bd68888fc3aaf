from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bnfold.errors import EnvironmentFault
from bnfold.runtime import numpy_backend, selftest


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "cuda_unavailable", lambda: "no CUDA driver")


def test_the_reference_passes_in_every_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    rows = selftest.self_test()
    assert [row.name for row in rows] == [
        "numpy float16",
        "numpy bfloat16",
        "numpy float32",
        "numpy float64",
        "cuda",
    ]
    assert [row.ok for row in rows] == [True] * 4 + [None]
    assert rows[-1].detail == "no CUDA driver"


def test_a_backend_that_works_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "cuda_unavailable", lambda: None)
    monkeypatch.setattr(selftest, "load", lambda _: numpy_backend)
    rows = selftest.self_test()
    assert [row.name for row in rows[4:]] == [
        "cuda float16",
        "cuda bfloat16",
        "cuda float32",
        "cuda float64",
        "cuda against numpy, channels-first",
        "cuda against numpy, channels-last",
    ]
    assert all(row.ok for row in rows)


@pytest.mark.parametrize(
    ("function", "field", "seen"),
    [
        ("infer", None, "inference y"),
        ("train", "y", "training y"),
        ("train", "mean", "batch mean"),
        ("train", "var", "batch variance"),
        ("train", "running_mean", "running mean"),
        ("train", "running_var", "running variance"),
        ("backward", "dx", "dx"),
        ("backward", "dscale", "dscale"),
        ("backward", "dbias", "dbias"),
    ],
)
def test_one_wrong_number_is_found(
    monkeypatch: pytest.MonkeyPatch, function: str, field: str | None, seen: str
) -> None:
    without_gpu(monkeypatch)

    def broken(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - wraps any backend function
        result = getattr(numpy_backend, function)(*args, **options)
        (result if field is None else getattr(result, field)).flat[-1] += 0.125
        return result

    module = SimpleNamespace(
        **{name: getattr(numpy_backend, name) for name in ("infer", "train", "backward")} | {function: broken}
    )
    monkeypatch.setattr(selftest, "load", lambda _: module)
    rows = selftest.self_test()
    assert [row.ok for row in rows[:4]] == [False] * 4
    assert f"channels-first {seen}" in rows[0].detail or f"training {seen}" in rows[0].detail


def test_nan_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    without_gpu(monkeypatch)
    module = SimpleNamespace(
        infer=lambda x, *_, **__: np.full_like(x, np.nan),
        train=numpy_backend.train,
        backward=numpy_backend.backward,
    )
    monkeypatch.setattr(selftest, "load", lambda _: module)
    assert not selftest.self_test()[0].ok


def test_a_backend_that_fails_is_a_row_and_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "cuda_unavailable", lambda: None)

    def load(name: str) -> Any:  # noqa: ANN401 - a backend module
        if name == "cuda":
            raise EnvironmentFault("out of device memory")
        return numpy_backend

    monkeypatch.setattr(selftest, "load", load)
    rows = selftest.self_test()
    assert [row.ok for row in rows] == [True] * 4 + [False] * 6
    assert rows[-1].detail == "out of device memory"


@pytest.mark.parametrize(("function", "field"), [("infer", None), ("train", "var"), ("backward", "dx")])
def test_one_wrong_tail_on_a_gpu_is_found(
    monkeypatch: pytest.MonkeyPatch, function: str, field: str | None
) -> None:
    monkeypatch.setattr(selftest, "cuda_unavailable", lambda: None)

    def broken(x: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - wraps any backend function
        result = getattr(numpy_backend, function)(x, *args, **options)
        if x.size > 1000:  # a fault that the example worked out by hand is too small to show
            values = result if field is None else getattr(result, field)
            values.flat[-1] += 0.01 * np.abs(values).max()
        return result

    module = SimpleNamespace(
        **{name: getattr(numpy_backend, name) for name in ("infer", "train", "backward")} | {function: broken}
    )
    monkeypatch.setattr(selftest, "load", lambda name: module if name == "cuda" else numpy_backend)
    rows = selftest.self_test()
    assert [row.ok for row in rows] == [True] * 8 + [False] * 2
    assert "is off by" in rows[-1].detail
