"""The same input, version and options give the same bytes, whatever is around them.

Another process folds a folder of models and prints the digest of each result. It runs once as it is, and once
for each thing that must not matter.

    BNFOLD_PYTHONS=/path/to/python3.12:/path/to/python3.13 pytest tests/test_determinism.py

names further interpreters, which need bnfold's dependencies.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto
from support import command, through
from support.build import Net
from support.ways import positive

MODELS = Path(__file__).resolve().parent.parent / "models"
PYTHONS = [path for path in os.environ.get("BNFOLD_PYTHONS", "").split(os.pathsep) if path]
SEEDS = range(40)

FOLD_ALL = """
import hashlib, sys, tempfile
from pathlib import Path
import bnfold
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    with tempfile.TemporaryDirectory() as folder:
        result = bnfold.optimize(path, output=Path(folder) / "out.onnx", verify=False)
        digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(folder).iterdir())]
    print(path.name, len(result.folds), len(result.kept), *digests)
"""


def wide() -> ModelProto:
    """Sums over thousands of weights, which libraries of linear algebra split among threads."""
    net = Net()
    x = net.bn(net.input("x", 1, 256, 8, 8), 256, name="first", stats=positive(256))
    x = net.node("Sigmoid", net.conv(x, 256, 64, (3, 3), name="conv"))
    x = net.bn(net.node("Flatten", net.node("GlobalAveragePool", x)), 64, name="second")
    net.output(net.node("Gemm", x, net.init(net.draw(64, 512)), out="y"))
    return net.model()


def branches() -> ModelProto:
    """What merges, which chooses names and an order."""
    net = Net()
    x = net.input("x", 1, 8, 6, 6)
    three = net.bn(net.conv(x, 8, 8, (3, 3), pads=[1] * 4), 8)
    one = net.bn(net.conv(x, 8, 8, (1, 1)), 8)
    net.output(net.node("Add", net.node("Add", three, one), net.bn(x, 8), out="y"))
    return net.model()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, model in (("wide", wide()), ("branches", branches()), ("small", command.small())):
        command.save(model, folder / f"{name}.onnx")
    shutil.copy(MODELS / "digits.onnx", folder)
    onnx.save(
        wide(), str(folder / "external.onnx"), save_as_external_data=True, location="w", size_threshold=0
    )
    for seed in SEEDS:
        command.save(through.model(seed)[0], folder / f"random{seed}.onnx")
    return folder


def digests(models: Path, *, cwd: Path, python: str = sys.executable, **environment: str) -> list[str]:
    found = command.run(str(models), cwd=cwd, program=(python, "-c", FOLD_ALL), env=environment)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def expected(models: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    lines = digests(models, cwd=tmp_path_factory.mktemp("cwd"), PYTHONHASHSEED="0")
    assert len(lines) == len(list(models.glob("*.onnx")))
    folded = {line.split()[0] for line in lines if line.split()[1] != "0"}
    assert {"wide.onnx", "branches.onnx", "external.onnx", "digits.onnx", "small.onnx"} <= folded
    assert len(folded) > len(SEEDS) / 3
    return lines


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "4294967295"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"},
        dict.fromkeys(THREADS, "1"),
        dict.fromkeys(THREADS, "8"),
    ],
    ids=["hash seed", "another hash seed", "locale and time zone", "1 thread", "8 threads"],
)
def test_the_environment_makes_no_difference(
    models: Path, expected: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    assert digests(models, cwd=tmp_path, **environment) == expected


def test_where_it_is_makes_no_difference(models: Path, expected: list[str], tmp_path: Path) -> None:
    """The folder of the models, of the user and of temporary files."""
    moved = tmp_path / "von hier, 模型"
    shutil.copytree(models, moved)
    (tmp_path / "tmp").mkdir()
    assert digests(moved, cwd=moved, TMPDIR=str(tmp_path / "tmp"), HOME=str(tmp_path)) == expected


def test_the_time_makes_no_difference(models: Path, expected: list[str], tmp_path: Path) -> None:
    again = shutil.copytree(models, tmp_path / "models")
    for path in again.iterdir():
        os.utime(path, (0, 0))
    assert digests(again, cwd=tmp_path) == expected


@pytest.mark.parametrize("python", PYTHONS or [""])
def test_the_version_of_python_makes_no_difference(
    models: Path, expected: list[str], tmp_path: Path, python: str
) -> None:
    if not python:
        pytest.skip("BNFOLD_PYTHONS names no other interpreter")
    assert digests(models, cwd=tmp_path, python=python) == expected
