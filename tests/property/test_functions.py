"""Random graphs with a part of them in a local function: the same folds as without it, and the same values.

The default lane takes 100 graphs, the slow lane 2,000; any number by hand:

    BNFOLD_EXAMPLES=20000 pytest tests/property/test_functions.py -m slow
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, note
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, helper, printer
from support.build import feeds
from support.claims import expect, inlined_calls, node_bodies
from support.graphs import lane, models

import bnfold

if TYPE_CHECKING:
    from collections.abc import Iterable

QUICK, THOROUGH = 100, int(os.environ.get("BNFOLD_EXAMPLES", "2000"))
LOCAL = "local.functions"
OLDEST_IR_WITH_FUNCTIONS = 8


def read(nodes: Iterable[NodeProto]) -> list[str]:
    """Every name that the nodes read, in their bodies too."""
    names = []
    for node in nodes:
        names += node.input
        for body in node_bodies(node):
            names += [name for inner in body.node for name in inner.input]
            names += [output.name for output in body.output]
    return [name for name in dict.fromkeys(names) if name]


def wrapped(model: ModelProto, first: int, last: int) -> ModelProto:
    """The model with nodes `first` to `last` in a function, which is called in their place."""
    made = ModelProto()
    made.CopyFrom(model)
    nodes = list(model.graph.node)
    inside, outside = nodes[first:last], nodes[:first] + nodes[last:]
    stored = [t.name for t in model.graph.initializer] + [
        s.values.name for s in model.graph.sparse_initializer
    ]
    known = {*stored, *(i.name for i in model.graph.input), *(o for n in nodes[:first] for o in n.output)}
    produced = [name for node in inside for name in node.output if name]
    wanted = {*read(outside), *(o.name for o in model.graph.output)}
    inputs = [name for name in read(inside) if name in known]
    outputs = [name for name in produced if name in wanted]
    call = helper.make_node("Part", inputs, outputs, "call", domain=LOCAL)
    del made.graph.node[:]
    made.graph.node.extend([*nodes[:first], call, *nodes[last:]])
    made.functions.append(helper.make_function(LOCAL, "Part", inputs, outputs, inside, model.opset_import))
    made.opset_import.append(helper.make_opsetid(LOCAL, 1))
    return made


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelProto, ModelProto]:
    """A model, and the same with a part of it in a function."""
    model = draw(models())
    model.ir_version = max(model.ir_version, OLDEST_IR_WITH_FUNCTIONS)
    count = len(model.graph.node)
    first = draw(st.integers(0, count - 1))
    return model, wrapped(model, first, draw(st.integers(first + 1, count)))


def holds(model: ModelProto, called: ModelProto) -> None:
    note(printer.to_text(called))
    plain, result = bnfold.inspect(model), bnfold.inspect(called)
    assert len(result.folds) == len(plain.folds)
    expect(called, feeds=feeds(called), runtime=False)


@given(cases())
@lane(QUICK, derandomize=True)
def test_a_part_in_a_function(case: tuple[ModelProto, ModelProto]) -> None:
    holds(*case)


@pytest.mark.slow
@given(cases())
@lane(THOROUGH, derandomize="BNFOLD_EXAMPLES" not in os.environ)
def test_many_parts_in_functions(case: tuple[ModelProto, ModelProto]) -> None:
    holds(*case)


def test_the_cases_are_worth_testing() -> None:
    """A good part of them needs the call inlined, and a good part does not."""
    found = {True: 0, False: 0}

    @given(cases())
    @lane(QUICK, derandomize=True)
    def count(case: tuple[ModelProto, ModelProto]) -> None:
        found[bool(inlined_calls(bnfold.inspect(case[1])))] += 1

    count()
    assert found[True] > 0.2 * sum(found.values())
    assert found[False] > 0.2 * sum(found.values())
