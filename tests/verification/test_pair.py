"""Verdicts on pairs of models whose relation is known."""

# ruff: noqa: ANN401 - options are passed on as they are

from __future__ import annotations

import json
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.convnets import FLOAT, INT8, INT64, Net, build, changed, fold, weight

from bnfold.errors import EnvironmentFault, ModelError, UsageError
from bnfold.progress import Stage
from bnfold.verification import watch
from bnfold.verification.options import Verification
from bnfold.verification.pair import verify
from bnfold.verification.sessions import Level, Ran, Run, run_model

if TYPE_CHECKING:
    from pathlib import Path

    from bnfold.verification.verdict import Verdict


def compare(original: onnx.ModelProto, folded: onnx.ModelProto, **options: Any) -> Verdict:
    return verify(original.SerializeToString(), folded.SerializeToString(), Verification(**options))


NETS = [
    Net(layers=1, channels=1, kernel=1, inputs=1, size=1),
    Net(layers=2, bias=True, group=2, channels=4, inputs=4),
    Net(layers=5, head=True),
    Net(layers=12, channels=4, relu=False),
    Net(layers=3, dtype=np.float16),
    Net(layers=6, dtype=np.float16, bias=True, head=True),
]


@pytest.mark.parametrize("net", NETS, ids=str)
@pytest.mark.parametrize("own_dtype", [False, True])
def test_a_correct_fold_is_equivalent(net: Net, own_dtype: bool) -> None:
    model = build(net)
    verdict = compare(model, fold(model, own_dtype=own_dtype))
    assert verdict.status == "equivalent", verdict.summary
    assert {row.level for row in verdict.outputs} == {"float64", "disable_all", "enable_all"}
    assert verdict.exit_code == 0


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("seed", range(3))
def test_one_weight_off_by_a_thousandth_is_found_in_any_layer(layer: int, seed: int) -> None:
    model = build(Net(layers=4, channels=6, seed=seed))
    folded = fold(model)
    name = f"w{layer}_folded"
    values = weight(folded, name)
    largest = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[largest] *= np.float32(1.001)
    verdict = compare(model, changed(folded, name, values))
    assert verdict.status == "different", verdict.summary
    assert verdict.exit_code == 1


def wrong_epsilon(model: onnx.ModelProto) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for node in other.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(helper.make_attribute("epsilon", 1e-3))
    return fold(other)


def swapped(model: onnx.ModelProto) -> onnx.ModelProto:
    folded = fold(model)
    values = weight(folded, "w1_folded")
    values[[0, 1]] = values[[1, 0]]
    return changed(folded, "w1_folded", values)


def without_bias(model: onnx.ModelProto) -> onnx.ModelProto:
    folded = fold(model)
    return changed(folded, "w2_bias", np.zeros_like(weight(folded, "w2_bias")))


@pytest.mark.parametrize(
    ("mistake", "dtype"),
    [
        # In float16 the 0.05 % that it does to a weight is half an ulp: rounding, for check_algebra alone.
        (wrong_epsilon, np.float32),
        (swapped, np.float32),
        (swapped, np.float16),
        (without_bias, np.float32),
        (without_bias, np.float16),
    ],
)
def test_mistakes_of_a_fold_are_found(mistake: Any, dtype: Any) -> None:
    model = build(Net(layers=4, dtype=dtype, relu=mistake is not wrong_epsilon))
    assert compare(model, mistake(model)).status == "different"


def tail(kind: str) -> tuple[tuple[onnx.NodeProto, ...], tuple[str, int]]:
    if kind == "argmax":
        return (helper.make_node("ArgMax", ["y"], ["z"], axis=1),), ("z", INT64)
    if kind == "topk":
        nodes = (
            helper.make_node("Constant", [], ["k"], value_ints=[20]),
            helper.make_node("Flatten", ["y"], ["wide"]),
            helper.make_node("TopK", ["wide", "k"], ["best", "z"]),
        )
        return nodes, ("z", INT64)
    quantize = (
        helper.make_node("Constant", [], ["step"], value_float=0.05),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.zeros((), np.int8))),
        helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["q"]),
    )
    if kind == "quantized":
        return (*quantize, helper.make_node("Identity", ["q"], ["z"])), ("z", INT8)
    return (*quantize, helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["z"])), ("z", FLOAT)


