"""BN inside If, Loop and Scan bodies and local functions: folded there or kept, never corrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import FunctionProto, GraphProto, TensorProto, helper
from support.build import Net, feeds
from support.claims import all_nodes, batch_norms, expect, ops

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
Build = Callable[[Net], str]  # adds nodes to a body and gives the name of its output
Step = Callable[[Net, str, str], str]  # the same for a Loop: from the state and an outer tensor
BOTH = pytest.mark.parametrize("taken", [True, False])


def branch(which: str, build: Build, shape: list[Any], opset: int = 17) -> GraphProto:
    """A body without inputs whose one output is what `build(net)` returns."""
    body = Net(opset, prefix=which + "_", seed=len(which))
    body.output(build(body), shape=shape)
    return body.graph(which)


def either(net: Net, then: Build, other: Build, shape: list[Any]) -> str:
    condition = net.input("c", elem=BOOL)
    out = net.node(
        "If",
        condition,
        name="if",
        then_branch=branch("then", then, shape),
        else_branch=branch("otherwise", other, shape),
    )
    net.output(out, shape=shape)
    return out


SHAPE = [1, 4, 4, 4]


@BOTH
def test_a_branch_holds_conv_and_bn(taken: bool) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    either(
        net,
        lambda b: b.bn(b.conv(x, 3, 4, name="tc"), 4, name="tbn"),
        lambda b: b.bn(b.conv(x, 3, 4), 4, name="ebn"),
        SHAPE,
    )
    model = net.model()
    result = expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded={"tbn", "ebn"})
    for fold in result.folds:
        assert fold.scope, "a nested BN says where it stands"


@BOTH
def test_both_branches_share_an_outer_weight(taken: bool) -> None:
    """One weight of the main graph, two branches with a BN each: folding one in place breaks the other."""
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    w, b = net.init(net.draw(4, 3, 3, 3), "w"), net.init(net.draw(4), "b")

    def body(inner: Net) -> str:
        return inner.bn(inner.conv(x, 3, 4, weight=w, bias=b), 4, name=inner.prefix + "bn")

    either(net, body, body, SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded={"then_bn", "otherwise_bn"})


@BOTH
def test_a_branch_and_the_main_graph_share_a_weight(taken: bool) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    w = net.init(net.draw(4, 3, 3, 3), "w")
    net.output(net.bn(net.conv(x, 3, 4, weight=w, bias=False), 4, name="bn"))
    either(net, lambda b: b.conv(x, 3, 4, weight=w, bias=False), lambda b: b.conv(x, 3, 4), SHAPE)
    model = net.model()
    result = expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded={"bn"})
    assert "BatchNormalization" not in ops(result.model)


@BOTH
def test_a_body_reads_the_intermediate(taken: bool) -> None:
    """The second consumer stands in a body only."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(y, 4, name="bn"))
    either(net, lambda b: b.node("Relu", y), lambda b: b.node("Neg", y), SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, kept={"bn": "BNF010"})


@BOTH
def test_a_body_returns_the_intermediate(taken: bool) -> None:
    """No node of the body reads it: it is the body's output by name."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(y, 4, name="bn"))
    either(net, lambda b: b.node("Identity", y), lambda b: b.node("Neg", y), SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, kept={"bn": "BNF010"})


@BOTH
def test_a_body_of_a_body_reads_the_intermediate(taken: bool) -> None:
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(y, 4, name="bn"))

    def outer(b: Net) -> str:
        return b.node(
            "If", "c", then_branch=branch("deep", lambda d: d.node("Relu", y), SHAPE),
            else_branch=branch("deeper", lambda d: d.node("Neg", y), SHAPE),
        )  # fmt: skip

    either(net, outer, lambda b: b.node("Abs", y), SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, kept={"bn": "BNF010"})


@BOTH
def test_a_body_reads_the_bns_output(taken: bool) -> None:
    """The value keeps its meaning under whatever name the body reads it."""
    net = Net()
    y = net.bn(net.conv(net.input("x", 1, 3, 6, 6), 3, 4), 4, name="bn")
    either(net, lambda b: b.node("Relu", y), lambda b: b.node("Neg", y), SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded={"bn"})


@BOTH
def test_the_bn_is_in_a_body_and_the_conv_outside(taken: bool) -> None:
    """Folding across the border would change what the other branch reads."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    either(net, lambda b: b.bn(y, 4, name="tbn"), lambda b: b.node("Relu", y), SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded=set(), kept={"tbn": "BNF019"})


