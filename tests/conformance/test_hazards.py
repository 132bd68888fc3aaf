"""Never fold wrongly: one test a hazard, each of which a folder that overlooks it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.build import BFLOAT16, DOUBLE, FLOAT, FLOAT16, Attribute, Net, feeds
from support.claims import expect, initializers, label, ops

import bnfold


def start(opset: int = 17, **options: Attribute) -> tuple[Net, str]:
    net = Net(opset, **options)
    return net, net.input("x", 1, 3, 6, 6)


# --- who else looks ---------------------------------------------------------------------------------------


def test_a_second_consumer_of_the_intermediate() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    net.output(net.bn(y, 4, name="bn"), net.node("Relu", y))
    expect(net.model(), kept={"bn": "BNF010"})


def test_the_second_consumer_comes_first() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    z = net.node("Relu", y)
    net.output(net.bn(y, 4, name="bn"), z)
    expect(net.model(), kept={"bn": "BNF010"})


def test_the_intermediate_and_its_bn_are_added() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    net.output(net.node("Add", y, net.bn(y, 4, name="bn")))
    expect(net.model(), kept={"bn": "BNF010"}, merge=False)
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv"]


def test_two_bns_read_one_conv() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    net.output(net.bn(y, 4, name="one"), net.bn(y, 4, name="two"))
    expect(net.model(), kept={"one": "BNF010", "two": "BNF010"})


def test_the_intermediate_is_also_the_bns_own_statistics() -> None:
    """A [C] tensor that is both data and statistics: constant in neither place."""
    net = Net(17)
    x = net.input("x", 4, 3)
    y = net.node("Gemm", x, net.init(net.draw(3, 4)), net.init(net.draw(4)))
    mean = net.node("ReduceMean", y, axes=[0], keepdims=0)
    net.output(net.bn(y, 4, name="bn", stats={"mean": mean}))
    expect(net.model(), kept={"bn": {"BNF010", "BNF012"}})


def test_one_consumer_reads_the_intermediate_twice() -> None:
    """The same Add reads the Conv twice: one consumer node, two uses; the BN behind it sees 2*conv."""
    net, x = start()
    y = net.conv(x, 3, 4)
    net.output(net.bn(net.node("Add", y, y), 4, name="bn"))
    expect(net.model())


def test_the_product_of_an_intermediate_with_itself() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    net.output(net.bn(net.node("Mul", y, y), 4, name="bn"))
    expect(net.model(), kept={"bn": {"BNF010", "BNF012", "BNF019"}})


def test_the_difference_of_an_intermediate_with_itself() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    net.output(net.bn(net.node("Sub", y, y), 4, name="bn"))
    expect(net.model())


@pytest.mark.parametrize("op", ["Identity", "Dropout", "Add"])
def test_a_second_consumer_in_the_middle_of_a_chain(op: str) -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    middle = net.node(op, y, *([net.init(net.draw(4, 1, 1))] if op == "Add" else []))
    net.output(net.bn(middle, 4, name="bn"), net.node("Relu", middle))
    expect(net.model(), kept={"bn": "BNF010"})


@pytest.mark.parametrize("op", ["Identity", "Dropout", "Add"])
def test_a_second_consumer_at_the_start_of_a_chain(op: str) -> None:
    """The Conv's own output is read by another; an Add between could take the shift, never the scale."""
    net, x = start()
    y = net.conv(x, 3, 4)
    middle = net.node(op, y, *([net.init(net.draw(4, 1, 1))] if op == "Add" else []))
    net.output(net.bn(middle, 4, name="bn"), net.node("Relu", y))
    expect(net.model(), kept={"bn": "BNF010"})


@pytest.mark.parametrize("direct", [True, False])
def test_the_intermediate_is_a_graph_output(direct: bool) -> None:
    net, x = start()
    y = net.conv(x, 3, 4, out="features")
    net.output(net.bn(y if direct else net.node("Identity", y), 4, name="bn"), y)
    expect(net.model(), kept={"bn": "BNF011"})


def test_the_end_of_a_chain_is_a_graph_output() -> None:
    net, x = start()
    y = net.node("Identity", net.conv(x, 3, 4))
    net.output(net.bn(y, 4, name="bn"), y)
    expect(net.model(), kept={"bn": "BNF011"})


def test_the_bns_output_is_a_graph_output_and_read_on() -> None:
    net, x = start()
    y = net.bn(net.conv(x, 3, 4), 4, name="bn", out="features")
    net.output("features", net.node("Relu", y, out="act"))
    result = expect(net.model(), folded={"bn"})
    assert result.model.graph.node[0].output[0] == "features"


def test_the_bns_output_is_a_graph_output_twice() -> None:
    net, x = start()
    net.bn(net.conv(x, 3, 4), 4, name="bn", out="y")
    net.output("y")
    net.output(net.node("Identity", "y", out="z"))
    result = expect(net.model(), folded={"bn"})
    assert [o.name for o in result.model.graph.output] == ["y", "z"]


def test_a_chain_whose_end_is_the_output_and_middle_is_passed() -> None:
    """Through a Dropout: the name of the output stays although the Dropout stood in front of the BN."""
    net, x = start()
    net.bn(net.node("Dropout", net.conv(x, 3, 4)), 4, name="bn", out="y")
    net.output("y")
    expect(net.model(), folded={"bn"})


# --- sharing ----------------------------------------------------------------------------------------------


def test_one_weight_two_convs_with_different_bns() -> None:
    net, x = start()
    w, b = net.init(net.draw(4, 3, 3, 3), "w"), net.init(net.draw(4), "b")
    outs = [net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name=f"bn{i}") for i in range(2)]
    net.output(*outs)
    result = expect(net.model(), folded={"bn0", "bn1"})
    first, second = result.model.graph.node
    assert first.input[1] != second.input[1]


