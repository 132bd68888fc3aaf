"""Folds across the border of a local function: only the calls in their way are inlined, and it is said."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, FunctionProto, ModelProto, TensorProto, helper
from support.build import Net, feeds
from support.claims import batch_norms, expect, inlined_calls, ops

import bnfold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCAL = "local.functions"
SHAPE = [1, 4, 4, 4]
PARAMETERS = ["x", "w", "b", "s", "t", "m", "v"]


def function(
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    body: Net,
    *,
    attributes: Sequence[str] = (),
    defaults: Sequence[AttributeProto] = (),
    opset: int = 17,
    overload: str = "",
    uses: bool = False,
) -> FunctionProto:
    """A local function; `uses` others."""
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(LOCAL, 1)] if uses else [])]
    made = helper.make_function(
        LOCAL, name, list(inputs), list(outputs), body.nodes, imports, list(attributes), list(defaults)
    )
    made.overload = overload
    return made


def block() -> Net:
    """Conv and BN with all weights as inputs of the function."""
    body = Net(17, prefix="f_")
    body.node("Conv", "x", "w", "b", name="fconv", out="y")
    body.node("BatchNormalization", "y", "s", "t", "m", "v", name="fbn", out="z")
    return body


def statistics(net: Net, channels: int = 4) -> list[str]:
    drawn = [net.init(net.draw(channels)) for _ in range(3)]
    return [*drawn, net.init(net.draw(channels, low=0.5))]


def weights(net: Net, cin: int = 3) -> list[str]:
    return [net.init(net.draw(4, cin, 3, 3)), net.init(net.draw(4)), *statistics(net)]


def reference(node: onnx.NodeProto, name: str, kind: AttributeProto.AttributeType, to: str) -> None:
    """Attribute `name` of the node is what the call gives as `to`."""
    node.attribute.append(AttributeProto(name=name, type=kind, ref_attr_name=to))


def test_through_two_levels_of_functions() -> None:
    """As exports with a function for each module: Conv in one, BN in the other, weights from the outside."""
    net = Net()
    conv, norm, outer = Net(17, prefix="c_"), Net(17, prefix="n_"), Net(17, prefix="o_")
    conv.node("Conv", "x", "w", "b", name="conv", out="z")
    norm.node("BatchNormalization", "x", "s", "t", "m", "v", name="bn", out="z")
    outer.node("Conv2d", "x", "w", "b", domain=LOCAL, name="c", out="y")
    outer.node("BatchNorm2d", "y", "s", "t", "m", "v", domain=LOCAL, name="n", out="z")
    net.functions += [
        function("Conv2d", ["x", "w", "b"], ["z"], conv),
        function("BatchNorm2d", ["x", "s", "t", "m", "v"], ["z"], norm),
        function("Block", PARAMETERS, ["z"], outer, uses=True),
    ]
    x = net.input("x", 1, 3, 6, 6)
    y = net.node("Block", x, *weights(net), domain=LOCAL, name="one")
    net.output(y, net.node("Block", x, *weights(net), domain=LOCAL, name="two"), shape=SHAPE)
    result = expect(
        net.model({LOCAL: 1}),
        folded={"one/n/bn", "two/n/bn"},
        inlined={"Conv2d": 2, "BatchNorm2d": 2, "Block": 2},
    )
    assert ops(result.model) == ["Conv", "Conv"]


def test_only_the_calls_in_the_way_are_inlined() -> None:
    net = Net()
    activation = Net(17, prefix="a_")
    activation.node("Sigmoid", "x", out="z")
    net.functions += [
        function("Act", ["x"], ["z"], activation),
        function("Block", PARAMETERS, ["z"], block()),
        function("Unused", PARAMETERS, ["z"], block()),
    ]
    x = net.node("Act", net.input("x", 1, 3, 6, 6), domain=LOCAL, name="first")
    y = net.node("Block", x, *weights(net), domain=LOCAL, name="one")
    net.output(net.node("Act", y, domain=LOCAL, name="second"), shape=SHAPE)
    model = net.model({LOCAL: 1})
    result = expect(model, inlined={"Block": 1}, kept={"fbn": "BNF012"})
    left = {f.name: f.SerializeToString() for f in result.model.functions}
    assert left == {f.name: f.SerializeToString() for f in model.functions if f.name != "Block"}
    assert ops(result.model)[:3] == ["Act", "Conv", "Act"]


def test_one_call_can_be_folded_and_the_other_cannot() -> None:
    """The weights of the second call are computed at run time: it keeps the function."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    one = net.node("Block", x, *weights(net), domain=LOCAL, name="one")
    w, b, *_ = weights(net)
    scale = net.node("Abs", net.input("s", 4))
    two = net.node("Block", x, w, b, scale, *statistics(net)[1:], domain=LOCAL, name="two")
    net.output(one, two, shape=SHAPE)
    result = expect(net.model({LOCAL: 1}), folded={"one/fbn"}, kept={"fbn": "BNF012"}, inlined={"Block": 1})
    assert [n.op_type for n in result.model.graph.node] == ["Conv", "Abs", "Block"]


