"""Models nobody writes on purpose: long chains, constants that blow up, odd types."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, TrainingInfoProto, helper
from support.build import DOUBLE, FLOAT, FLOAT16, Net, tensor
from support.claims import batch_norms, expect, initializers, ops

import bnfold
from bnfold.errors import ModelError


def start(opset: int = 17) -> tuple[Net, str]:
    net = Net(opset)
    return net, net.input("x", 1, 3, 6, 6)


# --- size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [90, 1500])
def test_many_identities_between(count: int) -> None:
    """No recursion by node: Python's stack ends at a thousand. A search may end earlier, if it says so."""
    net, x = start()
    y = net.conv(x, 3, 4)
    for _ in range(count):
        y = net.node("Identity", y)
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), runtime=False)
    assert result.folds or (count > 100 and str(result.kept[0].code) == "BNF019")


def test_a_thousand_bns_in_a_row() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    stats = {"scale": np.ones(4), "var": np.ones(4), "mean": np.zeros(4)}
    for i in range(1200):
        y = net.bn(y, 4, name=f"bn{i}", stats=stats)
    net.output(y)
    result = bnfold.optimize(net.model(), verify=False)
    assert not batch_norms(result.model)


def test_a_constant_computed_twice_at_each_of_sixty_steps() -> None:
    """Each step reads the one before it twice: 2**60 evaluations unless each value is kept."""
    net, x = start()
    c = net.init(net.draw(4))
    for _ in range(60):
        c = net.node("Mul", net.node("Add", c, c), net.init(0.5))
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": c}))
    begun = time.perf_counter()
    expect(net.model(), folded={"bn"})
    assert time.perf_counter() - begun < 30


def test_a_ladder_of_adds() -> None:
    """Every path leads to a linear producer, and there are 2**40 of them."""
    net, x = start()
    y = net.conv(x, 3, 4)
    for _ in range(40):
        y = net.node("Add", y, y)
    y = net.node("Mul", y, net.init(2.0**-40))
    net.output(net.bn(y, 4, name="bn"))
    begun = time.perf_counter()
    bnfold.optimize(net.model(), verify=False)
    assert time.perf_counter() - begun < 30


def test_bodies_in_bodies() -> None:
    """Thirty Ifs, each in the other's branch, with the BN at the bottom."""
    x = "x"
    shape = [1, 4, 4, 4]
    inner = Net(17, prefix="d_")
    inner.output(inner.bn(inner.conv(x, 3, 4), 4, name="deep"), shape=shape)
    graph = inner.graph("deepest")
    for i in range(30):
        around = Net(17, prefix=f"l{i}_")
        other = Net(17, prefix=f"o{i}_")
        other.output(other.node("Identity", "fallback"), shape=shape)
        around.output(
            around.node("If", "c", then_branch=graph, else_branch=other.graph(f"other{i}")), shape=shape
        )
        graph = around.graph(f"level{i}")
    net = Net(17)
    net.input(x, 1, 3, 6, 6)
    net.input("fallback", *shape)
    net.input("c", elem=TensorProto.BOOL)
    leaf = Net(17, prefix="leaf_")
    leaf.output(leaf.node("Identity", "fallback"), shape=shape)
    net.output(net.node("If", "c", then_branch=graph, else_branch=leaf.graph("leaf")), shape=shape)
    model = net.model()
    rng = np.random.default_rng(0)
    given = {
        "x": rng.normal(size=(1, 3, 6, 6)).astype(np.float32),
        "fallback": np.zeros(shape, np.float32),
        "c": np.array(True),
    }
    expect(model, feeds=given, runtime=False)


# --- constants that blow up -------------------------------------------------------------------------------


def refused_or_invalid(net: Net) -> set[str]:
    """The codes of what is kept; nothing may be folded, and nothing but a ModelError raised."""
    try:
        result = bnfold.optimize(net.model(), verify=False)
    except ModelError:
        return {"invalid"}
    assert not result.folds
    return {str(r.code) for r in result.kept}


def test_the_root_of_a_negative_constant() -> None:
    net, x = start()
    scale = net.node("Sqrt", net.init(np.array([1.0, -1.0, 4.0, 9.0])))
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"scale": scale}))
    assert refused_or_invalid(net) == {"BNF020"}


@pytest.mark.parametrize("numerator", [0.0, 1.0])
def test_a_constant_divided_by_zero(numerator: float) -> None:
    net, x = start()
    mean = net.node("Div", net.init(np.full(4, numerator)), net.init(np.array([1.0, 0.0, 1.0, 1.0])))
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": mean}))
    assert refused_or_invalid(net) == {"BNF020"}


