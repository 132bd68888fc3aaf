"""What is refused and what is not. Where ONNX's checker and onnxruntime disagree, the reason is beside it."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.onnxfiles import Builder, model, shipped_models, sparse, value_info

from bnfold.errors import BnfoldError, ModelError
from bnfold.model.edits import ModelEdits
from bnfold.model.store import open_model
from bnfold.model.validate import find_cycle, validate
from bnfold.model.write import to_bytes

if TYPE_CHECKING:
    from pathlib import Path

W = numpy_helper.from_array(np.ones(2, np.float32), "w")
X, Y = value_info("x"), value_info("y")
C = value_info("c", (), TensorProto.BOOL)
node = helper.make_node


def graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    weights: list[TensorProto] | None = None,
) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes, "g", [X] if inputs is None else inputs, [Y] if outputs is None else outputs, weights or []
    )
    return model(made)


def branch(
    nodes: list[onnx.NodeProto],
    out: str = "o",
    inputs: tuple[str, ...] = (),
    weights: tuple[TensorProto, ...] = (),
) -> onnx.GraphProto:
    return helper.make_graph(
        nodes, "b", [value_info(name) for name in inputs], [value_info(out)], list(weights)
    )


def conditional(
    then: onnx.GraphProto,
    before: list[onnx.NodeProto] | None = None,
    weights: list[TensorProto] | None = None,
) -> onnx.ModelProto:
    other = branch([node("Relu", ["x"], ["o"])])
    nodes = [*(before or []), node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)]
    return graph(nodes, [X, C], weights=weights)


def function(
    nodes: list[onnx.NodeProto], *, opset: int | None = 17, outputs: tuple[str, ...] = ("b",)
) -> onnx.FunctionProto:
    imports = [] if opset is None else [helper.make_opsetid("", opset), helper.make_opsetid("loc", 1)]
    return helper.make_function("loc", "F", ["a"], list(outputs), nodes, imports)


def calling(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    made = helper.make_graph([node("F", ["x"], ["y"], domain="loc")], "g", [X], [Y])
    return model(made, opsets={"": 17, "loc": 1}, functions=functions)


def batch_norm(
    inputs: list[str], weights: list[TensorProto] | None = None, domain: str = ""
) -> onnx.ModelProto:
    return graph([node("BatchNormalization", inputs, ["y"], name="bn", domain=domain)], weights=weights)


def statistics(*sizes: int) -> list[TensorProto]:
    return [
        numpy_helper.from_array(np.ones(size, np.float32), name)
        for name, size in zip("sbmv", sizes, strict=True)
    ]


def without(proto: onnx.ModelProto, field: str) -> onnx.ModelProto:
    proto.ClearField(field)
    return proto


NEG = node("Neg", ["x"], ["y"])
LOOP = branch(
    [node("Identity", ["cond"], ["co"]), node("Add", ["x", "x"], ["vo"])], "vo", inputs=("i", "cond", "x")
)

ACCEPTED = {
    "plain": graph([NEG]),
    "optional input left out": graph([node("Clip", ["x", "", "w"], ["y"])], weights=[W]),
    "optional output left out": graph([node("Dropout", ["x"], ["y", ""])]),
    "the same names in both branches": conditional(branch([node("Relu", ["x"], ["o"])])),
    "a branch that uses the outer graph": conditional(
        branch([node("Neg", ["t"], ["o"])]), [node("Neg", ["x"], ["t"])]
    ),
    "an initializer as a branch's output": conditional(branch([], "w", weights=(W,))),
    # Shadowing: the checker and onnxruntime both accept these (and refuse it for outputs of nodes).
    "a branch's initializer with an outer name": conditional(
        branch([node("Add", ["x", "w"], ["o"])], weights=(W,)), [node("Add", ["x", "w"], ["t"])], [W]
    ),
    "a branch's output with the name of the If's": conditional(branch([node("Relu", ["x"], ["y"])], "y")),
    "a body's input with an outer name": graph([node("Loop", ["", "", "x"], ["y"], body=LOOP)]),
    "initializer that is an input too": graph(
        [node("Add", ["x", "w"], ["y"])], [X, value_info("w")], weights=[W]
    ),
    # The checker wants it listed; onnxruntime does not mind.
    "IR 3 with an initializer that is no input": model(
        helper.make_graph([node("Add", ["x", "w"], ["y"])], "g", [X], [Y], [W]), ir_version=3, opsets={"": 8}
    ),
    "IR 2 without operator sets": model(helper.make_graph([NEG], "g", [X], [Y]), ir_version=2, opsets={}),
    "no name": model(helper.make_graph([NEG], "", [X], [Y])),
    "an output twice": graph([NEG], outputs=[Y, Y]),
    "an input as output": graph([], outputs=[X]),
    "an initializer as output": graph([], outputs=[value_info("w")], weights=[W]),
    "no outputs": graph([NEG], outputs=[]),
    "empty tensor without data": graph([NEG], weights=[TensorProto(name="e", data_type=1, dims=(0,))]),
    "local function": calling(function([node("Neg", ["a"], ["b"])])),
    "BatchNormalization of another domain": batch_norm(["x"], domain="mine"),
    "BatchNormalization": batch_norm(list("xsbmv"), statistics(2, 2, 2, 2)),
    "BatchNormalization of computed statistics": batch_norm(list("xxxxx")),
}

RAW = TensorProto(name="w", data_type=1, dims=(2,), raw_data=bytes(12))
TYPED = TensorProto(name="w", data_type=1, dims=(2,), float_data=[1, 2, 3])
BIG = TensorProto(name="w", data_type=1, dims=(5000,), raw_data=bytes(20_004))
SEGMENT = TensorProto(name="w", data_type=1, dims=(2,), raw_data=bytes(8))
SEGMENT.segment.begin = 0


def thin(**change: int) -> onnx.ModelProto:
    made = graph([NEG])
    made.graph.sparse_initializer.append(sparse("s", 9, np.random.default_rng(0)))
    if "indices" in change:
        made.graph.sparse_initializer[0].indices.CopyFrom(
            numpy_helper.from_array(np.zeros(change["indices"], np.int64), "i")
        )
    return made


LATER = onnx.defs.onnx_opset_version() + 1


def misspelled(proto: onnx.ModelProto, old: bytes) -> bytes:
    """A name that is not UTF-8, in place of one of the same length."""
    data: bytes = proto.SerializeToString()
    assert old in data
    return data.replace(old, b"\xff" * len(old))


REFUSED: dict[str, tuple[onnx.ModelProto | bytes, str]] = {
    "no IR version": (without(graph([NEG]), "ir_version"), "IR version"),
    "a later opset": (
        model(helper.make_graph([NEG], "g", [X], [Y]), opsets={"": LATER}),
        f"opset {LATER} is newer than onnx",
    ),
    "a later opset of a function": (
        calling(function([node("Neg", ["a"], ["b"])], opset=LATER)),
        f"opset {LATER} is newer than onnx",
    ),
    "a later IR": (
        model(helper.make_graph([NEG], "g", [X], [Y]), ir_version=onnx.IR_VERSION + 1),
        f"IR version {onnx.IR_VERSION + 1} is newer than onnx",
    ),
    "no operator sets": (without(graph([NEG]), "opset_import"), "imports no operator set"),
    "undefined": (
        graph([node("Add", ["x", "q"], ["y"], name="sum")]),
        "main graph: node 0 'sum' (Add) uses 'q', which is no input",
    ),
    "undefined where nobody looks": (graph([NEG, node("Neg", ["q"], ["z"])]), "node 1 '' (Neg) uses 'q'"),
    "undefined in a branch": (
        conditional(branch([node("Neg", ["q"], ["o"])])),
        "main graph > node 0 then_branch: node 0 '' (Neg) uses 'q'",
    ),
    "one branch uses the other's": (
        conditional(branch([node("Neg", ["p"], ["o"])]), [node("Neg", ["x"], ["q"])]),
        "uses 'p'",
    ),
    "unsorted": (
        graph([node("Neg", ["t"], ["y"]), node("Abs", ["x"], ["t"], name="late")]),
        "uses 't' before node 1 'late' (Abs) produces it",
    ),
    "a branch that uses what comes later": (
        graph(
            [
                node(
                    "If",
                    ["c"],
                    ["y0"],
                    then_branch=branch([node("Neg", ["t"], ["o"])]),
                    else_branch=branch([node("Neg", ["x"], ["o"])]),
                ),
                node("Neg", ["x"], ["t"]),
                node("Add", ["y0", "t"], ["y"]),
            ],
            [X, C],
        ),
        "uses 't' before node 1",
    ),
    "cycle": (
        graph([node("Add", ["x", "t"], ["y"]), node("Neg", ["y"], ["t"])]),
        "cycle: node 0 '' (Add) -> node 1 '' (Neg) -> node 0 '' (Add)",
    ),
    "cycle of one": (graph([node("Add", ["x", "y"], ["y"])]), "cycle: node 0 '' (Add) -> node 0 '' (Add)"),
    "cycle through a branch": (
        conditional(branch([node("Add", ["x", "y"], ["o"])])),
        "cycle: node 0 'choice' (If) -> node 0 'choice' (If)",
    ),
    "output missing": (graph([node("Neg", ["x"], ["z"])]), "output 'y' is produced by no node"),
    "an outer value as a branch's output": (
        conditional(branch([], "x")),
        "output 'x' is produced by no node",
    ),
    "value twice": (
        graph([NEG, node("Abs", ["x"], ["y"])]),
        "node 1 '' (Abs) defines 'y', which is defined already",
    ),
    "value twice in a node": (graph([node("Split", ["x"], ["y", "y"])]), "defines 'y'"),
    "value and input": (graph([node("Neg", ["x"], ["x"])], outputs=[X]), "defines 'x'"),
    "value and initializer": (graph([NEG, node("Neg", ["x"], ["w"])], weights=[W]), "defines 'w'"),
    "value and outer value": (
        conditional(branch([node("Relu", ["x"], ["t"])], "t"), [node("Neg", ["x"], ["t"])]),
        "defines 't'",
    ),
    # onnxruntime takes one of the two; which one nobody can know.
    "initializer twice": (graph([NEG], weights=[W, W]), "initializer 'w' is there twice"),
    "input twice": (graph([NEG], [X, X]), "input 'x' is there twice"),
    "function twice": (
        calling(*[function([node("Neg", ["a"], ["b"])])] * 2),
        "'F' of domain 'loc' is there twice",
    ),
    "function that calls itself": (
        calling(function([node("F", ["a"], ["b"], domain="loc")])),
        "'F' calls itself",
    ),
    "function without operator sets": (
        calling(function([node("Neg", ["a"], ["b"])], opset=None)),
        "'F' imports no",
    ),
    "function with an undefined value": (
        calling(function([node("Neg", ["q"], ["b"])])),
        "function 0: node 0",
    ),
    "function without its output": (
        calling(function([node("Neg", ["a"], ["q"])])),
        "output 'b' is produced by no",
    ),
    "too many bytes": (graph([NEG], weights=[RAW]), "'w' holds 12 bytes, but float32[2] takes 8"),
    "too many values": (
        graph([NEG], weights=[TYPED]),
        "'w' holds 3 values in float_data, but float32[2] takes 2",
    ),
    "too many bytes of a big one": (graph([NEG], weights=[BIG]), "float32[5000] takes 20000"),
    "no data": (graph([NEG], weights=[TensorProto(name="w", data_type=1, dims=(2,))]), "holds 0 values"),
    "no type": (graph([NEG], weights=[TensorProto(name="w", dims=(2,))]), "element type number 0"),
    "negative size": (graph([NEG], weights=[TensorProto(name="w", data_type=1, dims=(-2, -1))]), "'w'"),
    "a segment": (graph([NEG], weights=[SEGMENT]), "'w' is one segment"),
    "data of an attribute": (
        graph([node("Constant", [], ["y"], name="k", value=RAW)]),
        "node 0 'k' (Constant): tensor 'w' holds 12 bytes",
    ),
    "sparse indices": (thin(indices=3), "'s' has values of shape [5] and indices of shape [3]"),
    "an attribute twice": (
        graph(
            [
                onnx.NodeProto(
                    op_type="Selu",
                    input=["x"],
                    output=["y"],
                    attribute=[onnx.AttributeProto(name="alpha")] * 2,
                )
            ]
        ),
        "has an attribute twice",
    ),
    "BatchNormalization without variance": (
        batch_norm(list("xxxx")),
        "'bn' (BatchNormalization) lacks its input var",
    ),
    "BatchNormalization with an empty input": (batch_norm(["x", "x", "", "x", "x"]), "lacks its input B"),
    "BatchNormalization in ai.onnx": (
        batch_norm(["x"], domain="ai.onnx"),
        "lacks its input scale, B, mean, var",
    ),
    "BatchNormalization of unlike statistics": (batch_norm(list("xsbmv"), statistics(2, 2, 3, 2)), "'m' [3]"),
    "input name": (
        misspelled(graph([node("Neg", ["input"], ["y"])], [value_info("input")]), b"input"),
        "UTF-8",
    ),
    "value name": (misspelled(graph([node("Neg", ["x"], ["value"]), NEG]), b"value"), "UTF-8"),
    "weight name": (
        misspelled(graph([NEG], weights=[numpy_helper.from_array(np.ones(1), "weight")]), b"weight"),
        "UTF-8",
    ),
    "operator name": (misspelled(graph([node("Softplus", ["x"], ["y"])]), b"Softplus"), "UTF-8"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    validate(open_model(ACCEPTED[name]))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    source, said = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        validate(open_model(source))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", shipped_models(), ids=lambda p: p.parent.name + "/" + p.name)
def test_models_of_onnx(path: Path) -> None:
    validate(open_model(path))


def test_large_models_take_little_time() -> None:
    count = 20_000
    nodes = [
        node("BatchNormalization", [f"v{i}", *"wwww"], [f"v{i + 1}"], epsilon=1e-5) for i in range(count)
    ]
    opened = open_model(graph(nodes, [value_info("v0")], [value_info(f"v{count}")], [W]))
    start = time.process_time()
    validate(opened)
    assert time.process_time() - start < 2, "0.23 s were measured; more than linear time would take minutes"
    nodes[0].input[0] = f"v{count}"
    opened = open_model(graph(nodes, [value_info("v0")], [value_info(f"v{count}")], [W]))
    with pytest.raises(ModelError, match="cycle"):
        validate(opened)


@pytest.mark.parametrize("seed", range(20))
def test_cycles_are_cycles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes = [node("Add", [f"v{k}" for k in rng.integers(0, 30, 2)], [f"v{i}"]) for i in range(30)]
    cycle = find_cycle(nodes)
    assert cycle[0] == cycle[-1]
    assert len(cycle) > 1
    for producer, consumer in pairwise(cycle):
        assert f"v{producer}" in nodes[consumer].input


@pytest.mark.parametrize("seed", range(20))
def test_damage_of_any_kind_is_refused_or_harmless(seed: int) -> None:
    rng = np.random.default_rng(seed)
    choices = list(ACCEPTED.values())
    for _ in range(150):
        source = choices[rng.integers(len(choices))] if rng.random() < 0.9 else Builder(seed).model()
        data = bytearray(source.SerializeToString())
        for at in rng.integers(0, len(data), size=rng.integers(1, 5)):
            data[at] = rng.integers(256) if rng.random() < 0.5 else data[at] ^ (1 << rng.integers(8))
        try:
            opened = open_model(bytes(data))
            validate(opened)
            assert to_bytes(opened, ModelEdits()) == bytes(data)
        except BnfoldError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
