"""The interpreter: promotion, scopes, functions, control flow, opsets, memory."""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.verification.truth import Step, Truth, TruthUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

F = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    *,
    opset: int = 17,
    weights: dict[str, Any] | None = None,
    inputs: Sequence[str] = ("x",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, F, None) for name in inputs],
        [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def test_weights_keep_their_rounding_and_arithmetic_does_not_round() -> None:
    third = np.float32(1) / np.float32(3)
    m = model([helper.make_node("Mul", ["x", "w"], ["y"])], weights={"w": np.array([third])})
    y = Truth(m).run({"x": np.array([third])})["y"]
    assert y[0] == float(third) * float(third)
    assert y[0] != float(third * third)


@pytest.mark.parametrize("target", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT])
def test_a_cast_to_a_narrow_type_does_not_round(target: int) -> None:
    m = model([helper.make_node("Cast", ["x"], ["y"], to=target)])
    assert Truth(m).run({"x": np.array([1 / 3])})["y"][0] == 1 / 3


def test_constants_of_every_form_are_promoted() -> None:
    m = model(
        [
            helper.make_node("Constant", [], ["a"], value_float=0.1),
            helper.make_node("Constant", [], ["b"], value_floats=[0.1, 0.2]),
            helper.make_node("ConstantOfShape", ["shape"], ["c"]),
            helper.make_node("Sum", ["a", "b", "c", "x"], ["y"]),
        ],
        weights={"shape": np.array([2])},
    )
    y = Truth(m).run({"x": np.zeros(2)})["y"]
    assert y.dtype == np.float64
    assert y.tolist() == [2 * float(np.float32(0.1)), float(np.float32(0.1)) + float(np.float32(0.2))]


BN_FORMS = [
    (6, {"is_test": 1}),
    (7, {}),
    (8, {}),
    (9, {}),
    (13, {}),
    (14, {}),
    (15, {"training_mode": 0}),
]


@pytest.mark.parametrize(("opset", "attributes"), BN_FORMS)
def test_batch_normalization_of_every_opset_uses_its_statistics(
    opset: int, attributes: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    x, scale, bias, mean = rng.standard_normal((2, 3, 4)), *rng.standard_normal((3, 3))
    var = rng.uniform(0.5, 2, 3)
    weights = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    node = helper.make_node("BatchNormalization", ["x", *weights], ["y"], epsilon=0.25, **attributes)
    y = Truth(model([node], opset=opset, weights=weights)).run({"x": x})["y"]
    at = (slice(None), None)
    expected = (x - mean[at]) / np.sqrt(var[at] + 0.25) * scale[at] + bias[at]
    np.testing.assert_allclose(y, expected, rtol=1e-13, atol=1e-13)


def test_batch_normalization_without_spatial_has_statistics_per_element() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 2, 3))
    weights = {name: rng.uniform(0.5, 2, (2, 3)) for name in ("scale", "bias", "mean", "var")}
    node = helper.make_node("BatchNormalization", ["x", *weights], ["y"], epsilon=0.5, spatial=0)
    y = Truth(model([node], opset=7, weights=weights)).run({"x": x})["y"]
    expected = (x - weights["mean"]) / np.sqrt(weights["var"] + 0.5) * weights["scale"] + weights["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-13)


def test_softmax_below_opset_13_spans_all_axes_from_axis_on() -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    y = Truth(model([helper.make_node("Softmax", ["x"], ["y"])], opset=11)).run({"x": x})["y"]
    np.testing.assert_allclose(y.sum(axis=(1, 2)), 1.0, rtol=1e-14)
    np.testing.assert_allclose(y[0, 0, 0] / y[0, 2, 3], np.exp(x[0, 0, 0] - x[0, 2, 3]), rtol=1e-12)


def test_addition_below_opset_7_broadcasts_from_its_axis() -> None:
    x, b = np.zeros((2, 3, 3)), np.array([1.0, 2.0, 3.0])
    node = helper.make_node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)
    y = Truth(model([node], opset=6, weights={"b": b})).run({"x": x})["y"]
    assert y[0].tolist() == [[1.0] * 3, [2.0] * 3, [3.0] * 3]


