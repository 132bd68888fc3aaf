"""The integers of a QuantizeLinear are those that onnxruntime computes, ties and saturation included."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - the judge of what the operator computes
import pytest
from onnx import TensorProto, helper
from support.build import Array, Attribute, Net, Numbers, tensor
from support.quantized import INTEGERS, limits

from bnfold.model.constants import Constant, Constants, NotConstant
from bnfold.model.store import open_model
from bnfold.model.view import View


def both(
    x: Array, scale: Numbers, zero: Numbers, kind: str, *, opset: int, **attrs: Attribute
) -> tuple[Array, Array]:
    """What bnfold and what onnxruntime computes."""
    inputs = [tensor(x, "w", TensorProto.FLOAT), tensor(scale, "scale", TensorProto.FLOAT)]
    if zero is not None:
        inputs.append(tensor(zero, "zero", INTEGERS[kind]))
    names = [t.name for t in inputs]
    node = helper.make_node("QuantizeLinear", names, ["q"], "quantize", **attrs)
    result = helper.make_tensor_value_info("q", INTEGERS[kind], list(x.shape))
    graph = helper.make_graph([node], "g", [], [result], inputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(["q"], {})[0]
    found = constant(model)
    assert isinstance(found, Constant), found
    return np.asarray(found.array()).astype(int), np.asarray(want).astype(int)


def constant(model: onnx.ModelProto) -> Constant | NotConstant:
    view = View(open_model(model))
    return Constants(view, frozen=False).get(view.graphs[0].values["q"])


@pytest.mark.parametrize(
    ("kind", "opset"), [("int8", 10), ("uint8", 13), ("int8", 19), ("int16", 21), ("uint16", 21)]
)
def test_random_numbers_and_ties(kind: str, opset: int) -> None:
    rng = np.random.default_rng(0)
    low, high = limits(kind)
    scale = np.array(0.0123)
    steps = rng.integers(low - 5, high + 5, 20_000) + rng.choice([0.0, 0.5, -0.5], 20_000)
    near = np.float32(steps * np.float32(0.0123))
    x = np.concatenate(
        [near, np.nextafter(near, np.float32(9e9)), rng.normal(size=200_000) * 0.5 * high * 0.0123]
    )
    ours, theirs = both(x.reshape(1, -1), scale, np.array(3), kind, opset=opset)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_scale_for_each_channel(axis: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 4, 30))
    length = x.shape[axis]
    zero = rng.integers(-9, 9, length)
    ours, theirs = both(x, rng.uniform(0.01, 0.02, length), zero, "int8", opset=17, axis=axis)
    np.testing.assert_array_equal(ours, theirs)


def test_one_scale_for_each_block() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.02, (3, 4))
    ours, theirs = both(
        rng.normal(size=(3, 16)), scale, rng.integers(-9, 9, (3, 4)), "int8", opset=21, axis=1, block_size=4
    )
    np.testing.assert_array_equal(ours, theirs)


def test_no_zero_point_means_eight_bits_without_a_sign() -> None:
    ours, theirs = both(np.linspace(-1, 3, 50), np.array(0.01), None, "uint8", opset=13)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.min() == 0
    assert ours.max() == 255


@pytest.mark.parametrize(("value", "scale"), [(np.nan, 0.01), (np.inf, 0.01), (1.0, np.nan), (1.0, 0.0)])
def test_what_is_not_finite(value: float, scale: float) -> None:
    net = Net()
    q = net.node("QuantizeLinear", net.init([value]), net.init(scale), out="q")
    net.output(q, elem=TensorProto.UINT8)
    assert isinstance(constant(net.model()), NotConstant)


def test_a_scale_that_does_not_fit() -> None:
    net = Net()
    point = net.init(np.zeros(3), elem=TensorProto.INT8)
    q = net.node("QuantizeLinear", net.init(np.ones((2, 4))), net.init(np.ones(3)), point, out="q", axis=1)
    net.output(q, elem=TensorProto.INT8)
    found = constant(net.model())
    assert isinstance(found, NotConstant)
    assert "does not fit [2, 4]" in found.why
