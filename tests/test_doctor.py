"""The checkup of an installation, sound and broken."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from support import command

from bnfold import doctor
from bnfold.doctor import Check, Checkup, Provider, examine
from bnfold.environment import PACKAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent
CPU = Provider("CPUExecutionProvider", starts=True, detail="")
GOOD = Check("reference", ok=True, detail="")


@pytest.fixture(scope="module")
def checkup() -> Checkup:
    return examine()


def test_this_installation_is_healthy(checkup: Checkup) -> None:
    assert checkup.healthy, checkup
    assert checkup.checks[-1] == Check(
        "onnxruntime, CPU", ok=True, detail="computes what the reference computes"
    )


def test_providers_are_tried_and_not_believed(checkup: Checkup) -> None:
    """onnxruntime lists CUDA on machines that have none."""
    listed = subprocess.run(
        [sys.executable, "-c", "import onnxruntime; print(*onnxruntime.get_available_providers())"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split()
    assert [provider.name for provider in checkup.providers] == listed
    assert next(p for p in checkup.providers if p.name == CPU.name).starts
    if not Path("/dev/nvidiactl").exists():
        cuda = [
            p for p in checkup.providers if p.name in {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
        ]
        assert all(p.starts is False and p.detail for p in cuda)


def test_versions_are_those_of_the_installed_packages(checkup: Checkup) -> None:
    for package in checkup.packages:
        if package.version is None:
            with pytest.raises(metadata.PackageNotFoundError):
                metadata.version(package.name)
        else:
            assert package.version == metadata.version(package.name)


def test_all_dependencies_are_listed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(PACKAGES) == sorted(Requirement(each).name for each in project["dependencies"])


def examined(providers: tuple[Provider, ...], checks: tuple[Check, ...]) -> Checkup:
    return Checkup("", "", "", (), providers, checks, ())


def test_what_healthy_means() -> None:
    cuda = Provider("CUDAExecutionProvider", starts=False, detail="no GPU")
    assert examined((cuda, CPU), (GOOD, Check("cuda", ok=None, detail="no GPU"))).healthy
    assert not examined((cuda,), (GOOD,)).healthy
    assert not examined((Provider(CPU.name, starts=False, detail=""),), (GOOD,)).healthy
    assert not examined((CPU,), ()).healthy
    assert not examined((CPU,), (GOOD, Check("cuda", ok=False, detail="wrong numbers"))).healthy


def test_two_onnxruntimes_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"onnxruntime": ["onnxruntime-gpu", "onnxruntime", "onnxruntime"], "numpy": ["numpy"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    (warning,) = doctor._warnings()
    assert "onnxruntime and onnxruntime-gpu are both installed" in warning


def test_one_onnxruntime_is_fine(checkup: Checkup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime"] * 2})
    assert list(doctor._warnings()) == []
    assert all(isinstance(warning, str) for warning in checkup.warnings)


def broken(tmp_path: Path, package: str, code: str) -> dict[str, str]:
    """An environment in which this package runs this code when it is imported."""
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(code, encoding="utf-8")
    environment = command.environment()
    return {"PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}"}


@pytest.mark.parametrize(
    ("package", "code", "says"),
    [
        ("onnxruntime", "raise ImportError('libcudart is missing')", "libcudart is missing"),
        ("onnxruntime", "import os; os.abort()", "onnxruntime cannot be imported"),
        ("numpy", "raise ImportError('numpy is for another Python')", "numpy is for another Python"),
        ("onnx", "raise ImportError('onnx is damaged')", "onnx is damaged"),
    ],
    ids=["import_error", "crash", "numpy", "onnx"],
)
def test_a_broken_package_is_a_row(tmp_path: Path, package: str, code: str, says: str) -> None:
    found = command.run("doctor", cwd=tmp_path, env=broken(tmp_path, package, code))
    assert (found.returncode, found.stderr) == (4, "")
    assert says in found.stdout
    assert "not healthy" in found.stdout


def test_a_provider_that_kills_its_process_is_a_row(tmp_path: Path) -> None:
    """It lists fine, and dies when a session starts."""
    code = (
        "import os; from unittest.mock import MagicMock\n"
        "get_available_providers = lambda: ['CPUExecutionProvider']\n"
        "InferenceSession = lambda *_, **__: os.kill(os.getpid(), 11)\n"
        "__getattr__ = lambda name: MagicMock()\n"
    )
    found = command.run("doctor", cwd=tmp_path, env=broken(tmp_path, "onnxruntime", code))
    assert (found.returncode, found.stderr) == (4, "")
    assert "SIGSEGV" in found.stdout
    assert "not healthy" in found.stdout


def test_the_command_line(checkup: Checkup, tmp_path: Path) -> None:
    found = command.run("doctor", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    for provider in checkup.providers:
        assert provider.name in found.stdout
    assert found.stdout.splitlines()[-1].startswith("healthy")


def test_wrong_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from bnfold import runtime  # noqa: PLC0415 - the reference is what is replaced

    def wrong(x: NDArray[np.float32], *_args: object, **_options: object) -> NDArray[np.float32]:
        return x + 1

    monkeypatch.setattr(runtime, "infer", wrong)
    assert "BatchNormalization gives" in (doctor._failure("cpu") or "")
