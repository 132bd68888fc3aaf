"""Edits on the level of bytes, against the same edits made with plain protobuf calls."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnxfiles import (
    Builder,
    applied,
    every_tensor,
    externalized,
    internalized,
    model,
    padded_varint,
    scopes,
    shipped_models,
    sparse,
    split,
    value_info,
)

from bnfold.errors import ModelError
from bnfold.model.edits import MAIN, GraphEdits, ModelEdits, NewTensor, Scope, graph_at
from bnfold.model.store import open_model
from bnfold.model.write import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[onnx.NodeProto], onnx.NodeProto | None]
    from pathlib import Path


def new_tensor(name: str, rng: np.random.Generator, size: int) -> NewTensor:
    array = rng.normal(size=(size, 3)).astype(np.float32)

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, size, 100):
            yield array[start : start + 100]

    return NewTensor(name, array.shape, TensorProto.FLOAT, array.nbytes, chunks)


def draw(seed: int, skeleton: onnx.ModelProto, full: onnx.ModelProto) -> tuple[ModelEdits, ModelEdits]:
    """Random edits of every kind, with nodes taken from the skeleton and, the same, from the whole model."""
    chooser = random.Random(seed)  # noqa: S311 - test data
    rng = np.random.default_rng(seed)
    ours: list[GraphEdits] = []
    theirs: list[GraphEdits] = []
    closed: set[Scope] = set()
    for (scope, thin), (_, whole) in zip(scopes(skeleton), scopes(full), strict=True):
        above = {Scope(scope.function, scope.bodies[:depth]) for depth in range(len(scope.bodies))}
        blocked = any(
            Scope(scope.function, scope.bodies[: depth + 1]) in closed for depth in range(len(scope.bodies))
        )
        if blocked or (above and chooser.random() < 0.4):
            continue
        nodes: dict[int, Any] = {}
        plain: dict[int, Any] = {}
        for index, node in enumerate(thin.node):
            change: Change | None = chooser.choice([None, removed, renamed, deepened])
            if change is None:
                continue
            nodes[index], plain[index] = change(node), change(whole.node[index])
            if change is not renamed:
                closed |= bodies(scope, index, node)
        inserted: dict[int, Any] = {}
        plain_inserted: dict[int, Any] = {}
        for index in range(len(thin.node) + 1):
            if chooser.random() < 0.3:
                picks = [chooser.randrange(len(thin.node)) for _ in range(chooser.randrange(3))]
                inserted[index] = tuple(renamed(thin.node[pick]) for pick in picks)
                plain_inserted[index] = tuple(renamed(whole.node[pick]) for pick in picks)
        dropped = frozenset(i.name for i in thin.value_info if chooser.random() < 0.5)
        common: dict[str, Any] = {"scope": scope, "dropped": dropped}
        if isinstance(thin, onnx.GraphProto):
            names = [t.name for t in thin.initializer] + [t.values.name for t in thin.sparse_initializer]
            common |= {
                "initializers": {
                    name: chooser.choice([None, new_tensor(name, rng, 5), new_tensor(name, rng, 900)])
                    for name in names
                    if chooser.random() < 0.5
                },
                "added": tuple(
                    new_tensor(f"new{k}", rng, chooser.choice([1, 700])) for k in range(chooser.randrange(3))
                ),
                "inputs_removed": frozenset(i.name for i in thin.input if chooser.random() < 0.2),
                "inputs_added": tuple(value_info(f"in{k}") for k in range(chooser.randrange(3))),
            }
        ours.append(GraphEdits(nodes=nodes, inserted=inserted, **common))
        theirs.append(GraphEdits(nodes=plain, inserted=plain_inserted, **common))
    metadata = {"second": "changed", "third": "new"} if chooser.random() < 0.5 else {}
    return ModelEdits(tuple(ours), metadata), ModelEdits(tuple(theirs), metadata)


def bodies(scope: Scope, index: int, node: onnx.NodeProto) -> set[Scope]:
    return {
        scope.body(index, attribute.name, place)
        for attribute in node.attribute
        for place in range(max(1, len(attribute.graphs)))
    }


def removed(_: onnx.NodeProto) -> None:
    """The end of a node."""


def copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def renamed(node: onnx.NodeProto) -> onnx.NodeProto:
    """A change of the node's own fields."""
    copy = copied(node)
    copy.name += "_changed"
    for index, name in enumerate(copy.output):
        copy.output[index] = f"{name}_too"
    return copy


