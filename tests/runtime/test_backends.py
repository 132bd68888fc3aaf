"""Who computes: the choice of a backend, with a stand-in where a GPU would be."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bnfold import runtime
from bnfold.errors import EnvironmentFault, UsageError
from bnfold.runtime import backends

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = np.ones(1)


class OnDevice:
    """An array in device memory, as far as its protocol tells."""

    __cuda_array_interface__: dict[str, Any] = {}  # noqa: RUF012 - the protocol asks for an attribute
    shape = (1,)


class Exported:
    """An array that offers DLPack alone."""

    shape = (1,)

    def __dlpack__(self, *, stream: object = None) -> object:
        raise NotImplementedError

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def stand_in(fault: str | None) -> ModuleType:
    """A CUDA backend that notes what it was asked, and can be out of order."""
    module = ModuleType("bnfold.runtime.cuda")
    calls: list[tuple[str, dict[str, Any]]] = []

    def answer(name: str) -> Any:  # noqa: ANN401 - a function of any backend
        def compute(*_: object, **options: Any) -> str:  # noqa: ANN401 - whatever the facade passes
            if fault is not None:
                raise EnvironmentFault(fault)
            calls.append((name, options))
            return f"cuda {name}"

        return compute

    vars(module).update(
        calls=calls,
        available=lambda: fault,
        infer=answer("infer"),
        train=answer("train"),
        backward=answer("backward"),
    )
    return module


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    backends.cuda_unavailable.cache_clear()
    yield
    backends.cuda_unavailable.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    module = stand_in(None)
    monkeypatch.setitem(sys.modules, "bnfold.runtime.cuda", module)
    return SimpleNamespace(calls=vars(module)["calls"])


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bnfold.runtime.cuda", stand_in("no CUDA driver"))


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_numpy_without_a_gpu() -> None:
    assert runtime.backend_for("auto") == "numpy"
    assert runtime.train(np.ones((2, 1)), ONE, ONE, ONE, ONE).backend == "numpy"
    y = runtime.infer(np.ones((2, 1)), ONE, ONE, ONE, ONE)
    np.testing.assert_array_equal(y, 1.0)


@pytest.mark.usefixtures("gpu")
def test_auto_is_cuda_with_one() -> None:
    assert runtime.backend_for("auto") == "cuda"
    assert runtime.infer(np.ones((2, 1)), ONE, ONE, ONE, ONE) == "cuda infer"


@pytest.mark.usefixtures("gpu")
def test_numpy_stays_numpy_with_a_gpu() -> None:
    assert runtime.train(np.ones((2, 1)), ONE, ONE, ONE, ONE, backend="numpy").backend == "numpy"


@pytest.mark.usefixtures("no_gpu")
def test_cuda_does_not_fall_back() -> None:
    with pytest.raises(EnvironmentFault, match="no CUDA driver"):
        runtime.infer(np.ones((2, 1)), ONE, ONE, ONE, ONE, backend="cuda")


@pytest.mark.parametrize("array", [OnDevice(), Exported()])
def test_a_device_array_goes_to_cuda(gpu: SimpleNamespace, array: Any) -> None:  # noqa: ANN401 - a duck
    runtime.infer(array, array, array, array, array)
    runtime.infer(np.ones((2, 1)), array, ONE, ONE, ONE)
    assert [name for name, _ in gpu.calls] == ["infer", "infer"]


@pytest.mark.usefixtures("no_gpu")
def test_a_device_array_without_a_gpu_says_why() -> None:
    array: Any = OnDevice()
    with pytest.raises(EnvironmentFault, match="no CUDA driver"):
        runtime.infer(array, array, array, array, array)


@pytest.mark.parametrize("array", [OnDevice(), Exported()])
def test_numpy_refuses_a_device_array(array: Any) -> None:  # noqa: ANN401 - a duck
    with pytest.raises(UsageError, match=r'backend="numpy" with a .*(OnDevice|Exported).*backend="cuda"'):
        runtime.infer(np.ones((2, 1)), ONE, ONE, array, ONE, backend="numpy")


def test_an_unknown_backend() -> None:
    with pytest.raises(UsageError, match="backend='gpu'; expected one of auto, numpy, cuda"):
        runtime.infer(np.ones((2, 1)), ONE, ONE, ONE, ONE, backend="gpu")  # type: ignore[arg-type]  # the point


def test_a_backend_gets_every_default_and_onnx_meanings(gpu: SimpleNamespace) -> None:
    x = np.ones((2, 1))
    runtime.infer(x, ONE, ONE, ONE, ONE)
    runtime.train(x, ONE, ONE, ONE, ONE, convention="pytorch", momentum=0.25, epsilon=0.5, axis=-1)
    runtime.train(x, ONE, ONE, ONE, ONE, convention="keras")
    runtime.backward(x, x, ONE, mean=ONE, var=ONE, training=False)
    assert gpu.calls == [
        ("infer", {"epsilon": 1e-5, "axis": 1}),
        ("train", {"epsilon": 0.5, "momentum": 0.75, "axis": -1, "unbiased": True}),
        ("train", {"epsilon": 1e-3, "momentum": 0.99, "axis": 1, "unbiased": False}),
        ("backward", {"mean": ONE, "var": ONE, "epsilon": 1e-5, "axis": 1, "training": False}),
    ]


def test_the_runtime_imports_neither_graphs_nor_folds() -> None:
    """So that the oracle shares no line with what it judges."""
    allowed = {"numpy", "ml_dtypes", "bnfold", *sys.stdlib_module_names}
    package = Path(runtime.__file__).parent
    own = [p for p in package.rglob("*.py") if not p.name.startswith("cuda")]
    assert len(own) >= 9
    for path in own:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed, (path.name, name)
                if name.split(".")[0] == "bnfold":
                    assert name == "bnfold.errors" or name.startswith("bnfold.runtime"), (path.name, name)
