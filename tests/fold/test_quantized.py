"""Integer weights behind a DequantizeLinear: the scale takes the map in, the integers stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from support.build import BFLOAT16, FLOAT, FLOAT16, NEWEST, Array, Attribute, Net
from support.claims import Result, expect, initializers, ops
from support.quantized import (
    INTEGERS,
    X_SCALE,
    dequantized,
    integers,
    limits,
    middle,
    quantized,
    stored,
)
from support.ways import Stats, positive, scaling, turning, uniform, zero_in_one

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ["int8", "uint8", "int16", "uint16", "int4", "uint4"]


def exactly(scale: list[float], shift: list[float]) -> Stats:
    """A normalization that is this map, with nothing rounded: `var + epsilon` is 1."""
    ones, zeros = np.ones(len(scale)), np.zeros(len(scale))
    return {"scale": np.array(scale), "bias": np.array(shift), "mean": zeros, "var": ones}


def conv(
    *,
    opset: int = NEWEST,
    kind: str = "int8",
    q: Array | None = None,
    scale: Any = 0.0078125,  # noqa: ANN401 - whatever NumPy takes
    zero: Any = None,  # noqa: ANN401 - as above
    stats: Stats | None = None,
    channels: int = 4,
    group: int = 1,
    elem: int = FLOAT,
    bias: bool | str = False,
    place: str = "raw",
    epsilon: float = 1e-5,
    **attrs: Attribute,
) -> Net:
    """Conv and a BatchNormalization; the weight is called w, its parts w_q, w_scale and w_zero."""
    net = Net(opset=opset, elem=elem)
    x = net.input("x", 2, 4, 5, 5)
    q = integers(net, channels, 4 // group, 3, 3, kind=kind) if q is None else q
    zero = middle(kind) if zero is None else zero
    w = dequantized(net, q, scale=scale, zero=zero, kind=kind, place=place, **attrs)
    y = net.conv(x, 4, channels, weight=w, bias=bias, name="conv", group=group)
    net.output(net.bn(y, channels, name="bn", stats=stats, epsilon=epsilon))
    return net


def kept_integers(result: Result, before: onnx.ModelProto, name: str = "w_q") -> None:
    np.testing.assert_array_equal(stored(result.model, name), stored(before, name))


def the_reason(result: Result) -> str:
    return str(result.kept[0].reason.evidence)


# --- the scale --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_scale_becomes_one_for_each_channel(kind: str) -> None:
    net = conv(kind=kind, stats=exactly([1.0, 2.0, 0.5, 0.25], [0.0] * 4), epsilon=0.0)
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["DequantizeLinear", "Conv"]
    kept_integers(result, net.model())
    found = initializers(result.model)
    np.testing.assert_array_equal(found["w_scale_folded"], 0.0078125 * np.array([1.0, 2.0, 0.5, 0.25]))
    np.testing.assert_array_equal(stored(result.model, "w_zero_folded"), np.full(4, middle(kind)))
    (axis,) = (a.i for a in result.model.graph.node[0].attribute if a.name == "axis")
    assert axis == 0
    assert "w_scale" not in found
    assert "w_zero" not in found


def test_one_map_for_all_channels_leaves_one_scale() -> None:
    for opset in (10, 13, NEWEST):
        net = conv(opset=opset, stats=uniform(4))
        result = expect(net.model(), folded={"bn"})
        assert initializers(result.model)["w_scale"].shape == ()
        assert not result.model.graph.node[0].attribute


def test_a_scale_for_each_channel_before_opset_13() -> None:
    result = expect(conv(opset=12, stats=positive(4)).model(), folded=set(), kept={"bn": "BNF016"})
    assert "opset 13" in the_reason(result)
    expect(conv(opset=13, stats=positive(4)).model(), folded={"bn"})


@pytest.mark.parametrize("opset", [13, 19, 21, 23, 24, NEWEST])
def test_one_scale_for_each_channel_stays_so(opset: int) -> None:
    for axis in (0, -4):
        net = conv(opset=opset, scale=[0.01, 0.02, 0.03, 0.04], axis=axis)
        result = expect(net.model(), folded={"bn"})
        kept_integers(result, net.model(), "w_zero")
        assert list(result.model.graph.node[0].attribute) == list(net.model().graph.node[0].attribute)


def test_a_scale_for_each_input_channel() -> None:
    """Channels of the output cannot be told apart by it, unless they are scaled alike."""
    for scale in ([0.01, 0.02, 0.03, 0.04], [0.01] * 3 + [0.02]):
        result = expect(conv(scale=scale, axis=1).model(), folded=set(), kept={"bn": "BNF016"})
        assert "axes 0 and 1" in the_reason(result)
        expect(conv(scale=scale, axis=1, stats=uniform(4)).model(), folded={"bn"})


def test_a_scale_for_each_input_channel_that_is_the_same_for_all() -> None:
    result = expect(conv(scale=[0.01] * 4, axis=1, stats=positive(4)).model(), folded={"bn"})
    assert [a.i for a in result.model.graph.node[0].attribute] == [0]


def test_a_zero_point_for_each_input_channel() -> None:
    zeros = np.array([0, 1, 2, 3])
    result = expect(conv(scale=[0.01] * 4, zero=zeros, axis=1).model(), folded=set(), kept={"bn": "BNF016"})
    assert "axes 0 and 1" in the_reason(result)


def test_zero_points_of_each_channel_stay() -> None:
    zeros = np.array([0, 1, -2, 3])
    net = conv(scale=[0.01] * 4, zero=zeros, axis=0, stats=positive(4))
    kept_integers(expect(net.model(), folded={"bn"}), net.model(), "w_zero")


@pytest.mark.parametrize("elem", [FLOAT, FLOAT16, BFLOAT16])
def test_every_type_of_scale(elem: int) -> None:
    expect(conv(elem=elem).model(), folded={"bn"})


@pytest.mark.parametrize("place", ["node", "identity", "reshape"])
def test_constants_in_other_places(place: str) -> None:
    expect(conv(scale=[0.01, 0.02, 0.03, 0.04], axis=0, place=place).model(), folded={"bn"})


def test_no_zero_point() -> None:
    for bias in (True, False):
        net = Net()
        w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01, zero=None)
        net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w, bias=bias), 4, name="bn"))
        result = expect(net.model(), folded={"bn"})
        assert len(result.model.graph.node[0].input) == 2


def test_the_type_of_the_output_is_said() -> None:
    """From opset 23 on the scale may be wider than the weight; the bias is of the weight's type."""
    for elem, same in ((FLOAT16, False), (FLOAT, True)):
        net = conv(opset=23, elem=elem, scale_elem=FLOAT, output_dtype=elem)
        result = expect(net.model(), folded={"bn"}, runtime=same)
        types = {t.name: t.data_type for t in result.model.graph.initializer}
        assert types["w_scale_folded"] == FLOAT
        assert types["w_bias"] == elem


