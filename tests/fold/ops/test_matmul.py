"""MatMul as a consumer: the axis that is summed over is the normalized one, or another."""

from __future__ import annotations

import pytest
from support.build import Net
from support.claims import expect, ops
from support.ways import turning

Shape = tuple[int, ...]


def product(net: Net, y: str, weight: Shape, *, left: bool = False) -> str:
    w = net.init(net.draw(*weight), "w")
    return net.node("MatMul", w, y, name="product") if left else net.node("MatMul", y, w, name="product")


def test_a_plain_product_becomes_a_gemm() -> None:
    net = Net()
    net.output(product(net, net.bn(net.input("x", 2, 4), 4, name="bn"), (4, 3)))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Gemm"]


def test_without_a_shift_it_stays_a_product() -> None:
    net = Net()
    net.output(product(net, net.bn(net.input("x", 2, 4), 4, name="bn", stats=turning(4)), (4, 3)))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["MatMul"]


@pytest.mark.parametrize("size", [(4, 4), (2, 4, 4), (4, 4, 4, 4), (2, 4, 2, 2, 4)], ids=len)
@pytest.mark.parametrize("batched", [False, True])
def test_a_right_factor_sums_over_the_last_axis(size: Shape, batched: bool) -> None:
    """The channels are axis 1; they are the last one of a matrix, or once they have been moved there."""
    weight = (*size[2:-2], size[-1], 3) if batched and len(size) > 3 else (size[-1], 3)
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", *size), 4, name="bn"))
    net.output(product(net, y, weight))
    rank = len(size)
    if rank == 2:
        expect(net.model(), folded={"bn"})
        return
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    last = [0, *range(2, rank), 1]
    y = net.node("Transpose", net.bn(net.input("x", *size), 4, name="bn"), perm=last)
    batch = tuple(size[i] for i in last[1:-2])
    net.output(product(net, y, (*batch, 4, 3) if batched else (4, 3)))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Transpose", "MatMul", "Add"]


@pytest.mark.parametrize("batched", [False, True])
def test_a_left_factor_sums_over_the_last_axis_but_one(batched: bool) -> None:
    """Of [N, C, L] those are the channels."""
    net = Net()
    y = net.bn(net.input("x", 2, 4, 4), 4, name="bn")
    net.output(product(net, y, (2, 3, 4) if batched else (3, 4), left=True))
    result = expect(net.model(), folded={"bn"})
    assert ops(result.model) == ["MatMul", "Add"]
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 4, 4, 4), 4, name="bn"))
    net.output(product(net, y, (3, 4), left=True))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_a_left_factor_of_a_matrix() -> None:
    """It sums over the rows, and the normalization goes along the columns."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 4, 4), 4, name="bn"))
    net.output(product(net, y, (3, 4), left=True))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 4, 4), 4, name="bn"), perm=[1, 0])
    net.output(product(net, y, (3, 4), left=True))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("left", [False, True])
def test_a_factor_with_more_axes_than_the_tensor(left: bool) -> None:
    """The tensor is broadcast to the batch of the constant; the shift differs from matrix to matrix."""
    net = Net()
    y = net.bn(net.input("x", 4, 4), 4, name="bn")
    y = net.node("Transpose", y) if left else y
    net.output(product(net, y, (2, 3, 4) if left else (2, 4, 3), left=left))
    assert ops(expect(net.model(), folded={"bn"}).model)[-2:] == ["MatMul", "Add"]


@pytest.mark.parametrize("weight", [(4,), (1, 4, 3)])
def test_constants_of_another_rank(weight: Shape) -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 4), 4, name="bn"))
    net.output(product(net, y, weight))
    if len(weight) == 1:
        expect(net.model(), folded=set(), kept={"bn": "BNF023"})
    else:
        expect(net.model(), folded={"bn"})


def test_two_computed_factors() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 4), 4, name="bn"))
    net.output(net.node("MatMul", y, net.input("w", 4, 3)))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


def test_a_product_with_itself() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 4, 4), 4, name="bn"))
    net.output(net.node("MatMul", y, y))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


@pytest.mark.parametrize("opset", [6, 7, 8, 9, 12, 13])
@pytest.mark.parametrize("left", [False, True])
def test_every_version(left: bool, opset: int) -> None:
    net = Net(opset)
    y = net.bn(net.input("x", 2, 4, 5), 4, name="bn")
    y = y if left else net.node("Transpose", y, perm=[0, 2, 1])
    net.output(product(net, y, (3, 4) if left else (4, 3), left=left))
    expect(net.model(), folded={"bn"})


def test_a_batch_of_shifts_before_opset_7() -> None:
    """Add broadcasts a part of the shape only, and `[2, 3, 1]` is none."""
    for opset, kept in ((6, {"bn": "BNF019"}), (7, {})):
        net = Net(opset)
        y = net.node("Identity", net.bn(net.input("x", 2, 4, 5), 4, name="bn"))
        net.output(product(net, y, (2, 3, 4), left=True))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


@pytest.mark.parametrize("opset", [6, 9])
def test_every_version_of_the_matrix(opset: int) -> None:
    net = Net(opset)
    net.output(product(net, net.bn(net.input("x", 2, 4), 4, name="bn"), (4, 3)))
    expect(net.model(), folded={"bn"})


def test_query_and_key_without_a_shift() -> None:
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 2, 4, 5), 4, name="bn", stats=turning(4)), perm=[0, 2, 1])
    net.output(*(net.node("MatMul", y, net.init(net.draw(4, 3))) for _ in range(3)))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Transpose", "MatMul", "MatMul", "MatMul"]


def test_a_product_whose_bias_follows() -> None:
    """The Add stands there already; one more is still no more nodes than before."""
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", 2, 4, 5), 4, name="bn"), perm=[0, 2, 1])
    y = net.node("Add", product(net, y, (4, 3)), net.init(net.draw(3)))
    net.output(y)
    result = expect(net.model(), folded={"bn"})
    assert len(ops(result.model)) <= 4


def test_an_unknown_batch() -> None:
    net = Net()
    y = net.node("Transpose", net.bn(net.input("x", "n", 4, "t"), 4, name="bn"), perm=[0, 2, 1])
    net.output(product(net, y, (4, 3)))
    expect(net.model(), folded={"bn"})


def test_one_channel_goes_along_any_axis() -> None:
    """A map that is the same for the whole tensor: it does not matter which axis the weights stand for."""
    net = Net()
    y = product(net, net.input("x", 2, 4, 1), (3, 4), left=True)
    net.output(net.bn(net.node("Transpose", y, perm=[0, 2, 1]), 1, name="bn"))
    expect(net.model(), folded={"bn"})
    net = Net()
    y = net.bn(net.input("x", 2, 1, 4), 1, name="bn")
    net.output(product(net, y, (4, 3)))
    expect(net.model(), folded={"bn"})
