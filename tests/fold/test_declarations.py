"""Shapes that a model declares but does not have: onnxruntime runs it all the same, so none is leant on.

Most networks scale channels between two normalizations by a constant of shape [4, 1], which goes along the
channels of a tensor of rank 3, and along another axis of one of rank 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper
from support.build import Net
from support.claims import expect, session

import bnfold

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
WRONG = [None, 4, 4]  # what is declared
ACTUAL = (2, 4, 4, 3)  # what it is
RANK = [None] * 4
KEPT = {"one": "BNF023", "two": "BNF023"}
NAMES = pytest.mark.parametrize("declared", [None, WRONG])


def scaled_between(net: Net, x: str) -> str:
    y = net.bn(x, 4, name="one")
    return net.bn(net.node("Mul", y, net.init(net.draw(4, 1))), 4, name="two")


def unchecked(net: Net) -> ModelProto:
    """`Net.model` would infer the shapes of outputs that declare none."""
    imports = [helper.make_opsetid("", net.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(net.graph(), opset_imports=imports, ir_version=net.ir)


def info(name: str, shape: list[Any] | None, elem: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, elem, shape)


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def stays(model: ModelProto, feeds: dict[str, Any], codes: dict[str, str]) -> None:
    """It runs, and stays as it is. Where nothing folds there are no values to compare."""
    assert session(model).run(None, feeds), "a model that nobody runs proves nothing"
    result = bnfold.optimize(model, verify=False)
    assert not result.folds
    assert {kept.node: str(kept.code) for kept in result.kept} == codes
    assert result.model == model


def reshaped(net: Net, *, out: str | None = None) -> str:
    """A tensor of which nobody knows the rank before the model runs."""
    return net.node("Reshape", "x", "shape", out=out)


def start(net: Net) -> dict[str, Any]:
    net.input("x", "elements")
    net.input("shape", "rank", elem=INT64)
    return {"x": numbers(*ACTUAL).reshape(-1), "shape": np.array(ACTUAL)}


@pytest.mark.parametrize("where", ["value_info", "output", "behind the output"])
def test_a_tensor_of_the_graph(where: str) -> None:
    net = Net()
    feeds = start(net)
    y = reshaped(net)
    if where == "value_info":
        net.infos.append(info(y, WRONG))
    else:
        net.output(y, shape=WRONG)
    net.output(scaled_between(net, net.node("Relu", y) if "behind" in where else y), shape=RANK)
    stays(unchecked(net), feeds, KEPT)


@pytest.mark.parametrize("inside", [None, WRONG])
@pytest.mark.parametrize("outside", [None, WRONG])
def test_what_a_branch_returns(inside: list[Any] | None, outside: list[Any] | None) -> None:
    net = Net()
    feeds = start(net) | {"c": np.array(True)}
    net.input("c", elem=BOOL)
    bodies = {}
    for which in ("then_branch", "else_branch"):
        body = Net(prefix=which)
        body.output(reshaped(body), shape=inside)
        bodies[which] = body.graph(which)
    y = net.node("If", "c", **bodies)
    if outside:
        net.infos.append(info(y, outside))
    net.output(scaled_between(net, y), shape=RANK)
    stays(unchecked(net), feeds, KEPT)


def loop(net: Net, body: Net, *, state: list[Any] | None, then: str, trips: int = 3) -> str:
    """A Loop over the input x; the body's nodes are there but for its inputs and its first two outputs."""
    body.inputs[:0] = [info("i", [], INT64), info("go", [], BOOL), info("state", state)]
    again = body.node("Identity", "go")
    body.outputs[:0] = [info(again, [], BOOL), info(then, state)]
    results = ["last", *(f"each_{i}" for i in range(len(body.outputs) - 2))]
    count = net.init(np.int64(trips), elem=INT64)
    return net.node("Loop", count, "", "x", out=results, body=body.graph("body"))


@NAMES
@pytest.mark.parametrize("between", [None, WRONG])
def test_the_state_of_a_loop_gains_an_axis(declared: list[Any] | None, between: list[Any] | None) -> None:
    """Of rank 3 it is in the first iteration only."""
    net, body = Net(), Net(prefix="body_")
    net.input("x", "N", 4, "w")
    y = body.node("Relu", "state")
    body.infos += [info(y, between)] if between else []
    mean = body.node("ReduceMean", scaled_between(body, y), keepdims=0)
    body.output(mean, shape=[])
    loop(net, body, state=declared, then=body.node("Unsqueeze", "state", body.ints(-1)))
    net.output("each_0", shape=[None])
    stays(unchecked(net), {"x": numbers(2, 4, 4)}, KEPT)