def test_a_constant_that_overflows_in_a_cast() -> None:
    net, x = start()
    mean = net.node("Cast", net.init(np.full(4, 1e300), elem=DOUBLE), to=FLOAT)
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": mean}))
    assert refused_or_invalid(net) == {"BNF020"}


def test_a_constant_that_is_rounded_in_a_cast() -> None:
    """The model computes with the float16 number, not with the one before the Cast."""
    net, x = start()
    values = np.array([0.1, 1.0 / 3.0, 2049.0, 1e-7])
    mean = net.node("Cast", net.node("Cast", net.init(values), to=FLOAT16), to=FLOAT)
    w = np.ones((4, 3, 1, 1))
    y = net.node("Conv", x, net.init(w), net.init(np.zeros(4)))
    stats = {"mean": mean, "scale": np.ones(4), "bias": np.zeros(4), "var": np.ones(4)}
    net.output(net.bn(y, 4, name="bn", stats=stats, epsilon=0.0))
    result = expect(net.model(), folded={"bn"})
    bias = initializers(result.model)[result.model.graph.node[-1].input[2]]
    np.testing.assert_array_equal(bias, -values.astype(np.float16).astype(np.float64))


def test_integer_division_in_a_constant_truncates() -> None:
    """-7 / 2 is -3 in ONNX and -4 in NumPy's floor."""
    net, x = start()
    q = net.node(
        "Div",
        net.init(np.array([-7, 7, -8, 9]), elem=TensorProto.INT64),
        net.init(np.array([2, 2, 3, -4]), elem=TensorProto.INT64),
    )
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": net.node("Cast", q, to=FLOAT)}))
    expect(net.model(), folded={"bn"})


def test_a_constant_node_that_cannot_be_computed() -> None:
    """An index out of range: the model fails at run time, and here it is no crash."""
    net, x = start()
    mean = net.node("Gather", net.init(net.draw(4, 4)), net.init(np.int64(9), elem=TensorProto.INT64))
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": mean}), shape=[1, 4, 4, 4])
    assert refused_or_invalid(net) <= {"BNF012", "invalid"}


def test_a_constant_of_the_wrong_length_by_computation() -> None:
    """Five means for four channels, behind a node where a look at initializers does not see it."""
    net, x = start()
    mean = net.node("Concat", net.init(net.draw(4)), net.init(net.draw(1)), axis=0)
    y = net.conv(x, 3, 4)
    parameters = [net.init(net.draw(4, low=0.5)) for _ in range(3)]
    net.node("BatchNormalization", y, *parameters[:2], mean, parameters[2], name="bn", out="z")
    net.outputs.append(helper.make_tensor_value_info("z", FLOAT, [1, 4, 4, 4]))
    assert refused_or_invalid(net) <= {"BNF012", "invalid"}


def test_subnormal_statistics() -> None:
    net, x = start()
    stats = {"var": np.full(4, 1e-40), "mean": np.full(4, 1e-42)}
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats=stats))
    expect(net.model(), folded={"bn"}, runtime=False)


def test_cancelling_statistics() -> None:
    """Bias and mean are large and equal but for the last bits: (b - mean)*s keeps what b*s - mean*s loses."""
    net, x = start()
    b = np.array([1e6, -1e6, 3e5, 1e4])
    stats = {"mean": b + np.array([0.0625, 0.0, -0.5, 1 / 512]), "var": np.full(4, 1e-4)}
    net.output(net.bn(net.conv(x, 3, 4, bias=net.init(b)), 4, name="bn", stats=stats))
    expect(net.model(), folded={"bn"})


# --- several folds at one place ---------------------------------------------------------------------------


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("kernel", [1, 2])
def test_bns_on_both_sides_of_a_conv(before: int, after: int, kernel: int) -> None:
    """Each of them may go into the Conv; each must go once, and with what had been merged into it."""
    net = Net(17)
    y = net.input("x", 1, 2, 3, 3)
    for i in range(before):
        y = net.bn(y, 2, name=f"before{i}")
    y = net.conv(y, 2, 3, [kernel, kernel])
    for i in range(after):
        y = net.bn(y, 3, name=f"after{i}")
    net.output(y)
    expect(net.model())