@BOTH
def test_the_bn_is_in_a_body_and_alone_reads_the_conv_outside(taken: bool) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    y = net.conv(x, 3, 4)
    either(net, lambda b: b.bn(y, 4, name="tbn"), lambda b: b.conv(x, 3, 4), SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded=set(), kept={"tbn": "BNF019"})


@BOTH
def test_a_body_shadows_the_name_of_a_weight(taken: bool) -> None:
    """A name of the main graph may come again in two sibling bodies as their own tensor."""
    net = Net()
    x = net.input("x", 1, 3, 6, 6)

    def body(inner: Net) -> str:
        w = inner.init(inner.draw(4, 3, 3, 3), "same_w")
        y = inner.node("Conv", x, w, name="same_conv", out="same_y")
        return inner.bn(y, 4, name="same_bn", out="same_z")

    either(net, body, body, SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded=["same_bn", "same_bn"])


@BOTH
def test_statistics_of_the_body_are_computed_outside(taken: bool) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    scale = net.node("Abs", net.input("s", 4))
    either(
        net,
        lambda b: b.bn(b.conv(x, 3, 4), 4, name="tbn", stats={"scale": scale}),
        lambda b: b.conv(x, 3, 4),
        SHAPE,
    )
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, kept={"tbn": "BNF012"})


@BOTH
def test_a_weight_of_the_body_can_be_overridden_outside(taken: bool) -> None:
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    net.init(net.draw(4, 3, 3, 3), "w")
    net.input("w", 4, 3, 3, 3)
    either(net, lambda b: b.bn(b.conv(x, 3, 4, weight="w"), 4, name="tbn"), lambda b: b.conv(x, 3, 4), SHAPE)
    model = net.model()
    given = feeds(model) | {"c": np.array(taken), "w": np.ones((4, 3, 3, 3), np.float32)}
    expect(model, feeds=given, kept={"tbn": "BNF022"})


@BOTH
def test_the_body_output_is_the_bn_output(taken: bool) -> None:
    """The output's name of a body is an interface as well."""
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    either(
        net, lambda b: b.bn(b.conv(x, 3, 4), 4, name="tbn", out="then_result"),
        lambda b: b.bn(b.conv(x, 3, 4), 4, name="ebn", out="else_result"), SHAPE,
    )  # fmt: skip
    model = net.model()
    result = expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded={"tbn", "ebn"})
    graphs = [a.g for a in result.model.graph.node[-1].attribute]
    assert sorted(g.output[0].name for g in graphs) == ["else_result", "then_result"]


# --- Loop and Scan ----------------------------------------------------------------------------------------


def loop_body(x: str, *, inside: Step) -> GraphProto:
    body = Net(17, prefix="loop_")
    body.input("i", elem=INT64)
    body.input("keep", elem=BOOL)
    body.input("state", 1, 4, 6, 6)
    body.output(body.node("Identity", "keep"), elem=BOOL, shape=[])
    out = inside(body, "state", x)
    body.output(out, shape=[1, 4, 6, 6])
    return body.graph("body")


def run_loop(net: Net, inside: Step) -> None:
    x = net.input("x", 1, 4, 6, 6)
    trips = net.init(np.int64(3), elem=INT64)
    condition = net.init(np.array(True), elem=BOOL)
    net.output(
        net.node("Loop", trips, condition, x, body=loop_body(x, inside=inside), name="loop"),
        shape=[1, 4, 6, 6],
    )


def test_a_loop_body_holds_conv_and_bn() -> None:
    """The body runs three times: a fold in it happens three times too."""
    net = Net()

    def inside(b: Net, state: str, _: str) -> str:
        return b.bn(b.conv(state, 4, 4, pads=[1, 1, 1, 1]), 4, name="lbn")

    run_loop(net, inside)
    expect(net.model(), folded={"lbn"})