def test_one_weight_two_convs_with_the_same_statistics() -> None:
    """The same fold twice: one weight may serve both, but it must be scaled once."""
    net, x = start()
    w, b = net.init(net.draw(4, 3, 3, 3)), net.init(net.draw(4))
    stats = {k: net.init(net.draw(4, low=0.5)) for k in ("scale", "bias", "mean", "var")}
    outs = [net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name=f"bn{i}", stats=stats) for i in range(2)]
    net.output(*outs)
    expect(net.model(), folded={"bn0", "bn1"})


def test_one_conv_of_a_shared_weight_has_no_bn() -> None:
    net, x = start()
    w, b = net.init(net.draw(4, 3, 3, 3), "w"), net.init(net.draw(4), "b")
    net.output(
        net.conv(x, 3, 4, weight=w, bias=b, name="plain"),
        net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name="bn"),
    )
    result = expect(net.model(), folded={"bn"})
    assert list(result.model.graph.node[0].input) == [x, "w", "b"]


def test_a_shared_bias_alone() -> None:
    net, x = start()
    b = net.init(net.draw(4), "b")
    net.output(net.bn(net.conv(x, 3, 4, bias=b), 4, name="bn"), net.conv(x, 3, 4, bias=b))
    expect(net.model(), folded={"bn"})


def test_a_bias_that_is_also_added_elsewhere() -> None:
    net, x = start()
    b = net.init(net.draw(4), "b")
    y = net.node("Relu", net.bn(net.conv(x, 3, 4, bias=b), 4, name="bn"))
    net.output(net.node("Add", y, net.node("Reshape", b, net.ints(4, 1, 1))))
    expect(net.model(), folded={"bn"})


def test_the_bias_is_also_the_bns_own_statistic() -> None:
    net, x = start()
    b = net.init(net.draw(4, low=0.5), "b")
    net.output(
        net.bn(
            net.conv(x, 3, 4, bias=b), 4, name="bn", stats=dict.fromkeys(("scale", "bias", "mean", "var"), b)
        )
    )
    expect(net.model(), folded={"bn"})


def test_shared_statistics_of_a_bn_that_stays() -> None:
    net, x = start()
    stats = {k: net.init(net.draw(4, low=0.5), k) for k in ("scale", "bias", "mean", "var")}
    y = net.node("Relu", net.bn(net.conv(x, 3, 4), 4, name="folds", stats=stats))
    net.output(net.bn(y, 4, name="stays", stats=stats))
    result = expect(net.model(), folded={"folds"})
    assert set(stats) <= set(initializers(result.model))


def test_a_statistic_that_is_a_graph_output() -> None:
    net, x = start()
    mean = net.init(net.draw(4), "mean")
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": mean}))
    net.output("mean", shape=[4])
    expect(net.model(), folded={"bn"})


def test_a_weight_that_is_a_graph_output() -> None:
    net, x = start()
    w = net.init(net.draw(4, 3, 3, 3), "w")
    net.output(net.bn(net.conv(x, 3, 4, weight=w), 4, name="bn"))
    net.output("w", shape=[4, 3, 3, 3])
    expect(net.model(), folded={"bn"})


def test_a_bias_that_is_a_graph_output() -> None:
    net, x = start()
    b = net.init(net.draw(4), "b")
    net.output(net.bn(net.conv(x, 3, 4, bias=b), 4, name="bn"))
    net.output("b", shape=[4])
    expect(net.model(), folded={"bn"})


def test_a_matmul_weight_that_another_matmul_reads() -> None:
    net = Net(17)
    x = net.input("x", 2, 4)
    w = net.init(net.draw(4, 4))
    y = net.bn(net.node("MatMul", x, w), 4, name="bn")
    net.output(net.node("MatMul", net.node("Relu", y), w))
    expect(net.model(), folded={"bn"})


def test_a_constant_between_that_is_read_elsewhere() -> None:
    net, x = start()
    c = net.init(net.draw(4, 1, 1), "c")
    y = net.bn(net.node("Mul", net.conv(x, 3, 4), c), 4, name="bn")
    net.output(net.node("Add", net.node("Relu", y), c))
    expect(net.model(), folded={"bn"})


def test_the_weight_is_its_own_data() -> None:
    """Gemm(x, w) where another Gemm uses the same tensor as its A."""
    net = Net(17)
    x, w = net.input("x", 4, 4), net.init(net.draw(4, 4), "w")
    net.output(net.bn(net.node("Gemm", x, w), 4, name="bn"), net.node("Gemm", w, x))
    expect(net.model(), folded={"bn"})


# --- what is constant -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["scale", "bias", "mean", "var"])
@pytest.mark.parametrize("how", ["input", "computed"])
def test_statistics_of_run_time(which: str, how: str) -> None:
    net, x = start()
    given = net.input("given", 4)
    if how == "computed":
        given = net.node("Abs", given)
    elif which == "var":
        given = net.node("Identity", given)
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={which: given}))
    model = net.model()
    expect(model, kept={"bn": "BNF012"}, feeds=feeds(model) | {"given": np.full(4, 0.75, np.float32)})


