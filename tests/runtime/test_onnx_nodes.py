"""The backend node tests that onnx ships: its own cases, and recorded PyTorch exports."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from bnfold import runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECORDED = Path(onnx.backend.test.__file__).parent / "data" / "pytorch-converted"
RECORDED_NAMES = sorted(path.name for path in RECORDED.glob("test_BatchNorm*"))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def test_the_recorded_cases_are_there() -> None:
    assert len(RECORDED_NAMES) >= 5


@pytest.mark.parametrize("name", RECORDED_NAMES)
def test_recorded_pytorch_exports(name: str) -> None:
    model = onnx.load(RECORDED / name / "model.onnx")
    (node,) = model.graph.node
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def read(file: str) -> NDArray[Any]:
        return numpy_helper.to_array(onnx.load_tensor(RECORDED / name / "test_data_set_0" / file))

    x, *parameters = (values[i] if i in values else read("input_0.pb") for i in node.input)
    y = runtime.infer(x, *parameters, epsilon=attributes(node)["epsilon"], backend="numpy")
    expected = read("output_0.pb")
    assert y.dtype == expected.dtype
    # Recorded in float32: the last four bits of the largest value.
    np.testing.assert_allclose(
        y, expected, rtol=0, atol=8 * np.finfo(np.float32).eps * np.abs(expected).max()
    )


@pytest.fixture(scope="module")
def node_cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        # Collecting imports the cases of every operator, and some of them overflow on purpose.
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases("BatchNormalization")}


@pytest.mark.parametrize(
    "name",
    [
        "test_batchnorm_example",
        "test_batchnorm_epsilon",
        "test_batchnorm_example_training_mode",
        "test_batchnorm_epsilon_training_mode",
    ],
)
def test_node_cases(node_cases: dict[str, Any], name: str) -> None:
    case = node_cases[name]
    (node,) = case.model.graph.node
    given = attributes(node)
    epsilon = given.get("epsilon", 1e-5)
    for inputs, outputs in case.data_sets:
        if given.get("training_mode", 0):
            step = runtime.train(
                *inputs, epsilon=epsilon, momentum=given.get("momentum", 0.9), backend="numpy"
            )
            got: tuple[Any, ...] = (step.y, step.running_mean, step.running_var)
        else:
            got = (runtime.infer(*inputs, epsilon=epsilon, backend="numpy"),)
        assert len(got) == len(outputs)
        for mine, theirs in zip(got, outputs, strict=True):
            assert mine.dtype == theirs.dtype
            # Their arithmetic is float32: eight roundings of the largest value.
            np.testing.assert_allclose(
                mine, theirs, rtol=0, atol=8 * np.finfo(np.float32).eps * np.abs(theirs).max()
            )