def test_the_loop_body_reads_an_outer_weight_that_others_read() -> None:
    net = Net()
    w = net.init(net.draw(4, 4, 3, 3), "w")

    def inside(b: Net, state: str, x: str) -> str:
        y = b.bn(b.conv(state, 4, 4, weight=w, pads=[1, 1, 1, 1]), 4, name="lbn")
        return b.node("Add", y, x)

    run_loop(net, inside)
    net.output(net.conv("x", 4, 4, weight=w))
    expect(net.model(), folded={"lbn"})


def test_a_loop_carries_the_weight() -> None:
    """The weight is a state variable: constant at its first value only."""
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    w = net.init(net.draw(4, 4, 3, 3), "w")
    body = Net(17, prefix="loop_")
    body.input("i", elem=INT64)
    body.input("keep", elem=BOOL)
    body.input("wi", 4, 4, 3, 3)
    body.output(body.node("Identity", "keep"), elem=BOOL, shape=[])
    body.output(body.node("Mul", "wi", body.init(0.5)), shape=[4, 4, 3, 3])
    body.output(body.bn(body.conv(x, 4, 4, weight="wi"), 4, name="lbn"), shape=[1, 4, 4, 4])
    trips, condition = net.init(np.int64(2), elem=INT64), net.init(np.array(True), elem=BOOL)
    net.node("Loop", trips, condition, w, body=body.graph("body"), out=["w_out", "all"])
    net.output("all", shape=[2, 1, 4, 4, 4])
    expect(net.model(), kept={"lbn": "BNF012"})


def test_a_scan_body() -> None:
    net = Net()
    x = net.input("x", 5, 2, 3)
    w = net.init(net.draw(3, 4), "w")
    body = Net(17, prefix="scan_")
    body.input("row", 2, 3)
    body.output(body.bn(body.node("Gemm", "row", w, body.init(body.draw(4))), 4, name="sbn"), shape=[2, 4])
    net.output(net.node("Scan", x, body=body.graph("body"), num_scan_inputs=1), shape=[5, 2, 4])
    expect(net.model(), folded={"sbn"})


def test_a_scan_over_the_weight() -> None:
    net = Net()
    x, w = net.input("x", 2, 3), net.init(net.draw(5, 3, 4), "w")
    body = Net(17, prefix="scan_")
    body.input("wi", 3, 4)
    body.output(body.bn(body.node("Gemm", x, "wi"), 4, name="sbn"), shape=[2, 4])
    net.output(net.node("Scan", w, body=body.graph("body"), num_scan_inputs=1), shape=[5, 2, 4])
    expect(net.model(), kept={"sbn": "BNF012"})


# --- along the data flow, in bodies and into them -----------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("pads", "kept"), [(0, {}), (1, {"tbn": "BNF014"})])
def test_a_branch_folds_forward_with_a_weight_from_outside(
    taken: bool, pads: int, kept: dict[str, str]
) -> None:
    """The other branch reads the same weight, and keeps it as it was."""
    net = Net()
    x = net.input("x", 1, 3, 6 - 2 * pads, 6 - 2 * pads)
    w = net.init(net.draw(4, 3, 3, 3), "w")

    def then(b: Net) -> str:
        return b.conv(b.bn(b.node("Sigmoid", x), 3, name="tbn"), 3, 4, weight=w, pads=[pads] * 4)

    either(net, then, lambda b: b.conv(x, 3, 4, weight=w, pads=[pads] * 4), SHAPE)
    model = net.model()
    given = feeds(model) | {"c": np.array(taken)}
    expect(model, feeds=given, folded={"tbn"} - set(kept), kept=kept)


