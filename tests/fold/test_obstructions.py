"""The drawings around what stays, compared with the edges of the result and with the reasons."""

from __future__ import annotations

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

    from bnfold.fold.obstructions import Obstruction
    from bnfold.report.schema import Report


def report(net: Net) -> Report:
    return bnfold.optimize(net.model(), verify=False).report


def names(found: Obstruction) -> list[str]:
    return [box.name for box in found.around.boxes]


def barring(found: Obstruction) -> list[str]:
    return [names(found)[index] for index in found.obstacles]


def arrows(found: Obstruction) -> set[tuple[str, str]]:
    return {(names(found)[start], names(found)[end]) for start, end in found.around.arrows}


def test_an_activation_before_it() -> None:
    net = Net()
    x = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    x = net.bn(net.node("Sigmoid", x, name="sigmoid"), 4, name="bn")
    net.output(net.node("Tanh", x, name="tanh"))
    (found,) = report(net).obstructions
    assert (found.kept, found.left_out) == ((0,), 0)
    assert [(box.op, box.name, box.role) for box in found.around.boxes] == [
        ("Conv", "conv", "neighbour"),
        ("Sigmoid", "sigmoid", "between"),
        ("BatchNormalization", "bn", "kept"),
        ("Tanh", "tanh", "between"),
        ("", net.outputs[0].name, "output"),
    ]
    assert barring(found) == ["sigmoid", "tanh"]
    assert found.around.arrows == ((0, 1), (1, 2), (2, 3), (3, 4))


def test_another_reader_of_the_tensor_between() -> None:
    """The Conv is innocent: who else reads it stands in the way."""
    net = Net()
    conv = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    normalized = net.node("Tanh", net.bn(conv, 4, name="bn"), name="tanh")
    other = net.node("Exp", conv, name="other")
    net.output(net.node("Add", normalized, other, name="sum"))
    (found,) = report(net).obstructions
    assert barring(found) == ["tanh", "other"]
    assert {("conv", "bn"), ("conv", "other"), ("bn", "tanh"), ("tanh", "sum")} <= arrows(found)


def test_the_tensor_between_is_returned() -> None:
    net = Net()
    conv = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    net.output(conv)
    net.output(net.node("Tanh", net.bn(conv, 4, name="bn"), name="tanh"))
    (found,) = report(net).obstructions
    assert barring(found) == ["tanh", conv]
    assert ("conv", conv) in arrows(found)
    assert [box.role for box in found.around.boxes if box.name == conv] == ["output"]


def test_its_own_mode() -> None:
    net = Net()
    x = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    net.output(net.node("Relu", net.bn(x, 4, name="bn", training_mode=1), name="relu"))
    (found,) = report(net).obstructions
    assert barring(found) == ["bn"]
    assert names(found) == ["conv", "bn", "relu"]


def test_a_weight_that_callers_may_replace() -> None:
    net = Net()
    x = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    net.output(net.node("Relu", net.bn(x, 4, name="bn"), name="relu"))
    model = net.model()
    name = model.graph.node[1].input[1]
    value = model.graph.input.add(name=name)
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    value.type.tensor_type.shape.dim.add(dim_value=4)
    (found,) = bnfold.optimize(model, verify=False).report.obstructions
    assert barring(found) == [name]
    assert {(name, "bn"), ("conv", "bn"), ("bn", "relu")} == arrows(found)


def test_statistics_that_are_computed() -> None:
    net = Net()
    x = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    scale = net.node("Exp", net.input("s", 4), name="exp")
    y = net.node(
        "BatchNormalization", x, scale, *(net.init(net.draw(4, low=0.5)) for _ in range(3)), name="bn"
    )
    net.output(net.node("Relu", y, name="relu"))
    (found,) = report(net).obstructions
    assert set(barring(found)) & {"exp", "s"}
    assert ("exp", "bn") in arrows(found)


def test_a_long_way_is_cut() -> None:
    net = Net()
    x = net.node("Tanh", net.input("x", 1, 4, 6, 6), name="far")
    for number in range(9):
        x = net.node("Transpose", x, perm=[0, 1, 3, 2], name=f"turn{number}")
    net.output(net.node("Tanh", net.bn(x, 4, name="bn"), name="end"))
    (found,) = report(net).obstructions
    assert "far" in barring(found)
    assert found.far == 0
    (gap,) = [box for box in found.around.boxes if box.role == "hidden"]
    drawn = sum(name.startswith("turn") for name in names(found))
    assert gap.name == f"{9 - drawn} nodes"
    assert {end for start, end in arrows(found) if start == gap.name} == {"turn7"}


def test_what_is_too_far_away_is_counted() -> None:
    net = Net()
    x = net.node("Tanh", net.input("x", 1, 4, 6, 6), name="far")
    for number in range(80):
        x = net.node("Transpose", x, perm=[0, 1, 3, 2], name=f"turn{number}")
    net.output(net.node("Tanh", net.bn(x, 4, name="bn"), name="end"))
    (found,) = report(net).obstructions
    assert (barring(found), found.far) == (["end"], 1)


def test_alike_are_drawn_once() -> None:
    net = Net()
    x = net.input("x", 1, 4, 6, 6)
    for number in range(5):
        x = net.node("Tanh", net.bn(x, 4, name=f"bn{number}"), name=f"tanh{number}")
    net.output(x)
    most, first, last = report(net).obstructions
    assert most.kept == (1, 2, 3)
    assert (first.kept, last.kept) == ((0,), (4,))


def test_nothing_stays() -> None:
    net = Net()
    net.output(net.bn(net.conv(net.input("x", 1, 4, 6, 6), 4, 4), 4))
    assert report(net).obstructions == ()


@pytest.mark.parametrize("inner", ["then_branch", "else_branch"])
def test_weights_outside_of_a_nested_graph(inner: str) -> None:
    net = Net()
    outer = net.conv(net.input("x", 1, 4, 6, 6), 4, 4, name="conv")
    bodies = {}
    for name in ("then_branch", "else_branch"):
        body = Net(prefix=name)
        made = body.bn(outer, 4, name="bn") if name == inner else body.node("Tanh", outer)
        body.output(body.node("Tanh", made, name="tanh"), shape=[1, 4, 4, 4])
        bodies[name] = body.graph()
    chosen = net.input("chosen", elem=TensorProto.BOOL)
    net.output(net.node("If", chosen, name="if", **bodies), shape=[1, 4, 4, 4])
    (found,) = report(net).obstructions
    assert [(box.name, box.role) for box in found.around.boxes][:2] == [(outer, "input"), ("bn", "kept")]
    assert outer in barring(found)


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
    kept = result.kept
    assert sorted(i for each in result.report.obstructions for i in each.kept) == list(range(len(kept)))
    for each in result.report.obstructions:
        assert len(each.around.boxes) <= LARGEST + 2 * NEIGHBOURS + 2
        assert [box.name for box in each.around.boxes if box.role == "kept"] == [kept[each.kept[0]].node]
        assert all(0 <= start < end < len(each.around.boxes) for start, end in each.around.arrows)
        assert len({kept[index].code for index in each.kept}) == 1
        if any(kept[index].scope for index in each.kept) or result.report.notes:
            continue
        known = edges(result.model)
        hidden = {box.name for box in each.around.boxes if box.role == "hidden"}
        for start, end in arrows(each):
            nested = "If" in {box.op for box in each.around.boxes if box.name in {start, end}}
            assert (start, end) in known or hidden & {start, end} or nested
