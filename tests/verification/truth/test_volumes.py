"""Convolutions of volumes, and gathering, against sums written out and against onnxruntime."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.verification.sessions import Ran, Run, run_model
from bnfold.verification.truth import Truth

if TYPE_CHECKING:
    from pathlib import Path

F = TensorProto.FLOAT


@pytest.mark.parametrize("pads", [(0,) * 6, (1, 2, 0, 2, 1, 3)])
@pytest.mark.parametrize("dilations", [(1, 1, 1), (2, 1, 3)])
@pytest.mark.parametrize("group", [1, 2])
def test_a_volume_is_the_sum_over_its_taps(
    pads: tuple[int, ...], dilations: tuple[int, ...], group: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8 * group, 6, 7, 8)).astype(np.float32)
    w = rng.normal(size=(3 * group, 8, 2, 3, 2)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=pads, dilations=dilations, group=group)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", F, None)],
        [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wide = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(pads[:3], pads[3:], strict=True)])
    reach = [(size - 1) * dilation for size, dilation in zip(w.shape[2:], dilations, strict=True)]
    out = [size - far for size, far in zip(wide.shape[2:], reach, strict=True)]
    expected = np.zeros((2, 3 * group, *out))
    for tap in itertools.product(*(range(size) for size in w.shape[2:])):
        cut = tuple(
            slice(at * dilation, at * dilation + size)
            for at, dilation, size in zip(tap, dilations, out, strict=True)
        )
        part = wide[(slice(None), slice(None), *cut)]
        for g in range(group):
            weights = w[3 * g : 3 * g + 3, :, tap[0], tap[1], tap[2]].astype(np.float64)
            expected[:, 3 * g : 3 * g + 3] += np.einsum(
                "oc,ncdhw->nodhw", weights, part[:, 8 * g : 8 * g + 8]
            )
    # Two float64 sums of the same products in other orders: n*u*magnitude each (Higham, 3.1).
    count = w[0].size + 1
    magnitude = count * float(np.abs(x).max()) * float(np.abs(w).max())
    found = Truth(model).run({"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * count * 2.0**-53 * magnitude)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_indices_may_cover_a_part_of_the_other_axes(axis: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5, 6)).astype(np.float32)
    indices = rng.integers(-2, 2, (2, 3, 4))
    graph = helper.make_graph(
        [helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)],
        "g",
        [helper.make_tensor_value_info("x", F, [4, 5, 6])],
        [helper.make_tensor_value_info("y", F, [2, 3, 4])],
        [numpy_helper.from_array(indices, "i")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    (outcome,) = run_model(tmp_path / "m.onnx", [Run("disable_all", "f", {"x": x})]).values()
    assert isinstance(outcome, Ran), outcome
    np.testing.assert_array_equal(Truth(model).run({"x": x})["y"], outcome.outputs["y"])