@pytest.mark.parametrize("producer", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_a_weight_of_run_time(producer: str) -> None:
    net = Net(17)
    flat = producer in ("Gemm", "MatMul")
    x = net.input("x", *((2, 4) if flat else (1, 4, 5, 5)))
    w = net.input("w", *((4, 4) if flat else (4, 4, 2, 2)))
    net.output(net.bn(net.node(producer, x, w), 4, name="bn"))
    expect(net.model(), kept={"bn": {"BNF012", "BNF019"}})


def test_a_weight_that_another_node_computes() -> None:
    net, x = start()
    w = net.node("Relu", net.input("w", 4, 3, 3, 3))
    net.output(net.bn(net.conv(x, 3, 4, weight=w), 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF012"})


def test_a_bias_of_run_time() -> None:
    net, x = start()
    b = net.input("b", 4)
    net.output(net.bn(net.conv(x, 3, 4, bias=b), 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF012"})


def test_the_added_operand_is_of_run_time() -> None:
    net, x = start()
    other = net.input("other", 1, 4, 4, 4)
    net.output(net.bn(net.node("Add", net.conv(x, 3, 4), other), 4, name="bn"))
    expect(net.model(), kept={"bn": {"BNF012", "BNF019"}})


@pytest.mark.parametrize("which", ["scale", "bias", "mean", "var", "weight", "conv_bias"])
def test_an_overridable_initializer(which: str) -> None:
    """IR >= 4: an initializer that is also an input is a default, and the caller may feed another value."""
    net, x = start()
    w, b = net.init(net.draw(4, 3, 3, 3), "weight"), net.init(net.draw(4), "conv_bias")
    stats = {k: net.init(net.draw(4, low=0.5), k) for k in ("scale", "bias", "mean", "var")}
    net.input(which, *((4, 3, 3, 3) if which == "weight" else (4,)))
    net.output(net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name="bn", stats=stats))
    model = net.model()
    fed = feeds(model) | {which: np.full((4, 3, 3, 3) if which == "weight" else 4, 0.375, np.float32)}
    result = expect(model, kept={"bn": "BNF022"}, feeds=fed)
    assert "freeze" in result.kept[0].reason.hint
    assert which in result.kept[0].reason.blocking + result.kept[0].reason.evidence


def test_a_constant_computed_from_an_overridable_initializer() -> None:
    net, x = start()
    net.init(net.draw(4), "mean")
    net.input("mean", 4)
    mean = net.node("Mul", "mean", net.init(0.5))
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats={"mean": mean}))
    model = net.model()
    expect(model, kept={"bn": "BNF022"}, feeds=feeds(model) | {"mean": np.ones(4, np.float32)})


def test_an_overridable_operand_between() -> None:
    net, x = start()
    net.init(net.draw(4, 1, 1), "c")
    net.input("c", 4, 1, 1)
    net.output(net.bn(net.node("Add", net.conv(x, 3, 4), "c"), 4, name="bn"))
    model = net.model()
    expect(model, kept={"bn": "BNF022"}, feeds=feeds(model) | {"c": np.ones((4, 1, 1), np.float32)})


def test_an_overridable_initializer_of_ir_3_is_a_constant() -> None:
    """IR 3 lists every initializer as an input; its exporters mean constants."""
    net = Net(8, ir=3)
    net.output(net.bn(net.conv(net.input("x", 1, 3, 6, 6), 3, 4), 4, name="bn"))
    expect(net.model(), folded={"bn"})


# --- numbers ----------------------------------------------------------------------------------------------


def statistics_net(elem: int = FLOAT, /, **stats: Attribute) -> Net:
    net = Net(17, elem=elem)
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(y, 4, name="bn", stats=stats))
    return net


@pytest.mark.parametrize("scale", [[0.0, 1.0, -2.0, 0.0], [0.0] * 4, [-0.0] * 4], ids=str)
def test_gamma_zero(scale: list[float]) -> None:
    expect(statistics_net(scale=np.array(scale)).model(), folded={"bn"})


def test_variance_zero() -> None:
    expect(statistics_net(var=np.zeros(4)).model(), folded={"bn"})


def test_a_tiny_negative_variance_that_epsilon_lifts() -> None:
    """Trained statistics can be -1e-9 by rounding: var + epsilon is positive, the root is defined."""
    expect(statistics_net(var=np.array([-1e-9, 1.0, 1.0, 1.0])).model(), folded={"bn"})


@pytest.mark.parametrize(("var", "epsilon"), [(-1.0, 1e-5), (0.0, 0.0), (-1e-5, 9.999999747378752e-06)])
def test_variance_plus_epsilon_not_positive(var: float, epsilon: float) -> None:
    net = Net(17)
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4)
    net.output(net.bn(y, 4, name="bn", stats={"var": np.array([1.0, var, 1.0, 1.0])}, epsilon=epsilon))
    expect(net.model(), kept={"bn": "BNF021"}, runtime=False)


