"""Deliberate errors in a trained model: what the verdict catches, and what the check of stored values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold import job
from bnfold.errors import EnvironmentFault
from bnfold.model import write

if TYPE_CHECKING:
    from bnfold.model.edits import ModelEdits
    from bnfold.model.store import ModelFile

pytestmark = pytest.mark.slow

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
THOUSANDTH = np.float32(1.001)


def weights(model: onnx.ModelProto) -> list[str]:
    """Names of the stored weights of linear operators."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [n.input[1] for n in model.graph.node if n.op_type in LINEAR and n.input[1] in stored]


FOLDED = bnfold.optimize(DIGITS, verify=False).model
LAYERS = weights(FOLDED)
# What no fold touched is copied byte for byte.
BEFORE = {tensor.name: tensor.raw_data for tensor in onnx.load(DIGITS).graph.initializer}
WRITTEN = [t.name for t in FOLDED.graph.initializer if t.name in LAYERS and BEFORE.get(t.name) != t.raw_data]


def wrong(model: onnx.ModelProto, name: str, *, all_of_it: bool) -> bytes:
    """The model with the largest weight of a layer, or all of them, a thousandth too large."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[... if all_of_it else np.unravel_index(np.abs(values).argmax(), values.shape)] *= THOUSANDTH
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    content: bytes = copy.SerializeToString()
    return content


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("all_of_it", [True, False], ids=["layer", "weight"])
def test_a_thousandth_in_any_layer_makes_another_model(name: str, all_of_it: bool) -> None:
    verdict = bnfold.verify(DIGITS, wrong(FOLDED, name, all_of_it=all_of_it))
    assert verdict.status == "different", verdict.summary


@pytest.mark.parametrize("name", WRITTEN)
def test_one_stored_weight_off_by_a_thousandth_never_leaves_bnfold(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the outputs show of it: every weight that was written is compared with its exact value."""
    assert len(WRITTEN) == 5
    right = write.to_bytes

    def damaged(model: ModelFile, edits: ModelEdits) -> bytes:
        return wrong(onnx.ModelProto.FromString(right(model, edits)), name, all_of_it=False)

    monkeypatch.setattr(job, "to_bytes", damaged)
    with pytest.raises(EnvironmentFault, match="wrong weight"):
        bnfold.optimize(DIGITS)
