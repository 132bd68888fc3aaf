"""Weights and statistics wherever a constant can stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.build import FLOAT, FLOAT16, PLACES, Net, feeds, tensor
from support.claims import batch_norms, expect, ops, same_function

import bnfold

if TYPE_CHECKING:
    from pathlib import Path

CHAINS = [p for p in PLACES if p not in ("raw", "typed", "sparse", "sparse_node", "node")]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("which", ["weight", "bias", "scale", "shift", "mean", "var", "all"])
def test_a_constant_stands_there(place: str, which: str) -> None:
    net = Net(17)

    def put(name: str, *shape: int, low: float | None = None) -> str:
        return net.const(
            net.draw(*shape, low=low), place if which in (name, "all") else "raw", name=f"the_{name}"
        )

    x = net.input("x", 1, 3, 5, 5)
    y = net.node("Conv", x, put("weight", 4, 3, 2, 2), put("bias", 4), name="conv")
    stats = {
        "scale": put("scale", 4),
        "bias": put("shift", 4),
        "mean": put("mean", 4),
        "var": put("var", 4, low=0.5),
    }
    net.output(net.bn(y, 4, name="bn", stats=stats), shape=[1, 4, 4, 4])
    # onnxruntime has no sparse Constant, and reads sparse initializers of rank 1 and 2 only
    result = expect(net.model(), folded={"bn"}, runtime="sparse" not in place)
    assert ops(result.model) == ["Conv"], "what only fed the fold is gone"
    plain = {t.name for t in result.model.graph.initializer}
    assert set(result.model.graph.node[0].input[1:]) <= plain, "what a fold writes is a plain initializer"


@pytest.mark.parametrize("place", ["node", "floats", "identity", "castlike", "sparse"])
@pytest.mark.parametrize("producer", ["ConvTranspose", "Gemm", "MatMul"])
def test_other_producers_read_constants_there(producer: str, place: str) -> None:
    net = Net(17)
    if producer == "ConvTranspose":
        x, w = net.input("x", 1, 3, 5, 5), net.const(net.draw(3, 4, 2, 2), place)
    else:
        x, w = net.input("x", 2, 3), net.const(net.draw(3, 4), place)
    b = net.const(net.draw(4), place)
    y = net.node(producer, x, w) if producer == "MatMul" else net.node(producer, x, w, b)
    y = net.node("Add", y, b) if producer == "MatMul" else y
    net.output(net.bn(y, 4, name="bn"), shape=[1, 4, 6, 6] if producer == "ConvTranspose" else [2, 4])
    expect(net.model(), folded={"bn"}, runtime=place != "sparse")


def test_the_missing_bias_of_the_pytorch_exporter() -> None:
    """`Expand(CastLike(0, x), Shape(W))`: constant by its value although it names the runtime input."""
    net = Net(18)
    x = net.input("x", "n", 3, 6, 6)
    w = net.init(net.draw(4, 3, 3, 3))
    zero = net.node("CastLike", net.node("Constant", value_float=0.0), x)
    size = net.node("Shape", w, start=0, end=1)
    y = net.node("Conv", x, w, net.node("Expand", zero, size), name="conv")
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["Conv"]


@pytest.mark.parametrize("value", [None, 0.5])
def test_constant_of_shape(value: float | None) -> None:
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    attrs = {} if value is None else {"value": tensor(np.array([value]), "v")}
    bias = net.node("ConstantOfShape", net.ints(4), **attrs)
    y = net.conv(x, 3, 4, bias=bias)
    ones = net.node("ConstantOfShape", net.ints(4), value=tensor(np.array([1.0]), "v"))
    net.output(net.bn(y, 4, name="bn", stats={"scale": ones, "var": ones}))
    expect(net.model(), folded={"bn"})


def test_constants_computed_from_static_shapes() -> None:
    """Shape of an input of fixed size is a constant too."""
    net = Net(17)
    x = net.input("x", 1, 4, 6, 6)
    channels = net.node("Gather", net.node("Shape", x), net.init(np.array([1]), elem=TensorProto.INT64))
    ones = net.node("Expand", net.init(np.array([1.0])), channels)
    net.output(net.bn(net.conv(x, 4, 4), 4, name="bn", stats={"scale": ones}))
    expect(net.model(), folded={"bn"})


def test_shapes_that_are_not_static_are_no_constants() -> None:
    """The batch size decides the value: nothing to fold."""
    net = Net(17)
    x = net.input("x", "n", 4, 6, 6)
    n = net.node("Cast", net.node("Gather", net.node("Shape", x), net.ints(0)), to=FLOAT)
    scale = net.node("Expand", n, net.ints(4))
    net.output(net.bn(net.conv(x, 4, 4), 4, name="bn", stats={"scale": scale}))
    expect(net.model(), kept={"bn": "BNF012"})


def test_scalar_constant_node_as_the_other_operand() -> None:
    net = Net(17)
    y = net.conv(net.input("x", 1, 3, 5, 5), 3, 4)
    y = net.node("Mul", y, net.node("Constant", value_float=0.5))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_statistics_behind_sqrt_mul_and_cast() -> None:
    net = Net(17)
    y = net.conv(net.input("x", 1, 3, 5, 5), 3, 4)
    std = net.init(net.draw(4, low=0.5, high=1.5), elem=TensorProto.DOUBLE)
    var = net.node("Cast", net.node("Mul", std, std), to=FLOAT)
    scale = net.node("Sqrt", net.init(net.draw(4, low=0.5, high=1.5)))
    net.output(net.bn(y, 4, name="bn", stats={"var": var, "scale": scale}))
    expect(net.model(), folded={"bn"})


def test_typed_fields_of_half_types() -> None:
    """float16 in int32_data holds bit patterns, not numbers."""
    net = Net(17, elem=FLOAT16)
    x = net.input("x", 1, 3, 5, 5)
    y = net.node("Conv", x, net.const(net.draw(4, 3, 3, 3), "typed"), net.const(net.draw(4), "typed"))
    stats = {k: net.const(net.draw(4, low=0.5), "typed") for k in ("scale", "bias", "mean", "var")}
    net.output(net.bn(y, 4, name="bn", stats=stats))
    model = net.model()
    assert all(t.int32_data for t in model.graph.initializer)
    expect(model, folded={"bn"})


def test_a_sparse_initializer_with_indices_by_dimension() -> None:
    net = Net(17)
    x = net.input("x", 2, 3)
    values = tensor(np.array([0.5, -2.0, 1.5]), "w")
    where = helper.make_tensor("w_where", TensorProto.INT64, [3, 2], [0, 1, 1, 3, 2, 0])
    net.sparse.append(helper.make_sparse_tensor(values, where, [3, 4]))
    net.output(net.bn(net.node("Gemm", x, "w", net.init(net.draw(4))), 4, name="bn"))
    expect(net.model(), folded={"bn"}, runtime=False)


def test_a_constant_under_the_size_limit_only() -> None:
    """Two gigabytes spelled in twelve bytes: kept or folded quickly, but never computed blindly."""
    net = Net(17)
    x = net.input("x", 1, 4, 5, 5)
    huge = net.node("ConstantOfShape", net.ints(1 << 20, 1 << 12), value=tensor(np.array([1.0]), "v"))
    one = net.node("ReduceMean", huge, keepdims=0)
    scale = net.node("Expand", one, net.ints(4))
    net.output(net.bn(net.conv(x, 4, 4), 4, name="bn", stats={"scale": scale}))
    model = net.model()
    result = bnfold.optimize(model, verify=False)
    assert [(r.node, str(r.code)) for r in result.kept] == [("bn", "BNF012")]


def test_random_numbers_are_no_constants() -> None:
    """Without inputs, and yet another value at every run."""
    net = Net(17)
    y = net.conv(net.input("x", 1, 3, 5, 5), 3, 4)
    scale = net.node("RandomNormal", shape=[4])
    net.output(net.bn(y, 4, name="bn", stats={"scale": scale}))
    result = bnfold.optimize(net.model(), verify=False)
    assert [(r.node, str(r.code)) for r in result.kept] == [("bn", "BNF012")]
    assert "RandomNormal" in ops(result.model)


def test_random_weights_are_no_constants() -> None:
    net = Net(17)
    w = net.node("RandomUniformLike", net.init(net.draw(4, 3, 3, 3)))
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w), 4, name="bn"))
    result = bnfold.optimize(net.model(), verify=False)
    assert [(r.node, str(r.code)) for r in result.kept] == [("bn", "BNF012")]


def test_statistics_through_a_training_dropout_are_no_constants() -> None:
    net = Net(13)
    y = net.conv(net.input("x", 1, 3, 5, 5), 3, 4)
    mean = net.node(
        "Dropout", net.init(net.draw(4)), net.init(0.5), net.init(np.array(True), elem=TensorProto.BOOL)
    )
    net.output(net.bn(y, 4, name="bn", stats={"mean": mean}))
    result = bnfold.optimize(net.model(), verify=False)
    assert [(r.node, str(r.code)) for r in result.kept] == [("bn", "BNF012")]


@pytest.mark.parametrize("place", CHAINS)
def test_a_constant_chain_read_elsewhere_is_left(place: str) -> None:
    """The same computed weight also feeds another Conv, which must see the old one."""
    net = Net(17)
    x = net.input("x", 1, 3, 5, 5)
    w = net.const(net.draw(4, 3, 2, 2), place)
    net.output(net.bn(net.conv(x, 3, 4, weight=w), 4, name="bn"), net.conv(x, 3, 4, weight=w))
    expect(net.model(), folded={"bn"})


def external(folder: Path) -> Path:
    net = Net(17)
    x = net.input("x", 1, 3, 5, 5)
    net.output(net.bn(net.conv(x, 3, 4, weight=net.init(net.draw(4, 3, 3, 3), "w")), 4, name="bn"))
    model = net.model()
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    original = onnx.load(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    result = bnfold.optimize(path, verify=False)
    assert [f.node for f in result.folds] == ["bn"]
    out = tmp_path / "out.onnx"
    result.save(out)
    after = onnx.load(out)
    assert not batch_norms(after)
    same_function(original, after, feeds(original))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before, (
        "the input files stay as they were"
    )


def test_external_data_is_found_beside_the_model_not_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "weights.bin").write_bytes(b"\0" * 10_000)
    monkeypatch.chdir(elsewhere)
    result = bnfold.optimize(path, verify=False)
    result.save(tmp_path / "out.onnx")
    original = onnx.load(path)
    same_function(original, onnx.load(tmp_path / "out.onnx"), feeds(original))
