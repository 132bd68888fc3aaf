"""Add, Sub, Mul and Div: by a constant they dissolve, of two branches they spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import Net
from support.claims import expect, ops
from support.ways import BOTH, linear, positive, scaling, turning, uniform

Shape = tuple[int, ...]
SIZE = (2, 4, 3, 5)
OPS = ("Add", "Sub", "Mul", "Div")
CHANNEL = {
    "scalar": (),
    "[1]": (1,),
    "[C,1,1]": (4, 1, 1),
    "[1,C,1,1]": (1, 4, 1, 1),
    "[1,1,1,1]": (1, 1, 1, 1),
}
directions = pytest.mark.parametrize("direction", BOTH)


def by_constant(op: str, shape: Shape, *, first: bool = False) -> Any:  # noqa: ANN401 - a step
    def step(net: Net, x: str) -> str:
        c = net.init(net.draw(*shape, low=0.5, high=1.5) * net.rng.choice([-1.0, 1.0], shape))
        return net.node(op, c, x, name="step") if first else net.node(op, x, c, name="step")

    return step


# --- constants --------------------------------------------------------------------------------------------


@directions
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", CHANNEL)
@pytest.mark.parametrize("op", OPS)
def test_a_constant_per_channel_goes_with_the_map(direction: str, op: str, shape: str, first: bool) -> None:
    net = BOTH[direction](by_constant(op, CHANNEL[shape], first=first), SIZE, SIZE)
    if op == "Div" and first:
        expect(net.model(), folded=set(), kept={"bn": "BNF019"})
        return
    result = expect(net.model(), folded={"bn"})
    assert op not in ops(result.model)


@directions
@pytest.mark.parametrize("op", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(5,), (3, 1), (4, 3, 5), (2, 1, 1, 1)])
def test_a_factor_along_another_axis(direction: str, op: str, shape: Shape) -> None:
    net = BOTH[direction](by_constant(op, shape), SIZE, SIZE)
    several = sum(size > 1 for size in shape) > 1
    expect(net.model(), folded=set(), kept={"bn": "BNF019" if several else "BNF023"})


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 4, 3, 5), (1, 4, 1, 5)])
def test_a_term_that_differs_from_place_to_place_stays_scaled(op: str, shape: Shape, first: bool) -> None:
    net = BOTH["backward"](by_constant(op, shape, first=first), SIZE, SIZE)
    result = expect(net.model(), folded={"bn"})
    assert op in ops(result.model)


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("shape", [(5,), (4, 3, 5), (1, 1, 3, 5)])
def test_a_term_without_the_axis_of_the_channels(op: str, shape: Shape) -> None:
    """It would have to be different for each channel once it is scaled."""
    net = BOTH["backward"](by_constant(op, shape), SIZE, SIZE)
    several = sum(size > 1 for size in shape) > 1
    expect(net.model(), folded=set(), kept={"bn": "BNF019" if several else "BNF023"})


@directions
def test_a_factor_of_zero(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Mul", x, net.init(np.array([1.0, 0.0, -2.0, 0.5]).reshape(4, 1, 1)))

    expect(BOTH[direction](step, SIZE, SIZE).model(), folded={"bn"})


@directions
def test_a_division_by_zero(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Div", x, net.init(np.array([1.0, 0.0, -2.0, 0.5]).reshape(4, 1, 1)))

    expect(BOTH[direction](step, SIZE, SIZE).model(), folded=set(), kept={"bn": "BNF020"})


@directions
def test_a_constant_that_widens_the_tensor(direction: str) -> None:
    """The batch of one becomes two: without the constant the shape would be another, so it has to stay."""
    net = BOTH[direction](by_constant("Add", (2, 4, 1, 1)), (1, 4, 3, 5), SIZE)
    if direction == "backward":
        assert "Add" in ops(expect(net.model(), folded={"bn"}).model)
    else:
        expect(net.model(), folded=set(), kept={"bn": "BNF019"})


@directions
def test_a_chain_of_constants(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        for op in ("Mul", "Add", "Sub", "Div", "Mul"):
            x = net.node(op, x, net.init(net.draw(4, 1, 1, low=0.5, high=1.5)))
        return x

    result = expect(BOTH[direction](step, SIZE, SIZE).model(), folded={"bn"})
    assert len(ops(result.model)) <= 2


@directions
@pytest.mark.parametrize("opset", [6, 7, 13, 14])
def test_every_version(direction: str, opset: int) -> None:
    def step(net: Net, x: str) -> str:
        attrs: dict[str, Any] = {"broadcast": 1, "axis": 1} if opset < 7 else {}
        shape = (4,) if opset < 7 else (4, 1, 1)
        return net.node("Mul", x, net.init(net.draw(*shape)), **attrs)

    expect(BOTH[direction](step, SIZE, SIZE, opset=opset).model(), folded={"bn"})


@directions
def test_channels_last(direction: str) -> None:
    """A bias as tf2onnx writes it: the last axis has the channels."""

    def step(net: Net, x: str) -> str:
        y = net.node("Transpose", x, perm=[0, 2, 3, 1])
        y = net.node("Add", y, net.init(net.draw(4)))
        return net.node("Transpose", y, perm=[0, 3, 1, 2])

    result = expect(BOTH[direction](step, (4, 4, 4, 4), (4, 4, 4, 4)).model(), folded={"bn"})
    assert "Add" not in ops(result.model)


@directions
def test_a_constant_of_a_padded_convolution(direction: str) -> None:
    """What is added before a padded Conv is a shift too."""
    if direction == "backward":
        return
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="bn", stats=scaling(4))
    y = net.node("Add", y, net.init(net.draw(4, 1, 1)))
    net.output(net.conv(y, 4, 3, pads=[1, 1, 1, 1]))
    expect(net.model(), folded=set(), kept={"bn": "BNF014"})


# --- sums of branches -------------------------------------------------------------------------------------


def summed(op: str, one: str | None, other: str | None, stats: Any = None, size: Shape = SIZE) -> Net:  # noqa: ANN401 - statistics
    """A sum of two layers, each perhaps behind an activation, and a normalization."""
    net = Net()
    terms = []
    for i, kind in enumerate((one, other)):
        y = linear(net, net.input(f"x{i}", size[0], 3, *size[2:]), 3, 4, len(size), name=f"branch{i}")
        terms.append(y if kind is None else net.node(kind, y, name=f"bend{i}"))
    net.output(net.bn(net.node(op, *terms, name="sum"), 4, name="bn", stats=stats))
    return net


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("size", [(2, 4), (2, 4, 3), SIZE], ids=len)
def test_both_branches_are_scaled_and_one_is_shifted(op: str, size: Shape) -> None:
    result = expect(summed(op, None, None, size=size).model(), folded={"bn"})
    assert result.folds[0].into == ("branch0", "branch1")
    assert result.folds[0].through == ("sum",)


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize(("one", "other"), [("Relu", None), (None, "Relu")])
def test_the_shift_goes_where_it_can(op: str, one: str | None, other: str | None) -> None:
    expect(summed(op, one, other, positive(4)).model(), folded={"bn"})
    expect(summed(op, one, other, turning(4)).model(), folded=set(), kept={"bn": "BNF018"})


@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_the_shift_has_nowhere_to_go(op: str) -> None:
    expect(summed(op, "Relu", "Relu", positive(4)).model(), folded=set(), kept={"bn": "BNF018"})
    expect(summed(op, "Relu", "Relu", scaling(4)).model(), folded={"bn"})


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_product_of_branches(op: str) -> None:
    expect(summed(op, None, "Sigmoid").model(), folded=set(), kept={"bn": "BNF019"})


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 1, 5), (1, 4, 3, 5)])
def test_a_term_that_is_broadcast_over_positions(op: str, shape: Shape) -> None:
    net = Net()
    y = linear(net, net.input("x", 2, 3, 3, 5), 3, 4, 4)
    z = linear(net, net.input("z", shape[0], 3, *shape[2:]), 3, 4, 4, name="small")
    net.output(net.bn(net.node(op, y, z), 4, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("op", ["Add", "Sub"])
@pytest.mark.parametrize("shape", [(2, 1, 3, 5), (1, 1, 1, 1)])
def test_a_term_that_is_broadcast_over_the_channels(op: str, shape: Shape) -> None:
    net = Net()
    y = linear(net, net.input("x", 2, 3, 3, 5), 3, 4, 4)
    z = linear(net, net.input("z", shape[0], 3, *shape[2:]), 3, 1, 4, name="small")
    net.output(net.bn(net.node(op, y, z), 4, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_a_residual_with_one_product_without_a_bias() -> None:
    """The shift goes to the term that has a bias already, or one is added in the place of the BN."""
    for order in (0, 1):
        net = Net()
        x = net.input("x", 2, 3, 4)
        bare, product = (net.node("MatMul", x, net.init(net.draw(4, 4)), name=n) for n in ("bare", "product"))
        terms = [bare, net.node("Add", product, net.init(net.draw(4)))]
        y = net.node("Add", *terms[:: 1 - 2 * order])
        net.output(net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 4, name="bn"))
        result = expect(net.model(), folded={"bn"})
        assert set(result.folds[0].into) == {"bare", "product"}
        assert len(ops(result.model)) <= len(net.nodes)


def test_a_residual_of_which_one_term_has_its_channels_elsewhere() -> None:
    """The product has the features last, the Conv its channels first; there are as many of both."""
    net = Net()
    x = net.input("x", 2, 4, 4)
    y = net.node(
        "Add", net.node("MatMul", x, net.init(net.draw(4, 4))), linear(net, x, 4, 4, 3, name="layer")
    )
    net.output(net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 4, name="bn"))
    result = expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    assert result.kept[0].reason.blocking == "layer"


def test_a_residual_that_is_an_input() -> None:
    net = Net()
    x = net.input("x", *SIZE)
    y = net.node("Add", net.node("Relu", linear(net, x, 4, 4, 4)), x)
    net.output(net.bn(y, 4, name="bn", stats=scaling(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_forward_into_a_sum() -> None:
    """The other term would have to be changed as well."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", *SIZE), 4, name="bn"))
    y = net.node("Add", y, net.input("other", *SIZE))
    net.output(linear(net, y, 4, 3, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


@directions
def test_a_uniform_map_and_a_constant_of_any_axis(direction: str) -> None:
    """One channel: what goes along another axis is composed, and that is none of the weights."""
    net = BOTH[direction](by_constant("Mul", (5,)), (2, 1, 3, 5), (2, 1, 3, 5), stats=uniform(1))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


# --- terms that are both normalized -----------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_forward_terms_of_one_normalization(op: str) -> None:
    """`s a + t` and `s b + t`: the shift counts twice, or not at all."""
    net = Net()
    y = net.bn(net.input("x", 2, 3, 6, 6), 3, name="bn", stats=positive(3))
    pooled = net.node("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4)
    net.output(linear(net, net.node(op, pooled, net.node("Identity", y)), 3, 2, 4))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_forward_terms_that_are_not_summed(op: str) -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 3, 6, 6), 3, name="bn", stats=positive(3))
    net.output(linear(net, net.node(op, y, net.node("Identity", y)), 3, 2, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_forward_terms_that_are_scaled_differently() -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 3, 6, 6), 3, name="bn")
    z = net.node("Gather", y, net.init([2, 0, 1], elem=7), axis=1)
    net.output(linear(net, net.node("Add", y, z), 3, 2, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_forward_a_term_that_is_broadcast() -> None:
    """A mean over the positions has all channels; one of another rank has them elsewhere."""
    net = Net()
    y = net.bn(net.input("x", 2, 3, 6, 6), 3, name="bn")
    net.output(linear(net, net.node("Sub", y, net.node("GlobalAveragePool", y)), 3, 2, 4))
    expect(net.model(), folded={"bn"})
    net = Net()
    y = net.bn(net.input("x", 3, 3, 3, 3), 3, name="bn")
    z = net.node("ReduceMean", y, axes=[0], keepdims=0)
    net.output(linear(net, net.node("Sub", y, z), 3, 2, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_forward_terms_with_constants_between() -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 3, 6, 6), 3, name="bn")
    z = net.node("Add", y, net.init(net.draw(3, 1, 1)))
    net.output(linear(net, net.node("Sub", net.node("Sub", z, net.init(0.25)), y), 3, 2, 4))
    expect(net.model(), folded={"bn"})


def test_a_sum_whose_terms_have_their_channels_in_different_places() -> None:
    """Both count from the front, but a sum aligns from the back: axis 1 of three is axis 2 of four."""
    net = Net(17)
    y = net.bn(net.input("x", 2, 4, 4, 4), 4, name="bn", stats={"scale": np.ones(4), "var": np.ones(4)})
    mean = net.node("ReduceMean", y, axes=[0], keepdims=0)
    turned = net.node("Transpose", mean, perm=[1, 0, 2])
    net.output(net.conv(net.node("Add", y, turned), 4, 3), shape=[2, 3, 2, 2])
    expect(net.model(), folded=set(), kept={"bn": {"BNF019"}})
