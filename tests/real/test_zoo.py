"""Networks as PyTorch's exporters and tf2onnx write them: `benchmarks/zoo.py` and `benchmarks/keras_zoo.py`.

Those need packages that the test extra does not install. BNFOLD_ZOO_TORCH and BNFOLD_ZOO_KERAS name the
interpreters that have them; the one that runs the tests serves otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
from support import real
from support.claims import ops

import bnfold

pytestmark = pytest.mark.zoo

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EXPORTERS = ("script", "dynamo")

# BatchNormalization nodes, and how many stay, by reason code.
EXPORTED: dict[str, tuple[int, dict[str, int]]] = {
    "unet3d": (8, {}),
    "dcgan": (4, {}),
    "pointnet": (10, {}),
    "mlp": (4, {}),
    "timm_repvgg_a0": (61, {}),
    "timm_mobileone_s0": (226, {}),
    "timm_mobilenetv3_small_100": (34, {}),
    "pytorchcv_shufflenet_g3_wd4": (49, {}),
    # Concat, BatchNormalization, Relu: it has no weights before it, and the Relu bends.
    "timm_densenet121": (121, {"BNF010": 55, "BNF018": 7}),
    "pytorchcv_preresnet18": (18, {"BNF010": 6, "BNF018": 3}),
}
REPARAMETERIZED = ("timm_repvgg_a0", "timm_mobileone_s0")
# Chains that spell a normalization out, by form; none stays.
CONVERTED = {("keras_mobilenet_v2", "tf2onnx"): 17, ("keras_mobilenet_v2", "plain"): 52}


def _made(folder: Path, variable: str, script: str, *arguments: str) -> Path:
    python = os.environ.get(variable, sys.executable)
    command = [python, str(_BENCHMARKS / script), str(folder), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    return _made(folder, "BNFOLD_ZOO_TORCH", "zoo.py", *EXPORTED, "--reparameterized")


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {name for name, _ in CONVERTED}
    return _made(tmp_path_factory.mktemp("keras"), "BNFOLD_ZOO_KERAS", "keras_zoo.py", *names)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", EXPORTED)
def test_exported(name: str, exporter: str, exported: Path) -> None:
    real.expect(exported / f"{name}_{exporter}.onnx", *EXPORTED[name])


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", EXPORTED)
def test_one_wrong_weight(name: str, exporter: str, exported: Path) -> None:
    real.expect_slips_found(exported / f"{name}_{exporter}.onnx")


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", REPARAMETERIZED)
def test_as_few_nodes_as_the_authors_reparameterization(name: str, exporter: str, exported: Path) -> None:
    result = bnfold.optimize(exported / f"{name}_{exporter}.onnx", verify=False)
    authors = onnx.load(exported / "reparameterized" / f"{name}_{exporter}.onnx")
    assert Counter(ops(result.model)) == Counter(ops(authors))


@pytest.mark.parametrize(("name", "form"), CONVERTED)
def test_channels_last_and_spelled_out(name: str, form: str, converted: Path) -> None:
    result = bnfold.optimize(converted / f"{name}_{form}.onnx")
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    assert not result.kept
    assert len(result.folds) == CONVERTED[name, form]
    assert "Mul" not in ops(result.model)


@pytest.mark.parametrize(("name", "form"), CONVERTED)
def test_one_wrong_weight_channels_last(name: str, form: str, converted: Path) -> None:
    real.expect_slips_found(converted / f"{name}_{form}.onnx")