@pytest.mark.parametrize("which", ["scale", "bias", "mean", "var"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_statistics_that_are_not_finite(which: str, value: float) -> None:
    stat = np.array([1.0, value, 0.5, 2.0])
    codes = {"BNF020", "BNF021"} if which == "var" and value < 0 else {"BNF020"}  # -inf is both
    expect(
        statistics_net(FLOAT, **{which: stat}).model(),
        kept={"bn": codes},
        runtime=False,
    )


@pytest.mark.parametrize("where", ["weight", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_weights_that_are_not_finite(where: str, value: float, gamma: float) -> None:
    """0 * inf is NaN: a zero gamma must not hide what the original shows."""
    net, x = start()
    w, b = net.draw(4, 3, 3, 3), net.draw(4)
    (w if where == "weight" else b)[1] = value
    y = net.conv(x, 3, 4, weight=net.init(w), bias=net.init(b))
    net.output(net.bn(y, 4, name="bn", stats={"scale": np.array([1.0, gamma, 1.0, 1.0])}))
    expect(net.model(), kept={"bn": "BNF020"}, runtime=False)


@pytest.mark.parametrize(
    ("elem", "big"), [(FLOAT16, 6e4), (FLOAT, 3e38), (BFLOAT16, 3e38), (DOUBLE, 1.5e308)]
)
def test_a_fold_that_overflows(elem: int, big: float) -> None:
    """Each stored number fits, their product does not."""
    net = Net(17, elem=elem)
    w = net.draw(4, 3, 3, 3)
    w[1] = big
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, weight=net.init(w), bias=False)
    net.output(net.bn(y, 4, name="bn", stats={"scale": np.array([1.0, 4.0, 1.0, 1.0]), "var": np.ones(4)}))
    expect(net.model(), kept={"bn": "BNF017"}, values=False, runtime=False)


def test_a_bias_that_overflows_alone() -> None:
    net = statistics_net(FLOAT16, scale=np.full(4, 1000.0), mean=np.full(4, 1000.0), var=np.ones(4))
    expect(net.model(), kept={"bn": "BNF017"}, values=False, runtime=False)


@pytest.mark.parametrize(("elem", "tiny"), [(FLOAT16, 6e-8), (FLOAT, 1.5e-45)])
def test_a_fold_that_vanishes(elem: int, tiny: float) -> None:
    """The scale pushes all weights of a channel below the smallest number: it would lose its input."""
    net = Net(17, elem=elem)
    w = np.full((4, 3, 1, 1), 0.25)
    y = net.node("Conv", net.input("x", 1, 3, 6, 6), net.init(w))
    scale = np.full(4, tiny)
    net.output(
        net.bn(
            y,
            4,
            name="bn",
            stats={"scale": scale, "var": np.ones(4), "bias": np.zeros(4), "mean": np.zeros(4)},
        )
    )
    expect(net.model(), kept={"bn": "BNF017"}, values=False, runtime=False)


def test_float16_weights_that_lose_most_of_their_bits() -> None:
    """Subnormal results keep two or three bits: more than the rounding of the type is lost."""
    net = Net(17, elem=FLOAT16)
    y = net.node("Conv", net.input("x", 1, 3, 6, 6), net.init(net.draw(4, 3, 1, 1)))
    net.output(net.bn(y, 4, name="bn", stats={"scale": np.full(4, 1e-6), "var": np.ones(4)}))
    expect(net.model(), kept={"bn": "BNF017"}, values=False, runtime=False)


def test_a_few_tiny_weights_among_ordinary_ones_do_not_matter() -> None:
    """Trained float16 weights hold near-zero numbers; their underflow is far below the others' rounding."""
    net = Net(17, elem=FLOAT16)
    w = net.draw(4, 3, 3, 3)
    w[:, 0, 0, 0] = 6e-8
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, weight=net.init(w))
    net.output(net.bn(y, 4, name="bn", stats={"scale": np.full(4, 0.01), "var": np.ones(4)}))
    expect(net.model(), folded={"bn"})


def test_weights_that_are_zero_do_not_count_as_vanished() -> None:
    net = Net(17, elem=FLOAT16)
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, weight=net.init(np.zeros((4, 3, 3, 3))))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


# --- which axis -------------------------------------------------------------------------------------------


def test_matmul_3d_then_bn_on_the_rows() -> None:
    """[B, N, C] into BN: axis 1 counts rows, and here there are as many rows as features."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 5, 3), net.init(net.draw(3, 5)))
    net.output(net.bn(y, 5, name="bn"))
    expect(net.model(), kept={"bn": "BNF023"})


def test_matmul_3d_with_other_row_count() -> None:
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 6, 3), net.init(net.draw(3, 5)))
    net.output(net.bn(y, 6, name="bn"))
    expect(net.model(), kept={"bn": "BNF023"})


def test_matmul_4d_then_bn() -> None:
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 4, 4, 3), net.init(net.draw(3, 4)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF023"})


def test_matmul_of_unknown_rank() -> None:
    """Nothing says that axis 1 is the last one."""
    net = Net(17)
    x = net.input("x", 2, 5, 3)
    hidden = net.node("Reshape", x, net.node("Shape", net.input("like", 2, 5, 3)))
    y = net.node("MatMul", hidden, net.init(net.draw(3, 5)))
    net.output(net.bn(y, 5, name="bn"), shape=[2, 5, 5])
    expect(net.model(), kept={"bn": "BNF023"})


def test_matmul_with_a_batched_weight() -> None:
    """A weight [B, K, N] is another matrix for each sample; scaling its last axis is exact all the same."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 6, 3), net.init(net.draw(2, 3, 5)))
    net.output(net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 5, name="bn"))
    expect(net.model())


def test_matmul_with_the_constant_on_the_left() -> None:
    """W [C, K] @ X [K, M]: the channels are the rows of W; K = M = C."""
    net = Net(17)
    y = net.node("MatMul", net.init(net.draw(4, 4)), net.input("x", 4, 4))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


def test_matmul_3d_with_the_constant_on_the_left() -> None:
    """W [C, K] @ X [B, K, M]: axis 1 is W's row axis here. Scaling the last axis is wrong."""
    net = Net(17)
    y = net.node("MatMul", net.init(net.draw(4, 4)), net.input("x", 2, 4, 4))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model())


def test_matmul_of_a_vector() -> None:
    """[B, M, K] @ [K] loses the last axis: the channel axis is M, and the weight has no output axis."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 4, 4), net.init(net.draw(4)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


def test_a_vector_matmul_on_the_left() -> None:
    """[K] @ [K, N] is [N]: an Unsqueeze gives the BN its batch."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 3), net.init(net.draw(3, 4)))
    net.output(net.bn(net.node("Unsqueeze", y, net.ints(0)), 4, name="bn"))
    expect(net.model())


@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div"])
@pytest.mark.parametrize(
    "shape", [(4,), (4, 1), (1, 4), (4, 4), (4, 4, 4), (1, 1, 4, 1), (1, 1, 1, 4)], ids=str
)
def test_a_constant_that_aligns_with_width_not_channels(op: str, shape: tuple[int, ...]) -> None:
    """C = H = W = 4: a constant [4] is aligned to the right, on W."""
    net, x = start()
    y = net.conv(x, 3, 4)
    y = net.node(op, y, net.init(net.draw(*shape, low=0.5, high=2.0)))
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded=set())
    assert {str(r.code) for r in result.kept} <= {"BNF019", "BNF023"}


def test_a_constant_that_holds_one_value_in_a_full_shape() -> None:
    """[4, 4, 4] of equal numbers by channel is per-channel by value; either outcome must be right."""
    net, x = start()
    values = np.broadcast_to(net.draw(4, 1, 1), (4, 4, 4))
    net.output(net.bn(net.node("Add", net.conv(x, 3, 4), net.init(values)), 4, name="bn"))
    expect(net.model())


