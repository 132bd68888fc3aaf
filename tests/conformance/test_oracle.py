"""The oracle itself, against the expected values that the onnx package carries for its operators."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as node_cases
from support import oracle

if TYPE_CHECKING:
    from numpy.typing import NDArray

KNOWN = set(oracle.KERNELS) | {"If", "Loop", "Scan"}

# Expected values that no deterministic evaluator can meet, or that are written down with four digits.
EXCLUDED = {
    "test_averagepool_2d_ceil_last_window_starts_on_pad",
    "test_training_dropout",
    "test_training_dropout_default",
    "test_training_dropout_default_mask",
    "test_training_dropout_mask",
}


Stored = Any  # a tensor, or the array it would hold


def known(model: ModelProto | None) -> bool:
    if model is None:
        return False
    return {n.op_type for n in model.graph.node} <= KNOWN and all(
        n.domain in ("", "ai.onnx") for n in model.graph.node
    )


def as_array(value: Stored) -> NDArray[Any]:
    return np.asarray(numpy_helper.to_array(value) if isinstance(value, TensorProto) else value)


def compare(model: ModelProto, inputs: list[Any], expected: list[Any]) -> None:
    feeds = {info.name: as_array(v) for info, v in zip(model.graph.input, inputs, strict=False)}
    got = oracle.evaluate_bounded(model, feeds)
    for value, wanted in zip(got.values(), map(as_array, expected), strict=True):
        assert value.data.shape == wanted.shape
        if not value.is_float:
            np.testing.assert_array_equal(value.data, wanted)
            continue
        # What is stored was computed in the operator's own type (float16 ones often in float16 all the way).
        unit = oracle.unit_roundoff(value.elem_type)
        assert value.magnitude is not None
        with np.errstate(invalid="ignore"):
            tolerance = 64 * max(unit, oracle.unit_roundoff(TensorProto.FLOAT)) * (1 + value.magnitude)
            close = np.abs(value.data - wanted.astype(np.float64)) <= tolerance
        same = np.isnan(value.data) & np.isnan(wanted.astype(np.float64)) | (
            value.data == wanted.astype(np.float64)
        )
        assert np.all(close | same)


def generated() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own expectations overflow on purpose
        cases = node_cases.collect_testcases(None)
    return [c for c in cases if known(c.model) and c.name not in EXCLUDED]


def test_agrees_with_the_node_tests_of_onnx() -> None:
    cases = generated()
    checked = 0
    for case in cases:
        for inputs, outputs in case.data_sets:
            try:
                compare(case.model, inputs, outputs)
            except oracle.Unsupported:
                continue
            except Exception as error:  # noqa: BLE001 - named by the case, whatever it is
                pytest.fail(f"{case.name}: {error!r}")
            checked += 1
    assert checked > 500


STORED = Path(onnx.__file__).parent / "backend" / "test" / "data"


@pytest.mark.parametrize("folder", ["pytorch-converted", "pytorch-operator"])
def test_agrees_with_the_stored_model_tests_of_onnx(folder: str) -> None:
    checked = 0
    for path in sorted((STORED / folder).iterdir()):
        model = onnx.load(path / "model.onnx")
        if not known(model):
            continue
        for data in sorted(path.glob("test_data_set_*")):
            inputs, outputs = (
                [
                    onnx.load_tensor(str(data / f"{kind}_{i}.pb"))
                    for i in range(len(list(data.glob(f"{kind}_*.pb"))))
                ]
                for kind in ("input", "output")
            )
            try:
                compare(model, inputs, outputs)
            except oracle.Unsupported:
                continue
            except Exception as error:  # noqa: BLE001 - named by the case, whatever it is
                pytest.fail(f"{path.name}: {error!r}")
            checked += 1
    assert checked > 10


def test_half_ulp_is_half_the_spacing_of_the_type() -> None:
    values = np.array([1.0, 1.5, -3.0, 1e-30, 6e-8, 32768.0])
    for elem_type, kind in ((TensorProto.FLOAT16, np.float16), (TensorProto.FLOAT, np.float32)):
        stored = values[np.abs(values) >= np.finfo(kind).smallest_subnormal].astype(kind)
        spacing = np.abs(np.spacing(stored)).astype(np.float64)
        np.testing.assert_array_equal(oracle.half_ulp(stored.astype(np.float64), elem_type), spacing / 2)
    # One rounding to bfloat16 never moves a number by more than that.
    drawn = np.random.default_rng(0).normal(size=1000)
    moved = np.abs(
        drawn.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)).astype(np.float64) - drawn
    )
    assert np.all(moved <= oracle.half_ulp(drawn, TensorProto.BFLOAT16))
    assert moved.max() > 0.9 * oracle.half_ulp(np.array([1.0]), TensorProto.BFLOAT16)[0]


def test_error_bounds_hold_for_rounded_weights() -> None:
    """Weights of a small network moved by half an ulp: the outputs move less than the bound says."""
    rng = np.random.default_rng(1)
    shapes: dict[str, tuple[int, ...]] = {
        "top": (),
        "w": (4, 3, 3, 3),
        "b": (4,),
        "slope": (4, 1, 1),
        "s": (4,),
        "t": (4,),
        "m": (4,),
        "v": (4,),
    }
    stored = {k: rng.normal(size=s).astype(np.float16) for k, s in shapes.items()}
    stored["top"] = np.array(0.5, np.float16)
    stored["v"] = np.abs(stored["v"]) + np.float16(0.25)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("PRelu", ["c", "slope"], ["p"]),
            helper.make_node("BatchNormalization", ["p", "s", "t", "m", "v"], ["n"]),
            helper.make_node("Mul", ["n", "c"], ["d"]),
            helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2]),
            helper.make_node("Clip", ["e", "", "top"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [numpy_helper.from_array(v, k) for k, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = rng.normal(size=(1, 3, 5, 5)).astype(np.float16)
    bounded = oracle.evaluate_bounded(model, {"x": x}, frozenset(stored))["y"]
    assert bounded.error is not None
    worst = 0.0
    for _ in range(20):
        moved = ModelProto()
        moved.CopyFrom(model)
        for i, tensor in enumerate(model.graph.initializer):
            exact = oracle.to_float64(tensor)
            shift = rng.choice([-1.0, 1.0], size=exact.shape) * oracle.half_ulp(exact, TensorProto.FLOAT16)
            moved.graph.initializer[i].CopyFrom(numpy_helper.from_array(exact + shift, tensor.name))
        change = np.abs(oracle.evaluate(moved, {"x": x})["y"] - bounded.data)
        assert np.all(change <= bounded.error)
        worst = max(worst, float((change / bounded.error).max()))
    assert worst > 0.01  # signs drawn at random cancel; the next test aims


def test_the_error_bound_of_a_conv_is_reached() -> None:
    """Each weight moved half an ulp in the direction that hurts one output most."""
    rng = np.random.default_rng(2)
    w, x = (rng.normal(size=s).astype(np.float16) for s in ((4, 3, 3, 3), (1, 3, 3, 3)))
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    bounded = oracle.evaluate_bounded(model, {"x": x}, frozenset({"w"}))["y"]
    shift = np.sign(x) * oracle.half_ulp(w.astype(np.float64), TensorProto.FLOAT16)
    moved = w.astype(np.float64) + shift
    change = np.einsum("oijk,oijk->o", moved - w, np.broadcast_to(x[0], w.shape).astype(np.float64))
    assert bounded.error is not None
    np.testing.assert_allclose(change, bounded.error[0, :, 0, 0], rtol=1e-9)