@pytest.mark.parametrize(("scale", "gamma"), [(2.0**-12, 2.0**-3), (2.0**10, 2.0**6)])
def test_a_scale_that_leaves_the_range_of_its_type(scale: float, gamma: float) -> None:
    """In float16 2**-14 is the smallest normal number, and 127 * 2**16 is none."""
    stats = exactly([gamma] * 4, [0.0] * 4)
    expect(conv(elem=FLOAT16, scale=scale, stats=stats).model(), folded=set(), kept={"bn": "BNF017"})
    stats = exactly([np.sqrt(gamma)] * 4, [0.0] * 4)
    if gamma < 1:
        expect(conv(elem=FLOAT16, scale=scale, stats=stats).model(), folded={"bn"})


def test_a_scale_that_makes_weights_too_large() -> None:
    """The scale itself, 512, is in range; 128 times it is 65536, and 65504 the largest number."""
    for gamma, kept in ((2.0, {"bn": "BNF017"}), (1.0, {})):
        net = conv(elem=FLOAT16, scale=256.0, stats=exactly([gamma] * 4, [0.0] * 4))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept, runtime=False, values=False)


# --- the sign ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_negative_scale_mirrors_the_integers_of_its_channel(kind: str) -> None:
    net = conv(kind=kind, stats=exactly([1.0, -2.0, 0.5, -1.0], [0.0] * 4), epsilon=0.0)
    result = expect(net.model(), folded={"bn"})
    before, after = (stored(m, "w_q").astype(int) for m in (net.model(), result.model))
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(after[[1, 3]], 2 * middle(kind) - before[[1, 3]])
    assert (initializers(result.model)["w_scale_folded"] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_integer_that_has_no_mirror_image(kind: str) -> None:
    low, high = limits(kind)
    q = np.full((4, 4, 3, 3), middle(kind))
    q[1, 2, 0, 1] = low
    stats = exactly([1.0, -1.0, 1.0, 1.0], [0.0] * 4)
    result = expect(conv(kind=kind, q=q, stats=stats).model(), folded=set(), kept={"bn": "BNF017"})
    assert f"holds {low} " in the_reason(result)
    assert f"that is {high + 1}, beyond {kind}" in the_reason(result)
    # The same integer in a channel that keeps its sign, and its neighbour in the one that turns.
    q[1, 2, 0, 1], q[0, 2, 0, 1] = low + 1, low
    expect(conv(kind=kind, q=q, stats=stats).model(), folded={"bn"})


@pytest.mark.parametrize(("zero", "least", "largest"), [(0, -127, 127), (-28, -128, 72), (100, 73, 127)])
def test_integers_are_mirrored_at_any_zero_point(zero: int, least: int, largest: int) -> None:
    stats = exactly([1.0, -1.0, 1.0, 1.0], [0.0] * 4)
    q = np.full((4, 4, 3, 3), zero)
    q[1, 0, 0, :2] = least, largest
    net = conv(q=q, zero=zero, stats=stats)
    result = expect(net.model(), folded={"bn"})
    np.testing.assert_array_equal(
        stored(result.model, "w_q")[1, 0, 0, :2], [2 * zero - least, 2 * zero - largest]
    )
    for beyond in {least - 1, largest + 1} & set(range(-128, 128)):
        q[1, 0, 0, 0] = beyond
        expect(conv(q=q, zero=zero, stats=stats).model(), folded=set(), kept={"bn": "BNF017"})


def test_each_channel_at_its_own_zero_point() -> None:
    zeros = np.array([0, 1, -2, 3])
    q = np.random.default_rng(0).integers(-100, 100, (4, 4, 3, 3))
    net = conv(q=q, scale=[0.01] * 4, zero=zeros, axis=0, stats=turning(4))
    expect(net.model(), folded={"bn"})


def test_a_channel_that_disappears_keeps_its_scale() -> None:
    """A scale of 0 would make a bias in units of it meaningless; the integers become the zero point."""
    for zero in (0, 7):
        net = conv(zero=zero, stats=zero_in_one(4))
        result = expect(net.model(), folded={"bn"})
        np.testing.assert_array_equal(stored(result.model, "w_q")[0], zero)
        assert initializers(result.model)["w_scale_folded"][0] == 0.0078125


def test_a_second_normalization_turns_the_channels_back() -> None:
    net = Net()
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01)
    y = net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w, bias=False)
    for name in ("first", "second"):
        y = net.bn(y, 4, name=name, stats=turning(4))
    net.output(y)
    result = expect(net.model(), folded={"first", "second"})
    kept_integers(result, net.model())


