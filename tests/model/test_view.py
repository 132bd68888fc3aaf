"""Links between graphs that names alone would get wrong."""

from __future__ import annotations

from onnx import helper

from bnfold.model.store import open_model
from bnfold.model.view import View


def test_the_tensor_of_a_nested_graph_hides_an_outer_one_of_its_name() -> None:
    info = helper.make_tensor_value_info
    inner = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "inner", [], [info("z", 1, [2])])
    nodes = [helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)]
    graph = helper.make_graph(nodes, "outer", [info("x", 1, [2]), info("c", 9, [])], [info("z", 1, [2])])
    outer, *nested = View(open_model(helper.make_model(graph))).graphs
    assert len({id(g.values["z"]) for g in (outer, *nested)}) == 3
    assert len(outer.values["x"].uses) == 2