def test_nothing_gained_leaves_the_model_alone() -> None:
    """And says the reason that holds at the call, not only that the weights are parameters."""
    net = Net()
    body = block()
    body.node("Relu", "y", name="relu", out="r")
    net.functions.append(function("Block", PARAMETERS, ["z", "r"], body))
    y = net.node("Block", net.input("x", 1, 3, 6, 6), *weights(net), domain=LOCAL, out=["p", "q"], name="one")
    net.output(y, "q", shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded=set(), kept={"fbn": "BNF010"})


def test_a_second_reader_of_the_intermediate_is_outside() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z", "y"], block()))
    y = net.node("Block", net.input("x", 1, 3, 6, 6), *weights(net), domain=LOCAL, out=["p", "q"], name="one")
    net.output(y, net.node("Relu", "q"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded=set(), kept={"fbn": "BNF010"})


def test_an_output_that_nobody_wants() -> None:
    """The call leaves out the second output, which was the only other reader."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z", "y"], block()))
    y = net.node("Block", net.input("x", 1, 3, 6, 6), *weights(net), domain=LOCAL, out=["p"], name="one")
    net.output(y, shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Block": 1})


def test_an_output_in_the_middle_that_nobody_wants() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["y", "z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    net.node("Block", x, *weights(net), domain=LOCAL, out=["", "p"], name="one")
    net.output("p", shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Block": 1})


@pytest.mark.parametrize("how", ["empty", "absent"])
def test_an_optional_input_is_left_out(how: str) -> None:
    """The Conv's bias is the last parameter or one in the middle."""
    net = Net()
    order = ["x", "w", "s", "t", "m", "v", "b"] if how == "absent" else PARAMETERS
    net.functions.append(function("Block", order, ["z"], block()))
    w = net.init(net.draw(4, 3, 3, 3))
    given = [w, *statistics(net)] if how == "absent" else [w, "", *statistics(net)]
    net.output(net.node("Block", net.input("x", 1, 3, 6, 6), *given, domain=LOCAL, name="one"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Block": 1})


def test_an_output_that_is_an_input() -> None:
    """A function may hand an input through."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["x", "z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    net.node("Block", x, *weights(net), domain=LOCAL, out=["same", "p"], name="one")
    net.output("same", shape=[1, 3, 6, 6])
    net.output("p", shape=SHAPE)
    result = expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Block": 1})
    assert ops(result.model) == ["Conv", "Identity"]


def test_a_function_returns_an_input_that_the_call_leaves_out() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z", "b"], block()))
    w = net.init(net.draw(4, 3, 3, 3))
    x = net.input("x", 1, 3, 6, 6)
    net.node("Block", x, w, "", *statistics(net), domain=LOCAL, out=["p", "q"], name="one")
    net.output("p", shape=SHAPE)
    model = net.model({LOCAL: 1})
    result = bnfold.optimize(model, verify=False)
    assert result.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert any("leaves out 'b'" in note for note in result.report.notes)


def test_attributes_given_defaulted_and_absent() -> None:
    """Pads come from the call, the group has a default, the dilations are nobody's: the operator's hold."""
    net = Net()
    body = block()
    conv, norm = body.nodes
    reference(conv, "pads", AttributeProto.INTS, "padding")
    reference(conv, "group", AttributeProto.INT, "groups")
    reference(conv, "dilations", AttributeProto.INTS, "dilations")
    reference(norm, "epsilon", AttributeProto.FLOAT, "eps")
    net.functions.append(
        function(
            "Block", PARAMETERS, ["z"], body,
            attributes=["padding", "dilations"],
            defaults=[helper.make_attribute("groups", 1), helper.make_attribute("eps", 0.5)],
        )
    )  # fmt: skip
    x = net.input("x", 1, 3, 4, 4)
    y = net.node("Block", x, *weights(net), domain=LOCAL, name="one", padding=[1, 1, 1, 1])
    z = net.node("Block", y, *weights(net, 2), domain=LOCAL, name="two", padding=[1] * 4, groups=2, eps=0.125)
    net.output(z, shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn", "two/fbn"}, inlined={"Block": 2})


def test_an_attribute_handed_down_two_levels() -> None:
    net = Net()
    inner, outer = block(), Net(17, prefix="o_")
    reference(inner.nodes[1], "epsilon", AttributeProto.FLOAT, "eps")
    outer.node("Inner", *PARAMETERS, domain=LOCAL, name="in", out="z")
    reference(outer.nodes[0], "eps", AttributeProto.FLOAT, "epsilon")
    net.functions += [
        function("Outer", PARAMETERS, ["z"], outer, attributes=["epsilon"], uses=True),
        function("Inner", PARAMETERS, ["z"], inner, attributes=["eps"]),
    ]
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("Outer", x, *weights(net), domain=LOCAL, name="one", epsilon=0.75), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/in/fbn"}, inlined={"Outer": 1, "Inner": 1})


@pytest.mark.parametrize("taken", [True, False])
def test_a_call_in_the_body_of_an_if(taken: bool) -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x, c = net.input("x", 1, 3, 6, 6), net.input("c", elem=TensorProto.BOOL)
    shared = weights(net)
    graphs = {}
    for which in ("then", "else"):
        body = Net(17, prefix=which)
        body.output(body.node("Block", x, *shared, domain=LOCAL, name=which), shape=SHAPE)
        graphs[f"{which}_branch"] = body.graph(which)
    net.output(net.node("If", c, name="if", **graphs), shape=SHAPE)
    model = net.model({LOCAL: 1})
    given = feeds(model) | {"c": np.array(taken)}
    expect(model, feeds=given, folded={"then/fbn", "else/fbn"}, inlined={"Block": 2})


@pytest.mark.parametrize("taken", [True, False])
def test_an_if_in_a_function_reads_its_parameters(taken: bool) -> None:
    """The two branches use one name for tensors of their own, which the caller uses too."""
    net = Net()
    body = Net(17, prefix="f_")
    graphs = {}
    for which, op in (("then", "Relu"), ("else", "Neg")):
        inner = Net(17, prefix=which)
        inner.node("Conv", "x", "w", "b", name="fconv", out="y")
        inner.node("BatchNormalization", "y", "s", "t", "m", "v", name="fbn", out="n")
        inner.output(inner.node(op, "n", out="r"), shape=SHAPE)
        graphs[f"{which}_branch"] = inner.graph(which)
    body.node("If", "c", name="if", out="z", **graphs)
    net.functions.append(function("Block", ["c", *PARAMETERS], ["z"], body))
    y, c = net.input("y", 1, 3, 6, 6), net.input("c", elem=TensorProto.BOOL)
    net.output(net.node("Block", c, y, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    model = net.model({LOCAL: 1})
    result = expect(model, feeds=feeds(model) | {"c": np.array(taken)}, inlined={"Block": 1})
    assert len(result.folds) == 2


def test_names_that_are_taken() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("one/y", 1, 3, 6, 6)
    y = net.node("Relu", x, name="one/fconv", out="one/z")
    net.output(net.node("Block", y, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    net.output(net.node("Abs", y, name="one/fbn"), shape=[1, 3, 6, 6])
    result = expect(net.model({LOCAL: 1}), inlined={"Block": 1}, folded={"one/fbn_2"})
    names = [n.name for n in result.model.graph.node]
    assert len(set(names)) == len(names)


def test_calls_without_a_name() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    one = net.node("Block", x, *weights(net), domain=LOCAL, name="", out="p")
    net.output(one, net.node("Block", x, *weights(net), domain=LOCAL, name="", out="q"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"p/fbn", "q/fbn"}, inlined={"Block": 2})


def test_operator_sets_that_differ_in_number_only() -> None:
    """Conv and BatchNormalization are the same operators in 17 and 21."""
    net = Net(21)
    net.functions.append(function("Block", PARAMETERS, ["z"], block(), opset=17))
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("Block", x, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Block": 1}, runtime=False)


def test_operators_of_another_version() -> None:
    """Opset 13's BatchNormalization is another one than that of 17: the function keeps its own.

    onnx's checker refuses such a model; onnxruntime takes a set of its own for each function.
    """
    net = Net(17)
    net.functions.append(function("Block", PARAMETERS, ["z"], block(), opset=13))
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("Block", x, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    model = net.model({LOCAL: 1})
    result = bnfold.optimize(model, verify=False)
    assert result.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert [r.code for r in result.kept] == ["BNF012"]
    (note,) = result.report.notes
    assert note == (
        "local function 'Block' was not inlined: its BatchNormalization is of version 13 of operator set "
        "'ai.onnx', and the model imports 17"
    )


def test_overloads() -> None:
    """IR 10: two functions of one name; each call has its own."""
    net = Net(21, ir=10)
    other = block()
    other.nodes[0].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    net.functions += [
        function("Block", PARAMETERS, ["z"], block(), opset=21, overload="plain"),
        function("Block", PARAMETERS, ["z"], other, opset=21, overload="padded"),
    ]
    x = net.input("x", 1, 3, 4, 4)
    y = net.node("Block", x, *weights(net), domain=LOCAL, name="one")
    net.nodes[-1].overload = "padded"
    net.output(y, shape=SHAPE)
    result = expect(net.model({LOCAL: 1}), inlined={"Block": 1}, kept={"fbn": "BNF012"}, runtime=False)
    assert [f.node for f in result.folds] == ["one/fbn"]
    assert [f.overload for f in result.model.functions] == ["plain"]


def test_a_function_that_takes_the_place_of_an_operator() -> None:
    """A function `Conv` of the default domain is called, not the operator; inlined it is its body."""
    net = Net()
    body = Net(17, prefix="f_")
    body.node("Gemm", "x", "w", name="gemm", out="z")
    made = helper.make_function("", "MatMul", ["x", "w"], ["z"], body.nodes, [helper.make_opsetid("", 17)])
    net.functions.append(made)
    y = net.node("MatMul", net.input("x", 2, 3), net.init(net.draw(3, 4)), name="one")
    net.output(net.bn(y, 4, name="bn"), shape=[2, 4])
    expect(net.model(), folded={"bn"}, inlined={"MatMul": 1}, runtime=False)


def test_the_bn_is_in_the_function_and_the_conv_outside() -> None:
    net = Net()
    body = Net(17, prefix="f_")
    body.node("BatchNormalization", "x", *PARAMETERS[3:], name="fbn", out="z")
    net.functions.append(function("Norm", ["x", *PARAMETERS[3:]], ["z"], body))
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv")
    net.output(net.node("Norm", y, *statistics(net), domain=LOCAL, name="one"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Norm": 1})


def test_the_bn_is_in_the_function_and_the_conv_behind_it() -> None:
    net = Net()
    body = Net(17, prefix="f_")
    body.node("BatchNormalization", "x", *PARAMETERS[3:], name="fbn", out="z")
    net.functions.append(function("Norm", ["x", *PARAMETERS[3:]], ["z"], body))
    x = net.input("x", 1, 3, 6, 6)
    y = net.node("Norm", x, *statistics(net, 3), domain=LOCAL, name="one")
    net.output(net.conv(y, 3, 4, name="conv"), shape=SHAPE)
    result = expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Norm": 1})
    assert result.folds[0].direction == "forward"


def test_one_tensor_for_two_parameters() -> None:
    """Two calls share all weights, and one tensor is scale and mean."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    w, b, s, t, _, v = weights(net)
    x = net.input("x", 1, 3, 6, 6)
    calls = [net.node("Block", x, w, b, s, t, s, v, domain=LOCAL, name=n) for n in ("one", "two")]
    net.output(*calls, shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn", "two/fbn"}, inlined={"Block": 2})


def test_large_constants_of_the_function_are_copied() -> None:
    """They lie in the file, not in the skeleton."""
    net = Net()
    body = Net(17, prefix="f_")
    w = body.const(body.draw(16, 16, 5, 5), "node")
    y = body.conv("x", 16, 16, weight=w, bias=False, name="fconv")
    body.node("BatchNormalization", y, "s", "t", "m", "v", name="fbn", out="z")
    net.functions.append(function("Block", ["x", *PARAMETERS[3:]], ["z"], body))
    x = net.input("x", 1, 16, 9, 9)
    y = net.node("Block", x, *statistics(net, 16), domain=LOCAL, name="one")
    y = net.node("Block", y, *statistics(net, 16), domain=LOCAL, name="two")
    net.output(y, shape=[1, 16, 1, 1])
    expect(net.model({LOCAL: 1}), folded={"one/fbn", "two/fbn"}, inlined={"Block": 2})


@pytest.mark.parametrize("pattern", ["fbn", "one/fbn"])
def test_names_of_the_function_are_those_the_user_knows(pattern: str) -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("Block", x, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    model = net.model({LOCAL: 1})
    if pattern == "fbn":
        expect(model, folded={"one/fbn"}, inlined={"Block": 1}, include=[pattern])
        expect(model, kept={"fbn": {"BNF012", "BNF024"}}, exclude=[pattern])
    else:
        expect(model, kept={"fbn": {"BNF012", "BNF024"}}, include=[pattern])


def test_a_fold_inside_the_function_needs_no_inlining() -> None:
    """One BN folds in the body, for all calls; the other stays, whatever is tried."""
    net = Net()
    body = Net(17, prefix="f_")
    w = body.const(body.draw(4, 4, 1, 1), "node")
    stats = [body.const(body.draw(4, low=0.5), "node") for _ in range(4)]
    y = body.node("BatchNormalization", body.conv("x", 4, 4, weight=w, bias=False), *stats, name="fbn")
    body.node("Sigmoid", y, out="r")
    body.node("BatchNormalization", "r", *stats, name="stays", out="z")
    net.functions.append(function("Block", ["x"], ["z"], body))
    x = net.input("x", 1, 4, 4, 4)
    net.output(*(net.node("Block", x, domain=LOCAL, name=n) for n in ("one", "two")), shape=SHAPE)
    result = expect(net.model({LOCAL: 1}), folded={"fbn"}, kept={"stays": "BNF019"})
    assert len(result.model.functions) == 1


def test_functions_that_would_make_an_endless_graph() -> None:
    """Each calls the next one twice: 2**60 normalizations."""
    net = Net()
    net.functions.append(function("F0", PARAMETERS, ["z"], block()))
    for level in range(1, 61):
        body = Net(17, prefix="g_")
        for out in ("u", "z"):
            body.node(f"F{level - 1}", *PARAMETERS, domain=LOCAL, out=out)
        net.functions.append(function(f"F{level}", PARAMETERS, ["z"], body, uses=True))
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("F60", x, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    model = net.model({LOCAL: 1})
    started = time.process_time()
    result = bnfold.inspect(model)
    assert time.process_time() - started < 5
    assert [r.code for r in result.kept] == ["BNF012"]


def test_a_long_chain_of_functions() -> None:
    """Deeper than Python's stack: left alone."""
    net = Net()
    net.functions.append(function("F0", PARAMETERS, ["z"], block()))
    for level in range(1, 3001):
        body = Net(17)
        body.node(f"F{level - 1}", *PARAMETERS, domain=LOCAL, out="z")
        net.functions.append(function(f"F{level}", PARAMETERS, ["z"], body, uses=True))
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("F3000", x, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    result = bnfold.inspect(net.model({LOCAL: 1}))
    assert [r.code for r in result.kept] == ["BNF012"]


def test_external_data(tmp_path: Path) -> None:
    """The weights stay in a file of their own, also those that no fold touches."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    y = net.node("Block", x, *weights(net), domain=LOCAL, name="one")
    net.output(net.conv(net.node("Sigmoid", y), 4, 4), shape=[1, 4, 2, 2])
    model = net.model({LOCAL: 1})
    copy = ModelProto()
    copy.CopyFrom(model)
    path, out = tmp_path / "m.onnx", tmp_path / "folded.onnx"
    onnx.save(copy, path, save_as_external_data=True, location="m.data", size_threshold=0)
    result = bnfold.optimize(path, output=out)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"
    assert inlined_calls(result) == {"Block": 1}
    written = onnx.load(out, load_external_data=False)
    assert any(t.data_location == TensorProto.EXTERNAL for t in written.graph.initializer)
    assert not batch_norms(written)


def test_the_verdict() -> None:
    """The whole way, onnxruntime and the float64 evaluation included."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 8, 8)
    y = net.node("Block", x, *weights(net), domain=LOCAL, name="one")
    net.output(net.node("Block", y, *weights(net, 4), domain=LOCAL, name="two"), shape=SHAPE)
    result = bnfold.optimize(net.model({LOCAL: 1}))
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"
    assert result.report.before.nodes == 4
    assert result.report.after is not None
    assert result.report.after.nodes == 2


def test_a_model_with_training_information_is_left_alone() -> None:
    """Its algorithm may call the function too."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    net.output(net.node("Block", x, *weights(net), domain=LOCAL, name="one"), shape=SHAPE)
    model = net.model({LOCAL: 1})
    model.training_info.add().algorithm.name = "sgd"
    result: Any = bnfold.optimize(model, verify=False)
    assert result.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
