"""A BatchNormalization that stays takes the map of another in, from either side."""

from __future__ import annotations

import numpy as np
import pytest
from support.build import Net
from support.claims import BN, expect, initializers, ops
from support.ways import Stats, positive, turning

SIZE = (2, 4, 3, 5)


def test_two_in_a_row_become_one() -> None:
    net = Net()
    y = net.node("Sigmoid", net.input("x", *SIZE))
    net.output(net.bn(net.bn(y, 4, name="first"), 4, name="second"))
    result = expect(net.model(), folded={"second"}, kept={"first": "BNF019"})
    assert ops(result.model) == ["Sigmoid", BN]
    assert (result.folds[0].into, result.folds[0].direction) == (("first",), "backward")


def test_mean_variance_and_epsilon_stay() -> None:
    net = Net()
    names = {"scale": "g", "bias": "b", "mean": "m", "var": "v"}
    first = {key: net.init(net.draw(4, low=0.5, high=2.0), name) for key, name in names.items()}
    y = net.bn(net.input("x", *SIZE), 4, name="first", stats=first, epsilon=0.25)
    net.output(net.bn(y, 4, name="second"))
    before, after = initializers(net.model()), initializers(expect(net.model(), folded={"second"}).model)
    assert {
        name for name, value in before.items() if name in after and np.array_equal(value, after[name])
    } == {"m", "v"}


@pytest.mark.parametrize("stats", [positive(4), turning(4)])
def test_through_a_pool_backward(stats: Stats) -> None:
    net = Net()
    y = net.node("AveragePool", net.bn(net.input("x", *SIZE), 4, name="first"), kernel_shape=[2, 2])
    net.output(net.bn(y, 4, name="second", stats=stats))
    expect(net.model(), folded={"second"}, kept={"first": "BNF019"})


def test_forward_into_one_that_nothing_else_takes() -> None:
    """The maximum lets the first through, but not the second, whose scale is negative."""
    net = Net()
    y = net.node(
        "MaxPool", net.bn(net.input("x", *SIZE), 4, name="first", stats=positive(4)), kernel_shape=[2, 2]
    )
    net.output(net.node("Sigmoid", net.bn(y, 4, name="second", stats={"scale": -np.ones(4)})))
    result = expect(net.model(), folded={"first"}, kept={"second": "BNF019"})
    assert (result.folds[0].into, result.folds[0].direction) == (("second",), "forward")


def test_along_another_axis() -> None:
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 4, 4, 4), 4, name="first"), perm=[0, 2, 1])
    net.output(net.bn(y, 4, name="second"))
    expect(net.model(), folded=set(), kept={"first": "BNF023", "second": "BNF023"})


def test_one_in_training_mode_takes_nothing_in() -> None:
    net = Net()
    y = net.bn(
        net.bn(net.input("x", *SIZE), 4, name="first"), 4, name="second", out=["y", "m", "v"], training_mode=1
    )
    net.output(y)
    expect(net.model(), folded=set(), kept={"first": {"BNF013", "BNF019"}, "second": "BNF013"}, runtime=False)


def test_one_whose_statistics_are_computed() -> None:
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="first", stats={"bias": net.input("beta", 4)})
    net.output(net.bn(y, 4, name="second"))
    expect(net.model(), folded=set(), kept={"first": "BNF012", "second": "BNF012"})


def test_one_that_the_user_excluded_takes_another_in() -> None:
    net = Net()
    y = net.bn(net.conv(net.input("x", *SIZE), 4, 4), 4, name="first")
    net.output(net.bn(y, 4, name="second"))
    expect(net.model(), folded={"second"}, kept={"first": "BNF024"}, exclude=("first",))


@pytest.mark.parametrize("direction", ["backward", "forward"])
def test_one_whose_parameters_another_reads_too(direction: str) -> None:
    """What takes the map in gets parameters of its own; the other's stay."""
    net = Net()
    shared = {"scale": net.init(net.draw(4), "g"), "bias": net.init(net.draw(4), "b")}
    x = net.input("x", *SIZE)
    if direction == "backward":
        y = net.bn(net.bn(net.node("Sigmoid", x), 4, name="takes", stats=shared), 4, name="gone")
    else:
        y = net.bn(x, 4, name="gone", stats=positive(4))
        # The second cannot come to the first: its scale is of both signs.
        y = net.bn(net.node("MaxPool", y, kernel_shape=[2, 2]), 4, name="takes", stats=shared)
    other = net.bn(net.node("Sigmoid", net.input("z", *SIZE)), 4, name="other", stats=shared)
    net.output(net.node("Sigmoid", y), net.node("Sigmoid", other))
    kept = {"takes": "BNF019", "other": "BNF019"}
    result = expect(net.model(), folded={"gone"}, kept=kept)
    before, after = initializers(net.model()), initializers(result.model)
    assert all(np.array_equal(before[name], after[name]) for name in ("g", "b"))
