"""ConvTranspose as a consumer: every output is made of every tap, or it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import Attribute, Net
from support.claims import expect, initializers
from support.ways import Stats, turning

SPACE = {1: (7,), 2: (7, 6), 3: (5, 6, 4)}


def transposed(
    rank: int = 2,
    cin: int = 4,
    cout: int = 6,
    kernel: int = 3,
    *,
    stats: Stats | None = None,
    bias: bool = True,
    **attrs: Attribute,
) -> Net:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, cin, *SPACE[rank]), cin, name="bn", stats=stats))
    w = net.init(net.draw(cin, cout // attrs.get("group", 1), *[kernel] * rank))
    b = [net.init(net.draw(cout))] if bias else []
    net.output(net.node("ConvTranspose", y, w, *b, name="up", **attrs))
    return net


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("cin", "cout", "group"), [(4, 6, 1), (4, 6, 2), (4, 4, 4), (6, 9, 3), (4, 4, 2)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_with_one_tap(rank: int, cin: int, cout: int, group: int, bias: bool) -> None:
    expect(transposed(rank, cin, cout, 1, bias=bias, group=group).model(), folded={"bn"})


@pytest.mark.parametrize("attrs", [
    {"kernel": 3}, {"kernel": 2, "strides": [2, 2]}, {"kernel": 1, "strides": [2, 1]},
    {"kernel": 1, "strides": [2, 2], "output_padding": [1, 1]}, {"kernel": 1, "output_shape": [9, 8]},
    {"kernel": 3, "pads": [1, 1, 1, 1]}, {"kernel": 3, "auto_pad": "SAME_UPPER"},
], ids=str)  # fmt: skip
def test_transposed_with_uneven_taps(attrs: dict[str, Any]) -> None:
    """A scale passes always, a shift only where every output is made of every tap."""
    if attrs.get("output_shape"):
        attrs = {**attrs, "strides": [2, 2], "output_shape": [13, 11]}
    expect(transposed(stats=turning(4), **attrs).model(), folded={"bn"})
    expect(transposed(**attrs).model(), folded=set(), kept={"bn": "BNF014"})


def test_transposed_channels_by_group() -> None:
    net = Net()
    stats = {
        "scale": [1.0, 2.0, 3.0, 4.0],
        "bias": [0.0, 0.0, 0.0, 8.0],
        "mean": np.zeros(4),
        "var": np.ones(4),
    }
    y = net.bn(net.input("x", 1, 4, 2, 2), 4, name="bn", stats=stats, epsilon=0.0)
    net.output(net.node("ConvTranspose", y, net.init(np.ones((4, 1, 1, 1)), "w"), group=2))
    result = expect(net.model(), folded={"bn"})
    found = initializers(result.model)
    np.testing.assert_array_equal(found["w"].reshape(-1), [1, 2, 3, 4])
    (bias,) = (v for v in found.values() if v.shape == (2,))
    np.testing.assert_array_equal(bias, [0, 8])


def test_transposed_weights_that_are_computed() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 1, 2, 4, 4), 2, name="bn"))
    net.output(net.node("ConvTranspose", y, net.input("w", 2, 3, 1, 1)))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


@pytest.mark.parametrize(("kernel", "folds"), [(1, True), (3, False)])
def test_transposed_of_the_same_size(kernel: int, folds: bool) -> None:
    kept = {} if folds else {"bn": "BNF014"}
    net = transposed(kernel=kernel, auto_pad="SAME_UPPER")
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_transposed_channels_elsewhere() -> None:
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 1, 4, 4, 4), 4, name="bn"), perm=[0, 2, 1, 3])
    net.output(net.node("ConvTranspose", y, net.init(net.draw(4, 3, 1, 1)), name="up"))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_the_normalized_tensor_as_transposed_weight() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 3, 1, 1), 3, name="bn"))
    net.output(net.node("ConvTranspose", net.input("image", 1, 2, 5, 5), y))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize(
    ("attrs", "folds"),
    [
        ({"kernel": 3, "pads": [2, 2, 2, 2]}, True),
        ({"kernel": 3, "pads": [3, 2, 2, 3]}, True),
        ({"kernel": 2, "pads": [2, 2, 2, 2], "dilations": [2, 2]}, True),
        ({"kernel": 1, "pads": [1, 0, 0, 1]}, True),
        ({"kernel": 3, "pads": [2, 2, 2, 1]}, False),  # the last column gets two taps of three
        ({"kernel": 3, "pads": [1, 2, 2, 2]}, False),
        ({"kernel": 2, "pads": [1, 1, 1, 1], "dilations": [2, 2]}, False),
        ({"kernel": 2, "pads": [2, 2, 2, 2], "strides": [2, 2]}, False),  # neighbours get other taps
        ({"kernel": 3, "pads": [2, 2, 2, 2], "output_shape": [4, 4]}, False),
    ],
)
def test_transposed_and_cropped_to_where_every_tap_reaches(
    attrs: dict[str, Any], folds: bool, group: int
) -> None:
    kept = {} if folds else {"bn": "BNF014"}
    net = transposed(group=group, **attrs)
    expect(net.model(), folded={"bn"} - set(kept), kept=kept)
