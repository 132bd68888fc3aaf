"""Identity and Dropout at inference: nothing happens to the map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import NEWEST, Net
from support.claims import expect, ops
from support.ways import BOTH

SIZE = (2, 4, 3, 5)
BOOL = 9
directions = pytest.mark.parametrize("direction", BOTH)


@directions
@pytest.mark.parametrize("op", ["Identity", "Dropout"])
@pytest.mark.parametrize("size", [(2, 4), (2, 4, 3), SIZE, (1, 4, 2, 2, 2)], ids=len)
def test_any_rank(direction: str, op: str, size: tuple[int, ...]) -> None:
    result = expect(BOTH[direction](lambda net, x: net.node(op, x), size, size).model(), folded={"bn"})
    assert op in ops(result.model)


@directions
@pytest.mark.parametrize("opset", [6, 7, 10, 12, 13, NEWEST])
def test_every_version_of_dropout(direction: str, opset: int) -> None:
    def step(net: Net, x: str) -> str:
        if opset < 12:
            attrs: dict[str, Any] = {"is_test": 1} if opset < 7 else {}
            return net.node("Dropout", x, ratio=0.25, **attrs)
        return net.node("Dropout", x, net.init(0.25))

    expect(BOTH[direction](step, SIZE, SIZE, opset=opset).model(), folded={"bn"})


@directions
@pytest.mark.parametrize("training", [False, True])
def test_training_mode(direction: str, training: bool) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Dropout", x, net.init(0.25), net.init(np.array(training), elem=BOOL))

    kept = {"bn": "BNF013"} if training else {}
    net = BOTH[direction](step, SIZE, SIZE)
    expect(net.model(), folded={"bn"} - set(kept), kept=kept, runtime=not training)


@directions
def test_training_mode_of_opset_6(direction: str) -> None:
    net = BOTH[direction](lambda n, x: n.node("Dropout", x), SIZE, SIZE, opset=6)
    expect(net.model(), folded=set(), kept={"bn": "BNF013"}, runtime=False)


@directions
def test_a_mode_that_is_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Dropout", x, net.init(0.25), net.input("training", elem=BOOL))

    net = BOTH[direction](step, SIZE, SIZE)
    feeds = {
        "x": np.ones((2, 3 if direction == "backward" else 4, 3, 5), np.float32),
        "training": np.array(False),
    }
    expect(net.model(), folded=set(), kept={"bn": "BNF013"}, feeds=feeds)


@directions
@pytest.mark.parametrize("read", [False, True])
def test_the_mask(direction: str, read: bool) -> None:
    def step(net: Net, x: str) -> str:
        net.node("Dropout", x, out=["kept", "mask"])
        if read:
            net.output("mask", elem=BOOL)
        return "kept"

    kept = {"bn": "BNF019"} if read else {}
    expect(BOTH[direction](step, SIZE, SIZE).model(), folded={"bn"} - set(kept), kept=kept)