# --- blocks -----------------------------------------------------------------------------------------------


def blocked(kind: str, axis: int, stats: Stats | None, *, trans: bool = False, size: int = 8) -> Net:
    """A Gemm whose weight has one scale for four integers along an axis."""
    net = Net(opset=21)
    q = integers(net, *((6, size) if trans else (size, 6)), kind=kind)
    dims = [-(-d // 4) if i == axis else d for i, d in enumerate(q.shape)]
    scale = net.rng.uniform(0.01, 0.02, dims)
    w = dequantized(net, q, scale=scale, zero=middle(kind), kind=kind, axis=axis, block_size=4)
    y = net.node("Gemm", net.input("x", 3, size), w, transB=int(trans))
    net.output(net.bn(y, 6, name="bn", stats=stats))
    return net


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("kind", ["int4", "uint4", "int8"])
@pytest.mark.parametrize("size", [8, 10])
def test_blocks_along_the_inputs(kind: str, size: int, trans: bool) -> None:
    net = blocked(kind, int(trans), turning(6), trans=trans, size=size)
    result = expect(net.model(), folded={"bn"})
    assert initializers(result.model)["w_scale"].shape == initializers(net.model())["w_scale"].shape


def test_blocks_along_the_outputs() -> None:
    """The outputs of a block have one scale and cannot part."""
    result = expect(blocked("int8", 1, positive(6)).model(), folded=set(), kept={"bn": "BNF016"})
    assert "one scale for 4 indices of axis 1" in the_reason(result)
    in_blocks = {**scaling(6), "scale": np.array([2.0] * 4 + [3.0] * 2), "var": np.ones(6)}
    expect(blocked("int8", 1, in_blocks).model(), folded={"bn"})
    expect(blocked("int8", 1, uniform(6)).model(), folded={"bn"})


# --- operators --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "channels"), [(1, 6), (2, 6), (4, 8), (4, 4)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_conv_with_groups(group: int, channels: int, per_channel: bool) -> None:
    scale = np.linspace(0.01, 0.02, channels) if per_channel else np.array(0.01)
    net = conv(channels=channels, group=group, scale=scale, stats=turning(channels), axis=0)
    expect(net.model(), folded={"bn"})


def transposed(group: int, scale: Any, stats: Stats, **attrs: Attribute) -> Net:  # noqa: ANN401 - as above
    net = Net()
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=scale, **attrs)
    y = net.node("ConvTranspose", net.input("x", 1, 4, 5, 5), w, group=group, name="conv")
    net.output(net.bn(y, 3 * group, name="bn", stats=stats))
    return net


def test_conv_transpose() -> None:
    expect(transposed(1, 0.01, turning(3)).model(), folded={"bn"})
    expect(transposed(1, [0.01, 0.02, 0.03], turning(3), axis=1).model(), folded={"bn"})


def test_conv_transpose_with_groups() -> None:
    """An index of axis 1 is one output channel of each group: all groups must be scaled alike there."""
    result = expect(transposed(2, 0.01, positive(6)).model(), folded=set(), kept={"bn": "BNF016"})
    assert "axes 0 and 1" in the_reason(result)
    alike = {key: np.tile(value, 2) for key, value in {**scaling(3), "var": np.ones(3)}.items()}
    expect(transposed(2, 0.01, alike).model(), folded={"bn"})
    expect(transposed(2, [0.01, 0.02, 0.03], alike, axis=1).model(), folded={"bn"})
    # The groups differ as a whole: then the input channels tell them apart.
    by_group = {key: np.repeat(v, 3) for key, v in {**scaling(2), "var": np.ones(2)}.items()}
    result = expect(transposed(2, 0.01, by_group).model(), folded={"bn"})
    assert initializers(result.model)["w_scale_folded"].shape == (4,)


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("c", [None, "float", "int32"])
def test_gemm(trans: int, per_channel: bool, c: str | None) -> None:
    net = Net()
    axis = 1 - trans
    scale = np.linspace(0.01, 0.02, 5) if per_channel else np.array(0.01)
    w = dequantized(net, integers(net, *((5, 6) if trans else (6, 5))), scale=scale, axis=axis)
    inputs = [net.input("x", 3, 6), w]
    if c == "float":
        inputs.append(net.init(net.draw(5)))
    elif c == "int32":
        inputs.append(dequantized(net, integers(net, 5), scale=0.01, kind="int32", name="c"))
    y = net.node("Gemm", *inputs, transB=trans, alpha=0.5, beta=2.0)
    net.output(net.bn(y, 5, name="bn", stats=turning(5)))
    result = expect(net.model(), folded={"bn"})
    expect_axis = [a.i for a in result.model.graph.node[0].attribute]
    assert expect_axis in ([axis], [])


@pytest.mark.parametrize("rank", [2, 3])
def test_matmul(rank: int) -> None:
    net = Net()
    w = dequantized(net, integers(net, 6, 5), scale=0.01)
    x = net.input("x", *((3, 6) if rank == 2 else (2, 5, 6)))
    y = net.node("MatMul", x, w)
    if rank == 3:
        y = net.node(
            "Transpose", net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 5, name="bn"), perm=[0, 2, 1]
        )
        net.output(y)
    else:
        net.output(net.bn(y, 5, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert "w_scale_folded" in initializers(result.model)


def test_the_left_factor_of_matmul() -> None:
    net = Net()
    w = dequantized(net, integers(net, 5, 6), scale=0.01)
    net.output(net.bn(net.node("MatMul", w, net.input("x", 2, 6, 3)), 5, name="bn"))
    expect(net.model(), folded={"bn"})


# --- sharing ----------------------------------------------------------------------------------------------


def two(build: Callable[[Net], tuple[str, str]], stats: tuple[Stats | None, Stats | None]) -> Net:
    """Two convolutions, each with its normalization if there are statistics for it."""
    net = Net()
    for number, (weight, each) in enumerate(zip(build(net), stats, strict=True)):
        y = net.conv(
            net.input(f"x{number}", 1, 3, 5, 5), 3, 4, weight=weight, bias=False, name=f"conv{number}"
        )
        net.output(y if each is None else net.bn(y, 4, name=f"bn{number}", stats=each))
    return net


def one_dequantizer(net: Net) -> tuple[str, str]:
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01)
    return w, w


def one_set_of_constants(net: Net) -> tuple[str, str]:
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01)
    return w, net.node("DequantizeLinear", "w_q", "w_scale", "w_zero")


