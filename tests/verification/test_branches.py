"""Nested graphs that no feed runs: an error there must not pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold import optimize
from bnfold.verification.case import Evidence, case_of
from bnfold.verification.feeds import Feed
from bnfold.verification.options import Verification
from bnfold.verification.pair import verify
from bnfold.verification.real import Reals
from bnfold.verification.unrun import unrun

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bnfold.verification.verdict import Verdict

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
RNG = np.random.default_rng(7)
USUAL, RARE = (RNG.standard_normal((4, 3, 3, 3)).astype(np.float32) for _ in range(2))
STATISTICS = {name: RNG.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "shift", "mean", "var")}
# The scale and shift that the normalization applies, in float64.
SLOPE = STATISTICS["scale"].astype(np.float64) / np.sqrt(STATISTICS["var"].astype(np.float64) + 1e-5)
SHIFT = STATISTICS["shift"].astype(np.float64) - SLOPE * STATISTICS["mean"].astype(np.float64)


def info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, None)


def body(nodes: Sequence[onnx.NodeProto], output: str, *inputs: onnx.ValueInfoProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", list(inputs), [info(output)])


def layer(prefix: str, x: str = "x") -> list[onnx.NodeProto]:
    """A Conv and its normalization, whose weights lie outside."""
    return [
        helper.make_node("Conv", [x, "rare"], [f"{prefix}conv"], name=f"{prefix}conv"),
        helper.make_node("BatchNormalization", [f"{prefix}conv", *STATISTICS], [f"{prefix}bn"], name="bn"),
    ]


def folded_layer(prefix: str, x: str = "x") -> list[onnx.NodeProto]:
    return [helper.make_node("Conv", [x, "rare", "bias"], [f"{prefix}bn"], name=f"{prefix}conv")]


def model(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, Any], *inputs: onnx.ValueInfoProto
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 3, 8, 8])
    stored = [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()]
    graph = helper.make_graph(list(nodes), "net", [x, *inputs], [info("y")], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ORIGINAL = {"usual": USUAL, "rare": RARE, **STATISTICS, "huge": np.float32(1e9), "zero": np.int64(0)}
RIGHT = {
    **ORIGINAL,
    "rare": (RARE * SLOPE[:, None, None, None]).astype(np.float32),
    "bias": SHIFT.astype(np.float32),
}
WRONG = {**RIGHT, "rare": (1.01 * RARE * SLOPE[:, None, None, None]).astype(np.float32)}
# The mean of what is fed never comes near.
SELDOM = [
    helper.make_node("ReduceMean", ["x"], ["average"], keepdims=0),
    helper.make_node("Greater", ["average", "huge"], ["far"]),
]


def choice(rare: Sequence[onnx.NodeProto], condition: str) -> onnx.NodeProto:
    """The layer in the branch that is taken where the condition holds."""
    usual = [helper.make_node("Conv", ["x", "usual"], ["other"])]
    bodies = {"then_branch": body(rare, rare[-1].output[0]), "else_branch": body(usual, "other")}
    return helper.make_node("If", [condition], ["y"], name="choice", **bodies)


def seldom(layer: Sequence[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    return model([*SELDOM, choice(layer, "far")], weights)


def within(layer: Sequence[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """The layer two conditions deep."""
    return model([*SELDOM, choice([nested(layer)], "far")], weights)


def nested(layer: Sequence[onnx.NodeProto]) -> onnx.NodeProto:
    node = choice(layer, "far")
    node.output[0], node.name = "inner", "inner"
    return node


def never(layer: Sequence[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """The layer in a Loop of no iterations."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), *layer],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", BOOL, []), info(layer[-1].output[0])],
    )
    first = helper.make_node("Conv", ["x", "usual"], ["start"])
    return model(
        [first, helper.make_node("Loop", ["zero", "", "start"], ["y"], name="loop", body=graph)], weights
    )