@pytest.mark.parametrize(("last", "kept"), [("Identity", {}), ("Sigmoid", {"bn": "BNF019"})])
def test_a_normalization_goes_into_a_loop(last: str, kept: dict[str, str]) -> None:
    """All that reads it stands in the body, and the weights outside."""
    net = Net()
    w = net.init(net.draw(4, 4, 1, 1), "w")
    y = net.bn(net.node("Sigmoid", net.input("z", 1, 4, 6, 6)), 4, name="bn")

    def inside(b: Net, state: str, _: str) -> str:
        return b.node("Add", state, b.conv(b.node(last, y), 4, 4, (1, 1), weight=w))

    run_loop(net, inside)
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_a_normalization_that_a_loop_starts_with() -> None:
    """The body takes it for its state, which the next turn computes otherwise."""
    net = Net()
    y = net.bn(net.node("Sigmoid", net.input("z", 1, 4, 6, 6)), 4, name="bn")
    body = loop_body("z", inside=lambda b, state, _: b.conv(state, 4, 4, (1, 1)))
    start = [net.init(np.int64(3), elem=INT64), net.init(np.array(True), elem=BOOL), y]
    net.output(net.node("Loop", *start, body=body, name="loop"), shape=[1, 4, 6, 6])
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_a_loop_normalizes_its_state() -> None:
    """Forward into the Conv of the body; but where the body returns it, the next turn reads it."""
    for returned, kept in ((False, {}), (True, {"lbn": "BNF011"})):
        net = Net()

        def inside(b: Net, state: str, _: str, *, returned: bool = returned) -> str:
            y = b.node("Identity", b.bn(state, 4, name="lbn"))
            z = b.conv(y, 4, 4, (1, 1))
            return y if returned else z

        run_loop(net, inside)
        expect(net.model(), folded={"lbn"} - set(kept), kept=kept)


@pytest.mark.parametrize(("shared", "kept"), [(False, {}), (True, {"lbn": "BNF011"})])
def test_a_loop_returns_what_it_normalizes(shared: bool, kept: dict[str, str]) -> None:
    """The Conv of the body is a result of it as well."""
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    body = Net(17, prefix="loop_")
    body.input("i", elem=INT64)
    body.input("keep", elem=BOOL)
    body.output(body.node("Identity", "keep"), elem=BOOL, shape=[])
    y = body.conv(x, 4, 4, (1, 1), weight=net.init(net.draw(4, 4, 1, 1), "w"))
    body.output(body.bn(y, 4, name="lbn"), shape=[1, 4, 6, 6])
    results = ["normalized"]
    if shared:
        body.output(y, shape=[1, 4, 6, 6])
        results.append("plain")
    trips, condition = net.init(np.int64(2), elem=INT64), net.init(np.array(True), elem=BOOL)
    net.node("Loop", trips, condition, body=body.graph("body"), out=results)
    net.output(*results, shape=[2, 1, 4, 6, 6])
    expect(net.model(), folded={"lbn"} - set(kept), kept=kept)


@pytest.mark.parametrize(("trans_a", "kept"), [(0, {}), (1, {"sbn": "BNF023"})])
def test_a_scan_body_folds_forward(trans_a: int, kept: dict[str, str]) -> None:
    net = Net()
    x = net.input("x", 5, 3, 3)
    w = net.init(net.draw(3, 4), "w")
    body = Net(17, prefix="scan_")
    body.input("row", 3, 3)
    y = body.node("Identity", body.bn("row", 3, name="sbn"))
    body.output(body.node("Gemm", y, w, body.init(body.draw(4)), transA=trans_a), shape=[3, 4])
    net.output(net.node("Scan", x, body=body.graph("body"), num_scan_inputs=1), shape=[5, 3, 4])
    expect(net.model(), folded={"sbn"} - set(kept), kept=kept)


@BOTH
def test_a_branch_in_a_loop_reads_weights_of_the_main_graph(taken: bool) -> None:
    """Two scopes lie between the weight and its reader; a computed one stays what it is there too."""
    for computed, kept in ((False, {}), (True, {"deep_bn": "BNF012"})):
        net = Net()
        net.input("c", elem=BOOL)
        w = net.input("w", 4, 4, 1, 1) if computed else net.init(net.draw(4, 4, 1, 1), "w")

        def inside(b: Net, state: str, _: str, *, w: str = w) -> str:
            def deep(d: Net) -> str:
                return d.bn(d.conv(state, 4, 4, (1, 1), weight=w), 4, name="deep_bn")

            size = [1, 4, 6, 6]
            bodies = {
                "then_branch": branch("deep", deep, size),
                "else_branch": branch("plain", lambda d: d.conv(state, 4, 4, (1, 1), weight=w), size),
            }
            return b.node("If", "c", **bodies)

        run_loop(net, inside)
        model = net.model()
        given = feeds(model) | {"c": np.array(taken)}
        expect(model, feeds=given, folded={"deep_bn"} - set(kept), kept=kept)


