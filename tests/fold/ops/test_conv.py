"""Conv as a consumer: the shift reaches every tap, or it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import BFLOAT16, DOUBLE, FLOAT, FLOAT16, Attribute, Net
from support.claims import expect, initializers, ops
from support.ways import Stats, scaling, shifting_in_one, turning, zero_in_one

SPACE = {1: (7,), 2: (7, 6), 3: (5, 6, 4)}


def before(
    rank: int = 2,
    cin: int = 4,
    cout: int = 6,
    kernel: int = 3,
    *,
    elem: int = FLOAT,
    stats: Stats | None = None,
    bias: bool | str = True,
    **attrs: Attribute,
) -> Net:
    net = Net(elem=elem)
    y = net.bn(net.input("x", 2, cin, *SPACE[rank]), cin, name="bn", stats=stats)
    net.output(net.conv(y, cin, cout, [kernel] * rank, bias=bias, name="conv", **attrs))
    return net


@pytest.mark.parametrize("bias", [True, False, ""], ids=["bias", "no_bias", "empty_bias"])
@pytest.mark.parametrize("group", [1, 2, 4], ids=["one", "two", "depthwise"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_without_padding(rank: int, group: int, bias: bool | str) -> None:
    result = expect(before(rank, cout=8, group=group, bias=bias).model(), folded={"bn"})
    assert ops(result.model) == ["Conv"]
    fold = result.folds[0]
    assert (fold.into, fold.into_op, tuple(fold.through)) == (("conv",), ("Conv",), ())
    assert fold.direction == "forward"


@pytest.mark.parametrize("attrs", [
    {}, {"auto_pad": "VALID"}, {"auto_pad": "NOTSET"}, {"pads": [0, 0, 0, 0]}, {"strides": [2, 3]},
    {"dilations": [2, 1]}, {"kernel_shape": [3, 3], "strides": [1, 2]},
], ids=str)  # fmt: skip
def test_attributes_that_pad_nothing(attrs: dict[str, Any]) -> None:
    expect(before(**attrs).model(), folded={"bn"})


@pytest.mark.parametrize("attrs", [
    {"pads": [1, 1, 1, 1]}, {"pads": [0, 0, 0, 1]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"kernel": 1, "pads": [0, 1, 0, 0]},
    {"cout": 8, "group": 2, "pads": [1, 1, 1, 1]}, {"cout": 8, "group": 4, "pads": [0, 0, 1, 0]},
], ids=str)  # fmt: skip
def test_padding_takes_a_scale_and_no_shift(attrs: dict[str, Any]) -> None:
    for stats in (None, shifting_in_one(4)):
        expect(before(stats=stats, **attrs).model(), folded=set(), kept={"bn": "BNF014"})
    for stats in (scaling(4), turning(4), zero_in_one(4)):
        expect(before(stats=stats, **attrs).model(), folded={"bn"})


@pytest.mark.parametrize(("size", "kernel", "stride", "folds"), [
    (6, 1, 1, True), (7, 1, 2, True), (6, 2, 2, True), (6, 3, 3, True), (7, 3, 2, False), (7, 2, 2, False),
    (8, 4, 2, False), (9, 3, 3, True), (5, 1, 4, True), (8, 2, 3, True), (7, 2, 3, False),
])  # fmt: skip
def test_same_padding_that_pads_something_or_nothing(
    size: int, kernel: int, stride: int, folds: bool
) -> None:
    """SAME pads `(ceil(n / s) - 1) s + k - n`, if that is positive."""
    for mode in ("SAME_UPPER", "SAME_LOWER"):
        net = Net()
        y = net.node("Identity", net.bn(net.input("x", 1, 2, size, size), 2, name="bn"))
        net.output(net.conv(y, 2, 3, (kernel, kernel), auto_pad=mode, strides=[stride, stride]))
        padding = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        assert folds == (padding == 0)
        kept = {} if folds else {"bn": "BNF014"}
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@pytest.mark.parametrize(("size", "folds"), [(9, True), (8, False)])
def test_same_padding_of_a_dilated_kernel(size: int, folds: bool) -> None:
    """Two taps, two apart, reach over three; at a stride of three that pads nothing if 3 divides the size."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 1, 2, size, size), 2, name="bn"))
    how: dict[str, Any] = {"auto_pad": "SAME_UPPER", "dilations": [2, 2], "strides": [3, 3]}
    net.output(net.conv(y, 2, 3, (2, 2), **how))
    kept = {} if folds else {"bn": "BNF014"}
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_same_padding_of_an_unknown_size() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 1, 2, "h", 6), 2, name="bn"))
    net.output(net.conv(y, 2, 3, (2, 2), auto_pad="SAME_UPPER", strides=[2, 2]))
    expect(net.model(), folded=set(), kept={"bn": "BNF014"})
    net = Net()
    y = net.bn(net.input("x", 1, 2, "h", 6), 2, name="bn")
    net.output(net.conv(y, 2, 3, (1, 1), auto_pad="SAME_UPPER"))
    expect(net.model(), folded={"bn"})


