"""InstanceNormalization, GroupNormalization and LayerNormalization: a scale and a bias of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import NEWEST, Net, feeds
from support.claims import expect, ops, same_function
from support.ways import turning

import bnfold

Shape = tuple[int, ...]
SIZE = (2, 4, 3, 5)


def normalized(
    net: Net,
    op: str,
    size: Shape,
    parameters: int,
    *,
    bias: bool = True,
    move: list[int] | None = None,
    **attrs: Any,  # noqa: ANN401 - attributes
) -> Net:
    x = net.input("x", *size)
    operands = [net.init(net.draw(parameters), "gamma")] + (
        [net.init(net.draw(parameters), "beta")] if bias else []
    )
    y = net.node(op, x, *operands, name="norm", **attrs)
    y = y if move is None else net.node("Transpose", y, perm=move)
    channels = size[1] if move is None else size[move[1]]
    net.output(net.bn(y, channels, name="bn"), shape=(None,) * len(size))
    return net


@pytest.mark.parametrize("opset", [6, 13, 22])
@pytest.mark.parametrize("size", [(2, 4, 5), SIZE, (1, 4, 2, 3, 2)], ids=len)
def test_instance_normalization(size: Shape, opset: int) -> None:
    result = expect(normalized(Net(opset), "InstanceNormalization", size, 4).model(), folded={"bn"})
    assert ops(result.model) == ["InstanceNormalization"]
    assert result.folds[0].into == ("norm",)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("opset", [21, NEWEST])
def test_group_normalization(opset: int, groups: int) -> None:
    net = normalized(Net(opset), "GroupNormalization", SIZE, 4, num_groups=groups)
    assert ops(expect(net.model(), folded={"bn"}).model) == ["GroupNormalization"]


@pytest.mark.parametrize(("groups", "kept"), [(4, {}), (2, {"bn": "BNF023"})])
def test_group_normalization_whose_parameters_belong_to_groups(groups: int, kept: dict[str, str]) -> None:
    """Up to opset 20; where each channel is a group of its own they belong to channels all the same."""
    model = normalized(Net(18), "GroupNormalization", SIZE, groups, num_groups=groups).model()
    # The checker calls this version deprecated and takes no model with it; exporters wrote some.
    result = bnfold.optimize(model, verify=False)
    assert {r.node: str(r.code) for r in result.kept} == kept
    assert [f.node for f in result.folds] == ([] if kept else ["bn"])
    same_function(model, result.model, feeds(model), {"norm"})


def test_group_normalization_moved_away() -> None:
    net = normalized(Net(21), "GroupNormalization", (2, 4, 4, 4), 4, move=[0, 2, 3, 1], num_groups=2)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("axis", "size"), [(-1, (3, 4)), (1, (3, 4)), (None, (3, 4))])
def test_layer_normalization_of_features(axis: int | None, size: Shape, bias: bool) -> None:
    attrs: dict[str, Any] = {} if axis is None else {"axis": axis}
    expect(normalized(Net(17), "LayerNormalization", size, 4, bias=bias, **attrs).model(), folded={"bn"})


@pytest.mark.parametrize("bias", [True, False])
def test_layer_normalization_channels_last(bias: bool) -> None:
    """ConvNeXt: the normalized axis is the last one there, and axis 1 after the Transpose."""
    net = normalized(Net(17), "LayerNormalization", (2, 3, 5, 4), 4, bias=bias, move=[0, 3, 1, 2])
    expect(net.model(), folded={"bn"})


def test_layer_normalization_along_another_axis() -> None:
    """As many entries as channels, but along the width."""
    net = normalized(Net(17), "LayerNormalization", (2, 4, 4, 4), 4)
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_layer_normalization_over_several_axes() -> None:
    net = Net(17)
    x = net.input("x", 2, 4, 5)
    y = net.node("LayerNormalization", x, net.init(net.draw(4, 5)), net.init(net.draw(4, 5)), axis=1)
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_instance_normalization_moved_away() -> None:
    net = normalized(Net(17), "InstanceNormalization", (2, 4, 4, 4), 4, move=[0, 2, 3, 1])
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_parameters_that_are_computed() -> None:
    for which in ("gamma", "beta"):
        net = Net(17)
        operands = [net.input(n, 4) if n == which else net.init(net.draw(4)) for n in ("gamma", "beta")]
        y = net.node("InstanceNormalization", net.input("x", *SIZE), *operands)
        net.output(net.bn(y, 4, name="bn"))
        expect(net.model(), folded=set(), kept={"bn": "BNF012"})


def test_statistics_that_are_read() -> None:
    """The mean of a LayerNormalization is not touched by what comes after its bias."""
    net = Net(17)
    x = net.input("x", 3, 4)
    net.node(
        "LayerNormalization", x, net.init(net.draw(4)), net.init(net.draw(4)), out=["y", "mean"], name="norm"
    )
    net.output("mean", net.bn("y", 4, name="bn"))
    given = {"x": np.ones((3, 4), np.float32)}
    expect(net.model(), folded={"bn"}, values=False, feeds=given, runtime=False)


@pytest.mark.parametrize("op", ["InstanceNormalization", "LayerNormalization", "GroupNormalization"])
def test_no_map_goes_forward_into_them(op: str) -> None:
    """They would undo most of it, but not what epsilon does."""
    net = Net(21)
    y = net.node("Identity", net.bn(net.input("x", 2, 4, 5), 4, name="bn", stats=turning(4)))
    size = 5 if op == "LayerNormalization" else 4
    attrs: dict[str, Any] = {"num_groups": 4} if op == "GroupNormalization" else {}
    y = net.node(op, y, net.init(net.draw(size)), net.init(net.draw(size)), **attrs)
    net.output(y, shape=(2, 4, 5))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})
