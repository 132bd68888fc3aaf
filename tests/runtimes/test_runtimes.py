"""Folded models in runtimes other than onnxruntime: they load there, and compute the same.

BNFOLD_RUNTIMES names an interpreter that has the runtimes, or some of them; the one that runs the tests
serves otherwise:

    python -m venv ~/runtimes
    ~/runtimes/bin/pip install opencv-python-headless openvino tract ncnn pnnx onnx2torch
    BNFOLD_RUNTIMES=~/runtimes/bin/python pytest -m runtimes
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support import beside, real
from support.build import Net
from support.other_runtimes import PACKAGES, RUNTIMES

import bnfold

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.beside import Pair

pytestmark = pytest.mark.runtimes

PYTHON = Path(os.environ.get("BNFOLD_RUNTIMES", sys.executable))
DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


# --- networks, each with what a fold leaves behind in some operators


def convolutions(net: Net) -> None:
    x = net.conv(net.input("x", 1, 3, 12, 12), 3, 8, bias=False)
    x = net.node("Relu", net.bn(x, 8))
    x = net.conv(x, 8, 8, group=8, pads=[1, 1, 1, 1])
    x = net.node("Clip", net.bn(x, 8), net.init(0.0), net.init(6.0))
    x = net.conv(x, 8, 12, (1, 1), bias=False, group=4)
    x = net.node("LeakyRelu", net.bn(x, 12), alpha=0.1)
    net.output(net.bn(net.conv(x, 12, 4, strides=[2, 2], auto_pad="SAME_UPPER"), 4))


def one_dimension(net: Net) -> None:
    x = net.bn(net.conv(net.input("x", 1, 3, 20), 3, 6, (3,), bias=False), 6)
    net.output(net.bn(net.conv(net.node("Relu", x), 6, 4, (1,)), 4))


def three_dimensions(net: Net) -> None:
    x = net.bn(net.conv(net.input("x", 1, 2, 6, 6, 6), 2, 4, (3, 3, 3), bias=False), 4)
    net.output(net.bn(net.conv(net.node("Relu", x), 4, 3, (1, 1, 1)), 3))


def transposed(net: Net) -> None:
    x = net.input("x", 1, 4, 5, 5)
    w = net.init(net.draw(4, 6, 2, 2))
    x = net.node("Relu", net.bn(net.node("ConvTranspose", x, w, strides=[2, 2]), 6))
    w = net.init(net.draw(6, 2, 3, 3))
    net.output(net.bn(net.node("ConvTranspose", x, w, net.init(net.draw(4)), group=2), 4))


def _gemm(*addend: int) -> Callable[[Net], None]:
    def network(net: Net) -> None:
        x = net.node("Flatten", net.input("x", 1, 6))
        x = net.node("Gemm", x, net.init(net.draw(6, 8)))
        c = net.init(net.draw(*addend))
        x = net.node("Relu", net.bn(x, 8))
        x = net.node("Gemm", x, net.init(net.draw(5, 8)), c, transB=1, alpha=0.5, beta=2.0)
        net.output(net.bn(x, 5))

    return network


def matrix_product(net: Net) -> None:
    x = net.node("MatMul", net.input("x", 1, 6), net.init(net.draw(6, 8)))
    x = net.node("Relu", net.bn(x, 8))
    x = net.node("Add", net.node("MatMul", x, net.init(net.draw(8, 5))), net.init(net.draw(5)))
    net.output(net.bn(x, 5))


def tokens(net: Net) -> None:
    x = net.node("MatMul", net.input("x", 1, 7, 6), net.init(net.draw(6, 8)))
    x = net.bn(net.node("Transpose", x, perm=[0, 2, 1]), 8)
    net.output(net.node("Transpose", x, perm=[0, 2, 1]))


def channels_last(net: Net) -> None:
    x = net.node("Transpose", net.input("x", 1, 8, 8, 3), perm=[0, 3, 1, 2])
    x = net.node("Transpose", net.conv(x, 3, 6, pads=[1, 1, 1, 1]), perm=[0, 2, 3, 1])
    x = net.node("Mul", x, net.init(net.draw(6)))
    net.output(net.node("Relu", net.node("Add", x, net.init(net.draw(6)))))


def in_front(net: Net) -> None:
    x = net.node("MaxPool", net.bn(net.input("x", 1, 3, 10, 10), 3, stats=POSITIVE), kernel_shape=[2, 2])
    x = net.node("Relu", net.conv(x, 3, 4, bias=False))
    x = net.node("Flatten", net.node("GlobalAveragePool", net.bn(x, 4)))
    net.output(net.node("Gemm", x, net.init(net.draw(4, 5))))


def padded(net: Net) -> None:
    x = net.bn(net.input("x", 1, 3, 8, 8), 3)
    x = net.node("Pad", x, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    net.output(net.conv(x, 3, 4))


def slopes(net: Net) -> None:
    x = net.conv(net.input("x", 1, 3, 8, 8), 3, 4)
    x = net.node("PRelu", x, net.init(np.full((4, 1, 1), 0.25)))
    net.output(net.bn(x, 4, stats={"bias": np.zeros(4), "mean": np.zeros(4)}))


def joined(net: Net) -> None:
    x = net.input("x", 1, 3, 8, 8)
    x = net.node("Concat", net.conv(x, 3, 4, (1, 1)), net.conv(x, 3, 2, (1, 1), bias=False), axis=1)
    net.output(net.node("Relu", net.bn(x, 6)))


def branches(net: Net) -> None:
    x = net.node("Relu", net.conv(net.input("x", 1, 4, 8, 8), 4, 4, (1, 1)))
    wide = net.bn(net.conv(x, 4, 4, pads=[1, 1, 1, 1], bias=False), 4)
    narrow = net.bn(net.conv(x, 4, 4, (1, 1), bias=False), 4)
    net.output(net.node("Relu", net.node("Add", net.node("Add", wide, narrow), net.bn(x, 4))))


def residual(net: Net) -> None:
    x = net.node("Relu", net.bn(net.conv(net.input("x", 1, 3, 8, 8), 3, 4, (1, 1)), 4))
    y = net.node("Relu", net.bn(net.conv(x, 4, 4, pads=[1, 1, 1, 1]), 4))
    x = net.node("Add", net.bn(net.conv(y, 4, 4, pads=[1, 1, 1, 1]), 4), x)
    net.output(net.node("Relu", x))


POSITIVE = {"scale": np.array([0.5, 1.0, 1.5])}

NETWORKS: dict[str, Callable[[Net], None]] = {
    "convolutions": convolutions,
    "one dimension": one_dimension,
    "three dimensions": three_dimensions,
    "transposed": transposed,
    "gemm, scalar": _gemm(),
    "gemm, vector": _gemm(5),
    "gemm, row": _gemm(1, 5),
    "gemm, one": _gemm(1, 1),
    "matrix product": matrix_product,
    "tokens": tokens,
    "channels last": channels_last,
    "in front": in_front,
    "padded": padded,
    "slopes": slopes,
    "joined": joined,
    "branches": branches,
    "residual": residual,
}
LIGHT = ("densenet121", "inception_v2", "resnet50", "shufflenet")

# Networks of which a runtime has no sound result, neither of the original nor of what bnfold makes of it.
BEYOND = {
    ("convolutions", "OpenCV, new engine"): "its results of the original are far from the truth",
    ("convolutions", "PyTorch, onnx2torch"): "it lacks auto_pad SAME_UPPER",
    ("densenet121", "ncnn"): "pnnx takes the lists of weights of this old model for inputs",
}


def model(name: str) -> onnx.ModelProto:
    if name in LIGHT:
        return real.with_random_weights(onnx.load(real.light(name)), seed=0)
    if name == "digits":
        return onnx.load(DIGITS)
    net = Net(opset=13)
    NETWORKS[name](net)
    return net.model()


# --- the tests


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """A network, folded, with its truth: made once for all runtimes."""
    folder = tmp_path_factory.mktemp("runtimes")

    @cache
    def made(name: str) -> Pair:
        original, folded = (folder / f"{name}.{kind}.onnx" for kind in ("original", "folded"))
        onnx.save(model(name), original)
        result = bnfold.optimize(original, output=folded, verify=False)
        assert result.folds, "a network that nothing is folded in tests nothing"
        return beside.pair(original, folded)

    return made


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not beside.version(PYTHON, name):
        # Who named an interpreter believes that the runtimes are there.
        told = pytest.fail if "BNFOLD_RUNTIMES" in os.environ else pytest.skip
        told(f"{PYTHON} lacks {' or '.join(PACKAGES[name])}")
    return name


@pytest.mark.parametrize("name", [*NETWORKS, *LIGHT])
def test_a_folded_network_is_the_same_there(name: str, runtime: str, pairs: Callable[[str], Pair]) -> None:
    outcome = beside.outcome(PYTHON, runtime, pairs(name))
    sound = {"neither"} if (name, runtime) in BEYOND else {"agrees", "folded alone"}
    assert outcome.finding in sound, outcome


def test_the_model_of_this_repository_runs_everywhere(runtime: str, pairs: Callable[[str], Pair]) -> None:
    assert beside.outcome(PYTHON, runtime, pairs("digits")).finding == "agrees"


def test_a_weight_that_is_off_by_a_thousandth_is_noticed(
    runtime: str, pairs: Callable[[str], Pair], tmp_path: Path
) -> None:
    given = pairs("digits")
    planted = onnx.load(given.folded)
    stored = max(planted.graph.initializer, key=lambda tensor: len(tensor.dims))
    weight = numpy_helper.to_array(stored).copy()
    weight.flat[np.abs(weight).argmax()] *= np.float32(1.001)
    stored.CopyFrom(numpy_helper.from_array(weight, stored.name))
    onnx.save(planted, tmp_path / "planted.onnx")
    wrong = beside.Pair(given.original, tmp_path / "planted.onnx", given.feed, given.truth, given.allowances)
    assert beside.outcome(PYTHON, runtime, wrong).finding == "differs"
