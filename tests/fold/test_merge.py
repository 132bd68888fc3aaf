"""Sums of parallel branches, against the float64 oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import Net
from support.claims import ops
from support.oracle import evaluate

import bnfold

SIZE = 9


def _check(net: Net, *, convs: int, total: int | None = None, merge: bool = True) -> bnfold.Result:
    """The result has `convs` Conv nodes (and `total` nodes in all), and computes the same."""
    model = net.model()
    result = bnfold.optimize(model, verify=False, merge=merge)
    names = ops(result.model)
    assert names.count("Conv") == convs, names
    assert len(names) == (convs if total is None else total), names
    assert not result.kept
    feeds = {
        i.name: np.random.default_rng(3)
        .normal(size=[d.dim_value for d in i.type.tensor_type.shape.dim])
        .astype(np.float32)
        for i in model.graph.input
    }
    before, after = evaluate(model, feeds), evaluate(result.model, feeds)
    for name, value in before.items():
        # Weights are rounded once to float32: 2^-24 relative, of a sum of some hundred products of order one.
        np.testing.assert_allclose(after[name], value, rtol=0, atol=2.0**-24 * 500)
    return result


def _conv(net: Net, x: str, channels: int, kernel: int, group: int = 1, **attributes: Any) -> str:  # noqa: ANN401  # ONNX attributes of any kind
    w = net.init(net.draw(channels, channels // group, *(kernel,) * 2))
    attributes.setdefault("pads", [kernel // 2] * 4)
    return net.node("Conv", x, w, net.init(net.draw(channels)), group=group, **attributes)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_repvgg_three_branches_become_one_conv(group: int) -> None:
    net = Net(17)
    x = net.input("x", 2, 8, SIZE, SIZE)
    wide = net.bn(_conv(net, x, 8, 3, group), 8, name="wide")
    point = net.bn(_conv(net, x, 8, 1, group), 8, name="point")
    same = net.bn(x, 8, name="same")
    net.output(net.node("Add", net.node("Add", wide, point), same), shape=[2, 8, SIZE, SIZE])
    result = _check(net, convs=1)
    assert {f.node: f.direction for f in result.folds} == {
        "wide": "backward",
        "point": "backward",
        "same": "sideways",
    }
    assert len(result.report.merged) == 2


def test_branches_are_left_alone_on_request() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", _conv(net, x, 4, 3), _conv(net, x, 4, 1)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=3, merge=False)


def test_mobileone_any_number_of_branches() -> None:
    net = Net(17)
    x = net.input("x", 1, 6, SIZE, SIZE)
    total = net.bn(x, 6, name="identity")
    for i in range(5):
        total = net.node("Add", total, net.bn(_conv(net, x, 6, 1 if i == 2 else 3, 6), 6, name=f"bn{i}"))
    net.output(total, shape=[1, 6, SIZE, SIZE])
    _check(net, convs=1)


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("behind", [["Add"], ["Sub"], ["Mul"], ["Add", "Mul", "Sub"]])
def test_constants_behind_the_sum_belong_to_the_conv(behind: list[str], position: int) -> None:
    """`out = 0`, and each branch added to it: as MobileOne is written."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", net.bn(_conv(net, x, 4, 3), 4), net.bn(_conv(net, x, 4, 1), 4))
    for op in behind:
        operands = [total, net.init(net.draw(*{"Add": (4, 1, 1), "Mul": (1, 4, 1, 1), "Sub": (1,)}[op]))]
        total = net.node(op, operands[position], operands[1 - position])
    net.output(total, shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_constants_behind_a_sum_that_is_read_elsewhere_stay() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", _conv(net, x, 4, 3), _conv(net, x, 4, 1))
    shifted = net.node("Add", total, net.init(net.draw(4, 1, 1)))
    net.output(shifted, net.node("Relu", total), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=3)


@pytest.mark.parametrize("shape", [(SIZE,), (1, 1, SIZE, SIZE), (3, 1, 1, 1)])
def test_constants_behind_the_sum_that_are_not_per_channel_stay(shape: tuple[int, ...]) -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", _conv(net, x, 4, 3), _conv(net, x, 4, 1))
    rows = shape[0] if len(shape) == 4 else 1
    net.output(net.node("Add", total, net.init(net.draw(*shape))), shape=[rows, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_a_constant_behind_one_conv_is_nobodys_business() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", _conv(net, x, 4, 3), net.init(net.draw(4, 1, 1))), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_fastvit_token_mixer() -> None:
    """x + gamma * (mixer(x) - norm(x))."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    mixer = net.bn(_conv(net, x, 4, 7, 4), 4, name="mixer")
    inner = net.node("Sub", mixer, net.bn(x, 4, name="norm"))
    net.output(
        net.node("Add", x, net.node("Mul", inner, net.init(net.draw(4, 1, 1)))), shape=[1, 4, SIZE, SIZE]
    )
    _check(net, convs=1)


def test_the_subtracted_branch_changes_its_sign() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Sub", _conv(net, x, 4, 1), _conv(net, x, 4, 5)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_a_subtracted_identity() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Sub", x, _conv(net, x, 4, 3)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_strided_branches_on_one_grid() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    total = net.node("Add", _conv(net, x, 4, 3, strides=[2, 2]), _conv(net, x, 4, 1, strides=[2, 2]))
    net.output(total, shape=[1, 4, 5, 5])
    _check(net, convs=1)


def test_dilated_branches_and_one_tap() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    wide = _conv(net, x, 4, 3, dilations=[2, 2], pads=[2] * 4)
    net.output(net.node("Add", wide, net.node("Add", _conv(net, x, 4, 1), x)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


def test_kernels_that_are_not_centred() -> None:
    """A 2x2 kernel padded before and behind reads the last four and the first four taps of a 3x3."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    wide = _conv(net, x, 4, 3)
    small = net.node("Conv", x, net.init(net.draw(4, 4, 2, 2)), pads=[1, 0, 0, 1])
    net.output(net.node("Add", wide, small), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"kernel": 3, "dilations": [2, 2], "pads": [2] * 4}, {"kernel": 3}),  # other taps
        ({"kernel": 3, "group": 2}, {"kernel": 1}),  # other groups
        ({"kernel": 2, "pads": [1, 1, 0, 0]}, {"kernel": 2, "pads": [0, 0, 1, 1]}),  # neither holds the other
    ],
)  # fmt: skip
def test_branches_that_do_not_fit_stay(first: dict[str, Any], second: dict[str, Any]) -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(
        net.node("Add", _conv(net, x, 4, **first), _conv(net, x, 4, **second)), shape=[1, 4, SIZE, SIZE]
    )
    _check(net, convs=2, total=3)