def by_input(layer: Sequence[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    return model([choice(layer, "flag")], weights, helper.make_tensor_value_info("flag", BOOL, []))


def judged(first: onnx.ModelProto, second: onnx.ModelProto, **options: Any) -> Verdict:  # noqa: ANN401 - passed on
    return verify(first.SerializeToString(), second.SerializeToString(), Verification(**options))


SHAPES = {"a branch": seldom, "two branches deep": within, "a loop": never}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_right_fold_where_no_feed_goes(shape: str) -> None:
    verdict = judged(SHAPES[shape](layer("a"), ORIGINAL), SHAPES[shape](folded_layer("a"), RIGHT))
    assert verdict.status == "equivalent", verdict.summary
    assert any("made to run, it was compared in float64 alone" in said for said in verdict.findings)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_wrong_fold_where_no_feed_goes(shape: str) -> None:
    verdict = judged(SHAPES[shape](layer("a"), ORIGINAL), SHAPES[shape](folded_layer("a"), WRONG))
    assert verdict.status == "inconclusive"
    assert "made to run the models differ" in verdict.summary


def test_both_values_of_a_condition_are_fed() -> None:
    original = by_input(layer("a"), ORIGINAL)
    right = judged(original, by_input(folded_layer("a"), RIGHT))
    assert (right.status, right.findings) == ("equivalent", ("sizes of dynamic dimensions: n=1; n=2",))
    for wrong in (WRONG, {**RIGHT, "usual": USUAL * np.float32(1.01)}):
        assert judged(original, by_input(folded_layer("a"), wrong)).status == "different"


def test_nothing_is_said_of_what_both_share(tmp_path: Path) -> None:
    """A fold elsewhere, beside a branch that could not even be evaluated if it were taken."""
    guard = helper.make_node("Reshape", ["x", "zero"], ["bad"])
    weights = {**ORIGINAL, "zero": np.array([7, 7], np.int64)}
    shared = choice([guard], "far")
    shared.output[0] = "chosen"
    tail = helper.make_node("Add", ["abn", "chosen"], ["y"])
    pair = [
        model([*SELDOM, *layer("a"), shared, tail], weights),
        model([*SELDOM, *folded_layer("a"), shared, tail], {**RIGHT, "zero": weights["zero"]}),
    ]
    verdict = judged(*pair)
    assert verdict.status == "equivalent", verdict.summary
    assert not any("branch" in said for said in verdict.findings)
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for each, path in zip(pair, paths, strict=True):
        data = f"{path.stem}.bin"
        onnx.save(each, str(path), save_as_external_data=True, location=data, size_threshold=0)
    assert not any("branch" in said for said in verify(paths[0], paths[1]).findings)


def with_function(inner: Sequence[onnx.NodeProto], weights: dict[str, Any], branch: str) -> onnx.ModelProto:
    """The layer in a function that is called in front of a branch that is never taken, and perhaps in it."""
    read = ["x", "rare", *(["bias"] if len(inner) == 1 else STATISTICS)]
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Layer", read, [inner[-1].output[0]], inner, opsets)
    calls = [helper.make_node("Layer", read, [name], domain="own") for name in ("first", "second")]
    bad = helper.make_node("Reshape", ["x", "sizes"], ["bad"])
    node = choice([calls[1] if branch == "calls it" else bad], "far")
    node.output[0] = "chosen"
    tail = helper.make_node("Add", ["first", "chosen"], ["y"])
    sizes = {"sizes": np.array([7, 7], np.int64)}
    made = model([*SELDOM, calls[0], node, tail], {**weights, **sizes})
    made.functions.append(function)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


@pytest.mark.parametrize(("branch", "said"), [("calls it", True), ("would fail", False)])
def test_a_function_counts_where_it_is_called(branch: str, said: bool) -> None:
    first, second = (
        with_function(layer("a"), ORIGINAL, branch),
        with_function(folded_layer("a"), RIGHT, branch),
    )
    verdict = judged(first, second)
    assert verdict.status == "equivalent", verdict.summary
    assert any("made to run" in finding for finding in verdict.findings) == said


def test_an_error_in_a_function_that_a_branch_calls() -> None:
    def scaled(factor: float) -> onnx.ModelProto:
        inner = [
            helper.make_node("Constant", [], ["factor"], value_float=factor),
            helper.make_node("Mul", ["a", "factor"], ["b"]),
        ]
        opsets = [helper.make_opsetid("", 17)]
        call = helper.make_node("Scaled", ["conv"], ["called"], domain="own")
        made = seldom([helper.make_node("Conv", ["x", "rare"], ["conv"]), call], ORIGINAL)
        made.functions.append(helper.make_function("own", "Scaled", ["a"], ["b"], inner, opsets))
        made.opset_import.append(helper.make_opsetid("own", 1))
        return made

    assert judged(scaled(1.0), scaled(1.0)).status == "equivalent"
    assert judged(scaled(1.0), scaled(1.5)).status == "inconclusive"


def test_weights_that_a_branch_reads_from_outside_are_compared() -> None:
    first, second = (
        seldom(layer("a"), ORIGINAL),
        seldom(layer("a"), {**ORIGINAL, "mean": SHIFT.astype(np.float32)}),
    )
    assert judged(first, first).status == "equivalent"
    assert judged(first, second).status == "inconclusive"


def test_weights_that_an_inner_branch_reads_from_the_outer_one() -> None:
    """The outer branch is taken, the inner one is not."""

    def reading(weight: np.ndarray[Any, Any]) -> onnx.ModelProto:
        inner = nested([helper.make_node("Conv", ["x", "own"], ["conv"])])
        outer = body([inner], "inner")
        outer.initializer.append(numpy_helper.from_array(weight, "own"))
        other = body([helper.make_node("Conv", ["x", "usual"], ["never"])], "never")
        near = helper.make_node("Not", ["far"], ["near"])
        node = helper.make_node("If", ["near"], ["y"], name="outer", then_branch=outer, else_branch=other)
        return model([*SELDOM, near, node], ORIGINAL)

    assert judged(reading(RARE), reading(RARE)).status == "equivalent"
    verdict = judged(reading(RARE), reading(RARE * np.float32(1.5)))
    assert verdict.status == "inconclusive"
    assert "then_branch of If 'inner'" in verdict.summary


def test_a_branch_that_cannot_be_made_to_run() -> None:
    wide = [helper.make_node("Reshape", ["x", "sizes"], ["wide"])]
    weights = {"sizes": np.array([7, 7], np.int64)}
    first = seldom([*wide, *layer("a", "wide")], {**ORIGINAL, **weights})
    second = seldom([*wide, *folded_layer("a", "wide")], {**RIGHT, **weights})
    verdict = judged(first, second)
    assert verdict.status == "inconclusive"
    assert "nor could it be made to run" in verdict.summary


def test_a_scan_of_nothing() -> None:
    """Nothing makes it run. onnxruntime refuses it, so that this asks float64 alone."""

    def scanning(layer: Sequence[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
        graph = body(layer, layer[-1].output[0], info("each"))
        nodes = [
            helper.make_node("Unsqueeze", ["x", "zeros"], ["all"]),
            helper.make_node("Slice", ["all", "zeros", "zeros"], ["none"]),
            helper.make_node("Scan", ["none"], ["scanned"], name="scan", body=graph, num_scan_inputs=1),
            helper.make_node("ReduceSum", ["scanned"], ["sum"], keepdims=0),
            helper.make_node("Conv", ["x", "usual"], ["other"]),
            helper.make_node("Add", ["other", "sum"], ["y"]),
        ]
        return model(nodes, {**weights, "zeros": np.array([0], np.int64)})

    first, second = scanning(layer("a", "each"), ORIGINAL), scanning(folded_layer("a", "each"), RIGHT)
    feed = Feed("one", {"x": np.ones((1, 3, 8, 8), np.float32)})
    said = "no feed runs body of Scan 'scan', nor could it be made to run; pass inputs that run it"
    for other, doubts in ((first, ()), (second, (said,))):
        how = Verification()
        with case_of(first.SerializeToString(), other.SerializeToString(), how, None) as case:
            folders = (case.original.folder, case.folded.folder)
            reals = Reals(case.original.proto, case.folded.proto, folders)
            reals.truth(feed)
            assert unrun(case, reals, feed) == Evidence(doubts=doubts)


def test_a_branch_that_the_other_model_has_not() -> None:
    other = model([helper.make_node("Conv", ["x", "usual"], ["y"])], ORIGINAL)
    verdict = judged(seldom(layer("a"), ORIGINAL), other)
    assert verdict.status == "equivalent"
    assert any("which is not in the other model" in said for said in verdict.findings)


def test_by_the_bound_alone_it_is_not_known_what_ran() -> None:
    verdict = judged(seldom(layer("a"), ORIGINAL), seldom(folded_layer("a"), WRONG), truth="bound")
    assert any(
        "not known whether any feed runs then_branch of If 'choice'" in said for said in verdict.findings
    )
    verdict = judged(seldom(layer("a"), ORIGINAL), seldom(layer("a"), ORIGINAL), truth="bound")
    assert not any("not known" in said for said in verdict.findings)


def test_a_fold_where_no_feed_goes() -> None:
    result = optimize(seldom(layer("a"), ORIGINAL))
    assert len(result.folds) == 1
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    assert any("made to run" in said for said in result.verdict.findings)
