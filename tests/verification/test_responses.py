"""One weight of a layer, however small beside the others, wherever it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.convnets import Net, build, changed, fold, weight

import bnfold

if TYPE_CHECKING:
    from pathlib import Path

Array = np.ndarray[Any, np.dtype[Any]]

# Beside the root mean square of its layer.
TINY = 1e-3


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, Array],
    shape: list[int],
    dtype: type[np.generic] = np.float32,
) -> onnx.ModelProto:
    """A model with the input `x` and the output `y`."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", number, shape)],
        [helper.make_tensor_value_info("y", number, None)],
        [numpy_helper.from_array(np.asarray(values).astype(dtype), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def statistics(channels: int) -> dict[str, Array]:
    """Of a normalization of so many channels."""
    return {
        "s": np.linspace(0.5, 1.5, channels),
        "o": np.linspace(-1, 1, channels),
        "m": np.linspace(1, -0.5, channels),
        "v": np.linspace(0.3, 2, channels),
    }


NORMALIZED = helper.make_node("BatchNormalization", ["t", "s", "o", "m", "v"], ["n"])
BENT = helper.make_node("Relu", ["n"], ["y"])

# The layer, the shape of its weight, of its input, and how many channels come out.
LAYERS: dict[str, tuple[onnx.NodeProto, tuple[int, ...], list[int], int]] = {
    "Conv": (helper.make_node("Conv", ["x", "w"], ["t"], pads=[1] * 4), (8, 6, 3, 3), [1, 6, 9, 9], 8),
    "strided": (
        helper.make_node("Conv", ["x", "w"], ["t"], pads=[1] * 4, strides=[2, 2]),
        (8, 6, 3, 3),
        [1, 6, 9, 9],
        8,
    ),
    "dilated": (
        helper.make_node("Conv", ["x", "w"], ["t"], dilations=[2, 3], pads=[2, 1, 2, 2]),
        (8, 6, 3, 2),
        [1, 6, 9, 9],
        8,
    ),
    "auto_pad": (
        helper.make_node("Conv", ["x", "w"], ["t"], strides=[2, 3], auto_pad="SAME_UPPER"),
        (8, 6, 3, 2),
        [1, 6, 9, 9],
        8,
    ),
    "depthwise": (
        helper.make_node("Conv", ["x", "w"], ["t"], pads=[2] * 4, group=8),
        (8, 1, 5, 5),
        [1, 8, 9, 9],
        8,
    ),
    "grouped": (helper.make_node("Conv", ["x", "w"], ["t"], group=3), (6, 4, 3, 3), [1, 12, 7, 7], 6),
    "volume": (
        helper.make_node("Conv", ["x", "w"], ["t"], pads=[1] * 6),
        (4, 3, 3, 3, 3),
        [1, 3, 5, 5, 5],
        4,
    ),
    "line": (helper.make_node("Conv", ["x", "w"], ["t"], strides=[3]), (4, 3, 5), [1, 3, 17], 4),
    "ConvTranspose": (
        helper.make_node("ConvTranspose", ["x", "w"], ["t"], strides=[2, 2]),
        (6, 8, 3, 3),
        [1, 6, 5, 5],
        8,
    ),
    "Gemm": (helper.make_node("Gemm", ["x", "w"], ["t"], transB=1, alpha=0.5), (8, 16), [2, 16], 8),
    "MatMul": (helper.make_node("MatMul", ["x", "w"], ["t"]), (16, 8), [2, 16], 8),
}


def layer(kind: str, seed: int = 0) -> onnx.ModelProto:
    """A layer, its normalization and a Relu."""
    node, shape, fed, channels = LAYERS[kind]
    weights = {"w": np.random.default_rng(seed).normal(size=shape), **statistics(channels)}
    return model_of([node, NORMALIZED, BENT], weights, fed)


def scaled(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """With one of the weights made small."""
    values = weight(model, "w")
    values.flat[values.size // 2] = factor * np.sqrt(np.mean(np.square(values)))
    return changed(model, "w", values)


def slipped(folded: onnx.ModelProto, place: int, name: str = "") -> onnx.ModelProto:
    """With one weight of the first layer a thousandth too large."""
    name = name or folded.graph.node[0].input[1]
    values = weight(folded, name)
    values.flat[place] *= values.dtype.type(1.001)
    return changed(folded, name, values)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_tiny_weight_that_is_off_by_a_thousandth(kind: str) -> None:
    model = scaled(layer(kind), TINY)
    folded = bnfold.optimize(model, verify=False)
    assert len(folded.folds) == 1
    right = bnfold.verify(model, folded.model)
    assert right.status == "equivalent", right.summary
    assert right.findings == ()
    place = int(np.prod(LAYERS[kind][1])) // 2
    wrong = bnfold.verify(model, slipped(folded.model, place))
    assert wrong.status == "different", wrong.summary
    assert "a weight of" in wrong.summary


def test_a_weight_that_only_padding_meets() -> None:
    """At this size; nothing says that the model will not be run at another one."""
    node, shape, _, channels = LAYERS["depthwise"]
    weights = {"w": np.random.default_rng(0).normal(size=shape), **statistics(channels)}
    model = model_of([node, NORMALIZED, BENT], weights, [1, 8, 1, 1])
    folded = bnfold.optimize(model, verify=False).model
    assert bnfold.verify(model, folded).status == "equivalent"
    assert bnfold.verify(model, slipped(folded, 0)).status == "different"


def branches() -> onnx.ModelProto:
    """A 3x3 Conv, a 1x1 Conv and the input itself, each normalized, and summed: one Conv."""
    rng = np.random.default_rng(3)
    weights: dict[str, Array] = {
        "w": rng.normal(size=(6, 6, 3, 3)) / 7,
        "p": rng.normal(size=(6, 6, 1, 1)) / 2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["x", "p"], ["b"]),
    ]
    for number, operand in enumerate(("a", "b", "x")):
        stored = {f"{name}{number}": values + 0.1 * number for name, values in statistics(6).items()}
        weights |= stored
        nodes.append(helper.make_node("BatchNormalization", [operand, *stored], [f"n{number}"]))
    nodes += [
        helper.make_node("Add", ["n0", "n1"], ["n01"]),
        helper.make_node("Add", ["n01", "n2"], ["n"]),
        BENT,
    ]
    return model_of(nodes, weights, [1, 6, 7, 7])


def test_branches_that_became_one() -> None:
    model = branches()
    folded = bnfold.optimize(model, verify=False).model
    assert [node.op_type for node in folded.graph.node] == ["Conv", "Relu"]
    assert bnfold.verify(model, folded).status == "equivalent"
    name = folded.graph.node[0].input[1]
    values = weight(folded, name)
    for place in (0, int(np.abs(values).argmin()), values[0, 0].size // 2):
        verdict = bnfold.verify(model, slipped(folded, place))
        assert verdict.status == "different", (place, verdict.summary)


def joined(name: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """`Conv(x) + x`, and one Conv that does both, whose result bears this name."""
    rng = np.random.default_rng(5)
    w = rng.normal(size=(24, 24, 3, 3)) / 15
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"], pads=[1] * 4),
        helper.make_node("Add", ["t", "x"], ["n"]),
        BENT,
    ]
    both = w.copy()
    both[np.arange(24), np.arange(24), 1, 1] += 1
    merged = [
        helper.make_node("Conv", ["x", "w"], [name], pads=[1] * 4),
        helper.make_node("Relu", [name], ["y"]),
    ]
    return model_of(nodes, {"w": w}, [1, 24, 7, 7]), model_of(merged, {"w": both}, [1, 24, 7, 7])


@pytest.mark.parametrize("name", ["n", "t"])
def test_a_name_that_another_tensor_bears_now(name: str) -> None:
    """Of 9 * 24 weights of a channel one differs, and nothing is wrong: it is the sum by another name."""
    original, other = joined(name)
    verdict = bnfold.verify(original, other)
    assert verdict.status == "equivalent", verdict.summary


@pytest.mark.parametrize("seed", range(4))
def test_factors_that_a_fold_carries(seed: int) -> None:
    """Two layers, a Relu between them: any positive factor of a channel may move from one to the next."""
    rng = np.random.default_rng(seed)
    w, v = rng.normal(size=(8, 3, 3, 3)), rng.normal(size=(4, 8, 3, 3))
    factor = np.ones(8)
    factor[rng.permutation(8)[: seed + 1]] = np.exp(rng.normal(size=seed + 1))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"]),
        helper.make_node("Relu", ["t"], ["u"]),
        helper.make_node("Conv", ["u", "v"], ["n"]),
        BENT,
    ]
    original = model_of(nodes, {"w": w, "v": v}, [1, 3, 9, 9])
    moved = {"w": w * factor[:, None, None, None], "v": v / factor[:, None, None]}
    other = model_of(nodes, moved, [1, 3, 9, 9])
    assert bnfold.verify(original, other).status == "equivalent"
    for name in ("w", "v"):
        verdict = bnfold.verify(original, slipped(other, 11, name))
        assert verdict.status == "different", (name, verdict.summary)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("own_dtype", [False, True])
def test_no_correct_fold_is_blamed(dtype: type[np.generic], own_dtype: bool) -> None:
    for seed in range(5):
        net = Net(layers=3, channels=8, dtype=dtype, seed=seed, bias=bool(seed % 2), head=True)
        model = build(net)
        verdict = bnfold.verify(model, fold(model, own_dtype=own_dtype))
        assert verdict.status != "different", verdict.summary


@pytest.mark.parametrize("gain", [1.0, 1e-6])
def test_weights_of_float16_that_are_hardly_numbers(gain: float) -> None:
    """Below its normal range the spacing of numbers is that of the smallest one."""
    node, shape, fed, channels = LAYERS["Conv"]
    weights = {
        "w": gain * np.random.default_rng(0).normal(size=shape),
        **statistics(channels),
        "v": np.ones(channels),
    }
    model = model_of([node, NORMALIZED, BENT], weights, fed, np.float16)
    assert bnfold.verify(model, fold(model)).status != "different"


def test_a_layer_between_shapes_that_are_stated() -> None:
    """A Reshape to fixed sizes takes no other image than the model's own."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("Relu", ["r"], ["u"]),
        helper.make_node("MatMul", ["u", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "flat"], ["t"]),
        NORMALIZED,
        helper.make_node("Reshape", ["n", "rows"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    weights = {"w": np.random.default_rng(0).normal(size=(8, 8)), **statistics(8)}
    model = scaled(model_of(nodes, weights, [1, 4, 8]), TINY)
    for name, sizes in {"rows": [1, 4, 8], "flat": [4, 8]}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(sizes), name))
    folded = bnfold.optimize(model, verify=False)
    assert len(folded.folds) == 1
    assert bnfold.verify(model, folded.model).status == "equivalent"
    name = next(node.input[1] for node in folded.model.graph.node if node.op_type in {"Gemm", "MatMul"})
    assert bnfold.verify(model, slipped(folded.model, 32, name)).status == "different"


def test_two_tensors_that_meet_before_the_normalization() -> None:
    """The sum of two layers, normalized: both take the factors in."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("Conv", ["a", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Conv", ["b", "z"], ["d"], pads=[1] * 4),
        helper.make_node("Add", ["c", "d"], ["t"]),
        NORMALIZED,
        BENT,
    ]
    stored = {"w": rng.normal(size=(8, 4, 3, 3)), "z": rng.normal(size=(8, 4, 3, 3))}
    model = scaled(model_of(nodes, {**stored, **statistics(8)}, [1, 4, 9, 9]), TINY)
    folded = bnfold.optimize(model, verify=False)
    assert len(folded.folds) == 1
    assert bnfold.verify(model, folded.model).status == "equivalent"
    convs = [node.input[1] for node in folded.model.graph.node if node.op_type == "Conv"]
    assert len(convs) == 2
    for name in convs:
        assert bnfold.verify(model, slipped(folded.model, 144, name)).status == "different", name


def test_data_of_its_own_beside_each_model(tmp_path: Path) -> None:
    """Both files name the same place for their weights, and it is not the same."""
    model = scaled(layer("Conv"), TINY)
    paths = [tmp_path / folder / "model.onnx" for folder in ("a", "b")]
    wrong = slipped(model, int(np.prod(LAYERS["Conv"][1])) // 2, "w")
    for path, each in zip(paths, (model, wrong), strict=True):
        path.parent.mkdir()
        onnx.save(each, path, save_as_external_data=True, location="weights", size_threshold=0)
    assert bnfold.verify(*paths).status == "different"


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """As tools leave it that name every tensor anew."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    kept |= {tensor.name for tensor in copy.graph.initializer}
    for node in copy.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name and name not in kept:
                    names[place] = f"{name}_anew"
    return copy


def test_what_cannot_be_compared_is_said() -> None:
    model = build(Net(layers=3, channels=8))
    folded = fold(model)
    assert bnfold.verify(model, folded).findings == ()
    verdict = bnfold.verify(model, renamed(folded))
    assert verdict.status == "equivalent"
    assert any("could not be compared weight by weight" in finding for finding in verdict.findings)


def test_weights_that_are_computed_or_listed_as_inputs() -> None:
    """A Transpose of stored weights, and a model of IR 3, in which each initializer is an input too."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"]),
        helper.make_node("MatMul", ["x", "turned"], ["t"]),
        NORMALIZED,
        BENT,
    ]
    rng = np.random.default_rng(0)
    original = scaled(model_of(nodes, {"w": rng.normal(size=(8, 16)), **statistics(8)}, [2, 16]), TINY)
    listed = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in original.graph.initializer
    ]
    original.graph.input.extend(listed)
    original.ir_version = 3
    assert bnfold.verify(original, original).findings == ()
    verdict = bnfold.verify(original, slipped(original, 64, "w"))
    assert verdict.status == "different", verdict.summary


