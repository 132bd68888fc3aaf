"""One wrong weight is found from the operands of its layer; what folds do inside a model is not blamed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.convnets import FLOAT, Net, build, changed, fold, weight

import bnfold

# Its single output is a mean over all channels and places, which buries one weight among thousands.
DEEP = Net(layers=4, channels=24, size=6)


def averaged(net: Net) -> onnx.ModelProto:
    tail = (helper.make_node("ReduceMean", ["y"], ["z"], axes=[1, 2, 3], keepdims=0),)
    return build(net, tail, ("z", FLOAT))


@pytest.mark.parametrize("layer", range(DEEP.layers))
@pytest.mark.parametrize("which", ["largest", "typical"])
def test_one_weight_that_the_output_does_not_show(layer: int, which: str) -> None:
    model = averaged(DEEP)
    folded = fold(model)
    name = f"w{layer}_folded"
    values = weight(folded, name)
    order = np.argsort(np.abs(values), axis=None)
    place = np.unravel_index(order[-1 if which == "largest" else len(order) // 2], values.shape)
    values[place] *= np.float32(1.001)
    verdict = bnfold.verify(model, changed(folded, name, values))
    assert verdict.status == "different", verdict.summary
    if not any(row.output == "z" and row.outcome == "fail" for row in verdict.outputs):
        failed = [row.output for row in verdict.outputs if row.outcome == "fail"]
        assert f"tensor bn{layer}" in failed or f"tensor relu{layer}" in failed
        assert "tensor " in verdict.summary


@pytest.mark.parametrize("own_dtype", [False, True])
def test_correct_folds_are_equivalent(own_dtype: bool) -> None:
    model = averaged(DEEP)
    verdict = bnfold.verify(model, fold(model, own_dtype=own_dtype))
    assert verdict.status == "equivalent", verdict.summary


def carried(scale: float, shift: float) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A pair in which `t` and, behind its Relu, `u` are scaled and shifted in the second, then undone."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(8, 3, 3, 3)) / 5
    b = rng.normal(size=8)
    v = rng.normal(size=(8, 8, 3, 3)) / 8
    factor = np.linspace(1, scale, 8)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["t"]),
        helper.make_node("Relu" if shift == 0 else "Identity", ["t"], ["u"]),
        helper.make_node("Conv", ["u", "v", "c"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["y"]),
    ]
    both = []
    for f, o in ((np.ones(8), 0.0), (factor, shift)):
        inner = v / f[None, :, None, None]
        stored = {
            "w": w * f[:, None, None, None],
            "b": b * f + o,
            "v": inner,
            "c": -(inner.sum(axis=(2, 3)) * o).sum(axis=1),
        }
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, [1, 3, 9, 9])],
            [helper.make_tensor_value_info("y", FLOAT, [1, 8, 5, 5])],
            [numpy_helper.from_array(values.astype(np.float32), name) for name, values in stored.items()],
        )
        both.append(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    return both[0], both[1]


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.00001, 0.0), (1.001, 0.0), (3.0, 0.0), (1.0001, 1e-4), (2.0, 1.0)]
)
def test_what_a_fold_carries_is_not_blamed(scale: float, shift: float) -> None:
    original, other = carried(scale, shift)
    assert bnfold.verify(original, other).status == "equivalent"
    assert bnfold.verify(other, original).status == "equivalent"


def test_vectors_that_a_fold_scales_are_not_blamed() -> None:
    """One value a channel: any difference looks like a scale, and a scale like any difference."""
    rng = np.random.default_rng(1)
    w, v = rng.normal(size=(16, 32)), rng.normal(size=(32, 4))
    factor = rng.uniform(1, 1.001, 32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("MatMul", ["u", "v"], ["y"]),
    ]
    models = []
    for f in (np.ones(32), factor):
        stored = {"w": w * f, "v": v / f[:, None]}
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", FLOAT, [1, 16])],
            [helper.make_tensor_value_info("y", FLOAT, [1, 4])],
            [numpy_helper.from_array(values.astype(np.float32), name) for name, values in stored.items()],
        )
        models.append(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert bnfold.verify(models[0], models[1]).status == "equivalent"


def test_a_weight_behind_a_channel_that_no_feed_excites() -> None:
    """The first Conv gives nothing but zeros behind its Relu; the weights of the second still count."""
    model = build(Net(layers=2, channels=4))
    values = weight(model, "shift0")
    values[1] = -1e6
    model = changed(model, "shift0", values)
    folded = fold(model)
    assert bnfold.verify(model, folded).status == "equivalent"
    wrong = weight(folded, "w1_folded")
    wrong[:, 1] *= np.float32(1.001)
    verdict = bnfold.verify(model, changed(folded, "w1_folded", wrong))
    # No feed gets through that Relu, but another one could.
    assert any("shuffled" in row.feed for row in verdict.outputs), verdict.summary


@pytest.mark.parametrize(("gain", "said"), [(1e6, True), (0.1, False)])
def test_a_saturated_output_is_said_to_show_little(gain: float, said: bool) -> None:
    nodes = (
        helper.make_node("Flatten", ["y"], ["f"]),
        helper.make_node("Mul", ["f", "gain"], ["g"]),
        helper.make_node("Softmax", ["g"], ["p"]),
    )
    model = build(Net(layers=1, channels=4, size=3, relu=False), nodes, ("p", FLOAT))
    model.graph.initializer.append(numpy_helper.from_array(np.array(gain, dtype=np.float32), "gain"))
    feeds = [
        {"x": np.random.default_rng(seed).normal(size=(1, 3, 3, 3)).astype(np.float32)} for seed in (0, 1)
    ]
    verdict = bnfold.verify(model, fold(model), inputs=feeds)
    assert any("'p' is saturated" in finding for finding in verdict.findings) == said