def test_a_branch_that_is_read_elsewhere_stays() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    point = _conv(net, x, 4, 1)
    net.output(net.node("Add", _conv(net, x, 4, 3), point), net.node("Relu", point), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=4)


def test_branches_of_different_tensors_stay() -> None:
    net = Net(17)
    x, z = net.input("x", 1, 4, SIZE, SIZE), net.input("z", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", _conv(net, x, 4, 3), _conv(net, z, 4, 1)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=3)


def test_an_identity_beside_a_strided_conv_of_one_pixel_stays() -> None:
    """[1, 4, 1, 1] broadcasts against the input: the sum is no convolution."""
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    net.output(net.node("Add", x, _conv(net, x, 4, SIZE, pads=[0] * 4)), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_one_output_channel_broadcast_to_many_stays() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    one = net.node("Conv", x, net.init(net.draw(1, 4, 3, 3)), pads=[1] * 4)
    net.output(net.node("Add", x, one), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=1, total=2)


def test_shared_weights_of_the_branches_are_not_spoiled() -> None:
    net = Net(17)
    x = net.input("x", 1, 4, SIZE, SIZE)
    shared = net.init(net.draw(4, 4, 3, 3))
    first = net.node("Conv", x, shared, pads=[1] * 4)
    joined = net.node("Relu", net.node("Add", first, net.node("Conv", x, shared, pads=[1] * 4)))
    net.output(net.node("Conv", joined, shared, pads=[1] * 4), shape=[1, 4, SIZE, SIZE])
    _check(net, convs=2, total=3)
