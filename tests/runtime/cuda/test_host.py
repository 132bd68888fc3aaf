"""The backend from end to end, with everything real but the GPU: see on_fake_driver.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("cuda_packages")]

HERE = Path(__file__).parent


def run(check: str, driver: Path, libraries: dict[np.dtype[Any], Path], **environment: str) -> str:
    """Run a check in a process whose driver is the fake one; what it prints."""
    paths = (HERE.parents[1], HERE.parents[2])
    folder = next(iter(libraries.values())).parent
    done = subprocess.run(
        (
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            str(HERE / "on_fake_driver.py"),
            check,
            str(driver),
            str(folder),
        ),
        env=os.environ
        | environment
        | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "LD_LIBRARY_PATH": str(driver.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "check",
    [
        "numpy_arrays",
        "conventions",
        "empty",
        "refusals",
        "threads",
        "foreign_arrays",
        "torch_arrays",
        "host_memory_of_others",
    ],
)
def test_on_a_gpu_that_is_not_there(check: str, fake_driver: Path, libraries: dict[Any, Path]) -> None:
    run(check, fake_driver, libraries)


def test_out_of_memory(fake_driver: Path, libraries: dict[Any, Path]) -> None:
    run("out_of_memory", fake_driver, libraries, FAKE_CUDA_BYTES="100000")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("FAKE_CUDA_INIT", "100", "no CUDA device"),
        ("FAKE_CUDA_DEVICES", "0", "no CUDA device"),
        ("FAKE_CUDA_VERSION", "12040", "the NVIDIA driver supports CUDA 12.4, and NVRTC 13."),
        ("FAKE_CUDA_CAPABILITY", "70", "Fake GPU has compute capability 7.0"),
    ],
)
def test_a_gpu_that_cannot_be_used(
    fake_driver: Path, libraries: dict[Any, Path], name: str, value: str, reason: str
) -> None:
    assert run("unusable", fake_driver, libraries, **{name: value}).startswith(reason)
