"""A fold may not leave the model more to do: neither more nodes nor more element operations."""

from __future__ import annotations

import pytest
from support.build import Dim, Net
from support.claims import Result, expect, ops
from support.quantized import dequantized, integers
from support.ways import positive, scaling

from bnfold.fold.cost import more_work


def the_reason(result: Result) -> str:
    return str(result.kept[0].reason.evidence)


def averaged(rows: Dim, *, keep: bool = False, batch: Dim = 2) -> Net:
    """MatMul, a mean over its rows, and a normalization of what is left."""
    net = Net(opset=17)
    x = net.input("x", batch, rows, 6)
    y = net.node("MatMul", x, net.init(net.draw(6, 4)), name="product")
    y = net.node("ReduceMean", y, axes=[1], keepdims=0)
    if keep:
        y = net.node("MatMul", y, net.init(net.draw(4, 4)), name="second")
    net.output(net.bn(y, 4, name="bn"))
    return net


# --- an Add on more than the normalization had ------------------------------------------------------------


@pytest.mark.parametrize(("rows", "folds"), [(1, True), (2, True), (3, False), (196, False)])
def test_an_add_before_a_mean(rows: int, folds: bool) -> None:
    """The normalization takes two operations on [2, 4], that is 16; the Add one on [2, rows, 4]."""
    if folds:
        result = expect(averaged(rows).model(), folded={"bn"})
        assert ops(result.model) == ["MatMul", "Add", "ReduceMean"]
        return
    result = expect(averaged(rows).model(), folded=set(), kept={"bn": "BNF025"})
    assert the_reason(result) == (
        f"the Add that MatMul 'product' would gain takes {8 * rows:,} operations, what goes 16 operations"
    )


def test_a_mean_over_rows_whose_number_is_open() -> None:
    result = expect(averaged("T").model(), folded=set(), kept={"bn": "BNF025"})
    assert "takes 8 operations for each index of 1 open dimension, what goes 16 operations" in the_reason(
        result
    )
    result = expect(averaged("T", batch="N").model(), folded=set(), kept={"bn": "BNF025"})
    assert (
        "takes 4 operations for each index of 2 open dimensions, what goes 8 operations for each"
        in the_reason(result)
    )


def test_an_open_dimension_that_both_have() -> None:
    expect(averaged(2, batch="N").model(), folded={"bn"})
    expect(averaged(3, batch="N").model(), folded=set(), kept={"bn": "BNF025"})


def test_a_nearer_layer_takes_it() -> None:
    """A matrix times a matrix becomes a Gemm, which has a bias of its own."""
    result = expect(averaged(196, keep=True).model(), folded={"bn"})
    assert ops(result.model) == ["MatMul", "ReduceMean", "Gemm"]


def test_a_scale_alone_passes_a_mean() -> None:
    net = Net(opset=17)
    y = net.node("MatMul", net.input("x", 2, 196, 6), net.init(net.draw(6, 4)))
    net.output(net.bn(net.node("ReduceMean", y, axes=[1], keepdims=0), 4, name="bn", stats=scaling(4)))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["MatMul", "ReduceMean"]


@pytest.mark.parametrize(("features", "folds"), [(3, True), (8, True), (9, False)])
def test_forward_into_a_product_with_more_features(features: int, folds: bool) -> None:
    """Twice as many features as the normalization had channels is what its two operations pay for."""
    for batch in (2, "N"):
        net = Net()
        x = net.input("x", batch, 4, 5)
        y = net.node("Transpose", net.bn(x, 4, name="bn"), perm=[0, 2, 1])
        net.output(net.node("MatMul", y, net.init(net.draw(4, features)), name="product"))
        if folds:
            expect(net.model(), folded={"bn"})
        else:
            result = expect(net.model(), folded=set(), kept={"bn": "BNF025"})
            assert "takes 1.12 times the operations" in the_reason(result)