@pytest.mark.parametrize("kind", ["argmax", "topk", "quantized", "dequantized"])
@pytest.mark.parametrize("seed", range(3))
def test_behind_a_discontinuity_a_correct_fold_passes_and_a_wrong_one_does_not(kind: str, seed: int) -> None:
    nodes, output = tail(kind)
    model = build(Net(layers=3, seed=seed), nodes, output)
    good = compare(model, fold(model))
    assert good.status == "equivalent", good.summary
    assert compare(model, without_bias(model)).status == "different"


def test_a_tie_that_rounding_breaks_is_no_difference() -> None:
    # Two channels with the same weights: which of them is the largest is decided by rounding alone.
    nodes = (helper.make_node("ArgMax", ["y"], ["z"], axis=1),)
    model = build(Net(layers=2, channels=2, relu=False), nodes, ("z", INT64))
    for name in ("w1", "scale1", "shift1", "mean1", "var1"):
        values = weight(model, name)
        values[1] = values[0]
        model = changed(model, name, values)
    folded = fold(model)
    values = weight(folded, "w1_folded")
    values[1] = np.nextafter(values[1], np.float32(9))
    verdict = compare(model, changed(folded, "w1_folded", values))
    assert verdict.status in {"equivalent", "inconclusive"}, verdict.summary
    assert any("less than rounding" in finding for finding in verdict.findings)