@pytest.mark.parametrize("build", [one_dequantizer, one_set_of_constants])
def test_shared_weights_of_which_one_is_folded(build: Callable[[Net], tuple[str, str]]) -> None:
    for stats, folded in (((turning(4), None), "bn0"), ((None, turning(4)), "bn1")):
        net = two(build, stats)
        result = expect(net.model(), folded={folded})
        kept_integers(result, net.model())
        assert ops(result.model).count("DequantizeLinear") == 2
        assert initializers(result.model)["w_scale"].shape == ()


@pytest.mark.parametrize("build", [one_dequantizer, one_set_of_constants])
def test_shared_weights_that_are_folded_differently(build: Callable[[Net], tuple[str, str]]) -> None:
    result = expect(two(build, (positive(4), scaling(4))).model(), folded={"bn0", "bn1"})
    assert ops(result.model).count("DequantizeLinear") == 2
    names = [n for n in initializers(result.model) if n.startswith("w_q")]
    assert names == ["w_q"], "the integers are stored once"


def test_a_dequantizer_of_its_own_costs_a_node() -> None:
    """One for the weight and one for the bias would be two for one normalization."""
    net = Net()
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.0078125)
    b = dequantized(net, integers(net, 4), scale=0.0078125 * X_SCALE, kind="int32", name="b")
    for number in range(2):
        x = quantized(net, net.input(f"x{number}", 1, 3, 5, 5))
        y = net.conv(x, 3, 4, weight=w, bias=b, name=f"conv{number}")
        net.output(y if number else net.bn(y, 4, name="bn", stats=positive(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF025"})


def test_a_dequantized_weight_that_is_an_output() -> None:
    net = conv(stats=positive(4))
    net.output("w")
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model).count("DequantizeLinear") == 2


def test_weights_of_an_outer_graph() -> None:
    net = Net()
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01)
    x = net.input("x", 1, 3, 5, 5)
    branches: dict[str, onnx.GraphProto] = {}
    for name in ("then", "else"):
        body = Net(seed=len(name) + len(branches), prefix=name)
        body.output(body.bn(body.conv(x, 3, 4, weight=w, bias=False, name=name), 4, name=f"bn_{name}"))
        branches[f"{name}_branch"] = body.graph()
    condition = net.input("c", elem=onnx.TensorProto.BOOL)
    net.output(net.node("If", condition, **branches), shape=[1, 4, 3, 3])
    for chosen in (True, False):
        feeds = {"x": net.draw(1, 3, 5, 5).astype(np.float32), "c": np.array(chosen)}
        expect(net.model(), folded={"bn_then", "bn_else"}, feeds=feeds)


def test_in_a_local_function() -> None:
    inner = Net(opset=17)
    w = dequantized(inner, integers(inner, 4, 3, 3, 3), scale=0.01, place="node")
    stats = {key: inner.const(inner.draw(4, low=0.5), "node") for key in ("scale", "bias", "mean", "var")}
    inner.bn(inner.conv("x", 3, 4, weight=w, bias=False, name="conv"), 4, name="bn", stats=stats, out="y")
    function = onnx.helper.make_function(
        "local", "layer", ["x"], ["y"], inner.nodes, [onnx.helper.make_opsetid("", 17)]
    )
    net = Net(opset=17)
    net.functions.append(function)
    net.output(net.node("layer", net.input("x", 1, 3, 5, 5), domain="local"), shape=[1, 4, 3, 3])
    expect(net.model({"local": 1}), folded={"bn"})


# --- the bias ---------------------------------------------------------------------------------------------


def quantized_conv(
    stats: Stats,
    *,
    bias: Any = None,  # noqa: ANN401 - integers, or floats
    unit: float = 0.0078125 * X_SCALE,
    kind: str = "int32",
    scale: Any = 0.0078125,  # noqa: ANN401 - whatever NumPy takes
    between: Callable[[Net, str], str] | None = None,
    **attrs: Attribute,
) -> Net:
    """Conv of a quantized input; its bias is called b, with b_q, b_scale and b_zero."""
    net = Net()
    x = quantized(net, net.input("x", 1, 3, 6, 6))
    x = x if between is None else between(net, x)
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=scale, **attrs)
    b: bool | str = False
    if bias is not None:
        b = dequantized(net, bias, scale=unit, kind=kind, name="b") if kind else net.init(bias, "b")
    net.output(net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name="bn", stats=stats, epsilon=0.0))
    return net