def test_behind_a_layer_that_chaos_drowns() -> None:
    """What comes in differs altogether in the folded model, by rounding alone; the layer is still known."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "z"], ["a"]),
        helper.make_node("Mul", ["a", "gain"], ["b"]),
        helper.make_node("Sin", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w"], ["t"], pads=[1] * 4),
        NORMALIZED,
        BENT,
    ]
    weights = {
        "z": rng.normal(size=(6, 3, 1, 1)),
        "gain": np.array(1e9),
        "w": rng.normal(size=(8, 6, 3, 3)),
        **statistics(8),
    }
    model = scaled(model_of(nodes, weights, [1, 3, 9, 9]), TINY)
    folded = bnfold.optimize(model, verify=False).model
    other = weight(folded, "z")
    moved = changed(folded, "z", np.nextafter(other, np.float32(9)))
    verdict = bnfold.verify(model, moved)
    assert verdict.status != "different", verdict.summary
    assert any(row.outcome == "ill-conditioned" for row in verdict.outputs if row.level == "float64")
    name = next(node.input[1] for node in folded.graph.node if node.output[0] == "n")
    assert bnfold.verify(model, slipped(moved, 216, name)).status == "different"


@pytest.mark.parametrize("size", [1e-12, 1e-18, 1e-24])
def test_weights_that_are_nothing_beside_the_bias(size: float) -> None:
    """A dead channel, as training leaves them: in float64 the answer to zeros swallows what they add."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(8, 6, 3, 3))
    w[3] *= size
    node, _, shape, channels = LAYERS["Conv"]
    model = model_of([node, NORMALIZED, BENT], {"w": w, **statistics(channels)}, shape)
    verdict = bnfold.verify(model, bnfold.optimize(model, verify=False).model)
    assert verdict.status == "equivalent", verdict.summary
