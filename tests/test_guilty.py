"""A fold that is wrong is found, named, and dropped on demand; every fold shows its own evidence."""

# ruff: noqa: ANN401 - stand-ins take and return what the functions they stand in for do

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.convnets import FLOAT, Net, build

import bnfold
from bnfold.fold import kernel, lift, plan, spelled
from bnfold.fold.affine import Affine
from bnfold.verification.blame import first_guilty

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 6


@pytest.mark.parametrize("count", [1, 2, 3, 8, 53])
def test_bisection_finds_the_first_of_all(count: int) -> None:
    for guilty in range(count):
        asked: list[int] = []

        def differs(first: int, guilty: int = guilty, asked: list[int] = asked) -> bool:
            asked.append(first)
            return first > guilty

        assert first_guilty(count, differs) == guilty
        assert count not in asked
        assert len(asked) <= np.log2(count) + 2
    assert first_guilty(count, lambda _first: True) is None


def plant(monkeypatch: pytest.MonkeyPatch, *names: str, error: float = 1.01) -> None:
    """Let the folds of these normalizations be wrong by a factor, consistently, so that algebra holds."""
    right = lift.of_node

    def wrong(node: Any, draft: Any) -> Any:
        lifted = right(node, draft)
        if isinstance(lifted, Affine) and node.label in names:
            return replace(lifted, scale=lifted.scale * error)
        return lifted

    monkeypatch.setattr(plan, "of_node", wrong)


@pytest.fixture
def model() -> onnx.ModelProto:
    return build(Net(layers=LAYERS, channels=4))


@pytest.mark.parametrize("layer", [0, 2, LAYERS - 1])
def test_the_guilty_fold_is_named_and_nothing_written(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, layer: int
) -> None:
    plant(monkeypatch, f"bn{layer}")
    result = bnfold.optimize(model, output=tmp_path / "out.onnx")
    assert result.verdict is not None
    assert result.verdict.status == "different"
    assert result.verdict.guilty == (f"bn{layer}",)
    assert f"'bn{layer}'" in result.verdict.findings[0]
    assert not list(tmp_path.iterdir())
    json.dumps(result.report.to_dict(), allow_nan=False)


def test_the_guilty_folds_are_dropped_on_demand(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch, "bn1", "bn4")
    result = bnfold.optimize(model, output=tmp_path / "out.onnx", keep_going=True)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"
    assert result.verdict.guilty == ("bn1", "bn4")
    assert [(kept.node, kept.code) for kept in result.kept] == [("bn1", "BNF030"), ("bn4", "BNF030")]
    assert "RMS error" in result.kept[0].reason.evidence
    left = [node.name for node in onnx.load(tmp_path / "out.onnx").graph.node if "Norm" in node.op_type]
    assert left == ["bn1", "bn4"]


def test_a_chain_that_spells_a_normalization_out_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (
        helper.make_node("Conv", ["y", "w"], ["c"]),
        helper.make_node("Mul", ["c", "gain"], ["scaled"], name="chain_mul"),
        helper.make_node("Add", ["scaled", "offset"], ["z"], name="chain"),
    )
    net = build(Net(layers=1, channels=4), nodes, ("z", FLOAT))
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 4, 1, 1)), ("gain", (4, 1, 1)), ("offset", (4, 1, 1))):
        values = rng.uniform(0.5, 2, shape).astype(np.float32)
        net.graph.initializer.append(numpy_helper.from_array(values, name))
    right = spelled.spelled_out

    def wrong(node: Any, draft: Any) -> Any:
        chain = right(node, draft)
        if chain is None:
            return None
        affine = replace(chain.site.affine, scale=chain.site.affine.scale * 1.01)
        return replace(chain, site=replace(chain.site, affine=affine))

    monkeypatch.setattr(plan, "spelled_out", wrong)
    result = bnfold.optimize(net, keep_going=True)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"
    assert [(kept.node, kept.op, kept.code) for kept in result.kept] == [("chain", "Mul+Add", "BNF030")]


