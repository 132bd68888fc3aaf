"""The drawings around the folds, compared with the edges of the model and of the result as ONNX has them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import hypothesis
import pytest
from onnx import TensorProto
from support import graphs
from support.build import Net

import bnfold
from bnfold.fold.drawing import LARGEST, NEIGHBOURS

if TYPE_CHECKING:
    import onnx

    from bnfold.fold.drawing import Drawing
    from bnfold.fold.patterns import Pattern
    from bnfold.report.schema import Report


def report(net: Net) -> Report:
    return bnfold.optimize(net.model(), verify=False).report


def ops(drawing: Drawing) -> list[str]:
    return [box.op or box.role for box in drawing.boxes]


def roles(drawing: Drawing) -> list[str]:
    return [box.role for box in drawing.boxes]


def chain(net: Net, x: str, number: int = 0) -> str:
    x = net.conv(x, 4, 4, name=f"conv{number}")
    return net.node("Relu", net.bn(x, 4, name=f"bn{number}"), name=f"relu{number}")


def test_backward() -> None:
    net = Net()
    net.output(chain(net, net.input("x", 1, 4, 6, 6)))
    (found,) = report(net).patterns
    assert (found.folds, found.direction, found.left_out) == ((0,), "backward", 0)
    assert [(box.op, box.name) for box in found.before.boxes] == [
        ("Conv", "conv0"),
        ("BatchNormalization", "bn0"),
        ("Relu", "relu0"),
    ]
    assert roles(found.before) == ["weights", "normalization", "neighbour"]
    assert found.before.arrows == ((0, 1), (1, 2))
    assert (ops(found.after), found.after.arrows) == (["Conv", "Relu"], ((0, 1),))


def test_alike_are_drawn_once() -> None:
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    for number in range(5):
        x = chain(net, x, number)
    net.output(net.bn(net.conv(x, 4, 4, name="last"), 4, name="bn_last"))
    most, least = report(net).patterns
    assert most.folds == (0, 1, 2, 3, 4)
    assert least.folds == (5,)
    assert ops(least.before) == ["Conv", "BatchNormalization", "output"]
    assert ops(least.after) == ["Conv", "output"]


def test_forward() -> None:
    net = Net()
    x = net.node("Sigmoid", net.input("x", 1, 4, 6, 6), name="sigmoid")
    x = net.conv(net.bn(x, 4, name="bn"), 4, 4, kernel=(1, 1), name="conv")
    net.output(net.node("Sigmoid", x, name="end"))
    (found,) = report(net).patterns
    assert found.direction == "forward"
    assert ops(found.before) == ["Sigmoid", "BatchNormalization", "Conv"]
    assert roles(found.before) == ["neighbour", "normalization", "weights"]
    assert (ops(found.after), found.after.arrows) == (["Sigmoid", "Conv"], ((0, 1),))


def test_straight_from_the_input() -> None:
    net = Net()
    x = net.conv(net.bn(net.input("x", 1, 4, 6, 6), 4, name="bn"), 4, 4, kernel=(1, 1), name="conv")
    net.output(net.node("Sigmoid", x))
    (found,) = report(net).patterns
    assert ops(found.before) == ["input", "BatchNormalization", "Conv"]
    assert found.before.boxes[0].name == "x"


def test_sideways() -> None:
    """RepVGG: the identity branch, with the branch that takes it in and the sum that goes."""
    net = Net()
    x = net.node("Relu", net.input("x", 1, 4, 6, 6), name="in")
    branch = net.bn(net.conv(x, 4, 4, kernel=(3, 3), pads=[1, 1, 1, 1], name="conv"), 4, name="bn")
    total = net.node("Add", branch, net.bn(x, 4, name="identity"), name="sum")
    net.output(net.node("Relu", total, name="end"))
    found = {each.direction: each for each in report(net).patterns}
    sideways = found["sideways"]
    assert Counter(ops(sideways.before)) == Counter(
        ["Relu", "Conv", "BatchNormalization", "BatchNormalization", "Add", "Relu"]
    )
    assert Counter(roles(sideways.before)) == Counter(
        ["neighbour", "weights", "gone", "normalization", "gone", "neighbour"]
    )
    assert ops(sideways.after) == ["Relu", "Conv", "Relu"]
    assert sideways.after.arrows == ((0, 1), (1, 2))
    assert ops(found["backward"].after) == ["Conv", "Relu"]


def test_many_branches_are_cut() -> None:
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    parts = [net.conv(x, 4, 4, name=f"conv{i}") for i in range(30)]
    joined = net.node("Concat", *parts, axis=1, name="concat")
    net.output(net.node("Relu", net.bn(joined, 120, name="bn"), name="relu"))
    (found,) = report(net).patterns
    assert len(found.before.boxes) <= 16
    assert found.left_out == 32 - sum(box.role != "neighbour" for box in found.before.boxes)
    assert ops(found.after).count("BatchNormalization") == 0


def test_nothing_folds() -> None:
    net = Net()
    x = net.node("Sigmoid", net.input("x", 1, 4, 6, 6))
    net.output(net.node("Sigmoid", net.bn(x, 4)))
    assert report(net).patterns == ()


@pytest.mark.parametrize("where", ["then_branch", "else_branch"])
def test_in_a_nested_graph(where: str) -> None:
    """Readers in a body count for the node that holds it."""
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    outer = net.bn(net.conv(x, 4, 4, name="conv"), 4, name="bn")
    bodies = {}
    for name in ("then_branch", "else_branch"):
        body = Net(prefix=name)
        read = outer if name == where else net.init(net.draw(1, 4, 4, 4))
        body.output(body.node("Relu", read, name=f"{name}_node"), shape=[1, 4, 4, 4])
        bodies[name] = body.graph()
    chosen = net.input("chosen", elem=TensorProto.BOOL)
    net.output(net.node("If", chosen, name="if", **bodies), shape=[1, 4, 4, 4])
    (found,) = report(net).patterns
    assert ops(found.before) == ["Conv", "BatchNormalization", "If"]
    assert ops(found.after) == ["Conv", "If"]


def edges(model: onnx.ModelProto) -> set[tuple[str, str]]:
    """From node to node, by name, in the main graph; inputs and outputs of the graph by theirs."""
    made = {name: node.name for node in model.graph.node for name in node.output}
    made |= {value.name: value.name for value in model.graph.input}
    found = {
        (made[name], node.name) for node in model.graph.node for name in node.input if name and name in made
    }
    return found | {(made[each.name], each.name) for each in model.graph.output if each.name in made}


@graphs.lane(60, derandomize=True)
@hypothesis.given(graphs.models())
def test_what_is_drawn_is_there(model: onnx.ModelProto) -> None:
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"
    result = bnfold.optimize(model, verify=False)
    found = result.report.patterns
    assert sorted(index for each in found for index in each.folds) == list(range(len(result.folds)))
    for each in found:
        bounded(each)
        if any(result.folds[index].scope for index in each.folds) or result.report.notes:
            continue
        drawn_from(each.before, edges(model))
        drawn_from(each.after, edges(result.model))


def bounded(found: Pattern) -> None:
    for drawing in (found.before, found.after):
        assert len(drawing.boxes) <= LARGEST + 2 * NEIGHBOURS
        assert all(0 <= start < end < len(drawing.boxes) for start, end in drawing.arrows)
    assert [box.role for box in found.before.boxes].count("normalization") >= 1
    assert "gone" not in roles(found.after)
    assert "normalization" not in roles(found.after)


def drawn_from(drawing: Drawing, known: set[tuple[str, str]]) -> None:
    names = [box.name for box in drawing.boxes]
    for start, end in drawing.arrows:
        assert (names[start], names[end]) in known