def test_an_int32_bias_is_counted_in_the_new_unit() -> None:
    unit = 0.0078125 * X_SCALE
    stats = exactly([1.0, 2.0, 0.5, -0.25], [0.0, 8 * unit, 0.25 * unit, 0.0])
    net = quantized_conv(stats, bias=np.array([5, -7, 11, 13]))
    result = expect(net.model(), folded={"bn"})
    found = initializers(result.model)
    np.testing.assert_array_equal(found["b_scale_folded"], unit * np.array([1.0, 2.0, 0.5, 0.25]))
    # 2 * (-7 u) + 8 u is -3 times 2 u; 0.5 * 11 u + 0.25 u is 11.5 times 0.5 u, a tie, which goes to even
    np.testing.assert_array_equal(stored(result.model, "b_q"), [5, -3, 12, -13])
    assert stored(result.model, "b_q").dtype == np.int32
    np.testing.assert_array_equal(stored(result.model, "b_zero_folded"), np.zeros(4))
    assert [a.i for a in result.model.graph.node[3].attribute] == [0]


def test_the_unit_of_a_bias_is_that_of_input_and_weight() -> None:
    """As onnxruntime computes it: the float32 product of both scales."""
    scale = np.array([0.011, 0.012, 0.013, 0.014], np.float32)
    unit = scale.astype(np.float64) * X_SCALE
    net = Net()
    x = quantized(net, net.input("x", 1, 3, 6, 6))
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=scale, axis=0)
    b = dequantized(net, integers(net, 4), scale=unit, kind="int32", name="b", axis=0)
    net.output(net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    found = initializers(result.model)
    product = found["w_scale"].astype(np.float32) * np.float32(X_SCALE)
    np.testing.assert_array_equal(found["b_scale"], product)


@pytest.mark.parametrize("kind", ["int32", ""])
def test_a_bias_that_an_int32_does_not_count(kind: str) -> None:
    """Whether it is stored as integers or a float: onnxruntime counts both, and wraps around."""
    unit = 0.0078125 * X_SCALE
    for factor, kept in ((2.0**31, {"bn": "BNF017"}), (2.0**30, {})):
        stats = exactly([1.0, 0.5, 1.0, 1.0], [0.0, factor * unit / 2, 0.0, 0.0])
        net = quantized_conv(stats, bias=np.zeros(4), kind=kind)
        result = expect(net.model(), folded={"bn"} - set(kept), kept=kept, runtime=False)
        assert not kept or "int32" in the_reason(result)
    expect(quantized_conv(stats).model(), folded={"bn"})


def test_a_large_bias_of_a_layer_with_a_float_input() -> None:
    net = conv(stats=exactly([2.0**-20] * 4, [2.0**20] * 4), bias=True)
    expect(net.model(), folded={"bn"})


def test_a_bias_behind_something_that_keeps_the_scale() -> None:
    for step, kind in ((_max_pool, np.int32), (_relu, np.float32)):
        net = quantized_conv(positive(4), bias=np.arange(4), between=step)
        result = expect(net.model(), folded={"bn"})
        types = {n: stored(result.model, n).dtype for n in initializers(result.model)}
        assert [types[n] for n in types if n in {"b_q", "b_folded"}] == [kind]


def _max_pool(net: Net, x: str) -> str:
    return net.node("MaxPool", x, kernel_shape=[2, 2])


def _relu(net: Net, x: str) -> str:
    return net.node("Relu", x)


@pytest.mark.parametrize(
    ("unit", "kind"),
    [(0.001, "int32"), (0.0078125 * X_SCALE * 1.001, "int32"), (0.01, "int8"), (0.0078125 * X_SCALE, "int8")],
)
def test_integers_of_another_unit_become_a_float_bias(unit: float, kind: str) -> None:
    """Nothing says that they may be rounded to it."""
    net = quantized_conv(positive(4), bias=np.arange(4), unit=unit, kind=kind)
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model).count("DequantizeLinear") == 2
    assert not {"b_q", "b_scale", "b_zero"} & set(initializers(result.model))


