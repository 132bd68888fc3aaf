"""What users say about inputs, on a command line and in Python, and what the models are fed for it."""

# ruff: noqa: ANN401 - values of any kind

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.convnets import FLOAT, Net, build, fold

from bnfold.errors import UsageError
from bnfold.verification.inputs import File, Inputs, Wishes, parse, read, understand
from bnfold.verification.options import Verification
from bnfold.verification.pair import verify

if TYPE_CHECKING:
    from bnfold.verification.verdict import Verdict

A = np.arange(6, dtype=np.float32).reshape(2, 3)
IDS = np.array([0, 1], dtype=np.int64)


def value(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(*inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "g", inputs, []))


ONE = model(value("x", FLOAT, ["n", 3]))
TWO = model(value("x", FLOAT, ["n", 3]), value("ids", TensorProto.INT64, ["n"]))


def test_texts_name_files_shapes_and_ranges(tmp_path: Path) -> None:
    wishes = parse([f"x={tmp_path}/a.npy", str(tmp_path), "y=2x3x224x224", "s=5"], ["y=0,255", "-1,1e-3"])
    assert wishes.files == (File("x", tmp_path / "a.npy"), File("", tmp_path))
    assert wishes.shapes == {"y": (2, 3, 224, 224), "s": (5,)}
    assert wishes.ranges == {"y": (0.0, 255.0), "": (-1.0, 0.001)}


def test_a_file_whose_name_holds_an_equals_sign(tmp_path: Path) -> None:
    (tmp_path / "x=1.npz").touch()
    assert parse([str(tmp_path / "x=1.npz")]).files == (File("", tmp_path / "x=1.npz"),)


