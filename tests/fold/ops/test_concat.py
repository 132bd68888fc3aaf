"""Concat and Split: each branch has its part of the map, or all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.build import FLOAT16, NEWEST, Net
from support.claims import expect, initializers, ops
from support.ways import linear, positive, scaling, uniform

if TYPE_CHECKING:
    from onnx import ModelProto

Shape = tuple[int, ...]


def branches(net: Net, *channels: int, size: Shape = (2, 3, 4, 5)) -> list[str]:
    """Layers of as many channels, side by side."""
    x = net.input("x", *size)
    return [linear(net, x, size[1], c, len(size), name=f"branch{i}") for i, c in enumerate(channels)]


def joined(net: Net, parts: list[str], channels: int, axis: int = 1, stats: Any = None) -> ModelProto:  # noqa: ANN401 - statistics
    y = net.node("Concat", *parts, axis=axis, name="join")
    net.output(net.bn(y, channels, name="bn", stats=stats))
    return net.model()


# --- Concat, backward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("channels", [(4,), (1, 3), (2, 2), (3, 1, 4)])
def test_each_branch_takes_its_channels(channels: tuple[int, ...], axis: int) -> None:
    net = Net()
    result = expect(joined(net, branches(net, *channels), sum(channels), axis), folded={"bn"})
    assert result.folds[0].into == tuple(f"branch{i}" for i in range(len(channels)))
    assert result.folds[0].through == ("join",)
    assert result.folds[0].direction == "backward"


@pytest.mark.parametrize("axis", [0, 2, 3, -1])
def test_along_another_axis_each_branch_takes_the_whole_map(axis: int) -> None:
    net = Net()
    expect(joined(net, branches(net, 4, 4, size=(4, 4, 4, 4)), 4, axis), folded={"bn"})


@pytest.mark.parametrize("size", [(2, 3), (2, 3, 4), (1, 3, 2, 2, 2)], ids=len)
def test_any_rank(size: Shape) -> None:
    net = Net()
    expect(joined(net, branches(net, 2, 3, size=size), 5), folded={"bn"})


@pytest.mark.parametrize("opset", [6, 7, 11, 13, NEWEST])
def test_every_version(opset: int) -> None:
    net = Net(opset)
    expect(joined(net, branches(net, 2, 3), 5), folded={"bn"})


@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("first", [False, True])
def test_a_constant_branch(axis: int, first: bool) -> None:
    net = Net()
    (y,) = branches(net, 4, size=(2, 3, 4, 5))
    shape = [2, 4, 4, 5]
    shape[axis] = 3
    constant = net.init(net.draw(*shape), "constant")
    parts = [constant, y] if first else [y, constant]
    model = joined(net, parts, 7 if axis == 1 else 4, axis)
    result = expect(model, folded={"bn"})
    assert not np.array_equal(initializers(result.model)["constant"], initializers(model)["constant"])


def test_a_constant_that_another_reads() -> None:
    net = Net()
    (y,) = branches(net, 4)
    constant = net.init(net.draw(2, 1, 4, 5), "constant")
    net.output(net.node("Identity", constant))
    model = joined(net, [y, constant], 5)
    result = expect(model, folded={"bn"})
    np.testing.assert_array_equal(initializers(result.model)["constant"], initializers(model)["constant"])


def test_a_constant_branch_that_overflows() -> None:
    net = Net(elem=FLOAT16)
    (y,) = branches(net, 4)
    stats = {"scale": np.full(5, 4.0), "var": np.ones(5)}
    model = joined(net, [y, net.init(np.full((2, 1, 4, 5), 3e4))], 5, stats=stats)
    expect(model, folded=set(), kept={"bn": "BNF017"}, values=False)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_one_branch_that_cannot(where: int) -> None:
    net = Net()
    parts = branches(net, 2, 2, 2)
    parts[where] = net.node("Sigmoid", parts[where], name="blocks")
    result = expect(joined(net, parts, 6), folded=set(), kept={"bn": "BNF019"})
    assert result.kept[0].reason.blocking == "blocks"


@pytest.mark.parametrize("where", [0, 1])
def test_one_branch_that_is_read_elsewhere(where: int) -> None:
    net = Net()
    parts = branches(net, 2, 2)
    net.output(net.node("Sigmoid", parts[where]))
    expect(joined(net, parts, 4), folded=set(), kept={"bn": "BNF010"})


def test_a_branch_that_is_an_input() -> None:
    net = Net()
    (y,) = branches(net, 2)
    expect(joined(net, [y, net.input("other", 2, 1, 4, 5)], 3), folded=set(), kept={"bn": "BNF019"})


def test_a_branch_that_a_caller_may_replace() -> None:
    net = Net()
    (y,) = branches(net, 2)
    c = net.init(net.draw(2, 1, 4, 5), "default")
    net.input("default", 2, 1, 4, 5)
    result = expect(joined(net, [y, c], 3), folded=set())
    assert result.kept[0].code in {"BNF019", "BNF022"}


def test_branches_that_take_only_their_part() -> None:
    """A Relu takes the channels that are not shifted, the plain branch those that are."""
    net = Net()
    parts = branches(net, 2, 2)
    parts[0] = net.node("Relu", parts[0])
    stats = {**scaling(4), "bias": [0.0, 0.0, 1.0, -1.0]}
    expect(joined(net, parts, 4, stats=stats), folded={"bn"})
    net = Net()
    parts = branches(net, 2, 2)
    parts[1] = net.node("Relu", parts[1])
    expect(joined(net, parts, 4, stats=stats), folded=set(), kept={"bn": "BNF018"})


def test_nested() -> None:
    net = Net()
    a, b, c, d = branches(net, 1, 2, 1, 3)
    inner = net.node("Concat", net.node("Concat", a, b, axis=1), c, axis=-3)
    net.output(net.bn(net.node("Concat", d, net.node("Identity", inner), axis=1), 7, name="bn"))
    assert len(expect(net.model(), folded={"bn"}).folds[0].into) == 4


def test_sums_of_joins_and_joins_of_sums() -> None:
    net = Net()
    a, b, c, d = branches(net, 2, 2, 4, 4)
    y = net.node("Add", net.node("Concat", a, b, axis=1), net.node("Sub", c, d))
    net.output(net.bn(y, 4, name="bn"))
    expect(net.model(), folded={"bn"}, merge=False)


def test_an_unknown_number_of_channels() -> None:
    """Which channels belong to which branch cannot be told."""
    net = Net()
    (y,) = branches(net, 2)
    other = net.input("other", 2, "c", 4, 5)
    model = joined(net, [y, net.node("Relu", other)], 4)
    feeds = {"x": np.ones((2, 3, 4, 5), np.float32), "other": np.ones((2, 2, 4, 5), np.float32)}
    expect(model, folded=set(), kept={"bn": "BNF023"}, feeds=feeds)


# --- Concat, forward --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("axis", [1, -3])
def test_forward_the_others_stay_as_they_are(where: int, axis: int) -> None:
    net = Net()
    parts = [net.input(f"x{i}", 2, 2, 4, 5) for i in range(3)]
    parts[where] = net.bn(parts[where], 2, name="bn")
    y = net.node("Concat", *parts, axis=axis, name="join")
    net.output(linear(net, y, 6, 3, 4))
    result = expect(net.model(), folded={"bn"})
    assert result.folds[0].through == ("join",)


def test_forward_two_normalized_branches() -> None:
    net = Net()
    parts = [net.bn(net.input(f"x{i}", 2, 2, 4, 5), 2, name=f"bn{i}") for i in range(2)]
    net.output(linear(net, net.node("Concat", *parts, axis=1), 4, 3, 4))
    assert ops(expect(net.model(), folded={"bn0", "bn1"}).model) == ["Concat", "Conv"]


def test_forward_with_a_constant() -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 2, 4, 5), 2, name="bn")
    y = net.node("Concat", net.init(net.draw(2, 1, 4, 5)), y, axis=1)
    net.output(linear(net, y, 3, 3, 4))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("axis", [0, 2, -1])
@pytest.mark.parametrize("size", [(4, 4, 4, 4), (2, 4, 3, 5)], ids=["equal", "different"])
def test_forward_along_another_axis(size: Shape, axis: int) -> None:
    """The other branch has the same channels, and they are not normalized."""
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", *size), 4, name="bn"))
    y = net.node("Concat", y, net.input("other", *size), axis=axis)
    net.output(linear(net, y, 4, 3, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_forward_beside_channels_that_a_relu_takes() -> None:
    """Scale 1 and no shift beside the map: an activation minds only the map itself."""
    for stats, kept in ((scaling(2), {}), (positive(2), {"bn": "BNF018"})):
        net = Net()
        y = net.bn(net.input("x", 2, 2, 4, 5), 2, name="bn", stats=stats)
        y = net.node("Relu", net.node("Concat", net.input("other", 2, 2, 4, 5), y, axis=1))
        net.output(linear(net, y, 4, 3, 4))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_forward_beside_an_unknown_number_of_channels() -> None:
    net = Net()
    y = net.node("Identity", net.bn(net.input("x", 2, 2, 4, 5), 2, name="bn"))
    y = net.node("Concat", net.input("other", 2, "c", 4, 5), y, axis=1)
    net.output(linear(net, y, 4, 3, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


# --- Split ------------------------------------------------------------------------------------------------


def split(net: Net, y: str, sizes: list[int] | None, count: int, axis: int) -> list[str]:
    names = [f"part{i}" for i in range(count)]
    operands: list[str] = []
    attrs: dict[str, Any] = {"axis": axis}
    if sizes is not None and net.opset >= 13:
        operands = [net.ints(*sizes)]
    elif sizes is not None:
        attrs["split"] = sizes
    elif net.opset >= 18:
        attrs["num_outputs"] = count
    net.node("Split", y, *operands, out=names, name="split", **attrs)
    return names


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("opset", [7, 11, 13, 18, NEWEST])
@pytest.mark.parametrize("sizes", [None, [2, 2, 2], [1, 3, 2]])
def test_each_part_takes_its_channels(sizes: list[int] | None, opset: int, axis: int) -> None:
    if opset < 11:
        axis %= 4
    net = Net(opset)
    y = net.bn(net.input("x", 2, 6, 4, 5), 6, name="bn")
    parts = split(net, y, sizes, 3, axis)
    given = sizes or [2, 2, 2]
    net.output(*(linear(net, p, c, 3, 4, name=p + "_conv") for p, c in zip(parts, given, strict=True)))
    result = expect(net.model(), folded={"bn"})
    assert len(result.folds[0].into) == 3
    assert result.folds[0].through == ("split",)


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_split_along_another_axis(axis: int) -> None:
    net = Net()
    y = net.bn(net.input("x", 4, 4, 4, 4), 4, name="bn")
    net.output(*(linear(net, p, 4, 3, 4, name=p + "_conv") for p in split(net, y, [1, 3], 2, axis)))
    expect(net.model(), folded={"bn"})


def test_an_uneven_last_part() -> None:
    net = Net(18)
    y = net.bn(net.input("x", 2, 5, 4, 4), 5, name="bn")
    parts = split(net, y, None, 2, 1)
    net.output(*(linear(net, p, c, 3, 4, name=p + "_conv") for p, c in zip(parts, (3, 2), strict=True)))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("where", [0, 1])
def test_one_part_that_cannot(where: int) -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 4, 4, 5), 4, name="bn")
    parts = split(net, y, None, 2, 1)
    ends = [linear(net, parts[0], 2, 3, 4), linear(net, parts[1], 2, 3, 4, name="other")]
    ends[where] = net.node("Sigmoid", parts[where], name="blocks")
    net.output(*ends)
    result = expect(net.model(), folded=set(), kept={"bn": "BNF019"})
    assert result.kept[0].reason.blocking == "blocks"


def test_a_part_that_nobody_reads() -> None:
    net = Net()
    parts = split(net, net.bn(net.input("x", 2, 4, 4, 5), 4, name="bn"), [1, 3], 2, 1)
    net.output(linear(net, parts[1], 3, 2, 4))
    expect(net.model(), folded={"bn"})


def test_a_part_that_is_a_graph_output() -> None:
    net = Net()
    parts = split(net, net.bn(net.input("x", 2, 4, 4, 5), 4, name="bn"), None, 2, 1)
    net.output(parts[0], linear(net, parts[1], 2, 2, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF011"})


def test_parts_that_are_joined_again() -> None:
    """One reader gets the map by two ways, each with a part of it."""
    net = Net()
    parts = split(net, net.bn(net.input("x", 2, 4, 4, 5), 4, name="bn"), None, 2, 1)
    net.output(linear(net, net.node("Concat", *parts[::-1], axis=1), 4, 2, 4))
    assert ops(expect(net.model(), folded={"bn"}).model) == ["Split", "Concat", "Conv"]


def test_a_split_before_a_normalization() -> None:
    """The other parts come from the same weights; their channels stay as they are."""
    net = Net()
    (y,) = branches(net, 4)
    parts = split(net, y, None, 2, 1)
    net.output(net.bn(parts[0], 2, name="bn", stats=uniform(2)), net.node("Sigmoid", parts[1]))
    expect(net.model(), folded={"bn"})


# --- Split, backward --------------------------------------------------------------------------------------


def layered(net: Net, channels: int) -> str:
    return linear(net, net.input("x", 2, 3, 4, 5), 3, channels, 4, name="layer")


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("opset", [11, 13, 18, NEWEST])
def test_backward_the_other_parts_stay_as_they_are(opset: int, axis: int, where: int) -> None:
    net = Net(opset)
    parts = split(net, layered(net, 6), [1, 3, 2], 3, axis)
    for i, part in enumerate(parts):
        net.output(net.bn(part, (1, 3, 2)[i], name="bn") if i == where else net.node("Sigmoid", part))
    result = expect(net.model(), folded={"bn"})
    assert (result.folds[0].into, result.folds[0].through) == (("layer",), ("split",))


def test_backward_each_part_is_normalized() -> None:
    net = Net()
    parts = split(net, layered(net, 6), [1, 3, 2], 3, 1)
    net.output(*(net.bn(p, c, name=f"bn{c}") for p, c in zip(parts, (1, 3, 2), strict=True)))
    assert ops(expect(net.model(), folded={"bn1", "bn2", "bn3"}).model) == ["Conv", "Split"]


def test_backward_a_part_that_is_a_graph_output_stays() -> None:
    net = Net()
    parts = split(net, layered(net, 4), None, 2, 1)
    net.output(parts[1], net.bn(parts[0], 2, name="bn"))
    expect(net.model(), folded={"bn"})


def test_backward_the_normalized_part_is_a_graph_output_too() -> None:
    net = Net()
    parts = split(net, layered(net, 4), None, 2, 1)
    net.output(parts[0], net.bn(parts[0], 2, name="bn"), net.node("Neg", parts[1]))
    expect(net.model(), folded=set(), kept={"bn": "BNF011"})


def test_backward_the_whole_is_read_as_well() -> None:
    net = Net()
    y = layered(net, 4)
    parts = split(net, y, None, 2, 1)
    net.output(net.node("Sigmoid", y), net.bn(parts[0], 2, name="bn"), net.node("Neg", parts[1]))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


@pytest.mark.parametrize("read", [False, True])
def test_backward_along_another_axis(read: bool) -> None:
    """The other part has the same channels, without the normalization, if anybody reads it."""
    net = Net()
    parts = split(net, layered(net, 4), [2, 3], 2, 3)
    net.output(net.bn(parts[1], 4, name="bn"))
    if read:
        net.output(net.node("Sigmoid", parts[0]))
    expect(net.model(), folded=set() if read else {"bn"}, kept={"bn": "BNF010"} if read else {})


def test_backward_one_map_for_a_part_of_the_image() -> None:
    """No layer before has weights for a part of the image."""
    net = Net()
    parts = split(net, layered(net, 4), [2, 3], 2, 3)
    y = net.node("Reshape", parts[0], net.ints(2, 1, 4, 4, 2))
    net.output(net.bn(y, 1, name="bn"), net.node("Sigmoid", parts[1]))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_backward_a_rectifier_before_the_split_minds_only_the_part() -> None:
    for stats, kept in ((scaling(2), {}), (positive(2), {"bn": "BNF018"})):
        net = Net()
        parts = split(net, net.node("Relu", layered(net, 4)), None, 2, 1)
        net.output(net.bn(parts[1], 2, name="bn", stats=stats), net.node("Sigmoid", parts[0]))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_backward_parts_of_an_unknown_size() -> None:
    net = Net()
    y = net.node("Relu", net.input("x", 2, "c", 4))
    parts = split(net, y, [1, 3], 2, 1)
    net.output(net.bn(parts[1], 3, name="bn"), net.node("Sigmoid", parts[0]))
    result = expect(
        net.model(),
        folded=set(),
        kept={"bn": "BNF019"},
        feeds={"x": np.ones((2, 4, 4), np.float32)},
    )
    assert "BNF023" in [str(reason.code) for reason in result.kept[0].reasons]


def test_backward_both_parts_meet_again() -> None:
    """The layer is asked for two maps, each without the other."""
    net = Net()
    parts = split(net, layered(net, 4), None, 2, 1)
    y = net.node("Concat", net.node("Relu", parts[0]), parts[1], axis=1)
    net.output(net.bn(y, 4, name="bn", stats=scaling(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF010"})


def test_a_shuffle_unit() -> None:
    """ShuffleNetV2: half of the channels pass, the others go through layers, then all are shuffled."""
    net = Net()
    x = net.input("x", "n", 4, 6, 6)
    y = net.node("Relu", net.bn(net.conv(x, 4, 8, (1, 1), name="first"), 8, name="bn1", stats=scaling(8)))
    parts = split(net, y, [4, 4], 2, 1)
    z = net.bn(net.conv(parts[1], 4, 4, (3, 3), pads=[1] * 4, name="second"), 4, name="bn2")
    y = net.node("Concat", parts[0], z, axis=1)
    y = net.node("Reshape", y, net.ints(0, 2, 4, 6, 6))
    y = net.node("Reshape", net.node("Transpose", y, perm=[0, 2, 1, 3, 4]), net.ints(0, 8, 6, 6))
    y = net.bn(y, 8, name="bn3", stats=scaling(8))
    net.output(linear(net, y, 8, 2, 4, name="last"))
    result = expect(net.model(), folded={"bn1", "bn2", "bn3"})
    assert result.folds[2].into == ("first", "second")


# --- branches that join, forward --------------------------------------------------------------------------


def test_forward_one_branch_twice() -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 2, 4, 5), 2, name="bn")
    net.output(linear(net, net.node("Concat", y, net.node("Identity", y), y, axis=1), 6, 2, 4))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_forward_all_branches_along_another_axis(axis: int) -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 4, 4, 5), 4, name="bn")
    y = net.node("Concat", y, net.node("Identity", y), axis=axis)
    net.output(linear(net, y, 4, 2, 4))
    expect(net.model(), folded={"bn"})


def test_forward_branches_along_another_axis_that_differ() -> None:
    """Each branch has the channels in another order."""
    net = Net()
    y = net.bn(net.input("x", 2, 4, 4, 5), 4, name="bn")
    z = net.node("Gather", y, net.init([3, 0, 1, 2], elem=7), axis=1)
    net.output(linear(net, net.node("Concat", y, z, axis=2), 4, 2, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF023"})


def test_forward_a_pyramid_of_pools() -> None:
    """SPP: the tensor and its maxima, side by side."""
    for stats, kept in ((positive(3), {}), (None, {"bn": {"BNF018", "BNF019"}})):
        net = Net()
        y = net.bn(net.input("x", 2, 3, 6, 6), 3, name="bn", stats=stats)
        pools = [net.node("MaxPool", y, kernel_shape=[k, k], pads=[k // 2] * 4) for k in (3, 5)]
        net.output(linear(net, net.node("Concat", y, *pools, axis=1), 9, 2, 4))
        expect(net.model(), folded={"bn"} - set(kept), kept=kept)


def test_forward_branches_of_different_length() -> None:
    """The join is asked last, although one branch comes to it at once."""
    net = Net()
    y = net.bn(net.input("x", 2, 2, 4, 5), 2, name="bn")
    z = y
    for _ in range(5):
        z = net.node("Identity", z)
    net.output(linear(net, net.node("Concat", z, y, axis=1), 4, 2, 4))
    expect(net.model(), folded={"bn"})


def test_forward_one_branch_ends_before_the_join() -> None:
    net = Net()
    y = net.bn(net.input("x", 2, 2, 4, 5), 2, name="bn")
    net.output(linear(net, net.node("Concat", net.node("Sigmoid", y), y, axis=1), 4, 2, 4))
    expect(net.model(), folded=set(), kept={"bn": "BNF019"})