def test_two_convs_around_two_bns() -> None:
    """The BNs could go back into the first Conv or on into the second; not halfway into both."""
    net, x = start()
    y = net.conv(x, 3, 4)
    y = net.bn(net.bn(y, 4, name="one"), 4, name="two")
    net.output(net.bn(net.conv(y, 4, 2), 2, name="three"))
    result = expect(net.model(), folded={"one", "two", "three"})
    assert ops(result.model) == ["Conv", "Conv"]


def test_a_bn_shared_by_two_convs_with_bns_of_their_own() -> None:
    net, x = start()
    y = net.bn(x, 3, name="shared")
    net.output(*(net.bn(net.conv(y, 3, 2, [1, 1]), 2, name=f"own{i}") for i in range(2)))
    expect(net.model())


@pytest.mark.parametrize("op", ["Add", "Sum", "Sub", "Mul", "Concat"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_join_with_a_constant_node(op: str, side: int) -> None:
    """The other branch is a node without inputs."""
    net, x = start()
    y = net.bn(net.conv(x, 3, 4), 4, name="bn")
    c = net.const(net.draw(1, 4, 4, 4), "node")
    attrs = {"axis": 1} if op == "Concat" else {}
    net.output(net.node(op, *((y, c) if side else (c, y)), **attrs))  # type: ignore[arg-type]  # attributes of any type
    expect(net.model(), folded={"bn"})


def test_nameless_bns_that_merge_are_told_apart() -> None:
    """Without a name a BN is called by its output: the one it has in the caller's model."""
    net = Net(17)
    y = net.bn(net.input("x", 1, 3, 4, 4), 3, name="", out="first_out")
    net.output(net.bn(y, 3, name="", out="second_out"))
    expect(net.model(), folded={"second_out"}, kept={"first_out": "BNF019"})


# --- what else a model may hold ---------------------------------------------------------------------------


def test_odd_tensors_beside_the_fold() -> None:
    """Strings, four-bit integers, eight-bit floats, complex numbers: not read, not touched."""
    net, x = start(21)
    net.ir = 10
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn"))
    model = net.model()
    odd = [
        helper.make_tensor("text", TensorProto.STRING, [2], np.array([b"one", b"two\xff"])),
        helper.make_tensor("four_bits", TensorProto.INT4, [3], [1, -2, 7]),
        helper.make_tensor("eight", TensorProto.FLOAT8E4M3FN, [2], [0.5, 2.0]),
        helper.make_tensor("complex", TensorProto.COMPLEX64, [1], np.array([1 + 2j], np.complex64)),
        helper.make_tensor("none", TensorProto.FLOAT, [0], []),
        helper.make_tensor("truth", TensorProto.BOOL, [2], [True, False]),
    ]
    model.graph.initializer.extend(odd)
    result = expect(model, folded={"bn"}, runtime=False, values=False)
    assert list(result.model.graph.initializer)[-len(odd) :] == odd or all(
        t in list(result.model.graph.initializer) for t in odd
    )


def test_sequences_and_optionals_beside_the_fold() -> None:
    net, x = start()
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn"))
    sequence = net.node("SequenceConstruct", x, x)
    net.output(net.node("ConcatFromSequence", sequence, axis=0), shape=[2, 3, 6, 6])
    model = net.model()
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [1]))
    model.graph.input.append(helper.make_value_info("maybe", kind))
    model.graph.node.append(helper.make_node("OptionalHasElement", ["maybe"], ["has"], "has"))
    model.graph.output.append(helper.make_tensor_value_info("has", TensorProto.BOOL, []))
    expect(model, folded={"bn"}, feeds={}, runtime=False, values=False)


def test_an_optional_node_input_left_out_in_the_middle() -> None:
    """Clip(x, , max): the empty name is no tensor, and no consumer of one."""
    net, x = start()
    y = net.bn(net.conv(x, 3, 4, bias=""), 4, name="bn")
    net.output(net.node("Clip", y, "", net.init(6.0)))
    expect(net.model(), folded={"bn"})


def test_a_dropout_with_the_mode_left_out_by_an_empty_name() -> None:
    net, x = start(13)
    y = net.node("Dropout", net.conv(x, 3, 4), net.init(0.5), "")
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_training_info_keeps_what_it_binds() -> None:
    """A training graph updates tensors by name: those must be there, with their values."""
    net, x = start()
    w = net.init(net.draw(4, 3, 3, 3), "w")
    net.output(
        net.bn(
            net.conv(x, 3, 4, weight=w, bias=False),
            4,
            name="bn",
            stats={"mean": net.init(net.draw(4), "mean")},
        )
    )
    model = net.model()
    info = TrainingInfoProto()
    info.algorithm.name = "step"
    for name, shape in (("w", [4, 3, 3, 3]), ("mean", [4])):
        info.algorithm.node.append(helper.make_node("Neg", [name], [name + "_new"]))
        info.algorithm.output.append(helper.make_tensor_value_info(name + "_new", FLOAT, shape))
        info.update_binding.add(key=name, value=name + "_new")
    model.training_info.append(info)
    before = initializers(model)
    result = bnfold.optimize(model, verify=False)
    assert list(result.model.training_info) == [info]
    after = initializers(result.model)
    for name in ("w", "mean"):
        np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize("opset", [14, 15, 21])
