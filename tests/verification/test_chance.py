"""Models with random operators: what is random must hide nothing that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.convnets import FLOAT, Net, build, changed, fold, weight

from bnfold.verification.pair import verify

if TYPE_CHECKING:
    from pathlib import Path

HALF, YES = numpy_helper.from_array(np.array(0.5, np.float32)), numpy_helper.from_array(np.array(1, np.bool_))
BODY = helper.make_graph(
    [helper.make_node("RandomNormalLike", ["x"], ["drawn"])],
    "body",
    [],
    [helper.make_tensor_value_info("drawn", FLOAT, None)],
)
DRAWS = {
    "RandomUniformLike": [helper.make_node("RandomUniformLike", ["x"], ["r"])],
    "RandomNormalLike": [helper.make_node("RandomNormalLike", ["x"], ["r"])],
    "RandomNormal": [helper.make_node("RandomNormal", [], ["r"], shape=[1, 3, 12, 12])],
    "RandomUniform": [helper.make_node("RandomUniform", [], ["r"], shape=[1, 3, 12, 12])],
    "Bernoulli": [helper.make_node("Sigmoid", ["x"], ["p"]), helper.make_node("Bernoulli", ["p"], ["r"])],
    "Dropout": [
        helper.make_node("Constant", [], ["half"], value=HALF),
        helper.make_node("Constant", [], ["yes"], value=YES),
        helper.make_node("Dropout", ["x", "half", "yes"], ["r"]),
    ],
    "RandomNormalLike in a branch": [
        helper.make_node("Constant", [], ["yes"], value=YES),
        helper.make_node("If", ["yes"], ["r"], then_branch=BODY, else_branch=BODY),
    ],
}


def noisy(operator: str) -> onnx.ModelProto:
    """A network of x and of what is drawn."""
    model = build(Net(layers=2, relu=False))
    nodes = list(model.graph.node)
    nodes[0].input[0] = "noisy"
    nodes[:0] = [*DRAWS[operator], helper.make_node("Add", ["x", "r"], ["noisy"])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("operator", DRAWS)
def test_a_right_fold_is_equivalent_and_a_wrong_one_is_not(operator: str) -> None:
    original = noisy(operator)
    folded = fold(original)
    # Its nodes stand in other places: those are what onnxruntime seeds generators by.
    folded.graph.node.insert(0, helper.make_node("Identity", ["x"], ["unused"]))
    verdict = verify(original.SerializeToString(), folded.SerializeToString())
    assert verdict.status == "equivalent", verdict.summary
    assert {row.outcome for row in verdict.outputs} == {"pass"}
    assert any(f"{operator.split(maxsplit=1)[0]} without a seed" in finding for finding in verdict.findings)
    wrong = changed(folded, "w0_folded", weight(folded, "w0_folded") * np.float32(1.001))
    assert verify(original.SerializeToString(), wrong.SerializeToString()).status == "different"


def test_the_data_of_such_a_model_is_found(tmp_path: Path) -> None:
    original, folded = noisy("RandomNormalLike"), fold(noisy("RandomNormalLike"))
    (tmp_path / "sub").mkdir()
    for name, model in (("a", original), ("b", folded)):
        path = tmp_path / "sub" / f"{name}.onnx"
        onnx.save(model, str(path), save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    verdict = verify(tmp_path / "sub" / "a.onnx", tmp_path / "sub" / "b.onnx")
    assert verdict.status == "equivalent", verdict.summary
    assert {path.name for path in (tmp_path / "sub").iterdir()} == {"a.onnx", "a.bin", "b.onnx", "b.bin"}


def test_a_seed_that_is_given_stays() -> None:
    original, other = noisy("RandomNormalLike"), noisy("RandomNormalLike")
    for model, seed in ((original, 3.0), (other, 4.0)):
        model.graph.node[0].attribute.append(helper.make_attribute("seed", seed))
    assert verify(original.SerializeToString(), original.SerializeToString()).status == "equivalent"
    assert verify(original.SerializeToString(), other.SerializeToString()).status == "different"


def test_a_dropout_that_drops_nothing_is_left_alone() -> None:
    model = noisy("RandomNormalLike")
    del model.graph.node[0]
    model.graph.node.insert(0, helper.make_node("Dropout", ["x"], ["r"]))
    verdict = verify(model.SerializeToString(), fold(model).SerializeToString())
    assert verdict.status == "equivalent"
    assert not any("seed" in finding for finding in verdict.findings)
