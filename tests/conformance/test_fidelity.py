"""What no fold touches stays byte for byte, in memory and on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from support.build import Net, tensor
from support.claims import expect, initializers, ops

import bnfold

if TYPE_CHECKING:
    from pathlib import Path


def decorated(*, foldable: bool = True) -> ModelProto:
    """A model that carries everything an ONNX file can say beside its computation."""
    net = Net(18, ir=10)
    x = net.input("x", 1, 3, 6, 6)
    y = net.conv(x, 3, 4, name="conv")
    z = net.bn(y, 4, name="bn") if foldable else net.node("Relu", y)
    z = net.node("Relu", z, name="relu")
    side = net.node("Mul", x, net.init(net.draw(3, 1, 1), "untouched"), name="side")
    net.init(net.draw(7), "unread")  # stored but read by nobody: not ours to drop
    net.init(np.arange(5), "unread_ints", TensorProto.INT64)
    net.sparse.append(
        helper.make_sparse_tensor(
            tensor(np.array([1.0, 2.0]), "unread_sparse"),
            helper.make_tensor("i", TensorProto.INT64, [2], [0, 3]),
            [5],
        )
    )
    net.output(z, side)
    net.infos.append(helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 4, "h", "w"]))
    net.infos.append(helper.make_tensor_value_info(z, TensorProto.FLOAT, [1, 4, "h", "w"]))
    net.infos[-1].doc_string = "after the activation"
    dead = Net(18, prefix="dead_")
    dead.node("Neg", "a", out="b")
    net.functions.append(
        helper.make_function(
            "unused.domain", "Unused", ["a"], ["b"], dead.nodes, [helper.make_opsetid("", 18)]
        )
    )
    model = net.model({"unused.domain": 3, "com.example": 7})
    model.producer_name, model.producer_version = "an exporter", "1.2.3+ä"
    model.domain, model.model_version, model.doc_string = "org.example", 42, "line one\nline two\n"
    for key, value in (("author", "somebody"), ("empty", ""), ("json", '{"a": [1, 2]}')):
        model.metadata_props.add(key=key, value=value)
    graph = model.graph
    graph.doc_string, graph.name = "the graph", "a name with blanks"
    graph.metadata_props.add(key="graph", value="property")
    graph.input[0].doc_string = "pixels"
    graph.output[0].doc_string = "features"
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    for node in graph.node:
        node.doc_string = f"from line of {node.name}"
        node.metadata_props.add(key="source", value=node.name)
    graph.initializer[0].doc_string = "a weight"
    note = graph.quantization_annotation.add(tensor_name="untouched")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="unread")
    return model


def test_everything_else_stays() -> None:
    model = decorated()
    result = expect(model, folded={"bn"})
    assert ops(result.model)[:2] == ["Conv", "Relu"]
    assert {"unread", "unread_ints", "untouched"} <= set(initializers(result.model))
    assert [s.values.name for s in result.model.graph.sparse_initializer] == ["unread_sparse"]
    conv = result.model.graph.node[0]
    assert conv.name == "conv"
    assert conv.doc_string == "from line of conv"
    assert [p.value for p in conv.metadata_props] == ["conv"]
    assert {i.name for i in result.model.graph.value_info} >= {model.graph.node[2].output[0]}


def test_zero_folds_give_the_identical_model() -> None:
    model = decorated(foldable=False)
    result = expect(model, folded=set(), kept={})
    assert result.model.SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("source", ["file", "model"])
def test_zero_folds_give_the_identical_file(tmp_path: Path, source: str) -> None:
    path = tmp_path / "model.onnx"
    # a field order and an unknown field that no protobuf library would write again
    path.write_bytes(decorated(foldable=False).SerializeToString() + b"\xf8\x7f\x01")
    out = tmp_path / "out.onnx"
    if source == "file":
        bnfold.optimize(path, output=out, verify=False)
    else:
        bnfold.optimize(path.read_bytes(), verify=False).save(out)
    assert out.read_bytes() == path.read_bytes()


def test_unknown_fields_survive_a_fold(tmp_path: Path) -> None:
    """A file of a newer ONNX may hold fields this library does not know: they are not ours to lose."""
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    path.write_bytes(decorated().SerializeToString() + b"\xf8\x7f\x01")
    result = bnfold.optimize(path, output=out, verify=False)
    assert [f.node for f in result.folds] == ["bn"]
    assert b"\xf8\x7f\x01" in out.read_bytes()


def test_what_only_fed_a_fold_is_gone() -> None:
    """The statistics have no reader left: a smaller model is part of the point."""
    model = decorated()
    bn = model.graph.node[1]
    result = expect(model, folded={"bn"})
    assert not set(bn.input[1:]) & set(initializers(result.model))
    assert len(result.model.graph.initializer) == len(model.graph.initializer) - 4


def test_nodes_stay_sorted_where_they_were() -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    a = net.conv(x, 3, 4, name="a")
    b = net.conv(x, 3, 4, name="b", bias=False)
    c = net.node("Relu", x, name="c")
    b = net.bn(b, 4, name="b_bn")
    d = net.conv(c, 3, 4, name="d")
    a = net.bn(a, 4, name="a_bn")
    net.output(net.node("Mul", a, b, name="e"), net.bn(d, 4, name="d_bn"))
    result = expect(net.model(), folded={"a_bn", "b_bn", "d_bn"})
    assert [n.name for n in result.model.graph.node] == ["a", "b", "c", "d", "e"]


def test_the_file_of_the_caller_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(decorated(), path)
    before = path.read_bytes()
    result = bnfold.optimize(path, verify=False)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"], "nothing is written without output="
    result.save(tmp_path / "out.onnx")
    assert path.read_bytes() == before
    assert onnx.load(tmp_path / "out.onnx") == result.model


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(decorated(), path)
    for name in ("one", "two"):
        bnfold.optimize(path, output=tmp_path / name, verify=False)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "proto"])
def test_every_way_to_give_a_model_gives_the_same(tmp_path: Path, kind: str) -> None:
    model = decorated()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    given: dict[str, Path | str | bytes | ModelProto] = {
        "path": path, "str": str(path), "bytes": path.read_bytes(), "proto": model,
    }  # fmt: skip
    assert bnfold.optimize(given[kind], verify=False).model == bnfold.optimize(model, verify=False).model


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(decorated(), path)
    result = bnfold.optimize(path, output=tmp_path / "out.onnx", dry_run=True, verify=False)
    assert [f.node for f in result.folds] == ["bn"]
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_verify_agrees() -> None:
    """The default: the verdict is about this model, and equivalent."""
    result = bnfold.optimize(decorated())
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"
    result.raise_for_status()


def test_a_corrupted_fold_is_found_out() -> None:
    """A result whose weight was changed behind bnfold's back differs."""
    model = decorated()
    result = bnfold.optimize(model, verify=False)
    assert result.verdict is None or result.verdict.status == "not verified"
    broken = ModelProto()
    broken.CopyFrom(result.model)
    weight = next(t for t in broken.graph.initializer if t.name == broken.graph.node[0].input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= np.float32(1.001)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    assert bnfold.verify(model, result.model).status == "equivalent"
    assert bnfold.verify(model, broken).status == "different"


@pytest.mark.parametrize("forward", [False, True])
def test_quantization_annotations_go_with_the_values_they_describe(forward: bool) -> None:
    """The scale of a folded weight, of a tensor between or of one that is gone, describes something else."""
    net = Net(18)
    x = net.input("x", 1, 3, 6, 6)
    before, behind = net.init(net.draw(3, 3, 1, 1), "before"), net.init(net.draw(4, 3, 1, 1), "behind")
    y = net.node("Neg" if forward else "Conv", *([x] if forward else [x, before]), out="first")
    y = net.node("MaxPool", y, kernel_shape=[2, 2], out="second") if not forward else y
    y = net.bn(y, 3, name="bn", stats={"scale": np.ones(3)}, out="normalized")
    y = net.node("MaxPool", y, kernel_shape=[2, 2], out="third") if forward else y
    net.output(net.node("Conv", y, behind, out="last"), shape=[1, 4, 5, 5])
    model = net.model()
    described = [x, "first", "second", "normalized", "third", "last", "before", "behind"]
    for name in described:
        note = model.graph.quantization_annotation.add(tensor_name=name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="x")
    result = bnfold.optimize(model, verify=False)
    assert [f.direction for f in result.folds] == ["forward" if forward else "backward"]
    left = {note.tensor_name for note in result.model.graph.quantization_annotation}
    gone = {"normalized", "third", "behind"} if forward else {"first", "second", "before"}
    assert left & set(described) == set(described) - gone
