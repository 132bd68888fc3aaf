"""What the plan decides beyond single operators."""

from __future__ import annotations

import numpy as np
import pytest
from support.build import Net
from support.claims import expect, ops

import bnfold
from bnfold.errors import ModelError


@pytest.mark.parametrize(("ratio", "folds"), [(60.0, True), (70.0, False)])
def test_a_mean_that_dwarfs_the_deviation_is_not_moved_behind_the_weights(ratio: float, folds: bool) -> None:
    """float32 has 24 digits; a quarter of them is a factor of 64."""
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    stats = {"mean": np.array([0.0, 2.0 * ratio, 0.0]), "var": np.full(3, 4.0), "scale": np.ones(3)}
    net.output(net.conv(net.bn(x, 3, name="bn", stats=stats), 3, 4), shape=[1, 4, 4, 4])
    if folds:
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), kept={"bn": "BNF026"})


def test_the_same_mean_behind_the_weights_is_no_obstacle() -> None:
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    stats = {"mean": np.full(4, 1000.0), "var": np.ones(4), "scale": np.ones(4)}
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats=stats), shape=[1, 4, 4, 4])
    expect(net.model(), folded={"bn"})


def test_who_asks_for_the_shape_alone_is_no_second_consumer() -> None:
    """PyTorch reads the shape of a Linear's output to flatten it (LeViT)."""
    net = Net(17)
    y = net.node("Gemm", net.input("x", 2, 3), net.init(net.draw(3, 4)), name="linear")
    shape = net.node("Shape", y)
    net.output(net.node("Reshape", net.bn(y, 4, name="bn"), shape), shape=[2, 4])
    expect(net.model(), folded={"bn"})


def test_the_shape_of_a_normalization_that_goes_forward() -> None:
    net = Net(17)
    y = net.bn(net.input("x", 2, 3), 3, name="bn")
    z = net.node("Gemm", y, net.init(net.draw(3, 4)))
    net.output(net.node("Cast", net.node("Shape", y), to=1), z, shape=[2])
    model = net.model()
    model.graph.output[1].type.tensor_type.shape.dim.add(dim_value=4)
    expect(model, folded={"bn"})


def test_a_normalization_behind_a_sum_of_branches_waits_until_they_are_one() -> None:
    """RepViT: bn(conv3(x) + conv1(x) + x)."""
    net = Net(17)
    x = net.input("x", 1, 4, 6, 6)
    wide = net.bn(net.node("Conv", x, net.init(net.draw(4, 1, 3, 3)), group=4, pads=[1] * 4), 4, name="inner")
    point = net.node("Conv", x, net.init(net.draw(4, 1, 1, 1)), group=4)
    total = net.node("Add", net.node("Add", wide, point), x)
    net.output(net.bn(total, 4, name="outer"), shape=[1, 4, 6, 6])
    result = expect(net.model(), folded={"inner", "outer"})
    assert len(result.model.graph.node) == 1


def test_a_further_output_of_an_operator_that_could_take_the_map_in() -> None:
    """LayerNormalization scales its first output alone; the mean it also returns is another tensor."""
    net = Net(17)
    x = net.input("x", 2, 3)
    net.node("LayerNormalization", x, net.init(net.draw(3)), out=["y", "average"])
    net.output(net.node("Relu", "y"), net.bn("average", 1, name="bn"), shape=[2, 3])
    (refusal,) = bnfold.optimize(net.model(), verify=False).kept
    assert refusal.code == "BNF019"


@pytest.mark.parametrize("which", ["bias", "mean", "var"])
def test_one_statistic_for_all_channels_is_no_model(which: str) -> None:
    """NumPy would stretch it without a word. Behind another node nobody sees it before the fold."""
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    y = net.bn(net.conv(x, 3, 4), 4, name="bn", stats={which: net.node("Identity", net.init(np.ones(1)))})
    net.output(y, shape=[1, 4, 4, 4])
    with pytest.raises(ModelError, match=r"'bn': scale, bias, mean and variance differ in length"):
        bnfold.optimize(net.model(), verify=False)


@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_bias_gained_forward_spells_out_a_normalization_with_the_scale_behind_it(op: str) -> None:
    """A second run would fold it, and nothing may be left for a second run."""
    net = Net(17)
    y = net.bn(net.input("x", 2, 3, 5), 3, name="bn")
    y = net.node("MatMul", net.init(net.draw(2, 3)), y)
    net.output(net.node(op, y, net.init(net.draw(2, 1, low=0.5, high=2.0)), name="behind"), shape=[2, 2, 5])
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["MatMul", "Add"]
    assert [f.node for f in result.folds] == ["bn", "behind"]
    assert not bnfold.optimize(result.model, verify=False).folds


def test_a_normalization_that_another_has_turned_around_is_asked_again() -> None:
    """Two negative scales make a positive one, which passes a maximum."""
    net = Net(17)
    y = net.bn(net.input("x", 2, 3, 4, 4), 3, name="first", stats={"scale": np.ones(3)})
    y = net.node("MaxPool", y, kernel_shape=[2, 2])
    y = net.bn(y, 3, name="second", stats={"scale": -np.ones(3)})
    y = net.node("Identity", y)
    net.output(net.bn(y, 3, name="third", stats={"scale": -np.ones(3)}), shape=[2, 3, 3, 3])
    expect(net.model(), folded={"second", "third"})