def test_further_outputs_at_inference_are_not_lost(opset: int) -> None:
    """training_mode=0 with running outputs is not valid; who reads them must not find them gone."""
    net, x = start(opset)
    y = net.bn(net.conv(x, 3, 4), 4, name="bn", out=["y", "rm", "rv"])
    net.output(y, shape=[1, 4, 4, 4])
    net.output(net.node("Relu", "rm"), shape=[4])
    try:
        result = bnfold.optimize(net.model(), verify=False)
    except ModelError:
        return
    assert not result.folds
    assert "BatchNormalization" in ops(result.model)


def test_a_weight_that_a_loop_carries() -> None:
    """The Loop starts from the stored weight: it is one more reader of it."""
    net = Net(17)
    x = net.input("x", 1, 4, 6, 6)
    w = net.init(net.draw(4, 4, 1, 1), "w")
    net.output(net.bn(net.conv(x, 4, 4, weight=w, bias=False), 4, name="bn"))
    body = Net(17, prefix="loop_")
    body.input("i", elem=TensorProto.INT64)
    body.input("keep", elem=TensorProto.BOOL)
    body.input("wi", 4, 4, 1, 1)
    body.output(body.node("Identity", "keep"), elem=TensorProto.BOOL, shape=[])
    body.output(body.node("Mul", "wi", body.init(0.5)), shape=[4, 4, 1, 1])
    trips, go = net.init(np.int64(2), elem=TensorProto.INT64), net.init(np.array(True), elem=TensorProto.BOOL)
    net.output(net.node("Loop", trips, go, w, body=body.graph("body")), shape=[4, 4, 1, 1])
    expect(net.model(), folded={"bn"})


def test_a_function_whose_inner_names_are_those_of_the_graph() -> None:
    """Names in a function are its own: `w` there and `w` here are two tensors."""
    net = Net(17)
    inner = Net(17)
    w = inner.const(inner.draw(4, 3, 3, 3), "node", name="w")
    b = inner.const(inner.draw(4), "node", name="b")
    inner.node("Conv", "x", w, b, out="y", name="conv")
    net.functions.append(
        helper.make_function("local", "Block", ["x"], ["y"], inner.nodes, [helper.make_opsetid("", 17)])
    )
    x = net.input("x", 1, 3, 6, 6)
    y = net.conv(
        x,
        3,
        4,
        weight=net.init(net.draw(4, 3, 3, 3), "w"),
        bias=net.init(net.draw(4), "b"),
        out="y",
        name="conv",
    )
    net.output(net.bn(y, 4, name="bn"), net.node("Block", x, domain="local"), shape=[1, 4, 4, 4])
    expect(net.model({"local": 1}), folded={"bn"})


def test_an_empty_graph() -> None:
    net = Net(17)
    net.input("x", 1)
    net.output("x", shape=[1])
    model = net.model()
    result = bnfold.optimize(model, verify=False)
    assert result.model.SerializeToString() == model.SerializeToString()


def test_a_graph_that_returns_its_weights() -> None:
    net, x = start()
    w = net.init(net.draw(4, 3, 3, 3), "w")
    y = net.bn(net.conv(x, 3, 4, weight=w), 4, name="bn", out="y")
    net.output("w", shape=[4, 3, 3, 3])
    net.output(y)
    net.output("x", shape=[1, 3, 6, 6])
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("target", [[0, 0, 5], [0, -1, 5], [2, 6, 0], [-1, 0, 0]], ids=str)
def test_reshape_targets_that_copy(target: list[int]) -> None:
    """Zeros copy a dimension: [0, 0, 5] of [2, 6, 5] is no change, and the rows stay axis 1."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 6, 3), net.init(net.draw(3, 5)))
    y = net.node("Reshape", y, net.ints(*target))
    net.output(net.bn(y, 6, name="bn"))
    expect(net.model(), folded=set())


def test_reshape_allowzero_of_an_empty_batch() -> None:
    net = Net(17)
    y = net.node("MatMul", net.input("x", 0, 6, 3), net.init(net.draw(3, 5)))
    y = net.node("Reshape", y, net.ints(0, 5), allowzero=1)
    net.output(net.bn(y, 5, name="bn"))
    expect(net.model(), runtime=False)


def test_the_channel_axis_survives_a_round_trip() -> None:
    """NCHW -> NHWC -> flatten -> back: what comes out is the Conv's channels again, at axis 1."""
    net, x = start()
    y = net.conv(x, 3, 4)
    y = net.node("Reshape", net.node("Transpose", y, perm=[0, 2, 3, 1]), net.ints(-1, 4))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model())