def padded(net: Net, *, hidden: bool = False) -> onnx.ModelProto:
    """Pad, then MaxPool over negative values: onnxruntime makes one of both and pads with -inf, not with 0.

    `hidden` puts an operator between that its optimizer leaves, and that changes nothing.
    """
    nodes = [
        helper.make_node("Sigmoid", ["y"], ["s"]),
        helper.make_node("Neg", ["s"], ["negative"]),
        helper.make_node("Pad", ["negative", "pads"], ["wide"]),
        helper.make_node("MaxPool", ["wide"], ["z"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    if hidden:
        nodes.insert(3, helper.make_node("Min", ["wide", "most"], ["same"]))
        nodes[-1].input[0] = "same"
    model = build(net, tuple(nodes), ("z", FLOAT))
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    model.graph.initializer.append(numpy_helper.from_array(pads, "pads"))
    if hidden:
        model.graph.initializer.append(numpy_helper.from_array(np.full((), 9, np.float32), "most"))
    return model


@pytest.fixture
def optimizer_error(tmp_path: Path) -> None:
    """Skip where onnxruntime has mended its error."""
    onnx.save(padded(Net(layers=1)), tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)
    levels: tuple[Level, ...] = ("disable_all", "enable_all")
    outcomes = run_model(tmp_path / "m.onnx", [Run(level, "f", {"x": x}) for level in levels])
    plain, optimized = (np.asarray(o.outputs["z"]) for o in outcomes.values() if isinstance(o, Ran))
    # Right values lie between -1 and 0 and agree to 1e-7; at the border the error takes away a 0 that was the
    # largest, and is tenths.
    if np.allclose(plain, optimized, rtol=0, atol=1e-3):
        pytest.skip("this onnxruntime fuses Pad and MaxPool correctly")


@pytest.mark.usefixtures("optimizer_error")
def test_an_error_of_the_optimizer_is_a_finding_and_no_fault_of_the_fold() -> None:
    model = padded(Net(layers=2))
    verdict = compare(model, fold(model))
    assert verdict.status == "equivalent", verdict.summary
    assert any("optimizer moves output 'z' of the original itself" in each for each in verdict.findings)
    for row in verdict.outputs:
        if row.level == "enable_all":
            assert "optimizer moves the original itself" in row.note
            assert row.against == "original"
    assert compare(model, without_bias(padded(Net(layers=3)))).status == "different"


@pytest.mark.usefixtures("optimizer_error")
def test_a_folded_model_that_escapes_an_error_of_the_optimizer_is_right() -> None:
    verdict = compare(padded(Net(layers=2)), padded(Net(layers=2), hidden=True))
    assert verdict.status == "equivalent", verdict.summary
    assert any("of the original itself" in each for each in verdict.findings)
    assert {row.against for row in verdict.outputs} == {"truth"}


@pytest.mark.usefixtures("optimizer_error")
def test_a_folded_model_that_the_optimizer_alone_moves_is_different_and_the_runtime_named() -> None:
    verdict = compare(padded(Net(layers=2), hidden=True), padded(Net(layers=2)))
    assert verdict.status == "different"
    assert "onnxruntime's optimizer moves the folded model alone" in verdict.summary
    assert {row.outcome for row in verdict.outputs if row.level == "disable_all"} == {"pass"}


@pytest.mark.parametrize("huge", [1e15, 1e9])
def test_what_rounding_hides_in_every_run_is_inconclusive(huge: float) -> None:
    # float32 holds nothing of y beside such numbers; float64 alone shows it.
    nodes = (
        helper.make_node("Constant", [], ["huge"], value_float=huge),
        helper.make_node("Add", ["y", "huge"], ["far"]),
        helper.make_node("Sub", ["far", "huge"], ["z"]),
    )
    model = build(Net(layers=1), nodes, ("z", FLOAT))
    feeds = {"x": np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)}
    verdict = compare(model, fold(model), inputs=feeds)
    assert verdict.status == "inconclusive"
    assert verdict.exit_code == 5
    assert "hides output z of the original" in verdict.summary
    assert compare(model, without_bias(build_tail(nodes)), inputs=feeds).status == "different"


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("feed", [image(0, 3, 12, 12), np.full((1, 3, 12, 12), np.nan, np.float32)])
def test_nothing_to_compare_is_no_equivalence(feed: np.ndarray) -> None:
    """Not even of a model with itself, since a wrong one would do as well."""
    model = build(Net(layers=3))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    for other in (model, fold(model), without_bias(model)):
        verdict = compare(model, other, inputs={"x": feed})
        assert verdict.status == "inconclusive"
        assert "nothing of output" in verdict.summary
    both = [{"x": feed}, {"x": image(1, 3, 12, 12)}]
    assert compare(model, fold(model), inputs=both).status == "equivalent"
    assert compare(model, without_bias(model), inputs=both).status == "different"


def test_an_output_that_never_has_values_hides_no_verdict() -> None:
    nodes = (
        helper.make_node("Constant", [], ["none"], value_ints=[0]),
        helper.make_node("ConstantOfShape", ["none"], ["z"]),
    )
    model = build(Net(layers=2), nodes, ("z", FLOAT))
    assert compare(model, fold(model)).status == "inconclusive"
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "y"
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 0
    assert compare(model, fold(model)).status == "equivalent"


def build_tail(nodes: tuple[onnx.NodeProto, ...]) -> onnx.ModelProto:
    return build(Net(layers=3), nodes, ("z", FLOAT))


def vendor(net: Net) -> onnx.ModelProto:
    return build(net, (helper.make_node("QuickGelu", ["y"], ["z"], domain="com.microsoft"),), ("z", FLOAT))


def test_without_truth_a_bound_decides_and_the_operator_is_named() -> None:
    model = vendor(Net(layers=3))
    good = compare(model, fold(model))
    assert good.status == "equivalent", good.summary
    assert any("QuickGelu" in finding for finding in good.findings)
    assert {row.against for row in good.outputs} == {"original"}
    assert compare(model, without_bias(model)).status == "different"
    assert compare(model, fold(model), truth="full").status == "not verified"


def test_an_operator_nobody_knows_is_not_verified() -> None:
    model = build(
        Net(layers=1), (helper.make_node("Secret", ["y"], ["z"], domain="com.microsoft"),), ("z", FLOAT)
    )
    verdict = compare(model, fold(model))
    assert verdict.status == "not verified"
    assert "Secret" in verdict.summary
    assert verdict.exit_code == 5


def test_a_model_onnxruntime_dies_of_is_judged_where_it_lives() -> None:
    # onnxruntime 1.31.1 dies of these empty outputs at disable_all; others may not.
    model = build(Net(layers=1))
    model.opset_import[0].version = 9
    next(n for n in model.graph.node if n.op_type == "BatchNormalization").output.extend([""] * 4)
    verdict = compare(model, fold(model))
    assert verdict.status == "equivalent", verdict.summary


def test_an_opset_that_onnxruntime_lacks_is_judged_in_float64_alone() -> None:
    model = build(Net(layers=2))
    model.opset_import[0].version = 6
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.attribute.append(helper.make_attribute("is_test", 1))
    verdict = compare(model, fold(model))
    assert verdict.status == "equivalent"
    assert "float64 alone" in verdict.summary
    assert verdict.provider == ""
    assert compare(model, swapped(build(Net(layers=2)))).status == "different"


def test_dynamic_dimensions_are_tested_at_two_sizes() -> None:
    model = build(Net(layers=2, size="side", batch="n"))
    verdict = compare(model, fold(model))
    assert verdict.status == "equivalent"
    assert any("n=1" in finding and "n=2" in finding for finding in verdict.findings)
    assert len({feed.split()[1] for feed in verdict.feeds}) == 2


def test_another_interface_is_different() -> None:
    model = build(Net(layers=1))
    other = fold(model)
    other.graph.output[0].name = other.graph.node[-1].output[0] = "renamed"
    verdict = compare(model, other)
    assert verdict.status == "different"
    assert "renamed" in verdict.summary


def test_a_folded_model_that_does_not_run_is_different() -> None:
    model = build(Net(layers=1))
    other = fold(model)
    other.graph.node[0].attribute.append(helper.make_attribute("kernel_shape", [5, 5]))
    verdict = compare(model, other)
    assert verdict.status == "different"
    assert "only the original runs" in verdict.summary


def test_an_output_that_ignores_its_input_is_mentioned() -> None:
    model = build(Net(layers=2))
    model = changed(model, "scale1", np.zeros(8, np.float32))
    verdict = compare(model, fold(model))
    assert verdict.status == "equivalent"
    assert any("do not exercise the model" in finding for finding in verdict.findings)


def test_a_value_made_non_finite_is_different() -> None:
    model = build(Net(layers=2))
    folded = fold(model)
    values = weight(folded, "w1_folded")
    values[0, 0, 0, 0] = np.nan
    verdict = compare(model, changed(folded, "w1_folded", values))
    assert verdict.status == "different"
    assert "non-finite" in verdict.summary


def test_the_feeds_of_a_user_are_used() -> None:
    model = build(Net(layers=2))
    feed = {"x": np.full((1, 3, 12, 12), 0.5, np.float32)}
    verdict = compare(model, fold(model), inputs=feed)
    assert verdict.feeds == ("user 0",)
    assert verdict.status == "equivalent"


def test_files_with_external_data(tmp_path: Path) -> None:
    model = build(Net(layers=2))
    paths = []
    for name, each in (("a", model), ("b", fold(model))):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.onnx"
        onnx.save(each, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        paths.append(path)
    assert verify(paths[0], paths[1]).status == "equivalent"


@pytest.mark.skipif(sys.platform != "linux", reason="file names elsewhere are Unicode")
def test_files_whose_names_are_no_text(tmp_path: Path) -> None:
    model = build(Net(layers=1))
    paths = []
    for name, each in (("a", model), ("b", fold(model))):
        (tmp_path / name).mkdir()
        onnx.save(each, tmp_path / name / "m", save_as_external_data=True, location="w", size_threshold=0)
        folder = (tmp_path / name).rename(tmp_path / os.fsdecode(name.encode() + b"\xff"))
        paths.append((folder / "m").rename(folder / os.fsdecode(b"\xfe.onnx")))
    assert verify(paths[0], paths[1]).status == "equivalent"


def test_a_verdict_is_data() -> None:
    model = build(Net(layers=2, dtype=np.float16, size=4))
    verdict = compare(model, fold(model))
    assert pickle.loads(pickle.dumps(verdict)) == verdict  # noqa: S301 - its own pickle
    assert json.loads(json.dumps(verdict.to_dict(), allow_nan=False))["status"] == "equivalent"


def test_the_same_seed_gives_the_same_evidence() -> None:
    model = build(Net(layers=2))
    first, second, other = (compare(model, fold(model), seed=seed) for seed in (3, 3, 4))
    assert first.outputs == second.outputs
    assert first.outputs != other.outputs


def test_progress_is_told() -> None:
    told: list[str] = []
    model = build(Net(layers=1))
    verify(model.SerializeToString(), fold(model).SerializeToString(), progress=told.append)
    assert any("float64" in line for line in told)


class Patience:
    """Stands in for the clock: time is up after so many nodes."""

    def __init__(self, nodes: int) -> None:
        self.left = nodes

    def monotonic(self) -> float:
        self.left -= 1
        return 0.0 if self.left >= 0 else float("inf")


def test_a_budget_that_ends_before_the_first_feed_leaves_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(Net(layers=2))
    monkeypatch.setattr(watch, "time", Patience(3))
    verdict = compare(model, fold(model), budget=77)
    assert verdict.status == "equivalent", verdict.summary
    assert "by a rounding bound" in verdict.summary
    assert any("the time budget of 77 s was spent" in finding for finding in verdict.findings)
    assert compare(model, without_bias(build(Net(layers=3)))).status == "different"
    assert compare(model, fold(model), truth="full").status == "not verified"


def test_a_budget_that_ends_later_names_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(Net(layers=2))
    # The first feed: truth, two draws, and the folded model; of the second two nodes.
    monkeypatch.setattr(watch, "time", Patience(3 * len(model.graph.node) + len(fold(model).graph.node) + 2))
    verdict = compare(model, fold(model))
    assert verdict.status == "equivalent", verdict.summary
    assert any("1 of 4 feeds are judged" in finding for finding in verdict.findings)
    assert {row.feed.split()[0] for row in verdict.outputs} == {"normal"}


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_a_budget_that_is_no_time_is_a_usage_error(budget: float) -> None:
    model = build(Net(layers=1))
    with pytest.raises(UsageError, match="budget"):
        compare(model, model, budget=budget)


def test_evaluations_tell_how_far_they_are() -> None:
    told: list[Stage] = []
    model = build(Net(layers=2))

    def listen(stage: str) -> None:
        if isinstance(stage, Stage):
            told.append(stage)

    verify(model.SerializeToString(), fold(model).SerializeToString(), progress=listen)
    first = [stage.fraction for stage in told if "(1/4)" in stage]
    assert first == sorted(first)
    assert 0 < first[0] < 0.5 < first[-1] <= 1
    assert all(stage.startswith("verifying: ") for stage in told)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        verify(tmp_path / "missing.onnx", tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="not an ONNX model"):
        verify(b"\x00garbage", b"\x00garbage")


def test_falling_back_to_the_cpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model = build(Net(layers=1))
    with pytest.raises(EnvironmentFault, match="silently took CPUExecutionProvider"):
        compare(model, fold(model), provider="cuda")


def test_a_size_that_leaves_no_window_to_a_pool() -> None:
    """onnxruntime runs a pool on less than its window, which nothing defines. Other sizes are judged."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"]),
        helper.make_node("AveragePool", ["n"], ["p"], kernel_shape=[33, 1], strides=[3, 1]),
        helper.make_node("Shape", ["x"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "row"], ["rows"], axis=0),
        helper.make_node("ReduceMean", ["p"], ["q"], axes=[3]),
        helper.make_node("Slice", ["q", "zero", "one", "two"], ["r"]),
        helper.make_node("Reshape", ["r", "rows"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.normal(size=(4, 3, 1, 1)),
        "s": np.linspace(0.5, 1.5, 4),
        "o": np.ones(4),
        "m": np.zeros(4),
        "v": np.ones(4),
    }
    weights = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in stored.items()]
    numbers = {"row": [4], "zero": [0], "one": [1], "two": [2]}
    weights += [numpy_helper.from_array(np.array(values), name) for name, values in numbers.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, "h", 8])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    small = {"x": rng.normal(size=(1, 3, 32, 8)).astype(np.float32)}
    large = {"x": rng.normal(size=(1, 3, 64, 8)).astype(np.float32)}
    folded = fold(model).SerializeToString()
    verdict = verify(model.SerializeToString(), folded, Verification(inputs=[large, small]))
    assert verdict.status == "equivalent", verdict.summary
    assert {row.against for row in verdict.outputs} == {"truth"}
    assert any("is not judged" in finding for finding in verdict.findings), verdict.findings


@pytest.mark.parametrize("kept", ["no", "unread", "read"])
def test_initializers_that_callers_may_replace_no_more(kept: str) -> None:
    model = build(Net(layers=1))
    tensors = [tensor for tensor in model.graph.initializer if tensor.name != "w0"]
    model.graph.input.extend(helper.make_tensor_value_info(t.name, FLOAT, list(t.dims)) for t in tensors)
    other = model if kept == "read" else fold(model)
    if kept == "no":
        del other.graph.input[1:]
    if kept == "unread":
        present = {tensor.name for tensor in other.graph.initializer}
        other.graph.initializer.extend(tensor for tensor in tensors if tensor.name not in present)
    verdict = compare(model, other)
    assert verdict.status == "equivalent"
    said = "callers may replace mean0, scale0, shift0, ... in the first model, and not in the second"
    assert (said in verdict.findings) == (kept != "read")
    older = [onnx.ModelProto(), onnx.ModelProto()]
    for copy, each in zip(older, (model, other), strict=True):
        copy.CopyFrom(each)
        copy.ir_version = 3
        del copy.graph.input[1:]
        copy.graph.input.extend(
            helper.make_tensor_value_info(t.name, FLOAT, list(t.dims)) for t in copy.graph.initializer
        )
    assert not any("callers" in finding for finding in compare(*older).findings)