def test_correct_folds_blame_nobody(model: onnx.ModelProto) -> None:
    result = bnfold.optimize(model, keep_going=True)
    assert result.verdict is not None
    assert (result.verdict.status, result.verdict.guilty, result.kept) == ("equivalent", (), ())


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_wrong_joining_of_branches_is_named(monkeypatch: pytest.MonkeyPatch, keep_going: bool) -> None:
    nodes = (
        helper.make_node("Conv", ["y", "wide"], ["one"], pads=[1] * 4),
        helper.make_node("Conv", ["y", "narrow"], ["two"]),
        helper.make_node("Add", ["one", "two"], ["z"], name="sum"),
    )
    net = build(Net(layers=1, channels=4), nodes, ("z", FLOAT))
    rng = np.random.default_rng(0)
    for name, size in (("wide", 3), ("narrow", 1)):
        values = rng.normal(size=(4, 4, size, size)).astype(np.float32)
        net.graph.initializer.append(numpy_helper.from_array(values, name))
    monkeypatch.setattr(kernel, "with_kernel", lambda large, _small: large)
    result = bnfold.optimize(net, keep_going=keep_going)
    verdict = result.verdict
    assert verdict is not None
    assert verdict.guilty == ("sum",)
    assert "branches" in verdict.findings[0]
    assert "sum" in verdict.findings[0]
    assert verdict.status == ("equivalent" if keep_going else "different")
    assert [fold.node for fold in result.folds] == ["bn0"]
    json.dumps(result.report.to_dict(), allow_nan=False)


# --- fold by fold -------------------------------------------------------------------------------------------


def test_every_fold_shows_its_own_error(model: onnx.ModelProto) -> None:
    verdict = bnfold.optimize(model, per_fold=True).verdict
    assert verdict is not None
    assert {each.node for each in verdict.per_fold} == {f"bn{layer}" for layer in range(LAYERS)}
    for each in verdict.per_fold:
        assert each.tensor == each.node
        assert each.against == "the reference BatchNormalization"
        assert each.relative_l2 is not None
        assert each.relative_l2 < 1e-5
        assert each.original_rms is not None
        assert each.signal_rms is not None
        assert 0 < each.original_rms < 1e-5 * each.signal_rms
    sizes = [each.relative_l2 or 0.0 for each in verdict.per_fold]
    assert sizes == sorted(sizes, reverse=True)


def test_the_original_is_judged_by_float64(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error at a fold is that of its tensors, whatever the fold does."""
    right = bnfold.optimize(model, per_fold=True).verdict
    plant(monkeypatch, "bn3")
    wrong = bnfold.optimize(model, per_fold=True).verdict
    assert right is not None
    assert wrong is not None
    own = [{each.node: each.original_rms for each in verdict.per_fold} for verdict in (right, wrong)]
    assert own[0] == own[1]
    without = bnfold.optimize(model, per_fold=True, truth="bound").verdict
    assert without is not None
    assert {each.original_rms for each in without.per_fold} == {None}


def test_a_wrong_fold_shows_where_it_is(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "bn3")
    verdict = bnfold.optimize(model, per_fold=True).verdict
    assert verdict is not None
    by_node = {each.node: each.relative_l2 or 0.0 for each in verdict.per_fold}
    assert max(by_node[f"bn{layer}"] for layer in range(3)) < 1e-5
    assert by_node["bn3"] > 1e-3
    assert verdict.per_fold[0].node in {"bn3", "bn4", "bn5"}


def forward() -> onnx.ModelProto:
    """BatchNormalization, Relu-free, before a Conv: it goes into the Conv behind it."""
    rng = np.random.default_rng(0)
    weights = {
        "scale": rng.uniform(0.5, 1.5, 3), "shift": rng.normal(size=3), "mean": rng.normal(size=3),
        "var": rng.uniform(0.5, 2, 3), "w": rng.normal(size=(4, 3, 3, 3)),
    }  # fmt: skip
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("BatchNormalization", ["s", "scale", "shift", "mean", "var"], ["b"], name="bn"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="conv"),
        helper.make_node("Sigmoid", ["c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_fold_forward_is_compared_behind_it() -> None:
    result = bnfold.optimize(forward(), per_fold=True)
    assert [fold.direction for fold in result.folds] == ["forward"]
    assert result.verdict is not None
    (found,) = result.verdict.per_fold
    assert (found.tensor, found.against) == ("c", "the original's tensor")
    assert found.relative_l2 is not None
    assert 0 < found.relative_l2 < 1e-5


def test_what_cannot_be_captured_says_why() -> None:
    net = build(
        Net(layers=1), (helper.make_node("Secret", ["y"], ["z"], domain="com.microsoft"),), ("z", FLOAT)
    )
    verdict = bnfold.optimize(net, per_fold=True).verdict
    assert verdict is not None
    (found,) = verdict.per_fold
    assert (found.tensor, found.relative_l2) == ("", None)
    assert "Secret" in found.note


def test_external_data_is_found(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    for output in (None, tmp_path / "out.onnx"):
        verdict = bnfold.optimize(path, output=output, per_fold=True).verdict
        assert verdict is not None
        assert all(each.tensor for each in verdict.per_fold)