def deepened(node: onnx.NodeProto) -> onnx.NodeProto:
    """A change within its attributes: no attribute is the same any more."""
    copy = renamed(node)
    for attribute in copy.attribute:
        attribute.doc_string = "changed"
    copy.attribute.add(name="extra", type=onnx.AttributeProto.INT, i=3)
    return copy


def check(data: bytes, full: onnx.ModelProto, seed: int, source: bytes | Path) -> None:
    """Apply random edits both ways, and compare the messages, unknown fields and all."""
    opened = open_model(source)
    ours, theirs = draw(seed, opened.proto, full)
    plain = applied(full, theirs)
    assert onnx.ModelProto.FromString(to_bytes(opened, ours)) == plain
    assert to_bytes(opened, ours) == to_bytes(open_model(source), ours)
    assert to_bytes(opened, ModelEdits()) == data or opened.external


@pytest.mark.parametrize("seed", range(150))
def test_random_edits_of_random_models(seed: int) -> None:
    full = Builder(seed).model()
    data = full.SerializeToString()
    check(data, full, seed, data)


@pytest.mark.parametrize("seed", range(60))
def test_random_edits_of_random_models_with_external_data(seed: int, tmp_path: Path) -> None:
    proto = externalized(Builder(seed).model(), tmp_path / "w.bin", seed=seed)
    onnx.save(proto, tmp_path / "m.onnx")
    check((tmp_path / "m.onnx").read_bytes(), internalized(proto, tmp_path), seed, tmp_path / "m.onnx")


@pytest.mark.parametrize("path", shipped_models(), ids=lambda p: p.parent.name + "/" + p.name)
def test_models_of_onnx(path: Path) -> None:
    data = path.read_bytes()
    assert to_bytes(open_model(path), ModelEdits()) == data
    for seed in range(3):
        check(data, onnx.load(path), seed, path)


@pytest.mark.slow
def test_models_of_the_onnx_operator_tests() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy, about the extreme values that some cases compute
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - takes seconds

        cases = collect_testcases(None)
    for seed, case in enumerate(cases):
        assert case.model is not None
        data = case.model.SerializeToString()
        check(data, case.model, seed, data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 3000))
def test_many_random_edits(seed: int, tmp_path: Path) -> None:
    test_random_edits_of_random_models(seed)
    test_random_edits_of_random_models_with_external_data(seed, tmp_path)


# --- single properties, said plainly --------------------------------------------------------------------


