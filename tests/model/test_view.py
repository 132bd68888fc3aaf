"""Links between graphs that names alone would get wrong."""

from __future__ import annotations

from onnx import helper

from bnfold.model.store import open_model
from bnfold.model.view import View


def test_a_nested_graph_that_returns_an_outer_tensor_keeps_it_from_changing() -> None:
    info = helper.make_tensor_value_info
    inner = helper.make_graph([], "inner", [], [info("between", 1, [2])])
    nodes = [
        helper.make_node("Neg", ["x"], ["between"]),
        helper.make_node("If", ["c"], ["chosen"], then_branch=inner, else_branch=inner),
        helper.make_node("Abs", ["between"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "outer", [info("x", 1, [2]), info("c", 9, [])], [info("y", 1, [2]), info("chosen", 1, [2])]
    )
    view = View(open_model(helper.make_model(graph)))
    assert view.graphs[0].values["between"].is_output


def test_the_tensor_of_a_nested_graph_hides_an_outer_one_of_its_name() -> None:
    info = helper.make_tensor_value_info
    inner = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "inner", [], [info("z", 1, [2])])
    nodes = [helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)]
    graph = helper.make_graph(nodes, "outer", [info("x", 1, [2]), info("c", 9, [])], [info("z", 1, [2])])
    outer, *nested = View(open_model(helper.make_model(graph))).graphs
    assert len({id(g.values["z"]) for g in (outer, *nested)}) == 3
    assert len(outer.values["x"].uses) == 2
