"""Cast between floating-point types: no map may meet a type too narrow for its values."""

from __future__ import annotations

import pytest
from support.build import BFLOAT16, DOUBLE, FLOAT, FLOAT16, Net
from support.claims import expect, ops
from support.ways import linear

NAMES: dict[int, str] = {FLOAT16: "fp16", BFLOAT16: "bf16", FLOAT: "fp32", DOUBLE: "fp64"}
TYPES = tuple(NAMES)
# Exponent bits and bits of the mantissa.
REACH: dict[int, int] = {FLOAT16: 5, BFLOAT16: 8, FLOAT: 8, DOUBLE: 11}
GRAIN: dict[int, int] = {FLOAT16: 10, BFLOAT16: 7, FLOAT: 23, DOUBLE: 52}

pairs = pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a in TYPES for b in TYPES], ids=lambda t: NAMES.get(t, str(t))
)


def cast(net: Net, x: str, to: int) -> str:
    net.elem = to
    return net.node("Cast", x, to=to, name="cast")


@pairs
def test_backward_the_layer_must_reach_as_far_as_the_normalization(first: int, second: int) -> None:
    net = Net(elem=first)
    y = cast(net, linear(net, net.input("x", 2, 3, 4, 4), 3, 4, 4), second)
    net.output(net.bn(y, 4, name="bn"))
    kept = {} if REACH[first] >= REACH[second] else {"bn": "BNF016"}
    result = expect(net.model(), folded={"bn"} - set(kept), kept=kept)
    assert "Cast" in ops(result.model)


@pairs
def test_forward_the_layer_must_be_as_wide_as_the_normalization(first: int, second: int) -> None:
    net = Net(elem=first)
    y = net.node("Identity", net.bn(net.input("x", 2, 3, 4, 4), 3, name="bn"))
    net.output(linear(net, cast(net, y, second), 3, 4, 4))
    wide = REACH[first] <= REACH[second] and GRAIN[first] <= GRAIN[second]
    kept = {} if wide else {"bn": "BNF016"}
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@pytest.mark.parametrize("opset", [7, 9, 13, 19, 21])
def test_every_version(opset: int) -> None:
    net = Net(opset, elem=FLOAT)
    y = cast(net, linear(net, net.input("x", 2, 3, 4, 4), 3, 4, 4), FLOAT16)
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("to", [6, 7, 3, 9], ids=["int32", "int64", "int8", "bool"])
def test_integers_do_not_carry_a_map(to: int) -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 3, 4, 4), 3, name="bn"))
    y = net.node("Cast", net.node("Cast", y, to=to, name="cast"), to=FLOAT)
    net.output(linear(net, y, 3, 4, 4))
    result = expect(net.model(), folded=set(), kept={"bn": "BNF016"})
    assert result.kept[0].reason.blocking == "cast"


def test_there_and_back() -> None:
    """Narrow in between: forward the raw values would have to pass through it."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 3, 4, 4), 3, name="bn"))
    y = net.node("Cast", net.node("Cast", y, to=FLOAT16), to=FLOAT)
    net.output(linear(net, y, 3, 4, 4))
    # The runtime rounds in between as nothing in the model's own types tells.
    expect(net.model(), folded=set(), kept={"bn": "BNF016"}, runtime=False)
    net = Net(elem=FLOAT16)
    y = net.node("Cast", net.bn(net.input("x", 2, 3, 4, 4), 3, name="bn"), to=FLOAT)
    net.elem = FLOAT
    net.output(linear(net, y, 3, 4, 4))
    expect(net.model(), folded={"bn"})