def small(**more: Any) -> onnx.ModelProto:  # noqa: ANN401 - arguments of make_graph
    weight = numpy_helper.from_array(np.arange(3000, dtype=np.float32), "w")
    weight.doc_string = "a weight"
    nodes = [
        helper.make_node("Add", ["x", "w"], ["t"], name="first"),
        helper.make_node("Relu", ["t"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value_info("x", (3000,))], [value_info("y", (3000,))], [weight], **more
    )
    return model(graph)


def edited(proto: onnx.ModelProto, **changes: Any) -> onnx.ModelProto:  # noqa: ANN401 - fields of GraphEdits
    data = to_bytes(open_model(proto), ModelEdits((GraphEdits(**changes),)))
    result: onnx.ModelProto = onnx.ModelProto.FromString(data)
    return result


def test_untouched_records_keep_their_bytes() -> None:
    proto = small(value_info=[value_info("t", (3000,))])
    # Fields that this version of onnx does not know, written as nobody would write them.
    odd = b"\xfa\x3f\x03abc"  # field 1023
    node = b"\x0a\x84\x80\x00" + b"\x22\x02No"  # a length in more bytes than it takes
    graph_body = proto.graph.SerializeToString() + odd + node
    head = onnx.ModelProto.FromString(proto.SerializeToString())
    head.ClearField("graph")
    data = b"\x3a" + padded_varint(len(graph_body)) + graph_body + odd + head.SerializeToString()
    edits = ModelEdits((GraphEdits(initializers={"w": NewTensor.of("w", np.ones(2, np.float16))}),))
    result = to_bytes(open_model(data), edits)
    before, after = split(data), split(result)
    assert [record for field, record, _ in after if field != 7] == [r for field, r, _ in before if field != 7]
    inner_before = [r for field, r, _ in split(next(body for f, _, body in before if f == 7)) if field != 5]
    inner_after = [r for field, r, _ in split(next(body for f, _, body in after if f == 7)) if field != 5]
    assert inner_after == inner_before
    assert odd in inner_after
    assert node in inner_after


def test_a_replaced_tensor_keeps_what_is_said_about_it() -> None:
    result = edited(small(), initializers={"w": NewTensor.of("w", np.ones(2, np.float16))})
    assert result.graph.initializer[0].doc_string == "a weight"
    np.testing.assert_array_equal(numpy_helper.to_array(result.graph.initializer[0]), np.ones(2, np.float16))


def test_a_sparse_tensor_becomes_dense() -> None:
    proto = small()
    proto.graph.sparse_initializer.append(sparse("s", 9, np.random.default_rng(0)))
    result = edited(proto, initializers={"s": NewTensor.of("s", np.ones(9, np.float32))})
    assert not result.graph.sparse_initializer
    assert [tensor.name for tensor in result.graph.initializer] == ["w", "s"]


def test_new_things_of_a_graph_without_any() -> None:
    proto = model(helper.make_graph([], "g", [], [value_info("y")]))
    node = helper.make_node("Neg", ["x"], ["y"])
    result = edited(
        proto,
        inserted={0: (node,)},
        added=(NewTensor.of("w", np.ones(3)),),
        inputs_added=(value_info("x"),),
    ).graph
    assert (list(result.node), [t.name for t in result.initializer]) == ([node], ["w"])
    assert [value.name for value in result.input] == ["x"]


def test_an_if_and_its_branch_are_edited_together() -> None:
    weight = numpy_helper.from_array(np.arange(3000, dtype=np.float32), "w")
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["o"])], "b", [], [value_info("o")], [weight]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch, name="old")
    opened = open_model(
        model(helper.make_graph([node], "g", [value_info("x"), value_info("c")], [value_info("y")]))
    )
    changed = copied(opened.proto.graph.node[0])
    changed.name = "new"
    inner = GraphEdits(
        MAIN.body(0, "then_branch"), initializers={"w": NewTensor.of("w", np.ones(3000, np.float32))}
    )
    edits = ModelEdits((inner, GraphEdits(MAIN, nodes={0: changed})))
    result = onnx.ModelProto.FromString(to_bytes(opened, edits)).graph.node[0]
    assert result.name == "new"
    by_name = {attribute.name: attribute.g for attribute in result.attribute}
    then, other = by_name["then_branch"], by_name["else_branch"]
    np.testing.assert_array_equal(numpy_helper.to_array(then.initializer[0]), np.ones(3000))
    assert other == branch


def test_payloads_left_out_come_back_in_moved_nodes() -> None:
    node = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(9000.0)))
    opened = open_model(model(helper.make_graph([node], "g", [], [value_info("k")])))
    moved = copied(opened.proto.graph.node[0])
    edits = ModelEdits((GraphEdits(nodes={0: None}, inserted={1: (moved,)}),))
    assert onnx.ModelProto.FromString(to_bytes(opened, edits)).graph.node[0] == node


