"""Relu, LeakyRelu, PRelu and Clip: which maps pass a bend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.build import DOUBLE, FLOAT16, Attribute, Net, Numbers
from support.claims import expect, initializers, ops
from support.ways import (
    BOTH,
    Maker,
    Stats,
    negative_in_one,
    positive,
    scaling,
    shifting_in_one,
    turning,
    uniform,
    zero_in_one,
)

import bnfold

if TYPE_CHECKING:
    from onnx import ModelProto

SIZE = (2, 4, 3, 4)
directions = pytest.mark.parametrize("direction", BOTH)


def model(
    direction: str, op: str, stats: Stats, *slope: Numbers, opset: int = 17, **attrs: Attribute
) -> ModelProto:
    def step(net: Net, x: str) -> str:
        return net.node(op, x, *(net.init(s) for s in slope), name="bend", **attrs)

    return BOTH[direction](step, SIZE, SIZE, stats=stats, opset=opset).model()


# --- Relu and LeakyRelu -----------------------------------------------------------------------------------


@directions
@pytest.mark.parametrize(("op", "attrs"), [("Relu", {}), ("LeakyRelu", {}), ("LeakyRelu", {"alpha": -0.5})])
@pytest.mark.parametrize("stats", [scaling, zero_in_one])
def test_a_scale_passes_a_rectifier(direction: str, op: str, attrs: dict[str, Any], stats: Maker) -> None:
    result = expect(model(direction, op, stats(4), **attrs), folded={"bn"})
    assert "bend" in result.folds[0].through


@directions
@pytest.mark.parametrize("op", ["Relu", "LeakyRelu"])
@pytest.mark.parametrize("stats", [positive, shifting_in_one, turning, negative_in_one, uniform])
def test_a_shift_or_a_sign_does_not(direction: str, op: str, stats: Maker) -> None:
    expect(model(direction, op, stats(4)), folded=set(), kept={"bn": "BNF018"})


@directions
@pytest.mark.parametrize("opset", [7, 13, 14, 16])
def test_every_version_of_relu(direction: str, opset: int) -> None:
    expect(model(direction, "Relu", scaling(4), opset=opset), folded={"bn"})


# --- PRelu ------------------------------------------------------------------------------------------------

SLOPES: dict[str, Any] = {
    "scalar": 0.25,
    "[1]": np.array([0.25]),
    "[C,1,1]": np.array([0.5, 2.0, 0.25, 1.5]).reshape(4, 1, 1),
    "[1,C,1,1]": np.array([0.5, 2.0, 0.25, 1.5]).reshape(1, 4, 1, 1),
}


@directions
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("stats", [scaling, turning, zero_in_one])
def test_any_sign_passes_a_prelu_with_positive_slopes(direction: str, slope: str, stats: Maker) -> None:
    result = expect(model(direction, "PRelu", stats(4), SLOPES[slope]), folded={"bn"})
    assert sorted(set(ops(result.model)) - {"Identity"}) == ["Conv", "PRelu"]


@directions
def test_a_slope_is_inverted_where_the_scale_is_negative_and_only_there(direction: str) -> None:
    slope = np.array([0.5, 2.0, 0.25, 1.5]).reshape(4, 1, 1)
    result = expect(model(direction, "PRelu", turning(4), slope), folded={"bn"})
    (found,) = (w for w in initializers(result.model).values() if w.shape == (4, 1, 1))
    np.testing.assert_array_equal(found.reshape(-1), [2.0, 0.5, 0.25, 1.5])  # two scales are negative


@directions
def test_the_slope_may_be_negative_where_the_scale_is_not(direction: str) -> None:
    slope = np.array([0.5, 2.0, -0.25, 0.0]).reshape(4, 1, 1)
    expect(model(direction, "PRelu", turning(4), slope), folded={"bn"})
    expect(model(direction, "PRelu", scaling(4), -slope), folded={"bn"})


@directions
@pytest.mark.parametrize("bad", [0.0, -0.25])
def test_a_slope_that_is_not_positive_where_the_scale_is_negative(direction: str, bad: float) -> None:
    slope = np.array([0.5, bad, 0.25, 1.5]).reshape(4, 1, 1)
    expect(model(direction, "PRelu", turning(4), slope), folded=set(), kept={"bn": "BNF018"})


@directions
@pytest.mark.parametrize("stats", [positive, shifting_in_one])
def test_no_shift_passes_a_prelu(direction: str, stats: Maker) -> None:
    expect(model(direction, "PRelu", stats(4), SLOPES["scalar"]), folded=set(), kept={"bn": "BNF018"})


@directions
def test_a_slope_along_another_axis(direction: str) -> None:
    """The last axis has as many entries as there are channels; a positive scale does not care."""
    slope = np.array([0.5, 2.0, 0.25, 1.5])
    expect(model(direction, "PRelu", turning(4), slope), folded=set(), kept={"bn": "BNF018"})
    expect(model(direction, "PRelu", scaling(4), slope), folded={"bn"})


@directions
def test_a_slope_for_every_element(direction: str) -> None:
    slope = np.full((4, 3, 4), 0.5)
    expect(model(direction, "PRelu", turning(4), slope), folded=set(), kept={"bn": "BNF018"})
    expect(model(direction, "PRelu", scaling(4), slope), folded={"bn"})


@directions
def test_a_slope_that_is_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("PRelu", x, net.input("slope", 4, 1, 1), name="bend")

    net = BOTH[direction](step, SIZE, SIZE, stats=turning(4))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})
    net = BOTH[direction](step, SIZE, SIZE, stats=scaling(4))
    expect(net.model(), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [7, 9, 16, 22])
def test_every_version_of_prelu(direction: str, opset: int) -> None:
    expect(model(direction, "PRelu", turning(4), SLOPES["[C,1,1]"], opset=opset), folded={"bn"})


@directions
@pytest.mark.parametrize("slope", [np.array([0.25]), np.array([0.5, 2.0, 0.25, 1.5])], ids=["one", "each"])
def test_up_to_opset_6_the_slope_belongs_to_axis_1(direction: str, slope: Numbers) -> None:
    expect(model(direction, "PRelu", turning(4), slope, opset=6), folded={"bn"})


@directions
def test_up_to_opset_6_a_slope_is_not_aligned_at_the_right(direction: str) -> None:
    """Channels last at the PRelu, whose own axis 1 is the height: four slopes, as many as channels."""
    slope = np.array([0.5, 2.0, 0.25, 1.5])

    def step(net: Net, x: str) -> str:
        y = net.node("Transpose", x, perm=[0, 2, 3, 1])
        return net.node("Transpose", net.node("PRelu", y, net.init(slope)), perm=[0, 3, 1, 2])

    size = (2, 4, 4, 3)
    net = BOTH[direction](step, size, size, stats=turning(4), opset=6)
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})


@directions
def test_prelu_channels_last(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        y = net.node("Transpose", x, perm=[0, 2, 3, 1])
        slope = net.init(np.array([0.5, 2.0, 0.25, 1.5]))
        return net.node("Transpose", net.node("PRelu", y, slope), perm=[0, 3, 1, 2])

    expect(BOTH[direction](step, SIZE, SIZE, stats=turning(4)).model(), folded={"bn"})


@directions
def test_a_slope_whose_inverse_overflows(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("PRelu", x, net.init(np.full((4, 1, 1), 2.0**-20)), name="bend")

    net = BOTH[direction](step, SIZE, SIZE, stats=turning(4), elem=FLOAT16)
    expect(net.model(), folded=set(), kept={"bn": "BNF017"})


@directions
def test_a_slope_that_two_share(direction: str) -> None:
    """The other reader keeps the old slope."""

    def step(net: Net, x: str) -> str:
        slope = net.init(np.array([0.5, 2.0, 0.25, 1.5]).reshape(4, 1, 1))
        net.output(net.node("PRelu", net.input("other", *SIZE), slope))
        return net.node("PRelu", x, slope, name="bend")

    expect(BOTH[direction](step, SIZE, SIZE, stats=turning(4)).model(), folded={"bn"})


def test_the_normalized_tensor_as_slope() -> None:
    net = Net()
    y = net.bn(net.input("x", *SIZE), 4, name="bn", stats=scaling(4))
    net.output(net.node("PRelu", net.input("other", *SIZE), y))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


# --- Clip -------------------------------------------------------------------------------------------------

BOUNDS = {
    "both": (-0.5, 0.75),
    "low": (0.0, None),
    "high": (None, 0.5),
    "none": (None, None),
    "relu6": (0.0, 6.0),
}


def clipped(direction: str, stats: Stats, bounds: str, opset: int, elem: int = 1) -> ModelProto:
    low, high = BOUNDS[bounds]

    def step(net: Net, x: str) -> str:
        if opset < 11:
            given: dict[str, Any] = {k: v for k, v in (("min", low), ("max", high)) if v is not None}
            return net.node("Clip", x, name="bend", **given)
        operands = ["" if v is None else net.init(np.array(v)) for v in (low, high)]
        return net.node("Clip", x, *operands, name="bend")

    return BOTH[direction](step, SIZE, SIZE, stats=stats, opset=opset, elem=elem).model()


def movable(direction: str, bounds: str = "both") -> Stats:
    """A map that passes a Clip in this direction; with a shift where that may pass."""
    shifts = direction == "backward" or bounds == "none"
    return uniform(4) if shifts else uniform(4, bias=0.0, mean=0.0)


@directions
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("opset", [6, 10, 11, 12, 13, 17])
def test_a_uniform_map_moves_the_bounds(direction: str, bounds: str, opset: int) -> None:
    result = expect(clipped(direction, movable(direction, bounds), bounds, opset), folded={"bn"})
    assert "bend" in result.folds[0].through


@pytest.mark.parametrize("bounds", ["both", "low", "high", "relu6"])
@pytest.mark.parametrize("opset", [6, 11])
def test_no_shift_moves_behind_a_bound(bounds: str, opset: int) -> None:
    expect(clipped("forward", uniform(4), bounds, opset), folded=set(), kept={"bn": "BNF018"})


def test_a_zero_that_is_cut_to_stays_a_zero() -> None:
    """Moved behind the layer, the shift would leave its rounding errors where nothing else is."""
    net = Net()
    y = net.node("Clip", net.bn(net.input("x", *SIZE), 4, stats=uniform(4, bias=-30.0)), net.init(0.0))
    net.output(net.conv(y, 4, 3, bias=False))
    result = bnfold.optimize(net.model(), inputs={"x": SIZE})
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"


@directions
@pytest.mark.parametrize("opset", [6, 11])
@pytest.mark.parametrize(
    "stats", [positive(4), scaling(4), uniform(4, scale=-0.75), uniform(4, scale=0.0), shifting_in_one(4)]
)
def test_another_map_does_not_pass_a_clip(direction: str, opset: int, stats: Stats) -> None:
    expect(clipped(direction, stats, "both", opset), folded=set(), kept={"bn": "BNF018"})


@directions
def test_a_bound_that_is_computed(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Clip", x, net.input("low"), name="bend")

    net = BOTH[direction](step, SIZE, SIZE, stats=movable(direction))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


@directions
def test_a_bound_that_overflows(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        return net.node("Clip", x, "", net.init(np.array(60000.0)), name="bend")

    scale = 4.0 if direction == "backward" else 0.125
    net = BOTH[direction](step, SIZE, SIZE, stats=uniform(4, scale=scale, mean=0.0, bias=0.0), elem=FLOAT16)
    expect(net.model(), folded=set(), kept={"bn": "BNF017"})


@directions
def test_an_attribute_cannot_hold_the_bound_of_a_double(direction: str) -> None:
    """It is float32 whatever the tensors are, and would be rounded twice as coarsely as they."""
    stats = movable(direction)
    expect(clipped(direction, stats, "both", 6, elem=DOUBLE), folded=set(), kept={"bn": "BNF017"})
    expect(clipped(direction, stats, "both", 11, elem=DOUBLE), folded={"bn"})
    zero = uniform(4, bias=0.0, mean=0.0)
    expect(clipped(direction, zero, "low", 6, elem=DOUBLE), folded={"bn"})


@directions
@pytest.mark.parametrize("opset", [6, 11])
def test_a_bound_two_clips_share(direction: str, opset: int) -> None:
    def step(net: Net, x: str) -> str:
        if opset < 11:
            return net.node("Clip", net.node("Clip", x, min=-0.5), max=0.75)
        low = net.init(np.array(-0.5))
        net.output(net.node("Clip", net.input("other", *SIZE), low))
        return net.node("Clip", x, low)

    net = BOTH[direction](step, SIZE, SIZE, stats=movable(direction), opset=opset)
    expect(net.model(), folded={"bn"})


def test_the_normalized_tensor_as_bound() -> None:
    net = Net()
    y = net.bn(net.input("x", 1, 1), 1, name="bn", stats=uniform(1))
    bound = net.node("Reshape", y, net.init(np.zeros(0), elem=7))
    net.output(net.node("Clip", net.input("other", 3), bound))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


@pytest.mark.parametrize("forward", [False, True])
@pytest.mark.parametrize(("slope", "kept"), [((), {}), ((5,), {}), ((3, 1), {"bn": "BNF023"})])
def test_one_negative_scale_for_all_goes_with_slopes_of_any_axis(
    slope: tuple[int, ...], kept: dict[str, str], *, forward: bool
) -> None:
    """One channel is the whole tensor; its map then differs as the slopes do, here along the features."""
    net = Net()
    x = net.input("x", 2, 1, 3, 5)
    stats = {"scale": [-0.75], "bias": [0.0], "mean": [0.0]}

    def layer(y: str) -> str:
        return net.node("MatMul", y, net.init(net.draw(5, 5)))

    def bent(y: str) -> str:
        return net.node("PRelu", y, net.init(net.draw(*slope, low=0.25, high=2.0)))

    if forward:
        net.output(layer(bent(net.bn(x, 1, name="bn", stats=stats))))
    else:
        net.output(net.bn(bent(layer(x)), 1, name="bn", stats=stats))
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@directions
def test_up_to_opset_6_no_slope_goes_along_another_axis(direction: str) -> None:
    def step(net: Net, x: str) -> str:
        y = net.node("PRelu", net.node("Transpose", x, perm=[0, 2, 1]), net.init([0.5]), name="bend")
        return net.node("Transpose", y, perm=[0, 2, 1])

    net = BOTH[direction](step, (2, 4, 3), (2, 4, 3), stats=turning(4), opset=6)
    expect(net.model(), folded=set(), kept={"bn": "BNF018"})
    net = BOTH[direction](step, (2, 4, 3), (2, 4, 3), stats=turning(4), opset=7)
    expect(net.model(), folded={"bn"})