def test_rows_that_are_gathered_from_many() -> None:
    """The Add would work on all rows, of which one is taken."""
    net = Net()
    y = net.node("MatMul", net.input("x", 2, 50, 6), net.init(net.draw(6, 4)), name="product")
    y = net.node("Gather", y, net.ints(7), axis=1)
    net.output(net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 4, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF025"})


def test_what_an_expand_repeats() -> None:
    """The Add would work before the Expand, on less than the normalization does."""
    net = Net()
    y = net.node("MatMul", net.input("x", 2, 1, 6), net.init(net.draw(6, 4)))
    y = net.node("Transpose", net.node("Expand", y, net.ints(2, 50, 4)), perm=[0, 2, 1])
    net.output(net.bn(y, 4, name="bn"))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["MatMul", "Add", "Expand", "Transpose"]


# --- sizes that nobody states -----------------------------------------------------------------------------


def test_rows_that_a_reshape_joins() -> None:
    """[N, T, 4] and [N * T, 4] have as many elements, though one has more open dimensions."""
    net = Net()
    x = net.input("x", "N", "T", 6)
    y = net.node("MatMul", x, net.init(net.draw(6, 4)))
    net.output(net.bn(net.node("Reshape", y, net.ints(-1, 4)), 4, name="bn"))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["MatMul", "Add", "Reshape"]


def test_forward_past_a_reshape_that_splits_rows() -> None:
    net = Net()
    y = net.bn(net.node("Sigmoid", net.input("x", "M", 4)), 4, name="bn")
    y = net.node("Reshape", y, net.ints(-1, 2, 4))
    net.output(net.node("MatMul", y, net.init(net.draw(4, 8))))
    assert ops(expect(net.model(), folded={"bn"}).model)[-1] == "Add"


# --- two ways ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_of_two_terms_the_one_with_a_bias_takes_the_shift(first: bool) -> None:
    net = Net()
    x = net.input("x", 2, 5, 6)
    product = net.node("Transpose", net.node("MatMul", x, net.init(net.draw(6, 4))), perm=[0, 2, 1])
    convolved = net.conv(net.node("Transpose", x, perm=[0, 2, 1]), 6, 4, (1,))
    terms = (product, convolved) if first else (convolved, product)
    net.output(net.bn(net.node("Add", *terms), 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model).count("Add") == 1, "the sum alone"


def test_a_layer_behind_has_a_bias_where_the_one_before_would_gain_an_add() -> None:
    net = Net()
    y = net.node("MatMul", net.input("x", 2, 5, 6), net.init(net.draw(6, 4)))
    y = net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 4, name="bn")
    net.output(net.conv(y, 4, 3, (1,)))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["MatMul", "Transpose", "Conv"]
    assert result.folds[0].direction == "forward"


def test_not_where_the_one_behind_cannot() -> None:
    net = Net()
    y = net.node("MatMul", net.input("x", 2, 5, 6), net.init(net.draw(6, 4)))
    y = net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 4, name="bn")
    net.output(net.conv(y, 4, 3, (3,), pads=[1, 1]))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["MatMul", "Add", "Transpose", "Conv"]


def test_a_bias_of_its_own_costs_nothing() -> None:
    """The Conv computes more than the normalization has elements, and gains a bias all the same."""
    net = Net()
    y = net.node("GlobalAveragePool", net.conv(net.input("x", 1, 3, 9, 9), 3, 4, name="conv"))
    net.output(net.bn(y, 4, name="bn"))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv", "GlobalAveragePool"]


def test_a_dequantizer_of_its_own_is_a_node_and_no_more() -> None:
    """The weight is larger than the tensor that is normalized."""
    net = Net()
    w = dequantized(net, integers(net, 4, 30, 3, 3), scale=0.01)
    for number in range(2):
        y = net.conv(net.input(f"x{number}", 1, 30, 3, 3), 30, 4, weight=w, name=f"conv{number}")
        net.output(y if number else net.bn(y, 4, name="bn", stats=positive(4)))
    assert ops(expect(net.model(), folded={"bn"}).model).count("DequantizeLinear") == 2


def test_no_changes_are_no_work() -> None:
    assert more_work((), None) is None  # type: ignore[arg-type]  # nothing to look up