@BOTH
def test_a_normalization_behind_an_if(taken: bool) -> None:
    """Each branch has a Conv, but the result of an If is no place for a map."""
    net = Net()
    x = net.input("x", 1, 3, 6, 6)
    either(net, lambda b: b.conv(x, 3, 4), lambda b: b.conv(x, 3, 4), SHAPE)
    y = net.outputs.pop().name
    net.output(net.bn(y, 4, name="bn"), shape=SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(taken)}, folded=set(), kept={"bn": "BNF019"})


# --- functions --------------------------------------------------------------------------------------------

LOCAL = "local.functions"


def function(
    name: str,
    inputs: list[str],
    outputs: list[str],
    nodes: Net,
    *,
    attributes: list[str] | None = None,
    domain: str = LOCAL,
    domains: dict[str, int] | None = None,
) -> FunctionProto:
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_function(domain, name, inputs, outputs, nodes.nodes, imports, attributes or [])


def block() -> Net:
    """Conv and BN with all weights as inputs of the function."""
    body = Net(17, prefix="f_")
    body.node("Conv", "x", "w", "b", name="fconv", out="y")
    body.node("BatchNormalization", "y", "s", "t", "m", "v", name="fbn", out="z")
    return body


PARAMETERS = ["x", "w", "b", "s", "t", "m", "v"]


def call(net: Net, x: str, name: str, cin: int = 3) -> str:
    weights = [net.init(net.draw(4, cin, 3, 3))] + [net.init(net.draw(4)) for _ in range(4)]
    return net.node("Block", x, *weights, net.init(net.draw(4, low=0.5)), domain=LOCAL, name=name)


def test_a_function_called_once() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    net.output(call(net, net.input("x", 1, 3, 6, 6), "one"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn"}, inlined={"Block": 1})


def test_a_function_called_twice_with_different_weights() -> None:
    """The body is one; its two callers are not. A weight of one call must not reach the other."""
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    y = call(net, x, "one")
    net.output(call(net, y, "two", cin=4), shape=[1, 4, 2, 2])
    net.output(y, shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn", "two/fbn"}, inlined={"Block": 2})


def test_a_function_with_constants_of_its_own_called_twice() -> None:
    """Here a fold inside the body serves both calls."""
    net = Net()
    body = Net(17, prefix="f_")
    w = body.const(body.draw(4, 4, 3, 3), "node")
    stats = {k: body.const(body.draw(4, low=0.5), "node") for k in ("scale", "bias", "mean", "var")}
    body.node(
        "BatchNormalization",
        body.conv("x", 4, 4, weight=w, bias=False, name="fconv"),
        *stats.values(),
        name="fbn",
        out="z",
    )
    net.functions.append(function("Block", ["x"], ["z"], body))
    x = net.input("x", 1, 4, 8, 8)
    y = net.node("Block", x, domain=LOCAL)
    net.output(net.node("Block", y, domain=LOCAL), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"fbn"})


def test_a_bn_behind_a_call() -> None:
    """The Conv is inside, the BN outside; the function is also called elsewhere."""
    net = Net()
    body = Net(17, prefix="f_")
    body.node("Conv", "x", "w", name="fconv", out="z")
    net.functions.append(function("Block", ["x", "w"], ["z"], body))
    x, w = net.input("x", 1, 3, 6, 6), net.init(net.draw(4, 3, 3, 3))
    y = net.node("Block", x, w, domain=LOCAL)
    net.output(net.bn(y, 4, name="bn"), net.node("Block", x, w, domain=LOCAL), shape=SHAPE)
    result = expect(net.model({LOCAL: 1}), folded={"bn"}, inlined={"Block": 1})
    assert [n.op_type for n in result.model.graph.node] == ["Conv", "Block"]


def test_a_weight_that_a_call_reads_too() -> None:
    net = Net()
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    x = net.input("x", 1, 3, 6, 6)
    y = call(net, x, "one")
    w, b = net.nodes[-1].input[1:3]
    net.output(y, net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name="bn"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"bn", "one/fbn"}, inlined={"Block": 1})


def test_a_local_function_called_batch_normalization() -> None:
    """It replaces the operator: what it computes is its own."""
    net = Net()
    body = Net(17, prefix="f_")
    body.node("Relu", "x", out="z")
    net.functions.append(function("BatchNormalization", ["x", "s", "t", "m", "v"], ["z"], body))
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(
        net.node("BatchNormalization", y, *(net.init(net.draw(4)) for _ in range(4)), domain=LOCAL),
        shape=SHAPE,
    )
    result = expect(net.model({LOCAL: 1}))
    assert not result.folds
    assert not result.kept


def test_a_local_function_called_conv() -> None:
    net = Net()
    body = Net(17, prefix="f_")
    body.node("Relu", body.node("Conv", "x", "w"), out="z")
    net.functions.append(function("Conv", ["x", "w"], ["z"], body))
    y = net.node("Conv", net.input("x", 1, 3, 6, 6), net.init(net.draw(4, 3, 3, 3)), domain=LOCAL)
    net.output(net.bn(y, 4, name="bn"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), kept={"bn": "BNF019"})


def test_a_local_function_that_shadows_an_operator_of_the_default_domain() -> None:
    """A function `Conv` in the default domain takes the place of the operator (IR.md, functions)."""
    net = Net()
    body = Net(17, prefix="f_")
    body.node("Relu", "x", out="z")
    net.functions.append(function("Identity", ["x"], ["z"], body, domain=""))
    y = net.node("Identity", net.conv(net.input("x", 1, 3, 6, 6), 3, 4))
    net.output(net.bn(y, 4, name="bn"), shape=SHAPE)
    expect(net.model(), folded=set(), runtime=False)


def test_a_function_whose_epsilon_is_an_attribute() -> None:
    """The body's BN reads epsilon from the call: two calls, two affines."""
    net = Net()
    body = Net(17, prefix="f_")
    w = body.const(body.draw(4, 4, 1, 1), "node")
    stats = {k: body.const(body.draw(4, low=0.5), "node") for k in ("scale", "bias", "mean", "var")}
    body.node(
        "BatchNormalization", body.conv("x", 4, 4, weight=w, bias=False), *stats.values(), name="fbn", out="z"
    )
    reference = helper.make_attribute("epsilon", 1.0)
    reference.ClearField("f")
    reference.ref_attr_name = "eps"
    body.nodes[-1].attribute.append(reference)
    net.functions.append(function("Block", ["x"], ["z"], body, attributes=["eps"]))
    x = net.input("x", 1, 4, 4, 4)
    y = net.node("Block", x, domain=LOCAL, eps=0.5, name="one")
    net.output(net.node("Block", y, domain=LOCAL, eps=3.0, name="two"), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"one/fbn", "two/fbn"}, inlined={"Block": 2})


