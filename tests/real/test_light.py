"""The topologies of onnx's own test data that contain BatchNormalization, and the checks of `support.real`.

As they are, all weights of a tensor are equal and channels cannot be told apart, so each topology is also
given random weights. DenseNet normalizes concatenations that many layers read, in front of a Relu: half of
its normalizations stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from support import real

from bnfold.fold.reasons import Code, Reason

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS = {
    "densenet121": (121, {"BNF010": 55, "BNF018": 7}),
    "inception_v2": (69, {}),
    "resnet50": (53, {}),
    "shufflenet": (49, {}),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.slow
def test_as_it_is(network: str) -> None:
    real.expect(real.light(network), *NETWORKS[network])


@pytest.mark.slow
def test_with_random_weights(network: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(real.with_random_weights(onnx.load(real.light(network)), seed=0), path)
    real.expect(path, *NETWORKS[network])


@pytest.mark.slow
def test_one_wrong_weight(network: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(real.with_random_weights(onnx.load(real.light(network)), seed=0), path)
    real.expect_slips_found(path, layers=2)


SMALL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
    <float[1, 1, 1, 1] w = {2}, float[1] one = {1}, float[1] zero = {0}>
    {
        [before] z = OPERATOR
        [kept] y = BatchNormalization(z, one, one, zero, one)
    }
"""


@pytest.mark.parametrize(("operator", "missed"), [("Conv(x, w)", ["kept"]), ("Relu(x)", [])])
def test_a_missed_fold_is_noticed(operator: str, missed: list[str]) -> None:
    assert real.missed(onnx.parser.parse_model(SMALL.replace("OPERATOR", operator))) == missed


@pytest.mark.parametrize(
    ("operator", "code", "blocking", "true"),
    [
        ("Conv(x, w)", Code.NO_LINEAR_NEIGHBOUR, "before", False),
        ("Relu(x)", Code.NO_LINEAR_NEIGHBOUR, "before", True),
        ("Relu(x)", Code.SIGN, "before", True),
        ("Conv(x, w)", Code.SIGN, "before", False),
        ("Conv(x, w)", Code.ZERO_PADDING, "before", False),
        ("Conv <pads = [1, 1, 1, 1]> (x, w)", Code.ZERO_PADDING, "before", True),
        ("Conv(x, w)", Code.SEVERAL_CONSUMERS, "z", False),
        ("Conv(x, w)", Code.GRAPH_OUTPUT, "z", False),
        ("Conv(x, w)", Code.GRAPH_OUTPUT, "y", True),
        ("Conv(x, w)", Code.NOT_CONSTANT, "w", False),
        ("Conv(x, w)", Code.DTYPE_RANGE, "w", False),
        ("Conv(x, w)", Code.OVERRIDABLE, "w", False),
        ("Conv(x, w)", Code.TRAINING_MODE, "kept", False),
    ],
)
def test_an_untrue_reason_is_noticed(operator: str, code: Code, blocking: str, true: bool) -> None:
    model = onnx.parser.parse_model(SMALL.replace("OPERATOR", operator))
    reason = Reason(code, blocking, "the evidence")
    assert (real.fault(real.Wiring(model), "kept", reason) == "") == true
