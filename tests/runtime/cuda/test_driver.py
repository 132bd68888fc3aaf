"""What a user without a usable GPU is told: one clear line, at once. The driver is a fake one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from bnfold.errors import EnvironmentFault
from bnfold.runtime import cuda
from bnfold.runtime.cuda_driver import Driver, check_version, probe

if TYPE_CHECKING:
    from pathlib import Path


def test_no_driver(tmp_path: Path) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"^no NVIDIA driver: .*absent.so cannot be loaded; install it"
    ):
        probe(str(tmp_path / "absent.so"))


def test_a_working_driver(fake_driver: Path) -> None:
    assert probe(str(fake_driver)) == Driver((13, 0), "Fake GPU", (9, 0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FAKE_CUDA_INIT", "100", "^no CUDA device: the NVIDIA driver sees no GPU"),
        ("FAKE_CUDA_DEVICES", "0", "^no CUDA device: the NVIDIA driver sees no GPU"),
        (
            "FAKE_CUDA_INIT",
            "999",
            r"^the NVIDIA driver does not work: cuInit gave 999 \(CUDA_ERROR_UNKNOWN\)",
        ),
        ("FAKE_CUDA_INIT", "12345", r"^the NVIDIA driver does not work: cuInit gave 12345 \(unknown\)"),
        ("FAKE_CUDA_CAPABILITY", "61", "^Fake GPU has compute capability 6.1, and the kernels need 7.5"),
    ],
)
def test_what_can_be_wrong(
    fake_driver: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    start = time.perf_counter()
    with pytest.raises(EnvironmentFault, match=message) as caught:
        probe(str(fake_driver))
    assert time.perf_counter() - start < 1
    assert "\n" not in str(caught.value)


def test_a_driver_older_than_the_compiler(fake_driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_VERSION", "12040")
    driver = probe(str(fake_driver))
    with pytest.raises(
        EnvironmentFault, match=r"driver supports CUDA 12\.4, and NVRTC 13\.5 needs CUDA 13\.0"
    ):
        check_version(driver, (13, 5))
    # A minor version behind is no hindrance to machine code.
    check_version(Driver((13, 0), "", (9, 0)), (13, 5))


def test_the_backend_answers_within_a_second() -> None:
    start = time.perf_counter()
    reason = cuda.available()
    assert reason is None or "\n" not in reason
    # cuda.core itself takes most of this second to import, where there is a GPU.
    assert time.perf_counter() - start < 1 or reason is None