def test_which_weights_are_scaled() -> None:
    """Group 1 of two reads channels 2 and 3."""
    net = Net()
    w = np.ones((2, 2, 1, 1))
    stats = {
        "scale": [1.0, 2.0, 3.0, 4.0],
        "bias": [0.0, 0.0, 0.0, 8.0],
        "mean": np.zeros(4),
        "var": np.ones(4),
    }
    y = net.bn(net.input("x", 1, 4, 2, 2), 4, name="bn", stats=stats, epsilon=0.0)
    net.output(net.conv(y, 4, 2, weight=net.init(w, "w"), bias=net.init([0.5, 0.5], "b"), group=2))
    found = initializers(expect(net.model(), folded={"bn"}).model)
    np.testing.assert_array_equal(found["w"].reshape(-1), [1, 2, 3, 4])
    np.testing.assert_array_equal(found["b"], [0.5, 8.5])


@pytest.mark.parametrize("elem", [FLOAT16, BFLOAT16, FLOAT, DOUBLE])
def test_every_type(elem: int) -> None:
    expect(before(elem=elem).model(), folded={"bn"})


def test_weights_that_are_computed() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 1, 2, 4, 4), 2, name="bn"))
    net.output(net.node("Conv", y, net.input("w", 3, 2, 3, 3)))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


def test_a_bias_that_is_computed() -> None:
    for stats, kept in ((None, {"bn": "BNF012"}), (turning(2), {})):
        net = Net()
        y = net.node("Identity", net.bn(net.input("x", 1, 2, 4, 4), 2, name="bn", stats=stats))
        net.output(net.node("Conv", y, net.init(net.draw(3, 2, 3, 3)), net.input("b", 3)))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_the_normalized_tensor_as_weight_or_bias() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 3, 2, 3, 3), 2, name="bn"))
    net.output(net.node("Conv", net.input("image", 1, 2, 5, 5), y))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


def test_weights_that_another_reads_too() -> None:
    net = Net()
    w = net.init(net.draw(3, 2, 3, 3), "w")
    y = net.bn(net.input("x", 1, 2, 4, 4), 2, name="bn")
    net.output(net.conv(y, 2, 3, weight=w), net.conv(net.input("other", 1, 2, 4, 4), 2, 3, weight=w))
    found = initializers(expect(net.model(), folded={"bn"}).model)
    np.testing.assert_array_equal(found["w"], initializers(net.model())["w"])


def test_an_overflow_and_an_underflow() -> None:
    for scale in (2.0**12, 2.0**-13):
        stats = {"scale": np.full(4, scale), "var": np.ones(4), "bias": np.zeros(4), "mean": np.zeros(4)}
        net = Net(elem=FLOAT16)
        y = net.node("Identity", net.bn(net.input("x", 1, 4, 4, 4), 4, name="bn", stats=stats))
        net.output(net.conv(y, 4, 2, weight=net.init(np.full((2, 4, 1, 1), 32.0 if scale > 1 else 0.125))))
        expect(net.model(), folded=set(), kept={"bn": "BNF017"})


def test_backward_is_chosen_where_both_are_possible() -> None:
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="first")
    net.output(net.conv(net.bn(y, 4, name="bn"), 4, 2, name="second"))
    result = expect(net.model(), folded={"bn"})
    assert (result.folds[0].into, result.folds[0].direction) == (("first",), "backward")


@pytest.mark.parametrize(("pads", "folds"), [(0, True), (1, False)])
def test_forward_is_chosen_where_the_producer_is_read_elsewhere(pads: int, folds: bool) -> None:
    """And where it cannot, the reason is the reader that keeps the map from going backward."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="first")
    z = net.conv(net.bn(y, 4, name="bn"), 4, 2, name="second", pads=[pads] * 4)
    net.output(net.node("Sigmoid", y), z)
    kept = {} if folds else {"bn": "BNF010"}
    result = expect(net.model(), folded={"bn"} - set(kept), kept=kept)
    if folds:
        assert (result.folds[0].into, result.folds[0].direction) == (("second",), "forward")
    else:
        assert [str(r.code) for r in result.kept[0].reasons] == ["BNF010", "BNF014"]
    assert ops(result.model).count("Conv") == 2
