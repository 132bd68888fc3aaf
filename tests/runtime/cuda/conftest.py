from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from support.emulated_gpu import EMULATOR, EmulatedGpu, build
from support.gpu_cases import DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


@pytest.fixture
def cuda_packages(request: pytest.FixtureRequest) -> None:
    """Skip where the extra is not installed; fail where these tests were asked for."""
    missing = [name for name in ("cuda.core", "cuda.bindings.nvrtc") if not _installed(name)]
    if not missing:
        return
    message = f"{', '.join(missing)} missing: pip install 'bnfold[cuda]'"
    if "cuda" in request.config.option.markexpr:
        pytest.fail(message)
    pytest.skip(message)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[np.dtype[Any], Path]:
    """The kernels as shared libraries for the CPU. No g++ is a failure: nothing else would check them."""
    folder = tmp_path_factory.mktemp("kernels")
    return {dtype: build(folder, dtype) for dtype in DTYPES}


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    chosen: np.dtype[Any] = request.param
    return chosen


@pytest.fixture
def gpu(dtype: np.dtype[Any], libraries: dict[np.dtype[Any], Path]) -> EmulatedGpu:
    return EmulatedGpu(libraries[dtype])


@pytest.fixture(scope="session")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libcuda.so.1 without a GPU.

    It has no soname: loaded here by its path, it is not taken for the real one by whoever looks for that.
    """
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    command = (str(shutil.which("g++")), "-std=c++17", "-O1", "-fPIC", "-shared")
    source = EMULATOR / "fake_driver.cpp"
    subprocess.run((*command, str(source), "-o", str(library), "-ldl"), check=True)
    return library