@pytest.mark.parametrize(
    ("inputs", "ranges", "said"),
    [
        (["2x3"], [], "needs the name"),
        (["x=1x2", "x=1x3"], [], "given already"),
        ([], ["x=1"], "two numbers"),
        ([], ["x=a,b"], "two numbers"),
        ([], ["x=1,2,3"], "two numbers"),
        ([], ["x=2,1"], "no more than the largest"),
        ([], ["0,inf"], "finite"),
        ([], ["0,1", "0,2"], "given already"),
    ],
)
def test_texts_that_make_no_sense(inputs: list[str], ranges: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(inputs, ranges)


def test_python_values() -> None:
    assert understand(None) == Wishes()
    assert understand("a.npz", (0, 1)) == Wishes((File("", Path("a.npz")),), ranges={"": (0.0, 1.0)})
    mixed = understand({"x": A, "y": "y.npy", "z": (1, 2)}, {"z": (0, 1)})
    assert mixed.arrays[0]["x"] is A
    assert (mixed.files, mixed.shapes) == ((File("y", Path("y.npy")),), {"z": (1, 2)})
    assert len(understand([{"x": A}, {"x": A}]).arrays) == 2


@pytest.mark.parametrize(
    ("inputs", "said"), [([], "is empty"), ({"x": [1, 2]}, "is list"), ({"x": 3}, "is int")]
)
def test_python_values_that_make_no_sense(inputs: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        understand(inputs)


@pytest.mark.parametrize("ranges", [(1, 0), (0, float("nan")), ("a", "b"), (1, 2, 3)])
def test_python_ranges_that_make_no_sense(ranges: Any) -> None:
    with pytest.raises(UsageError, match=r"ranges="):
        understand(None, ranges)


def test_single_inputs_from_every_kind_of_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", A)
    np.savez(tmp_path / "only.npz", anything=A)
    np.savez(tmp_path / "named.npz", x=A, ids=IDS)
    (tmp_path / "x.pb").write_bytes(numpy_helper.from_array(A).SerializeToString())
    for name in ("x.npy", "only.npz", "named.npz", "x.pb"):
        (feed,) = read(parse([f"x={tmp_path / name}", f"ids={tmp_path / 'named.npz'}"]), TWO)
        assert np.array_equal(feed.values["x"], A), name
        assert np.array_equal(feed.values["ids"], IDS)
    np.savez(tmp_path / "other.npz", a=A, b=A)
    with pytest.raises(UsageError, match="no array 'x' in it; it holds a, b"):
        read(parse([f"x={tmp_path / 'other.npz'}"]), TWO)


def test_a_data_set_with_labels_says_how_to_take_the_input_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=A, label=IDS)
    with pytest.raises(UsageError, match=r"no input 'label'.*--input x=set\.npz"):
        read(parse([str(tmp_path / "set.npz")]), ONE)
    assert len(read(parse([f"x={tmp_path / 'set.npz'}"]), ONE)) == 1


def test_folders_and_patterns_give_a_feed_for_each_file_in_numerical_order(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        np.save(tmp_path / f"{number}.npy", A + np.float32(number))
    for text in (str(tmp_path), f"x={tmp_path}", f"x={tmp_path}/*.npy", f"{tmp_path}/*.npy"):
        feeds = read(parse([text]), ONE)
        assert [feed.name for feed in feeds] == ["1.npy", "2.npy", "10.npy"], text
        assert np.array_equal(feeds[2].values["x"], A + 10)
    with pytest.raises(UsageError, match="no file matches"):
        read(parse([f"x={tmp_path}/*.pb"]), ONE)


def test_a_pattern_over_test_data_sets(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        onnx.save_tensor(numpy_helper.from_array(A + np.float32(number)), folder / "input_0.pb")
        onnx.save_tensor(numpy_helper.from_array(IDS), folder / "input_1.pb")
        onnx.save_tensor(numpy_helper.from_array(A), folder / "output_0.pb")
    feeds = read(parse([f"{tmp_path}/test_data_set_*/*.pb"]), TWO)
    assert [feed.name for feed in feeds] == ["test_data_set_0", "test_data_set_1"]
    assert np.array_equal(feeds[1].values["x"], A + 1)
    (only,) = read(parse([f"ids={tmp_path}/test_data_set_0/*.pb"]), TWO)
    assert np.array_equal(only.values["ids"], IDS)
    assert "x" not in only.values


def test_values_of_several_inputs_are_fed_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", A)
    np.save(tmp_path / "ids.npy", IDS)
    feeds = read(parse([f"x={tmp_path}/a", f"x={tmp_path}/b", f"ids={tmp_path}/ids.npy"]), TWO)
    assert [feed.name for feed in feeds] == ["0.npy, ids.npy", "0.npy, ids.npy (2)"]
    np.save(tmp_path / "b" / "1.npy", A)
    texts = [f"x={tmp_path}/a", f"x={tmp_path}/b", *[f"ids={tmp_path}/ids.npy"] * 2]
    with pytest.raises(UsageError, match="2 sets of values where others have 3"):
        read(parse(texts), TWO)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": A, "z": A}, "no input 'z'"),
        ({"x": A.astype(float)}, "float64, the model wants float32"),
        ({"x": A[:, :2]}, "wants nx3"),
        ({"x": A[0]}, "shape"),
        ({"z": (1,)}, "no input 'z'"),
        ({"z": "z.npy"}, "no input 'z'"),
    ],
)
def test_what_does_not_fit_the_model(given: Inputs, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(understand(given), ONE)


def test_values_and_a_shape_or_range_contradict_each_other() -> None:
    with pytest.raises(UsageError, match=r"values .* and a range"):
        read(understand({"x": A}, {"x": (0, 1)}), ONE)
    with pytest.raises(UsageError, match=r"values .* and a shape"):
        read(Wishes(arrays=({"x": A},), shapes={"x": (2, 3)}), ONE)
    with pytest.raises(UsageError, match="no input 'y'"):
        read(understand(None, {"y": (0, 1)}), ONE)


@pytest.mark.parametrize(
    "kind",
    [
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None)),
        helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, None)),
    ],
    ids=["sequence", "optional"],
)
def test_no_values_for_what_is_no_tensor(kind: onnx.TypeProto) -> None:
    said = kind.WhichOneof("value")
    assert said is not None
    strange = model(helper.make_value_info("s", kind), value("x", FLOAT, ["n", 3]))
    with pytest.raises(UsageError, match=f"'s' is of type {said.removesuffix('_type')}; only tensors"):
        read(understand({"s": A}), strange)
    verdict = verify(strange.SerializeToString(), strange.SerializeToString())
    assert verdict.status == "not verified"
    assert f"'s' is of type {said.removesuffix('_type')}" in verdict.summary


# --- through the whole verification -----------------------------------------------------------------------


def feeds_of(net: onnx.ModelProto, **how: Any) -> Verdict:
    return verify(net.SerializeToString(), fold(net).SerializeToString(), Verification(**how))


def test_a_shape_is_what_is_run() -> None:
    net = build(Net(layers=1, size="side", batch="n"))
    verdict = feeds_of(net, inputs={"x": (2, 3, 9, 11)})
    assert verdict.status == "equivalent"
    assert {feed.split()[1] for feed in verdict.feeds} == {"2x3x9x11"}
    assert len(verdict.feeds) == 4
    for shape, said in (((2, 4, 9, 9), "not 2x4x9x9"), ((2, 3, 9), "not 2x3x9")):
        with pytest.raises(UsageError, match=said):
            feeds_of(net, inputs={"x": shape})


