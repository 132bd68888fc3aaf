"""What a Loop keeps is found out though its body declares nothing, and what it changes is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper
from support.build import Net
from support.claims import expect

from bnfold.model.shapes import infer
from bnfold.model.store import open_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def finished(body: Net, *states: str) -> GraphProto:
    """The body of a Loop that makes `states` of its inputs state_0, state_1 ..., none of them declared."""
    again = body.node("Identity", f"{body.prefix}go")
    for at, (name, elem) in enumerate((("i", INT64), ("go", BOOL))):
        body.inputs.insert(at, helper.make_tensor_value_info(body.prefix + name, elem, []))
    body.inputs[2:2] = [
        helper.make_tensor_value_info(f"{body.prefix}state_{i}", TensorProto.FLOAT, None)
        for i in range(len(states))
    ]
    body.outputs[:0] = [
        helper.make_tensor_value_info(again, BOOL, []),
        *(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in states),
    ]
    return body.graph(body.prefix)


def loop(net: Net, body: Net, starts: list[str], states: list[str], *, trips: int = 2) -> list[str]:
    """Adds the Loop; gives the names of its results: the states, and what the body collects."""
    graph = finished(body, *states)
    results = [f"{body.prefix}result_{i}" for i in range(len(graph.output) - 1)]
    net.node("Loop", net.init(np.int64(trips), elem=INT64), "", *starts, out=results, body=graph)
    return results


def model_of(net: Net) -> ModelProto:
    return helper.make_model(
        net.graph(), opset_imports=[helper.make_opsetid("", net.opset)], ir_version=net.ir
    )


def product(net: Net, x: str) -> str:
    """MatMul and normalization: one goes into the other only where the tensor is known to be a matrix."""
    return net.bn(net.node("MatMul", x, net.init(net.draw(4, 4) / 2)), 4, name="bn")


def test_a_body_computes_with_the_matrix_that_it_carries() -> None:
    net, body = Net(), Net(prefix="b_")
    x = net.input("x", "N", 4)
    (result,) = loop(net, body, [x], [product(body, "b_state_0")])
    net.output(result, shape=[None, 4])
    expect(model_of(net), folded={"bn"}, feeds={"x": numbers(3, 4)})


def test_behind_the_loop() -> None:
    net, body = Net(), Net(prefix="b_")
    x = net.input("x", "N", 4)
    (result,) = loop(net, body, [x], [body.node("Relu", "b_state_0")])
    net.output(product(net, result), shape=[None, 4])
    expect(model_of(net), folded={"bn"}, feeds={"x": numbers(3, 4)})


def test_the_matrix_gains_an_axis() -> None:
    """In the second iteration the normalized axis is no longer the one that the product makes."""
    net, body = Net(), Net(prefix="b_")
    x = net.input("x", 4, 4)
    y = body.node("ReduceMean", product(body, "b_state_0"), keepdims=0)
    body.output(y, shape=[])
    grown = body.node("Unsqueeze", "b_state_0", body.ints(0))
    _, means = loop(net, body, [x], [grown])
    net.output(means, shape=[None])
    expect(model_of(net), kept={"bn": "BNF023"}, feeds={"x": numbers(4, 4)})


@pytest.mark.parametrize("gains", [False, True])
def test_the_axis_comes_by_way_of_another_state(gains: bool) -> None:
    """What one state becomes is what the other was, two iterations before."""
    net, body = Net(), Net(prefix="b_")
    x = net.input("x", 4, 4)
    body.output(body.node("ReduceMean", product(body, "b_state_0"), keepdims=0), shape=[])
    last = body.node("Unsqueeze", "b_state_2", body.ints(0)) if gains else "b_state_2"
    states = [body.node("Identity", name) for name in ("b_state_1", last, "b_state_2")]
    *_, means = loop(net, body, [x, x, x], states, trips=3)
    net.output(means, shape=[None])
    claims: Any = {"kept": {"bn": "BNF023"}} if gains else {"folded": {"bn"}}
    expect(model_of(net), feeds={"x": numbers(4, 4)}, **claims)


@pytest.mark.parametrize("gains", [False, True])
def test_a_loop_in_a_loop(gains: bool) -> None:
    """The inner one starts with what the outer one carries, and returns what that goes on with."""
    net, outer, inner = Net(), Net(prefix="o_"), Net(prefix="i_")
    x = net.input("x", 4, 4)
    change = inner.node("Unsqueeze", "i_state_0", inner.ints(0)) if gains else inner.node("Relu", "i_state_0")
    outer.output(outer.node("ReduceMean", product(outer, "o_state_0"), keepdims=0), shape=[])
    (kept,) = loop(outer, inner, ["o_state_0"], [change], trips=1)
    _, means = loop(net, outer, [x], [kept], trips=2)
    net.output(means, shape=[None])
    claims: Any = {"kept": {"bn": "BNF023"}} if gains else {"folded": {"bn"}}
    expect(model_of(net), feeds={"x": numbers(4, 4)}, **claims)


def test_a_dimension_that_grows_leaves_the_others_known() -> None:
    net, body = Net(), Net(prefix="b_")
    x = net.input("x", 1, 4, 5, 5)
    longer = body.node("Pad", "b_state_0", body.ints(0, 0, 0, 0, 0, 0, 0, 1))
    (result,) = loop(net, body, [x], [longer])
    net.output(result, shape=[None] * 4)
    types = infer(open_model(model_of(net)))
    found = {name: shape for (_, name), (_, shape) in types.items()}
    for name in ("b_state_0", result):
        shape = found[name]
        assert shape is not None
        assert shape[:3] == (1, 4, 5)
        assert not isinstance(shape[3], int)


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_branches_of_which_the_padding_depends_on_the_size(grows: bool, mode: str) -> None:
    net, body = Net(), Net(prefix="b_")
    x = net.input("x", 1, 4, 5, 5)
    wide, narrow = (
        body.node("Conv", "b_state_0", body.init(body.draw(4, 4, k, k)), auto_pad=mode, strides=[2, 2])
        for k in (3, 2)
    )
    body.output(body.node("GlobalAveragePool", body.node("Add", wide, narrow)), shape=[None] * 4)
    pads = body.ints(0, 0, 0, 0, 0, 0, int(grows), int(grows))
    _, means = loop(net, body, [x], [body.node("Pad", "b_state_0", pads)])
    net.output(means, shape=[None] * 5)
    result = expect(model_of(net), feeds={"x": numbers(1, 4, 5, 5)})
    assert bool(result.report.merged) == (not grows)