def test_a_conv_in_a_function_whose_attributes_come_from_the_call() -> None:
    net = Net()
    body = Net(17, prefix="f_")
    w = body.const(body.draw(4, 4, 3, 3), "node")
    stats = {k: body.const(body.draw(4, low=0.5), "node") for k in ("scale", "bias", "mean", "var")}
    y = body.conv("x", 4, 4, weight=w, bias=False)
    reference = helper.make_attribute("pads", [0, 0, 0, 0])
    del reference.ints[:]
    reference.ref_attr_name = "pads"
    body.nodes[-1].attribute.append(reference)
    body.node("BatchNormalization", y, *stats.values(), name="fbn", out="z")
    net.functions.append(function("Block", ["x"], ["z"], body, attributes=["pads"]))
    x = net.input("x", 1, 4, 4, 4)
    net.output(net.node("Block", x, domain=LOCAL, pads=[1, 1, 1, 1]), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"fbn"})


def test_a_gemm_in_a_function_whose_alpha_comes_from_the_call() -> None:
    """Alpha and beta are known at the call only."""
    net = Net()
    body = Net(17, prefix="f_")
    w, c = body.const(body.draw(3, 4), "node"), body.const(body.draw(4), "node")
    stats = {k: body.const(body.draw(4, low=0.5), "node") for k in ("scale", "bias", "mean", "var")}
    y = body.node("Gemm", "x", w, c)
    for name in ("alpha", "beta"):
        reference = helper.make_attribute(name, 1.0)
        reference.ClearField("f")
        reference.ref_attr_name = name
        body.nodes[-1].attribute.append(reference)
    body.node("BatchNormalization", y, *stats.values(), name="fbn", out="z")
    net.functions.append(function("Block", ["x"], ["z"], body, attributes=["alpha", "beta"]))
    x = net.input("x", 2, 3)
    net.output(net.node("Block", x, domain=LOCAL, alpha=0.5, beta=-2.0), shape=[2, 4])
    net.output(net.node("Block", x, domain=LOCAL, alpha=3.0, beta=0.25), shape=[2, 4])
    result = expect(net.model({LOCAL: 1}), inlined={"Block": 2})
    assert len(result.folds) == 2


