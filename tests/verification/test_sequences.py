"""Outputs that are sequences: their tensors are compared one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper
from support.convnets import FLOAT, Net, build, changed, fold, weight

from bnfold import optimize
from bnfold.verification.options import Verification
from bnfold.verification.pair import verify

if TYPE_CHECKING:
    from bnfold.verification.options import TruthMode

# What follows the network's `y` of 8 channels, and the tensors that it gives of batches of 1 and 2.
TAILS = {
    "SequenceConstruct": ([helper.make_node("SequenceConstruct", ["y", "x"], ["s"])], {"s[0]", "s[1]"}),
    "SplitToSequence by channel": (
        [helper.make_node("SplitToSequence", ["y"], ["s"], axis=1)],
        {f"s[{n}]" for n in range(8)},
    ),
    "SplitToSequence by batch": (
        [helper.make_node("SplitToSequence", ["y"], ["s"], axis=0, keepdims=0)],
        {"s[0]", "s[1]"},
    ),
}


def listing(name: str) -> onnx.ModelProto:
    model = build(Net(layers=2, batch="n"), tail=tuple(TAILS[name][0]), output=("s", FLOAT))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("s", FLOAT, None))
    return model


@pytest.mark.parametrize("truth", ["auto", "bound"])
@pytest.mark.parametrize("name", TAILS)
def test_every_tensor_of_a_sequence_is_compared(name: str, truth: TruthMode) -> None:
    original = listing(name)
    folded = fold(original)
    how = Verification(truth=truth)
    verdict = verify(original.SerializeToString(), folded.SerializeToString(), how)
    assert verdict.status == "equivalent", verdict.summary
    assert {row.output for row in verdict.outputs} == TAILS[name][1]
    values = weight(folded, "w1_folded").copy()
    values[7] *= np.float32(1.01)  # the last channel alone
    wrong = changed(folded, "w1_folded", values)
    assert verify(original.SerializeToString(), wrong.SerializeToString(), how).status == "different"


@pytest.mark.parametrize("truth", ["auto", "bound"])
@pytest.mark.parametrize("more", [True, False])
def test_a_tensor_too_many_or_too_few_is_a_difference(truth: TruthMode, more: bool) -> None:
    models = [listing("SequenceConstruct"), listing("SequenceConstruct")]
    models[more].graph.node[-1].input.append("y")
    first, second = (model.SerializeToString() for model in models)
    verdict = verify(first, second, Verification(truth=truth))
    assert verdict.status == "different"
    assert "s[2]" in verdict.summary


def test_a_sequence_without_tensors_is_no_evidence() -> None:
    model = build(Net(layers=1), output=("s", FLOAT))
    model.graph.node.append(helper.make_node("SequenceEmpty", [], ["s"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("s", FLOAT, None))
    model.graph.output.append(helper.make_tensor_value_info("y", FLOAT, None))
    verdict = verify(model.SerializeToString(), fold(model).SerializeToString())
    assert verdict.status == "not verified"
    assert "output s" in verdict.summary


def test_folds_in_front_of_a_sequence() -> None:
    result = optimize(listing("SequenceConstruct"), per_fold=True)
    assert result.folds
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