@NAMES
def test_what_a_loop_returns_in_the_end(declared: list[Any] | None) -> None:
    net, body = Net(), Net(prefix="body_")
    net.input("x", "N", 4, "w")
    loop(net, body, state=declared, then=body.node("Unsqueeze", "state", body.ints(-1)), trips=1)
    net.infos += [info("last", declared)] if declared else []
    net.output(scaled_between(net, "last"), shape=RANK)
    stays(unchecked(net), {"x": numbers(2, 4, 4)}, KEPT)


@NAMES
def test_what_a_loop_collects(declared: list[Any] | None) -> None:
    net, body = Net(), Net(prefix="body_")
    feeds = start(net)
    body.output(reshaped(body), shape=declared)
    loop(net, body, state=None, then=body.node("Identity", "state"), trips=1)
    net.output(scaled_between(net, net.node("Squeeze", "each_0", net.ints(0))), shape=RANK)
    stays(unchecked(net), feeds, KEPT)


@pytest.mark.parametrize("declared", [None, [None, None]])
def test_a_matrix_that_becomes_a_stack(declared: list[Any] | None) -> None:
    """Its rank alone would decide whether the matrix or the normalization has the channels."""
    net, body = Net(), Net(prefix="body_")
    net.input("x", 4, 4)
    y = body.bn(body.node("MatMul", "state", body.init(body.draw(4, 4))), 4, name="bn")
    body.output(body.node("ReduceMean", y, keepdims=0), shape=[])
    loop(net, body, state=declared, then=body.node("Unsqueeze", "state", body.ints(0)), trips=2)
    net.output("each_0", shape=[None])
    stays(unchecked(net), {"x": numbers(4, 4)}, {"bn": "BNF023"})


@NAMES
def test_behind_an_operator_that_inference_does_not_know(declared: list[Any] | None) -> None:
    net = Net()
    y = net.node("Gelu", net.input("x", "N", 4, 4, "w"), domain="com.microsoft")
    net.infos += [info(y, declared)] if declared else []
    net.output(scaled_between(net, y), shape=RANK)
    stays(unchecked(net), {"x": numbers(*ACTUAL)}, KEPT)


def of_sequence(name: str, shape: list[Any] | None) -> ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, shape)


@NAMES
def test_an_element_of_a_sequence_that_is_given(declared: list[Any] | None) -> None:
    net = Net()
    net.inputs.append(of_sequence("x", declared))
    one = net.node("SequenceAt", "x", net.init(np.int64(0), elem=INT64))
    net.output(scaled_between(net, one), shape=RANK)
    stays(unchecked(net), {"x": [numbers(*ACTUAL)]}, KEPT)


@NAMES
def test_an_element_of_a_sequence_that_a_loop_carries(declared: list[Any] | None) -> None:
    net, body = Net(), Net(prefix="body_")
    net.input("x", "N", 4, "w")
    one = body.node("SequenceAt", "state", body.init(np.int64(-1), elem=INT64))
    longer = body.node("SequenceInsert", "state", body.node("Unsqueeze", one, body.ints(-1)))
    mean = body.node("ReduceMean", scaled_between(body, one), keepdims=0)
    go = body.node("Identity", "go")
    graph: GraphProto = helper.make_graph(
        body.nodes, "body", [info("i", [], INT64), info("go", [], BOOL), of_sequence("state", declared)],
        [info(go, [], BOOL), of_sequence(longer, declared), info(mean, [])], body.initializers,
    )  # fmt: skip
    first = net.node("SequenceConstruct", "x")
    net.node("Loop", net.init(np.int64(2), elem=INT64), "", first, out=["last", "means"], body=graph)
    net.output("means", shape=[None])
    stays(unchecked(net), {"x": numbers(2, 4, 4)}, KEPT)


# --- names of dimensions ----------------------------------------------------------------------------------


def test_two_inputs_whose_batches_have_one_name() -> None:
    """Runtimes let them differ, and then the reshape mixes channels."""
    net = Net()
    net.input("x", "N", 4, "length")
    net.input("z", "N")
    batch = net.node("Shape", "z")
    y = net.bn("x", 4, name="bn")
    y = net.node("Reshape", y, net.node("Concat", batch, net.ints(4), net.ints(-1), axis=0))
    y = net.node("MatMul", net.node("Transpose", y, perm=[0, 2, 1]), net.init(net.draw(4, 5)))
    net.output(y, shape=[None, None, 5])
    model = unchecked(net)
    stays(model, {"x": numbers(4, 4, 6), "z": numbers(2)}, {"bn": "BNF023"})


def test_the_batch_of_the_same_input_is_followed() -> None:
    net = Net()
    net.input("x", "N", 4, "length")
    batch = net.node("Shape", "x", start=0, end=1)
    y = net.bn("x", 4, name="bn")
    y = net.node("Reshape", y, net.node("Concat", batch, net.ints(4), net.ints(-1), axis=0))
    y = net.node("MatMul", net.node("Transpose", y, perm=[0, 2, 1]), net.init(net.draw(4, 5)))
    net.output(y, shape=[None, None, 5])
    expect(unchecked(net), folded={"bn"}, feeds={"x": numbers(3, 4, 6)})


