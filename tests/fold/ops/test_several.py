"""Sum, Mean, Max and Min of several tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.build import Net
from support.claims import expect, ops
from support.ways import linear, negative_in_one, positive, scaling, turning, zero_in_one

if TYPE_CHECKING:
    from support.ways import Stats

ALL = ("Sum", "Mean", "Max", "Min")
EXTREMES = ("Max", "Min")
every = pytest.mark.parametrize("op", ALL)
extremes = pytest.mark.parametrize("op", EXTREMES)
counts = pytest.mark.parametrize("count", [1, 2, 3, 5])
SIZE = (2, 4, 3, 5)


def terms(net: Net, count: int, *, bends: int | None = None) -> list[str]:
    """Layers of one input; of those in `bends`, by place, a Relu that no shift passes."""
    x = net.input("x", 2, 3, 3, 5)
    made = [linear(net, x, 3, 4, 4, name=f"linear{i}") for i in range(count)]
    return [net.node("Relu", y) if bends is not None and i != bends else y for i, y in enumerate(made)]


def backward(op: str, count: int, stats: Stats | None = None, bends: int | None = None) -> Net:
    net = Net()
    joined = net.node(op, *terms(net, count, bends=bends), name="joined")
    net.output(net.bn(joined, 4, name="bn", stats=stats))
    return net


@every
@counts
@pytest.mark.parametrize("stats", [positive, scaling, zero_in_one])
def test_every_term_takes_its_part(op: str, count: int, stats: object) -> None:
    assert callable(stats)
    expect(backward(op, count, stats(4)).model(), folded={"bn"})


@pytest.mark.parametrize("op", ["Sum", "Mean"])
@pytest.mark.parametrize("stats", [turning, negative_in_one])
def test_a_negative_scale_passes_a_sum(op: str, stats: object) -> None:
    assert callable(stats)
    expect(backward(op, 3, stats(4)).model(), folded={"bn"})


@extremes
@pytest.mark.parametrize("stats", [turning, negative_in_one])
def test_a_negative_scale_does_not_pass_an_extreme(op: str, stats: object) -> None:
    assert callable(stats)
    expect(backward(op, 3, stats(4)).model(), folded=set(), kept={"bn": "BNF018"})


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_shift_of_a_sum_goes_where_it_can(place: int) -> None:
    expect(backward("Sum", 3, positive(4), bends=place).model(), folded={"bn"})


@pytest.mark.parametrize("op", ["Mean", "Max", "Min"])
def test_the_shift_of_all_others_goes_everywhere(op: str) -> None:
    net = backward(op, 3, positive(4), bends=1)
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})
    expect(backward(op, 3, scaling(4), bends=1).model(), folded={"bn"})


def test_the_shift_of_a_sum_has_nowhere_to_go() -> None:
    expect(backward("Sum", 3, positive(4), bends=9).model(), folded=set(), kept={"bn": "BNF018"})


@every
@pytest.mark.parametrize("place", [0, 2])
def test_a_constant_term(op: str, place: int) -> None:
    """It is rewritten: the constant of a sum is the term that is shifted first."""
    net = Net()
    made = terms(net, 2)
    made.insert(place, net.init(net.draw(1, 4, 1, 5)))
    net.output(net.bn(net.node(op, *made), 4, name="bn", stats=positive(4)))
    expect(net.model(), folded={"bn"})


@every
def test_a_term_without_the_channels(op: str) -> None:
    """It is broadcast to them, and cannot take what differs from channel to channel."""
    for shape in ((1, 1, 3, 5), (3, 5)):
        net = Net()
        made = [*terms(net, 2), net.init(net.draw(*shape))]
        net.output(net.bn(net.node(op, *made), 4, name="bn", stats=positive(4)))
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@every
def test_one_term_that_is_read_elsewhere(op: str) -> None:
    net = Net()
    made = terms(net, 3)
    net.output(net.bn(net.node(op, *made), 4, name="bn", stats=positive(4)), net.node("Sigmoid", made[1]))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


@every
def test_one_term_twice(op: str) -> None:
    net = Net()
    made = terms(net, 2)
    net.output(net.bn(net.node(op, made[0], made[1], made[0]), 4, name="bn", stats=positive(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


@every
def test_a_term_that_is_an_input(op: str) -> None:
    net = Net()
    made = [*terms(net, 2), net.input("z", *SIZE)]
    net.output(net.bn(net.node(op, *made), 4, name="bn", stats=positive(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


# --- forward ----------------------------------------------------------------------------------------------


def fans(op: str, *stages: str, stats: Stats | None = None) -> Net:
    """One normalization of which all terms are made, each by an operator."""
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="bn", stats=stats)
    made = [net.node(stage, y, name=f"stage{i}") for i, stage in enumerate(stages)]
    net.output(linear(net, net.node(op, *made, name="joined"), 4, 3, 4))
    return net


@every
def test_forward_all_terms(op: str) -> None:
    net = fans(op, "Identity", "Identity", "Identity", stats=positive(4))
    expect(net.model(), folded={"bn"})


@extremes
def test_forward_a_negative_scale(op: str) -> None:
    net = fans(op, "Identity", "Identity", stats=negative_in_one(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})


@extremes
def test_forward_terms_of_opposite_sign(op: str) -> None:
    net = fans(op, "Neg", "Identity", stats=positive(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})


@every
def test_forward_one_term_only(op: str) -> None:
    net = Net()
    x = net.input("x", *SIZE)
    y = net.node("Identity", net.bn(x, 4, name="bn", stats=positive(4)))
    net.output(linear(net, net.node(op, y, net.input("z", *SIZE)), 4, 3, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


@pytest.mark.parametrize("op", ["Sum", "Mean"])
def test_forward_different_shifts(op: str) -> None:
    """Sums in which the same normalization is found twice, once with a constant more."""
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="bn", stats=positive(4))
    more = net.node("Add", y, net.init(net.draw(4, 1, 1)))
    net.output(linear(net, net.node(op, more, net.node("Identity", y)), 4, 3, 4))
    expect(net.model(), folded={"bn"})


@extremes
def test_forward_different_shifts_of_an_extreme(op: str) -> None:
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="bn", stats=positive(4))
    more = net.node("Add", y, net.init(net.draw(4, 1, 1)))
    net.output(linear(net, net.node(op, more, net.node("Identity", y)), 4, 3, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


# --- many -------------------------------------------------------------------------------------------------


def test_a_sum_of_many_terms() -> None:
    """The first may refuse the shift; only so many are asked."""
    expect(backward("Sum", 40, positive(4), bends=3).model(), folded={"bn"})
    expect(backward("Sum", 40, positive(4), bends=30).model(), folded=set(), kept={"bn": "BNF018"})


def test_a_ladder_of_sums() -> None:
    net = Net()
    made = terms(net, 30)
    y = made[0]
    for one, other in zip(made[1::2], made[2::2], strict=False):
        y = net.node("Sum", y, one, other)
    net.output(net.bn(y, 4, name="bn", stats=positive(4)))
    assert "BatchNormalization" not in ops(expect(net.model(), folded={"bn"}).model)


# --- the opposite -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [6, 13])
def test_the_opposite_goes_with_the_map(opset: int) -> None:
    for first, last in (("Neg", "bn"), ("bn", "Neg")):
        net = Net(opset)
        y = linear(net, net.input("x", 2, 3, 4, 4), 3, 4, 4)
        for step in (first, last):
            y = net.bn(y, 4, name="bn") if step == "bn" else net.node("Neg", y)
        net.output(y)
        result = expect(net.model(), folded={"bn"})
        assert ops(result.model) == (["Conv"] if first == "Neg" else ["Conv", "Neg"])


def test_the_opposite_of_a_normalization_before_weights() -> None:
    net = Net()
    y = net.node("Neg", net.bn(net.input("x", 2, 4, 4, 4), 4, name="bn"))
    net.output(linear(net, y, 4, 3, 4))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv"]


def test_the_opposite_bends_a_rectifier() -> None:
    """`relu(-s x)` is no positive multiple of `relu(x)`."""
    net = Net()
    y = net.node("Relu", linear(net, net.input("x", 2, 3, 4, 4), 3, 4, 4))
    net.output(net.bn(net.node("Neg", y), 4, name="bn", stats=scaling(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})
    net = Net()
    y = net.node("Relu", linear(net, net.input("x", 2, 3, 4, 4), 3, 4, 4))
    stats = {**scaling(4), "scale": -np.linspace(0.5, 1.5, 4)}
    net.output(net.bn(net.node("Neg", y), 4, name="bn", stats=stats))
    expect(net.model(), folded={"bn"})