def test_a_bias_that_was_a_float_or_missing_is_a_float() -> None:
    for bias in (None, np.array([0.5, -0.25, 1.0, 0.0])):
        net = quantized_conv(positive(4), bias=bias, kind="")
        result = expect(net.model(), folded={"bn"})
        assert ops(result.model).count("DequantizeLinear") == 2


def test_an_int32_bias_of_float_weights_becomes_a_float() -> None:
    net = Net()
    b = dequantized(net, [5, -7, 11, 13], scale=0.01, kind="int32", name="b")
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, bias=b), 4, name="bn"))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv"]


# --- what stands in the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["q", "scale", "zero"])
def test_parts_that_are_no_constants(part: str) -> None:
    net = Net()
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01)
    net.initializers = [t for t in net.initializers if t.name != f"w_{part}"]
    dims = [4, 3, 3, 3] if part == "q" else []
    net.input(f"w_{part}", *dims, elem=FLOAT if part == "scale" else INTEGERS["int8"])
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w), 4, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


def test_a_scale_that_the_caller_may_override() -> None:
    net = conv()
    net.input("w_scale")
    expect(net.model(), folded=set(), kept={"bn": "BNF022"})
    expect(net.model(), folded={"bn"}, freeze=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_scale_that_is_not_finite(bad: float) -> None:
    net = conv(scale=[0.01, bad, 0.01, 0.01], axis=0)
    expect(net.model(), folded=set(), kept={"bn": "BNF020"}, runtime=False, values=False)


def test_float8_weights() -> None:
    net = Net(opset=19)
    q = net.init(np.array([0.5, 1.0, -2.0, 4.0]).reshape(4, 1, 1, 1), elem=onnx.TensorProto.FLOAT8E4M3FN)
    w = net.node("DequantizeLinear", q, net.init(0.5))
    net.output(net.bn(net.conv(net.input("x", 1, 1, 3, 3), 1, 4, weight=w), 4, name="bn"))
    result = expect(net.model(), folded=set(), kept={"bn": "BNF015"}, runtime=False, values=False)
    assert "float8e4m3fn" in the_reason(result).replace("_", "")


def test_a_dequantizer_whose_axis_the_caller_gives() -> None:
    """It folds once the function is inlined."""
    inner = Net(opset=17)
    w = dequantized(inner, integers(inner, 4, 3, 3, 3), scale=0.01, place="node")
    inner.nodes[-1].attribute.append(
        onnx.AttributeProto(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="axis")
    )
    stats = {key: inner.const(inner.draw(4, low=0.5), "node") for key in ("scale", "bias", "mean", "var")}
    inner.bn(inner.conv("x", 3, 4, weight=w, bias=False, name="conv"), 4, name="bn", stats=stats, out="y")
    imports = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("local", "layer", ["x"], ["y"], inner.nodes, imports, ["axis"])
    net = Net(opset=17)
    net.functions.append(function)
    net.output(
        net.node("layer", net.input("x", 1, 3, 5, 5), domain="local", name="one", axis=0), shape=[1, 4, 3, 3]
    )
    expect(net.model({"local": 1}), folded={"one/bn"}, inlined={"layer": 1})


@pytest.mark.parametrize("where", ["behind_the_conv", "before_the_conv"])
def test_a_quantizer_between(where: str) -> None:
    net = Net()
    w = dequantized(net, integers(net, 4, 4, 3, 3), scale=0.01)
    y = net.input("x", 1, 4, 5, 5)
    if where == "behind_the_conv":
        y = net.bn(quantized(net, net.conv(y, 4, 4, weight=w)), 4, name="bn")
    else:
        y = net.conv(quantized(net, net.bn(y, 4, name="bn")), 4, 4, weight=w)
    net.output(y)
    result = expect(net.model(), folded=set(), values=False)
    assert "BNF015" in [str(r.code) for r in result.kept[0].reasons]


def test_quantizers_of_onnxruntime_itself_between() -> None:
    net = Net()
    step, zero = net.init(0.01), net.init(np.int16(0), elem=onnx.TensorProto.INT16)
    x = net.input("x", 1, 3, 5, 5)
    y = net.node("QuantizeLinear", net.conv(x, 3, 4), step, zero, domain="com.microsoft")
    y = net.node("DequantizeLinear", y, step, zero, domain="com.microsoft")
    net.output(net.bn(y, 4, name="bn"), shape=[1, 4, 3, 3])
    model = net.model({"com.microsoft": 1})
    expect(model, folded=set(), kept={"bn": "BNF015"}, runtime=False, values=False)


@pytest.mark.parametrize("op", ["QLinearConv", "ConvInteger"])
def test_operators_on_integers(op: str) -> None:
    net = Net()
    step, point = net.init(X_SCALE), net.init(np.uint8(128), elem=onnx.TensorProto.UINT8)
    x = net.node("QuantizeLinear", net.input("x", 1, 3, 5, 5), step, point)
    q = net.init(integers(net, 4, 3, 3, 3), elem=onnx.TensorProto.INT8)
    if op == "ConvInteger":
        y = net.node("Cast", net.node(op, x, q, point), to=FLOAT)
    else:
        zero = net.init(np.int8(0), elem=onnx.TensorProto.INT8)
        y = net.node(op, x, step, point, q, net.init(0.01), zero, step, point)
        y = net.node("DequantizeLinear", y, step, point)
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded=set(), runtime=False, values=False)
    assert str(result.kept[0].code) == {"QLinearConv": "BNF015", "ConvInteger": "BNF016"}[op]


