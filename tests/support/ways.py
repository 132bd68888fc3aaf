"""One operator between weights and a normalization, in both orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from support.build import FLOAT, Net

Step = Callable[[Net, str], str]
Stats = Mapping[str, Any]
Maker = Callable[[int], Stats]  # of as many channels


def positive(channels: int) -> Stats:
    """A positive scale and any shift."""
    return {"scale": np.linspace(0.5, 1.5, channels)}


def scaling(channels: int) -> Stats:
    """A positive scale and no shift."""
    return {**positive(channels), "bias": np.zeros(channels), "mean": np.zeros(channels)}


def turning(channels: int) -> Stats:
    """A scale of both signs and no shift."""
    return {**scaling(channels), "scale": np.linspace(-1.0, 1.5, channels)}


def negative_in_one(channels: int) -> Stats:
    """As `positive`, but for the last channel."""
    return {"scale": np.append(np.linspace(0.5, 1.5, channels - 1), -0.5)}


def shifting_in_one(channels: int) -> Stats:
    """As `scaling`, but for the last channel."""
    return {**scaling(channels), "bias": np.append(np.zeros(channels - 1), 0.25)}


def uniform(channels: int, scale: float = 0.75, bias: float = 0.5, mean: float = -0.25) -> Stats:
    """The same map for every channel."""
    values = {"scale": scale, "bias": bias, "mean": mean, "var": 0.5}
    return {name: np.full(channels, value) for name, value in values.items()}


def zero_in_one(channels: int) -> Stats:
    """No shift, and channel 0 disappears."""
    return {**scaling(channels), "scale": np.append(0.0, np.linspace(0.5, 1.5, channels - 1))}


def linear(net: Net, x: str, channels: int, out: int, rank: int, *, name: str = "linear") -> str:
    """A layer that takes any map in, from either side: a Conv with one tap, or a Gemm."""
    if rank == 2:
        return net.node("Gemm", x, net.init(net.draw(channels, out)), net.init(net.draw(out)), name=name)
    return net.conv(x, channels, out, (1,) * (rank - 2), name=name)


def backward(
    step: Step,
    size: Sequence[int | str],
    behind: Sequence[int],
    *,
    stats: Stats | None = None,
    opset: int = 17,
    elem: int = FLOAT,
) -> Net:
    """A layer, `step` on a tensor of shape `size`, and a normalization of its result of shape `behind`."""
    net = Net(opset, elem=elem)
    channels = size[1]
    assert isinstance(channels, int)
    x = net.input("x", size[0], 3, *size[2:])
    y = step(net, linear(net, x, 3, channels, len(size)))
    net.output(net.bn(y, behind[1], name="bn", stats=stats), shape=(None,) * len(behind))
    return net


def forward(
    step: Step,
    size: Sequence[int | str],
    behind: Sequence[int],
    *,
    stats: Stats | None = None,
    opset: int = 17,
    elem: int = FLOAT,
) -> Net:
    """A normalization, `step` on its result, and a layer that reads what comes out, of shape `behind`.

    An Identity comes first: what stops the map forward then lies deeper than the graph input, which stops it
    backward, and is the reason reported.
    """
    net = Net(opset, elem=elem)
    channels = size[1]
    assert isinstance(channels, int)
    y = net.bn(net.input("x", *size), channels, name="bn", stats=stats)
    y = step(net, net.node("Identity", y, name="first"))
    net.output(linear(net, y, behind[1], 3, len(behind)), shape=(None,) * len(behind))
    return net


BOTH = {"backward": backward, "forward": forward}