def two_inputs() -> onnx.ModelProto:
    """A network whose output is scaled by a second input of the same batch size."""
    net = build(Net(layers=1, batch="n"), (helper.make_node("Mul", ["y", "gain"], ["z"]),), ("z", FLOAT))
    net.graph.input.append(value("gain", FLOAT, ["n", 1, 1, 1]))
    return net


def test_inputs_without_values_get_seeded_ones_of_a_size_that_fits() -> None:
    gain = np.full((3, 1, 1, 1), 2, np.float32)
    verdict = feeds_of(two_inputs(), inputs={"gain": gain})
    assert verdict.status == "equivalent", verdict.summary
    assert verdict.feeds == ("user 0, others normal 3x3x12x12",)


def test_equal_dimensions_of_two_inputs_must_have_one_size() -> None:
    both = {"gain": np.ones((3, 1, 1, 1), np.float32), "x": np.ones((2, 3, 12, 12), np.float32)}
    with pytest.raises(UsageError, match="dimension 'n' is both"):
        feeds_of(two_inputs(), inputs=both)
    with pytest.raises(UsageError, match="dimension 'n' is 2 already"):
        feeds_of(two_inputs(), inputs={"x": (2, 3, 12, 12), "gain": (3, 1, 1, 1)})


def test_a_range_that_the_type_cannot_hold_is_refused() -> None:
    half = build(Net(layers=1, dtype=np.float16))
    with pytest.raises(UsageError, match="goes beyond float16"):
        feeds_of(half, ranges=(0, 1e6))
    pixels = build(Net(layers=1))
    pixels.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    pixels.graph.node.insert(0, helper.make_node("Cast", ["x"], ["xf"], to=FLOAT))
    next(node for node in pixels.graph.node if node.op_type == "Conv").input[0] = "xf"
    assert feeds_of(pixels, ranges=(0, 255)).status == "equivalent"
    for beyond in ((0, 256), (-1, 3), (0.2, 0.8)):
        with pytest.raises(UsageError, match="holds no uint8"):
            feeds_of(pixels, ranges={"x": beyond})


def test_strings_come_from_the_user() -> None:
    nodes = (
        helper.make_node(
            "LabelEncoder",
            ["word"],
            ["factor"],
            domain="ai.onnx.ml",
            keys_strings=["good", "bad"],
            values_floats=[2.0, -1.0],
        ),
        helper.make_node("Mul", ["y", "factor"], ["z"]),
    )
    net = build(Net(layers=1), nodes, ("z", FLOAT))
    net.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    net.graph.input.append(value("word", TensorProto.STRING, [1]))
    verdict = feeds_of(net)
    assert verdict.status == "not verified"
    assert "'word' holds strings" in verdict.summary
    for words in (np.array(["bad"]), np.array([b"bad"], dtype=object)):
        verdict = feeds_of(net, inputs={"word": words})
        assert verdict.status == "equivalent", verdict.summary
        assert {row.against for row in verdict.outputs} == {"truth"}
    with pytest.raises(UsageError, match="the model wants string"):
        feeds_of(net, inputs={"word": np.ones(1, np.float32)})


def test_bools_and_indices_are_made() -> None:
    nodes = (
        helper.make_node("Gather", ["table", "id"], ["row"]),
        helper.make_node("Mul", ["y", "row"], ["scaled"]),
        helper.make_node("Where", ["flag", "scaled", "y"], ["z"]),
    )
    net = build(Net(layers=1), nodes, ("z", FLOAT))
    table = np.arange(1, 4, dtype=np.float32).reshape(3, 1, 1, 1)
    net.graph.initializer.append(numpy_helper.from_array(table, "table"))
    net.graph.input.extend([value("id", TensorProto.INT64, [1]), value("flag", TensorProto.BOOL, [1])])
    verdict = feeds_of(net)
    assert verdict.status == "equivalent", verdict.summary
    assert not any("does not run" in finding for finding in verdict.findings)
    with pytest.raises(UsageError, match="'flag' is bool"):
        feeds_of(net, ranges={"flag": (0, 1)})
    # A range for all inputs leads no index beyond its table.
    verdict = feeds_of(net, ranges=(0, 255))
    assert verdict.status == "equivalent"
    assert not any("does not run" in finding for finding in verdict.findings)


def test_an_unknown_truth_or_provider_is_a_usage_error() -> None:
    net = build(Net(layers=1))
    with pytest.raises(UsageError, match="expected one of auto"):
        feeds_of(net, truth="half")
    with pytest.raises(UsageError, match="expected one of cpu"):
        feeds_of(net, provider="tpu")