# --- forward ----------------------------------------------------------------------------------------------


def test_forward() -> None:
    """One scale can differ from input to input; one for each output cannot, unless the inputs are alike."""
    for scale, stats, kept in (
        (0.01, positive(4), {}),
        (0.01, turning(4), {}),
        ([0.01, 0.02, 0.03], positive(4), {"bn": "BNF016"}),
        ([0.01, 0.02, 0.03], uniform(4), {}),
    ):
        net = Net()
        w = dequantized(net, integers(net, 3, 4, 3, 3), scale=scale, axis=0)
        y = net.node("Relu", net.input("x", 1, 4, 5, 5))
        net.output(net.conv(net.bn(y, 4, name="bn", stats=stats), 4, 3, weight=w))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


# --- normalizations and sums ------------------------------------------------------------------------------


def test_statistics_that_are_quantized() -> None:
    net = Net()
    stats = {
        key: dequantized(net, integers(net, 4, kind="uint8"), scale=0.01, kind="uint8", name=key)
        for key in ("scale", "bias", "mean", "var")
    }
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4), 4, name="bn", stats=stats))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv"]


def test_a_quantized_constant_is_a_constant() -> None:
    net = Net()
    y = net.conv(net.input("x", 1, 3, 5, 5), 3, 4)
    c = dequantized(net, integers(net, 4, 1, 1), scale=0.01, name="c")
    net.output(net.bn(net.node("Add", y, c), 4, name="bn"))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Conv"]


def test_branches_with_quantized_weights_are_not_merged() -> None:
    """Their sum has no integers of its own."""
    net = Net()
    x = net.input("x", 1, 4, 5, 5)
    first = net.conv(
        x, 4, 4, (3, 3), weight=dequantized(net, integers(net, 4, 4, 3, 3), scale=0.01), pads=[1] * 4
    )
    second = net.conv(
        x, 4, 4, (1, 1), weight=dequantized(net, integers(net, 4, 4, 1, 1), scale=0.02, name="v")
    )
    net.output(net.node("Add", net.node("Add", first, second), net.bn(x, 4, name="bn")))
    result = expect(net.model(), folded=set())
    assert not result.report.merged


def test_the_shift_of_a_quantized_branch_goes_into_the_other() -> None:
    net = Net()
    w = dequantized(net, integers(net, 4, 3, 3, 3), scale=0.01)
    x = net.input("x", 1, 3, 5, 5)
    y = net.node("Add", net.conv(x, 3, 4, weight=w, bias=False), net.conv(net.input("z", 1, 3, 5, 5), 3, 4))
    net.output(net.bn(y, 4, name="bn", stats=turning(4)))
    expect(net.model(), folded={"bn"})