# --- what onnx infers of valid models, and they do not compute --------------------------------------------


@pytest.mark.parametrize("opset", [9, 10, 11, 17])
def test_a_branch_of_which_nobody_knows_the_rank(opset: int) -> None:
    """Before opset 11 inference takes what it knows of the other branch for the result of both."""
    net = Net(opset)
    feeds = start(net) | {"c": np.array(False), "z": numbers(2, 4, 4)}
    net.input("c", elem=BOOL)
    net.input("z", "N", 4, 4)
    bodies = {}
    for which in ("then_branch", "else_branch"):
        body = Net(opset, prefix=which)
        body.output(body.node("Relu", "z") if which.startswith("then") else reshaped(body))
        bodies[which] = body.graph(which)
    net.output(scaled_between(net, net.node("If", "c", **bodies)), shape=RANK)
    stays(unchecked(net), feeds, KEPT)


@pytest.mark.parametrize("pool", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pool_that_rounds_up_leaves_out_what_starts_in_the_padding(pool: str, nested: bool) -> None:
    """Three by three become two by two, of which the Conv pads one more; inference says three by three."""
    net = Net(18)
    x = net.input("x", 1, 4, 3, 3)
    body = Net(18, prefix="body_") if nested else net
    y = body.node(pool, x, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    y = body.bn(y, 4, name="bn", stats={"scale": np.full(4, -0.5)})
    y = body.conv(y, 4, 4, strides=[3, 3], auto_pad="SAME_UPPER")
    if nested:
        body.output(y)
        other = Net(18, prefix="other_")
        other.output(other.conv(x, 4, 4))
        c = net.input("c", elem=BOOL)
        y = net.node("If", c, then_branch=body.graph("then"), else_branch=other.graph("else"))
    net.output(y, shape=RANK)
    feeds = {"x": numbers(1, 4, 3, 3)} | ({"c": np.array(True)} if nested else {})
    stays(unchecked(net), feeds, {"bn": "BNF014"})


def test_a_pool_that_rounds_up_where_no_window_starts_in_the_padding() -> None:
    """Three by three for certain: the Conv pads nothing."""
    net = Net()
    y = net.node(
        "MaxPool",
        net.input("x", 1, 4, 5, 5),
        kernel_shape=[2, 2],
        strides=[2, 2],
        pads=[0, 0, 1, 1],
        ceil_mode=1,
    )
    y = net.bn(y, 4, name="bn", stats={"scale": np.full(4, -0.5)})
    net.output(net.conv(y, 4, 4, strides=[3, 3], auto_pad="SAME_UPPER"), shape=RANK)
    expect(unchecked(net), folded={"bn"})


def upsampled(net: Net, x: str) -> str:
    """50 times 1.4, which is 70 in single precision, and a little less in double."""
    return net.node("Resize", x, "", net.init([1, 1, 1.4, 1]), mode="nearest")


def transposed(net: Net, x: str) -> str:
    """21, or 22 if output padding counts although the padding is automatic."""
    weight = net.init(net.draw(4, 4, 3, 1))
    y = net.node("ConvTranspose", x, weight, strides=[3, 1], output_padding=[1, 0], auto_pad="SAME_UPPER")
    return net.node("Sigmoid", y)


def dilated(net: Net, x: str) -> str:
    """2, or 3 if automatic padding takes dilations into account."""
    return net.node(
        "MaxPool", x, kernel_shape=[3, 1], strides=[3, 1], dilations=[2, 1], auto_pad="SAME_UPPER"
    )


@pytest.mark.parametrize(
    ("build", "size", "stride"), [(upsampled, 50, 3), (transposed, 7, 2), (dilated, 7, 3)]
)
def test_sizes_on_which_runtimes_differ(build: Callable[[Net, str], str], size: int, stride: int) -> None:
    """The Conv pads, or does not, as it has one more or one less: the shift cannot go into it."""
    net = Net(18)
    y = build(net, net.input("x", 1, 4, size, 1))
    y = net.bn(y, 4, name="bn", stats={"scale": np.full(4, -0.5)})
    net.output(net.conv(y, 4, 4, (stride, 1), strides=[stride, 1], auto_pad="SAME_UPPER"), shape=RANK)
    stays(unchecked(net), {"x": numbers(1, 4, size, 1)}, {"bn": "BNF014"})


def test_a_factor_that_all_round_alike() -> None:
    net = Net(18)
    y = net.node("Resize", net.input("x", 1, 4, 6, 1), "", net.init([1, 1, 1.5, 1]), mode="nearest")
    y = net.bn(y, 4, name="bn", stats={"scale": np.full(4, -0.5)})
    net.output(net.conv(y, 4, 4, (3, 1), strides=[3, 1], auto_pad="SAME_UPPER"), shape=RANK)
    expect(unchecked(net), folded={"bn"})