def test_a_transposed_batch_of_the_same_size() -> None:
    """[4, 4] transposed after a Gemm: rows become channels, with the same count."""
    net = Net(17)
    y = net.node("Gemm", net.input("x", 4, 3), net.init(net.draw(3, 4)), net.init(net.draw(4)))
    y = net.node("Transpose", net.node("Transpose", y, perm=[1, 0]), perm=[1, 0])
    z = net.node("Transpose", net.node("Gemm", "x", net.init(net.draw(3, 4))), perm=[1, 0])
    net.output(net.bn(y, 4, name="there_and_back"), net.bn(z, 4, name="there"))
    expect(net.model(), kept={"there": {"BNF023"}}, folded={"there_and_back"})


def test_ml_operators_beside_the_fold() -> None:
    net, x = start()
    y = net.bn(net.conv(x, 3, 4), 4, name="bn")
    flat = net.node("Reshape", y, net.ints(1, 64))
    scaled = net.node("Scaler", flat, domain="ai.onnx.ml", offset=[0.0], scale=[2.0])
    net.output(scaled, shape=[1, 64])
    expect(net.model({"ai.onnx.ml": 3}), folded={"bn"}, values=False, runtime=False)


def test_unused_opset_imports_stay() -> None:
    net, x = start()
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn"))
    model = net.model({"com.microsoft": 1, "ai.onnx.ml": 3})
    result = expect(model, folded={"bn"})
    assert list(result.model.opset_import) == list(model.opset_import)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_domains_does_not_matter(order: int) -> None:
    net, x = start()
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn"))
    model = net.model({"com.example": 1})
    imports = list(model.opset_import)[::order]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    expect(model, folded={"bn"})


def test_big_endian_is_not_assumed_of_raw_data() -> None:
    """raw_data is little-endian by specification; a fold writes it so."""
    net, x = start()
    w = np.ones((4, 3, 1, 1))
    stats = {"scale": np.full(4, 2.0), "var": np.ones(4), "mean": np.zeros(4), "bias": np.zeros(4)}
    net.output(net.bn(net.node("Conv", x, net.init(w)), 4, name="bn", stats=stats, epsilon=0.0))
    result = bnfold.optimize(net.model(), verify=False)
    name = result.model.graph.node[0].input[1]
    stored = next(t for t in result.model.graph.initializer if t.name == name)
    if stored.raw_data:
        assert stored.raw_data == np.full(12, 2.0, "<f4").tobytes()
    assert onnx.numpy_helper.to_array(stored).tolist() == (2 * w).tolist()


def test_a_tensor_with_segments_or_strange_fields_is_refused() -> None:
    net, x = start()
    net.output(net.bn(net.conv(x, 3, 4, weight=net.init(net.draw(4, 3, 3, 3), "w")), 4, name="bn"))
    model = net.model()
    weight = next(t for t in model.graph.initializer if t.name == "w")
    weight.CopyFrom(tensor(np.zeros((4, 3, 3, 3)), "w"))
    weight.float_data.extend([1.0] * 108)  # two sets of values: which is meant?
    with pytest.raises(ModelError):
        bnfold.optimize(model, verify=False)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("passing", [True, False])
def test_a_matmul_between_two_bns(side: str, passing: bool) -> None:
    """The MatMul gains a bias from behind and one from before: one Add or two, but in order."""
    net = Net(21)
    y = net.bn(net.input("x", 3, 3, 3), 3, name="before")
    w = net.init(net.draw(2, 3) if side == "left" else net.draw(3, 2))
    y = net.node("MatMul", w, y) if side == "left" else net.node("MatMul", y, w)
    y = net.node("Dropout", y) if passing else y
    net.output(net.bn(y, 2 if side == "left" else 3, name="after"))
    expect(net.model())