def test_lrn_normalizes_over_channels() -> None:
    x = np.random.default_rng(0).standard_normal((1, 5, 2, 2))
    y = Truth(model([helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.5, beta=0.5)])).run({"x": x})["y"]
    energy = x[0, 1, 0, 0] ** 2 + x[0, 2, 0, 0] ** 2 + x[0, 3, 0, 0] ** 2
    assert y[0, 2, 0, 0] == pytest.approx(x[0, 2, 0, 0] / np.sqrt(1 + 0.5 / 3 * energy), rel=1e-12)


def test_a_function_attribute_has_its_default() -> None:
    body = helper.make_node("LeakyRelu", ["a"], ["b"])
    body.attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    function = helper.make_function(
        "local", "Leaky", ["a"], ["b"], [body], [helper.make_opsetid("", 17)],
        attribute_protos=[helper.make_attribute("slope", 0.5)],
    )  # fmt: skip
    plain = helper.make_node("Leaky", ["x"], ["z"], domain="local")
    given = helper.make_node("Leaky", ["z"], ["y"], domain="local", slope=0.25)
    y = Truth(model([plain, given], functions=[function])).run({"x": np.array([-8.0])})["y"]
    assert y.tolist() == [-1.0]


def test_a_loop_stacks_scalars_and_sees_the_outer_scope() -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Mul", ["state", "factor"], ["next"]),
            helper.make_node("Identity", ["next"], ["seen"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", F, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", F, []),
            helper.make_tensor_value_info("seen", F, []),
        ],
    )
    loop = helper.make_node("Loop", ["n", "", "x"], ["last", "y"], body=body)
    m = model([loop], weights={"n": np.array(3), "factor": np.float32(2)})
    assert Truth(m).run({"x": np.array(1.0)})["y"].tolist() == [2.0, 4.0, 8.0]


def test_an_initializer_that_is_also_an_input_may_be_left_out_or_fed() -> None:
    m = model([helper.make_node("Add", ["x", "w"], ["y"])], weights={"w": np.float32(1)}, inputs=("x", "w"))
    assert Truth(m).run({"x": np.array(1.0)})["y"] == 2
    assert Truth(m).run({"x": np.array(1.0), "w": np.array(5.0)})["y"] == 6


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (
            helper.make_node("FusedConv", ["x"], ["y"], name="f", domain="acme"),
            "FusedConv 'f' .*domain 'acme'",
        ),
        (helper.make_node("RandomNormalLike", ["x"], ["y"]), "random"),
        (helper.make_node("BitCast", ["x"], ["y"], to=6), "bits"),
        (helper.make_node("Conv", ["x", "x"], ["y"], name="c", group=2), "Conv 'c' cannot be evaluated"),
    ],
)
def test_what_stands_in_the_way_is_named(node: onnx.NodeProto, said: str) -> None:
    with pytest.raises(TruthUnavailableError, match=said):
        Truth(model([node])).run({"x": np.ones((1, 3, 4, 4))})


def test_tensors_are_freed_after_their_last_use() -> None:
    class Watch:
        def __init__(self) -> None:
            self.seen: list[weakref.ref[Any]] = []
            self.most = 0

        def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
            del step
            return inputs

        def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
            del step, inputs
            self.seen += map(weakref.ref, outputs)
            self.most = max(self.most, sum(reference() is not None for reference in self.seen))
            return outputs

    names = ["x", *(f"t{i}" for i in range(20)), "y"]
    chain = [helper.make_node("Neg", [a], [b]) for a, b in pairwise(names)]
    watch = Watch()
    Truth(model(chain)).run({"x": np.ones(1)}, watch)
    assert len(watch.seen) == 21
    assert watch.most <= 2


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Hardmax"])
def test_a_distribution_of_nothing(operator: str, opset: int) -> None:
    x = np.zeros((0, 3), dtype=np.float32)
    y = Truth(model([helper.make_node(operator, ["x"], ["y"])], opset=opset)).run({"x": x})["y"]
    assert y.shape == (0, 3)