def test_overloads_of_one_function() -> None:
    """IR 10: two functions of one name, told apart by the overload."""
    net = Net(21, ir=10)
    for overload, op in (("a", "Relu"), ("b", "Neg")):
        body = Net(17, prefix="f_")
        body.node(op, "x", out="z")
        f = function("Block", ["x"], ["z"], body)
        f.overload = overload
        net.functions.append(f)
    y = net.bn(net.conv(net.input("x", 1, 3, 6, 6), 3, 4), 4, name="bn")
    for overload in ("a", "b"):
        net.output(net.node("Block", y, domain=LOCAL), shape=SHAPE)
        net.nodes[-1].overload = overload
    expect(net.model({LOCAL: 1}), folded={"bn"}, runtime=False)


def test_a_body_inside_a_function() -> None:
    net = Net()
    body = Net(17, prefix="f_")
    w = body.const(body.draw(4, 4, 3, 3), "node")

    def inside(b: Net) -> str:
        stats = [b.const(b.draw(4, low=0.5), "node") for _ in range(4)]
        return b.node(
            "BatchNormalization", b.conv("x", 4, 4, weight=w, bias=False), *stats, name=b.prefix + "bn"
        )

    body.node(
        "If",
        "c",
        out="z",
        then_branch=branch("then", inside, SHAPE),
        else_branch=branch("otherwise", inside, SHAPE),
    )
    net.functions.append(function("Block", ["c", "x"], ["z"], body))
    x, c = net.input("x", 1, 4, 6, 6), net.input("c", elem=BOOL)
    net.output(net.node("Block", c, x, domain=LOCAL), shape=SHAPE)
    expect(net.model({LOCAL: 1}), folded={"then_bn", "otherwise_bn"})


def test_every_nested_bn_is_accounted_for() -> None:
    """One BN in each kind of place; the sum is the invariant of the report."""
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    net.output(net.bn(net.conv(x, 4, 4), 4, name="bn"))
    either(
        net,
        lambda b: b.bn(b.conv(x, 4, 4), 4, name="tbn"),
        lambda b: b.bn(b.node("Slice", x, b.ints(0), b.ints(4), b.ints(2)), 4),
        [1, 4, "h", "w"],
    )
    net.functions.append(function("Block", PARAMETERS, ["z"], block()))
    net.output(call(net, x, "f", cin=4), shape=SHAPE)
    model = net.model({LOCAL: 1})
    assert len(batch_norms(model)) == 4
    assert sum(n.op_type == "BatchNormalization" for n in all_nodes(model)) == 4
    result = expect(model, feeds=feeds(model) | {"c": np.array(True)}, inlined={"Block": 1})
    assert len([f for f in result.folds if f.op == "BatchNormalization"]) + len(result.kept) == 4


def test_a_constant_attribute_of_a_body_is_not_an_initializer_of_ir_3() -> None:
    """In IR 3 a body has no initializers of its own: constants stand in nodes."""
    net = Net(8, ir=3)
    x = net.input("x", 1, 3, 6, 6)

    def inside(b: Net) -> str:
        w = b.const(b.draw(4, 3, 3, 3), "node")
        stats = [b.const(b.draw(4, low=0.5), "node") for _ in range(4)]
        return b.node(
            "BatchNormalization", b.conv(x, 3, 4, weight=w, bias=False), *stats, name=b.prefix + "bn"
        )

    condition = net.input("c", elem=BOOL)
    graphs = {
        a: branch(n, inside, SHAPE, opset=8)
        for a, n in (("then_branch", "then"), ("else_branch", "otherwise"))
    }
    net.output(net.node("If", condition, **graphs), shape=SHAPE)
    model = net.model()
    expect(model, feeds=feeds(model) | {"c": np.array(True)}, folded={"then_bn", "otherwise_bn"})