def test_metadata_is_set_once() -> None:
    proto = small()
    for value in ("1", "2"):
        proto.metadata_props.add(key="k", value=value)
    proto.metadata_props.add(key="other", value="o")
    result = to_bytes(open_model(proto), ModelEdits(metadata={"k": "3", "é": "ü"}))
    props = [(entry.key, entry.value) for entry in onnx.ModelProto.FromString(result).metadata_props]
    assert props == [("k", "3"), ("other", "o"), ("é", "ü")]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (GraphEdits(nodes={2: None}), "no nodes with the indices"),
        (GraphEdits(nodes={-1: None}), "no nodes with the indices"),
        (GraphEdits(inserted={3: ()}), "no nodes with the indices"),
        (GraphEdits(initializers={"v": None}), "'v'"),
        (GraphEdits(inputs_removed=frozenset({"v"})), "'v'"),
        (GraphEdits(Scope(0)), "function 0"),
        (GraphEdits(MAIN.body(0, "body")), "node 0 body"),
        (
            GraphEdits(added=(NewTensor("n", (2,), TensorProto.FLOAT, 8, lambda: iter((bytes(7),))),)),
            "8 bytes and has 7",
        ),
    ],
)
def test_edits_that_do_not_fit(edit: GraphEdits, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_bytes(open_model(small()), ModelEdits((edit,)))


def test_two_edits_of_one_scope() -> None:
    with pytest.raises(ValueError, match="two sets of edits"):
        to_bytes(open_model(small()), ModelEdits((GraphEdits(), GraphEdits())))


def test_edits_below_a_node_that_goes_away() -> None:
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "b", [], [value_info("o")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    opened = open_model(model(helper.make_graph([node], "g", [], [])))
    inner = GraphEdits(MAIN.body(0, "then_branch"), nodes={0: None})
    rewritten = copied(opened.proto.graph.node[0])
    rewritten.attribute[0].g.name = rewritten.attribute[1].g.name = "other"
    for change in (None, rewritten):
        with pytest.raises(ValueError, match="not there, or replaced"):
            to_bytes(opened, ModelEdits((GraphEdits(nodes={0: change}), inner)))


def test_a_function_has_no_initializers() -> None:
    function = helper.make_function("d", "F", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], [])
    opened = open_model(model(helper.make_graph([], "g", [], []), functions=(function,)))
    edit = GraphEdits(Scope(0), added=(NewTensor.of("w", np.ones(1)),))
    with pytest.raises(ValueError, match="function 0"):
        to_bytes(opened, ModelEdits((edit,)))


def test_scopes_are_found_and_read_well() -> None:
    opened = open_model(Builder(4).model())
    for scope, graph in scopes(opened.proto):
        assert graph_at(opened.proto, scope) == graph
    assert str(Scope(2).body(3, "then_branch").body(0, "parts", 1)) == (
        "function 2 > node 3 then_branch > node 0 parts[1]"
    )
    with pytest.raises(LookupError):
        graph_at(opened.proto, MAIN.body(0, "nothing"))


def test_a_result_above_the_limit_of_protobuf() -> None:
    huge = NewTensor("w", (2**29,), TensorProto.FLOAT, 2**31, lambda: iter(()))
    with pytest.raises(ModelError, match="larger than 2 GiB"):
        to_bytes(open_model(small()), ModelEdits((GraphEdits(initializers={"w": huge}),)))


def test_the_random_models_use_what_they_promise() -> None:
    """Guard of the tests above: nothing of what they are about may be missing from what they draw."""
    seen = set()
    for seed in range(150):
        full = Builder(seed).model()
        opened = open_model(full)
        ours, _ = draw(seed, opened.proto, full)
        seen |= {"left out" for t in every_tensor(opened.proto) if t.data_location}
        for edit in ours.graphs:
            seen |= {"function"} if edit.scope.function is not None else set()
            seen |= {"body"} if edit.scope.bodies else set()
            parents = {other.scope: other for other in ours.graphs}
            for depth, body in enumerate(edit.scope.bodies):
                parent = parents.get(Scope(edit.scope.function, edit.scope.bodies[:depth]))
                seen |= {"together"} if parent and parent.nodes.get(body.node) else set()
            graph = graph_at(opened.proto, edit.scope)
            if isinstance(graph, onnx.GraphProto):
                thin = {tensor.values.name for tensor in graph.sparse_initializer}
                seen |= {"sparse"} if thin & edit.initializers.keys() else set()
    assert seen == {"left out", "function", "body", "together", "sparse"}