def test_a_constant_that_raises_the_rank() -> None:
    """[1, 4, 1, 1] added to [2, 4] gives four dimensions: the channel axis moves."""
    net = Net(17)
    y = net.node("Gemm", net.input("x", 4, 3), net.init(net.draw(3, 4)))
    y = net.node("Add", y, net.init(net.draw(1, 4, 1, 1)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


def test_a_constant_of_ones_that_raises_the_rank() -> None:
    net = Net(17)
    y = net.node("Gemm", net.input("x", 4, 3), net.init(net.draw(3, 4)))
    y = net.node("Add", y, net.init(net.draw(1, 1, 1)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


def test_a_constant_that_widens_one_channel_to_many() -> None:
    """Conv gives one channel, the constant four: the result has four, the weight one."""
    net, x = start()
    y = net.node("Add", net.conv(x, 3, 1), net.init(net.draw(4, 1, 1)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


def test_a_constant_that_widens_the_batch() -> None:
    """[3, 4, 1, 1] makes three samples of one, each with another shift."""
    net, x = start()
    y = net.node("Add", net.conv(x, 3, 4), net.init(net.draw(3, 4, 1, 1)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_a_constant_that_widens_space() -> None:
    """[1, 4, 5, 5] of equal numbers makes 25 pixels of one."""
    net = Net(17)
    y = net.conv(net.input("x", 1, 3, 3, 3), 3, 4)
    y = net.node("Mul", y, net.init(np.broadcast_to(net.draw(4, 1, 1), (4, 5, 5))))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


@pytest.mark.parametrize("op", ["Div", "Pow"])
def test_an_operator_with_the_constant_on_the_wrong_side(op: str) -> None:
    """c / x and c ** x are not affine in x."""
    net, x = start()
    y = net.conv(
        x, 3, 4, [1, 1], weight=net.init(net.draw(4, 3, 1, 1, low=0.5)), bias=net.init(np.full(4, 40.0))
    )
    y = net.node(op, net.init(np.full((4, 1, 1), 1.125)), y)
    net.output(net.bn(y, 4, name="bn"))
    # the bound of x**y is not known to the oracle: nothing may change anyway
    expect(net.model(), folded=set(), kept={"bn": "BNF019"}, runtime=op == "Div")


def test_a_constant_minus_the_intermediate() -> None:
    net, x = start()
    net.output(net.bn(net.node("Sub", net.init(net.draw(4, 1, 1)), net.conv(x, 3, 4)), 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_a_division_by_zero() -> None:
    """Mul by 1/c is not there: inf must not be folded into weights."""
    net, x = start()
    c = np.array([1.0, 0.0, 2.0, 4.0]).reshape(4, 1, 1)
    net.output(net.bn(net.node("Div", net.conv(x, 3, 4), net.init(c)), 4, name="bn"))
    expect(net.model(), folded=set(), runtime=False)


@pytest.mark.parametrize(
    ("op", "extra"),
    [
        ("Reshape", [1, 2, 8, 4]),
        ("Reshape", [1, 4, 4, 4]),
        ("Reshape", [4, 4, 2, 2]),
        ("Reshape", [1, 8, 2, 4]),
        ("Reshape", [1, 4, -1]),
        ("Reshape", [0, -1]),
        ("Reshape", [0, 0, -1]),
    ],
    ids=str,
)
def test_a_reshape_between(op: str, extra: list[int]) -> None:
    """Only a Reshape that gives each old channel to one new channel may be crossed; the values decide."""
    net, x = start()
    y = net.node("Conv", x, net.init(net.draw(8, 3, 5, 3)), name="conv")  # [1, 8, 2, 4]
    y = net.node(op, y, net.ints(*extra))
    channels = {2: 2, 4: 4, 8: 8, 0: 8, -1: 64}[extra[1]]
    net.output(net.bn(y, channels, name="bn"))
    model = net.model()
    # new channel = a whole number of old ones, or (batch 4; one batch of everything) not so
    splits = extra == [4, 4, 2, 2]
    expect(model, folded=set() if splits else None)


def test_a_reshape_that_mixes_channels_of_equal_count() -> None:
    """[N, 4, 4] reshaped to [4, 4, N] keeps a 4 at axis 1, but not the channels."""
    net = Net(17)
    y = net.conv(net.input("x", 4, 3, 6), 3, 4, [3])
    y = net.node("Reshape", net.node("Transpose", y, perm=[0, 2, 1]), net.ints(4, 4, 4))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


def test_a_transpose_that_moves_the_channels_away() -> None:
    net = Net(17)
    y = net.node("Transpose", net.conv(net.input("x", 2, 3, 6, 6), 3, 4), perm=[0, 2, 1, 3])
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF023"})


def test_a_transpose_without_perm_reverses() -> None:
    net = Net(17)
    y = net.node("Gemm", net.input("x", 4, 3), net.init(net.draw(3, 4)))
    net.output(net.bn(net.node("Transpose", y), 4, name="bn"))
    expect(net.model(), folded=set())


def test_a_transpose_that_swaps_space_only() -> None:
    net = Net(17)
    y = net.node("Transpose", net.conv(net.input("x", 2, 3, 6, 6), 3, 4), perm=[0, 1, 3, 2])
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model())


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2, -3])
def test_a_flatten_between(axis: int) -> None:
    """Flatten(axis=1) of [2, 4, 4, 4] gives 64 features, of which each channel owns 16; others mix more."""
    net = Net(17)
    y = net.node("Flatten", net.conv(net.input("x", 2, 3, 6, 6), 3, 4), axis=axis)
    channels = {0: 128, 1: 64, 2: 16, 3: 4, -1: 4, -2: 16, -3: 64}[axis]
    net.output(net.bn(y, channels, name="bn"))
    expect(net.model(), folded=None if channels == 64 else set())


def test_a_flatten_of_one_pixel() -> None:
    """After a Conv that leaves one pixel Flatten is harmless."""
    net = Net(17)
    y = net.node("Flatten", net.conv(net.input("x", 2, 3, 3, 3), 3, 4))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model())


def test_matmul_flattened_over_its_features() -> None:
    """Flatten(axis=1) of [2, 3, 4] gives 12 features: row and feature mixed."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 3, 5), net.init(net.draw(5, 4)))
    net.output(net.bn(net.node("Flatten", y, axis=1), 12, name="bn"))
    expect(net.model())


def test_matmul_reshaped_to_other_features_of_equal_count() -> None:
    """[2, 4, 6] -> [12, 4]: the last axis is 4 but not the features, which were 6."""
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 4, 5), net.init(net.draw(5, 6)))
    net.output(net.bn(net.node("Reshape", y, net.ints(-1, 4)), 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF023"})


def test_matmul_reshaped_by_a_run_time_shape() -> None:
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 4, 5), net.init(net.draw(5, 4)))
    shape = net.node("Shape", net.input("like", 8, 4))
    net.output(net.bn(net.node("Reshape", y, shape), 4, name="bn"), shape=[8, 4])
    expect(net.model())


def test_matmul_transposed_twice_the_wrong_way() -> None:
    net = Net(17)
    y = net.node("MatMul", net.input("x", 2, 4, 5), net.init(net.draw(5, 4)))
    y = net.node("Transpose", net.node("Transpose", y, perm=[0, 2, 1]), perm=[2, 1, 0])
    y = net.node("Transpose", y, perm=[1, 0, 2])  # [features, rows, batch]
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set())


# --- what stands between ----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "LeakyRelu", "Tanh", "Clip"])
def test_an_activation_between(op: str) -> None:
    """Backward over a nonlinearity a shift is never exact."""
    net, x = start()
    y = net.conv(x, 3, 4)
    y = net.node(op, y, net.init(0.0), net.init(6.0)) if op == "Clip" else net.node(op, y)
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), kept={"bn": {"BNF018", "BNF019"}})


@pytest.mark.parametrize("where", ["input", "pool", "after_add"])
def test_no_linear_neighbour(where: str) -> None:
    net = Net(17)
    x = net.input("x", 1, 4, 6, 6)
    y = {
        "input": lambda: x,
        "pool": lambda: net.node("MaxPool", x, kernel_shape=[2, 2]),
        "after_add": lambda: net.node("Add", x, net.node("Relu", x)),
    }[where]()
    net.output(net.bn(y, 4, name="bn"))
    # Behind a pool a negative scale of the normalization is a reason of its own.
    expect(net.model(), kept={"bn": {"BNF018", "BNF019"} if where == "pool" else "BNF019"})


@pytest.mark.parametrize("opset", [10, 13, 21])
def test_a_quantizer_between(opset: int) -> None:
    net, x = start(opset)
    scale, zero = net.init(0.05), net.init(np.int8(0), elem=TensorProto.INT8)
    y = net.node("DequantizeLinear", net.node("QuantizeLinear", net.conv(x, 3, 4), scale, zero), scale, zero)
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF015"})


@pytest.mark.parametrize("axis", [None, 0])
def test_quantized_weights(axis: int | None) -> None:
    """Integers stay integers: nothing may write the dequantized weights in their place."""
    net, x = start(13)
    q = net.init(net.rng.integers(-127, 128, (4, 3, 3, 3)), "q", TensorProto.INT8)
    zero = np.zeros(() if axis is None else 4, np.int8)
    scale = net.init(net.draw(*zero.shape, low=0.01, high=0.1))
    attrs: dict[str, Any] = {} if axis is None else {"axis": axis}
    w = net.node("DequantizeLinear", q, scale, net.init(zero, elem=TensorProto.INT8), **attrs)
    net.output(net.bn(net.conv(x, 3, 4, weight=w), 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    stored = {t.name: t for t in result.model.graph.initializer}
    assert stored["q"].data_type == TensorProto.INT8
    assert [tuple(t.dims) for t in stored.values()].count((4, 3, 3, 3)) == 1


def test_a_quantized_bias_only() -> None:
    net, x = start(13)
    q = net.init(net.rng.integers(-1000, 1000, 4), "q", TensorProto.INT32)
    b = net.node("DequantizeLinear", q, net.init(0.01))
    net.output(net.bn(net.conv(x, 3, 4, bias=b), 4, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("opset", [6, 12, 13, 22])
def test_a_training_dropout_between(opset: int) -> None:
    net, x = start(opset)
    y = net.conv(x, 3, 4)
    if opset < 12:
        y = net.node("Dropout", y, is_test=0)
    else:
        y = net.node("Dropout", y, net.init(0.5), net.init(np.array(True), elem=TensorProto.BOOL))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), kept={"bn": {"BNF013", "BNF019"}}, runtime=False)


def test_a_dropout_whose_mode_the_caller_decides() -> None:
    net, x = start(13)
    mode = net.input("training", elem=TensorProto.BOOL)
    y = net.node("Dropout", net.conv(x, 3, 4), net.init(0.5), mode)
    net.output(net.bn(y, 4, name="bn"))
    model = net.model()
    expect(model, folded=set(), feeds=feeds(model) | {"training": np.array(False)})


def test_a_dropout_whose_mask_is_used() -> None:
    """In inference the mask is all true whatever flows through: it must still come out."""
    net, x = start(13)
    y = net.node("Dropout", net.conv(x, 3, 4), out=["dropped", "mask"])
    net.output(net.bn(y, 4, name="bn"))
    net.output("mask", elem=TensorProto.BOOL, shape=[1, 4, 4, 4])
    expect(net.model())


def test_an_identity_with_a_second_reader_behind_another_identity() -> None:
    net, x = start()
    y = net.node("Identity", net.conv(x, 3, 4))
    side = net.node("Identity", y)
    net.output(net.bn(y, 4, name="bn"), net.node("Relu", side))
    expect(net.model(), kept={"bn": "BNF010"})


def test_a_cast_between() -> None:
    """Conv in float16, BN in float32: the weights are of the narrower type; the values decide."""
    net = Net(17, elem=FLOAT16)
    y = net.node("Cast", net.conv(net.input("x", 1, 3, 6, 6), 3, 4), to=FLOAT)
    net.elem = FLOAT
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), runtime=False)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("producer", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_names_that_a_fold_would_choose_are_taken(producer: str) -> None:
    """Every name a tool might make of W, the node or the output is another tensor already."""
    net = Net(17)
    flat = producer in ("Gemm", "MatMul")
    x = net.input("x", *((2, 3) if flat else (1, 3, 6, 6)))
    shape = {"Conv": (4, 3, 3, 3), "ConvTranspose": (3, 4, 3, 3), "Gemm": (3, 4), "MatMul": (3, 4)}[producer]
    w = net.init(net.draw(*shape), "W")
    y = net.node(producer, x, w, name="n", out="Y")
    z = net.bn(y, 4, name="bn", out="Z")
    taken = [
        f"{base}{sep}{end}"
        for base in ("W", "n", "Y", "Z", "bn", "W_folded", "W_bn")
        for sep in ("_", ".", "/", "")
        for end in (
            "bias",
            "folded",
            "bnfold",
            "bn",
            "fused",
            "B",
            "b",
            "add",
            "1",
            "0",
            "2",
            "weight",
            "scale",
            "shift",
            "bias_folded",
            "Add",
            "matmul",
        )
    ]
    total = z
    for i, name in enumerate(taken):
        if i % 3 == 0:
            net.init(net.draw(), name)
            total = net.node("Add", total, name)
        elif i % 3 == 1:
            total = net.node("Add", total, net.init(net.draw()), out=name, name=name)
        else:
            net.node("Abs", x, out=name, name=name)
    net.output(total)
    expect(net.model(), folded={"bn"})


def test_a_name_that_only_a_body_uses_is_taken() -> None:
    """Names are unique over the graph and its bodies: a new `W_bias` outside would be shadowed."""
    net, x = start()
    y = net.conv(x, 3, 4, weight=net.init(net.draw(4, 3, 3, 3), "W"), bias=False, name="n")
    y = net.bn(y, 4, name="bn")
    branches = {}
    for which in ("then_branch", "else_branch"):
        body = Net(17, prefix=which)
        for name in (
            "W_bias",
            "W_folded",
            "n_bias",
            "W_bnfold",
            "bn_bias",
            "W.bias",
            "n.bias",
            "W_bias_1",
            "W_bias_0",
        ):
            body.init(body.draw(4, 1, 1), name if which == "then_branch" else name + "e")
        body.node("Add", y, body.initializers[0].name, out=which + "out")
        body.output(which + "out", shape=[1, 4, 4, 4])
        branches[which] = body.graph(which)
    net.output(net.node("If", net.input("c", elem=TensorProto.BOOL), **branches), shape=[1, 4, 4, 4])
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("names", [("", "", "", ""), ("n", "n", "n", "n"), ("n", "", "n", "bn")], ids=str)
def test_missing_and_duplicate_node_names(names: tuple[str, ...]) -> None:
    net, x = start()
    y = net.bn(net.conv(x, 3, 4, name=names[0]), 4, name=names[1], out="y1")
    y = net.node("Relu", y)
    z = net.bn(net.conv(y, 4, 4, name=names[2]), 4, name=names[3], out="y2")
    net.output(z)
    model = net.model()
    wanted = [label(n) for n in model.graph.node if n.op_type == "BatchNormalization"]
    result = expect(model, folded=wanted)
    assert ops(result.model) == ["Conv", "Relu", "Conv"]


def test_duplicate_node_names_of_which_one_stays() -> None:
    net, x = start()
    y = net.conv(x, 3, 4, name="n")
    folded = net.bn(y, 4, name="n", out="y1")
    other = net.conv(folded, 4, 4, name="n")
    net.output(net.bn(other, 4, name="n", out="y2"), net.node("Relu", other, name="n"))
    result = expect(net.model())
    assert len(result.folds) == len(result.kept) == 1


def test_odd_names() -> None:
    """Blanks, slashes, quotes, Unicode, a name of only digits and one that looks like an option."""
    net = Net(17)
    x = net.input("input 0/ä:\"'", 1, 3, 6, 6)
    w = net.init(net.draw(4, 3, 3, 3), "--weight")
    y = net.conv(x, 3, 4, weight=w, bias=net.init(net.draw(4), "0"), name="[bold]node[/]", out="\u2028mid")
    net.output(net.bn(y, 4, name="bn\ttab", out="out %s {}"))
    expect(net.model(), folded={"bn\ttab"})


def test_a_bn_of_another_domain() -> None:
    """Only the name is the same. Nothing is folded, nothing is reported."""
    net, x = start()
    y = net.conv(x, 3, 4)
    parameters = [net.init(net.draw(4)) for _ in range(4)]
    y = net.node("BatchNormalization", y, *parameters, domain="com.example")
    net.output(y, shape=[1, 4, 4, 4])
    model = net.model({"com.example": 1})
    result = expect(model, values=False, runtime=False)
    assert not result.folds
    assert not result.kept


@pytest.mark.parametrize("op", ["Conv", "Add", "Identity", "Gemm"])
def test_a_producer_of_another_domain(op: str) -> None:
    net = Net(17)
    x = net.input("x", 2, 3) if op == "Gemm" else net.input("x", 1, 4, 6, 6)
    inputs = {
        "Conv": [net.init(net.draw(4, 4, 3, 3))],
        "Add": [net.init(net.draw(4, 1, 1))],
        "Gemm": [net.init(net.draw(3, 4))],
    }
    before = x if op in ("Conv", "Gemm") else net.conv(x, 4, 4)
    y = net.node(op, before, *inputs.get(op, []), domain="com.example")
    net.output(net.bn(y, 4, name="bn"), shape=[2, 4] if op == "Gemm" else [1, 4, 4, 4])
    expect(net.model({"com.example": 1}), kept={"bn": "BNF019"}, values=False, runtime=False)


def test_the_consumer_of_another_domain_still_reads_what_it_read() -> None:
    net, x = start()
    y = net.bn(net.conv(x, 3, 4), 4, name="bn")
    z = net.node("Mystery", y, domain="com.example")
    net.output(z, shape=[1, 4, 4, 4])
    result = expect(net.model({"com.example": 1}), folded={"bn"}, values=False, runtime=False)
    conv, mystery = result.model.graph.node
    assert mystery.input[0] == conv.output[0]


# --- dimensions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [("n", 3, "h", "w"), (None, 3, None, None), ("n", "c", "h", "w"), (None,) * 4], ids=str
)
def test_symbolic_and_unknown_dimensions(shape: tuple[Any, ...]) -> None:
    net = Net(17)
    net.output(net.bn(net.conv(net.input("x", *shape), 3, 4), 4, name="bn"))
    model = net.model()
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 7)).astype(np.float32)
    expect(model, folded={"bn"}, feeds={"x": x})


def test_an_input_without_any_shape() -> None:
    net = Net(17)
    net.inputs.append(helper.make_tensor_value_info("x", FLOAT, ["a", "b", "c", "d"]))
    net.output(net.bn(net.conv("x", 3, 4), 4, name="bn"), shape=["a", 4, "h", "w"])
    expect(net.model(), folded={"bn"}, feeds={"x": np.ones((1, 3, 5, 5), np.float32)})


def test_a_batch_of_zero() -> None:
    net = Net(17)
    net.output(net.bn(net.conv(net.input("x", 0, 3, 6, 6), 3, 4), 4, name="bn"))
    expect(net.model(), folded={"bn"})


def test_zero_channels() -> None:
    net = Net(17)
    y = net.node("Gemm", net.input("x", 2, 3), net.init(net.draw(3, 0)), net.init(net.draw(0)))
    net.output(net.bn(y, 0, name="bn"))
    expect(net.model(), runtime=False)


def test_zero_inputs() -> None:
    """K = 0: the product is empty, the bias is all there is."""
    net = Net(17)
    y = net.node("Gemm", net.input("x", 2, 0), net.init(net.draw(0, 4)), net.init(net.draw(4)))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), runtime=False)


def test_one_channel() -> None:
    """C = 1: scalars, [1] and [1, 1] all look per-channel."""
    net, x = start()
    y = net.node("Mul", net.conv(x, 3, 1), net.init(net.draw(1)))
    net.output(net.bn(y, 1, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_a_bn_at_the_graph_input(rank: int) -> None:
    net = Net(17)
    net.output(net.bn(net.input("x", *[2, 4, 3, 3, 2][:rank]), 4, name="bn"))
    expect(net.model(), kept={"bn": "BNF019"})


def test_a_bn_whose_output_nobody_reads() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    net.bn(net.conv(x, 3, 4), 4, name="bn", out="unread")
    net.output(y)
    expect(net.model())


def test_a_bn_that_reads_a_constant() -> None:
    """All inputs are constants: nothing runs, nothing to fold into; it must come out right."""
    net, x = start()
    y = net.bn(net.init(net.draw(1, 4, 4, 4)), 4, name="bn")
    net.output(net.node("Add", net.conv(x, 3, 4), y))
    expect(net.model())


def test_a_conv_of_a_constant() -> None:
    """Both operands are constant: W is still the weight."""
    net, _ = start()
    y = net.bn(net.conv(net.init(net.draw(1, 3, 6, 6)), 3, 4), 4, name="bn")
    net.output(net.node("Add", net.node("ReduceMean", "x"), y))
    expect(net.model())


# --- options ----------------------------------------------------------------------------------------------


def test_exclude_and_include() -> None:
    net, x = start()
    y = net.node("Relu", net.bn(net.conv(x, 3, 4), 4, name="a/bn"))
    net.output(net.bn(net.conv(y, 4, 4), 4, name="b/bn"))
    model = net.model()
    expect(model, kept={"a/bn": "BNF024"}, folded={"b/bn"}, exclude=("a/*",))
    expect(model, kept={"a/bn": "BNF024"}, folded={"b/bn"}, include=("b/*",))


def test_inspect_says_the_same_and_changes_nothing() -> None:
    net, x = start()
    y = net.conv(x, 3, 4)
    z = net.bn(net.conv(x, 3, 4), 4, name="folds")
    net.output(net.bn(y, 4, name="stays"), net.node("Relu", y), z)
    model = net.model()
    before = model.SerializeToString(deterministic=True)
    seen = bnfold.inspect(model)
    done = bnfold.optimize(model, verify=False)
    assert model.SerializeToString(deterministic=True) == before
    assert [f.node for f in seen.folds] == [f.node for f in done.folds] == ["folds"]
    assert [(r.node, r.code) for r in seen.kept] == [(r.node, r.code) for r in done.kept]


def test_a_second_run_changes_nothing() -> None:
    net, x = start()
    y = net.node("Relu", net.bn(net.conv(x, 3, 4), 4))
    net.output(net.bn(net.node("MatMul", net.node("Flatten", y), net.init(net.draw(64, 5))), 5))
    first = bnfold.optimize(net.model(), verify=False)
    second = bnfold.optimize(first.model, verify=False)
    assert not second.folds
    assert second.model.SerializeToString(deterministic=True) == first.model.SerializeToString(
        deterministic=True
    )


def test_the_same_input_gives_the_same_bytes() -> None:
    net, x = start()
    net.output(net.bn(net.conv(x, 3, 4, bias=False), 4))
    model = net.model()
    one, two = (bnfold.optimize(model, verify=False).model.SerializeToString() for _ in range(2))
    assert one == two
