"""What must hold of every optimized model, whatever was folded: one call, `expect`, asserts all of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - the tests load results in a real runtime
from onnx import GraphProto, ModelProto, NodeProto
from support import oracle
from support.build import Attribute
from support.build import feeds as draw_feeds

import bnfold

if TYPE_CHECKING:
    from numpy.typing import NDArray

Result = Any  # what bnfold.optimize gives
Message = Any  # any protobuf message
BN = "BatchNormalization"
Feeds = Mapping[str, "NDArray[Any]"]


# --- looking at models ------------------------------------------------------------------------------------


def bodies(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs inside it, outermost first."""
    yield graph
    for node in graph.node:
        yield from node_bodies(node)


def node_bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from bodies(inner)


def all_graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph, the bodies in it and the bodies in functions."""
    yield from bodies(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from node_bodies(node)


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the model: main graph, nested graphs, functions and what is nested in them."""
    for graph in all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def batch_norms(model: ModelProto) -> list[NodeProto]:
    return [n for n in all_nodes(model) if n.op_type == BN and n.domain in ("", "ai.onnx")]


def label(node: NodeProto) -> str:
    """How a report calls a node: by its name, or by its first output."""
    return node.name or node.output[0]


def ops(model: ModelProto) -> list[str]:
    return [n.op_type for n in all_nodes(model)]


def initializers(model: ModelProto) -> dict[str, Any]:
    """The values of the main graph's initializers."""
    return {t.name: oracle.to_float64(t) for t in model.graph.initializer}


def _constants(model: ModelProto) -> dict[str, set[bytes]]:
    """Every stored tensor by the name it is read under, as serialized bytes."""
    found: dict[str, set[bytes]] = {}
    for graph in all_graphs(model):
        for t in graph.initializer:
            found.setdefault(t.name, set()).add(t.SerializeToString(deterministic=True))
        for s in graph.sparse_initializer:
            found.setdefault(s.values.name, set()).add(s.SerializeToString(deterministic=True))
    for node in all_nodes(model):
        if node.op_type == "Constant":
            held = node.attribute[0].SerializeToString(deterministic=True)
            found.setdefault(node.output[0], set()).add(held)
    return found


def written_constants(
    original: ModelProto, result: ModelProto, absorbing: Collection[str] = ()
) -> frozenset[str]:
    """Names of the stored tensors of `result` that `original` does not hold byte for byte.

    And those that the nodes called `absorbing` read: what they hold may have been rounded back to what it was
    (a scale of 1.0001 in float16). And the outputs of Clip and Pad nodes whose bounds or constant, up to
    opset 10 attributes, were written.
    """
    absorbing = {*absorbing, *dequantizers(result, absorbing)}
    before = _constants(original)
    written = {name for name, held in _constants(result).items() if not held <= before.get(name, set())}
    stored = _constants(result).keys()
    written |= {
        name
        for node in all_nodes(result)
        if label(node) in absorbing and node.op_type not in {"Resize", "Upsample"}  # scales are no weights
        for name in node.input
        if name in stored
    }
    attributes = {_attributes(node) for node in all_nodes(original)}
    written |= {
        node.output[0]
        for node in all_nodes(result)
        if node.op_type in oracle.BY_ATTRIBUTE and _attributes(node) not in attributes
    }
    return frozenset(written)


def dequantizers(model: ModelProto, readers: Collection[str]) -> set[str]:
    """The DequantizeLinear nodes of stored integers, or of stored floats, that the nodes `readers` read."""
    read = {name for node in all_nodes(model) if label(node) in readers for name in node.input}
    stored = set(_constants(model))
    quantizers = (n for n in all_nodes(model) if n.op_type == "QuantizeLinear" and n.input[0] in stored)
    stored |= {node.output[0] for node in quantizers}
    return {
        label(node)
        for node in all_nodes(model)
        if node.op_type == "DequantizeLinear" and node.output[0] in read and node.input[0] in stored
    }


def _attributes(node: NodeProto) -> tuple[str, tuple[bytes, ...]]:
    return label(node), tuple(sorted(_bytes(a) for a in node.attribute))


# --- values -----------------------------------------------------------------------------------------------


def operations(model: ModelProto, feeds: Feeds) -> int:
    """No fewer than the operations on any path of the model: no sum is longer than all numbers that go in."""
    stored = sum(int(np.prod(t.dims)) for graph in all_graphs(model) for t in graph.initializer)
    return stored + sum(np.asarray(f).size for f in feeds.values()) + 8 * sum(1 for _ in all_nodes(model))


def same_function(
    original: ModelProto, result: ModelProto, feeds: Feeds, absorbing: Collection[str] = ()
) -> None:
    """Both models give the same outputs in float64, but for half an ulp in each weight that was written.

    The bound has no constant to choose: `oracle.evaluate_bounded` passes half an ulp of every written tensor
    (and of every value that constant nodes compute, which a reader may or may not round) to the outputs;
    on top comes the rounding of the two float64 evaluations themselves, n*2^-53*magnitude each.
    """
    want = oracle.evaluate_bounded(original, feeds)
    got = oracle.evaluate_bounded(result, feeds, written_constants(original, result, absorbing))
    assert list(want) == list(got)
    count = operations(original, feeds) + operations(result, feeds)
    for name, value in want.items():
        other = got[name]
        assert value.elem_type == other.elem_type, name
        assert value.data.shape == other.data.shape, name
        if not value.is_float:
            np.testing.assert_array_equal(other.data, value.data, err_msg=name)
            continue
        assert value.magnitude is not None
        assert other.magnitude is not None
        assert value.error is not None
        assert other.error is not None
        finite = np.isfinite(value.data)
        np.testing.assert_array_equal(np.isfinite(other.data), finite, err_msg=name)
        np.testing.assert_array_equal(other.data[~finite], value.data[~finite], err_msg=name)
        bound = value.error + other.error + count * 2.0**-53 * (value.magnitude + other.magnitude)
        off = np.abs(other.data[finite] - value.data[finite]) - bound[finite]
        assert np.all(off <= 0), (
            f"{name}: {off.max():.3g} beyond the bound {bound[finite].flat[off.argmax()]:.3g}"
        )


def session(model: ModelProto) -> ort.InferenceSession:
    """Onnxruntime on the CPU, running the model as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(model: ModelProto, feeds: Feeds) -> list[Any] | None:
    """The outputs in onnxruntime, or None where it does not know an operator, its version or its types."""
    try:
        outputs: list[Any] = session(model).run(None, dict(feeds))
    except Exception:  # noqa: BLE001 - it raises a class of its own for each status
        return None
    return outputs


def runtime_agrees(model: ModelProto, truth: ModelProto, feeds: Feeds) -> bool:
    """Onnxruntime computes what the oracle says of `truth`, within the rounding of the model's own types.

    Returns:
        Whether onnxruntime runs the model at all.
    """
    outputs = _run(model, feeds)
    if outputs is None:
        return False
    count = operations(model, feeds)
    coarsest = max(
        (oracle.unit_roundoff(t) for t in _float_types(truth)),
        default=oracle.unit_roundoff(onnx.TensorProto.FLOAT),
    )
    for (name, value), got in zip(oracle.evaluate_bounded(truth, feeds).items(), outputs, strict=True):
        assert got.shape == value.data.shape, name
        if not value.is_float:
            np.testing.assert_array_equal(got, value.data, err_msg=name)
            continue
        assert value.magnitude is not None
        assert value.error is not None
        bound = value.error + count * coarsest * value.magnitude
        finite = np.isfinite(value.data) & np.isfinite(got)
        off = np.abs(got.astype(np.float64)[finite] - value.data[finite]) - bound[finite]
        assert np.all(off <= 0), f"{name} in onnxruntime: {off.max():.3g} beyond the bound"
    return True


def _float_types(model: ModelProto) -> set[int]:
    stored = {t.data_type for graph in all_graphs(model) for t in graph.initializer}
    named = {i.type.tensor_type.elem_type for i in [*model.graph.input, *model.graph.output]}
    return (stored | named) & oracle.FLOAT_TYPES


# --- fidelity ---------------------------------------------------------------------------------------------


def _bytes(message: Message) -> bytes:
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _subsequence(shorter: list[bytes], longer: list[bytes]) -> bool:
    rest = iter(longer)
    return all(item in rest for item in shorter)


def fidelity(original: ModelProto, result: Result) -> None:
    """Everything that no fold touches is byte for byte what it was, in the same order."""
    model: ModelProto = result.model
    merged = set(result.report.merged)
    if not result.folds and not merged:
        assert _bytes(model) == _bytes(original), "no fold, but another model"
        return
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(model, name) == getattr(original, name), name
    assert [_bytes(o) for o in model.opset_import] == [_bytes(o) for o in original.opset_import]
    inlined = inlined_calls(result)
    left = {(f.domain, f.name, f.overload) for f in model.functions}
    wanted = [(f.domain, f.name, f.overload) for f in original.functions]
    assert [key for key in wanted if key in left or key[1] not in inlined] == [
        (f.domain, f.name, f.overload) for f in model.functions
    ]
    if inlined:
        called = {(n.domain, n.op_type, n.overload) for n in all_nodes(model)}
        before = {(n.domain, n.op_type, n.overload) for n in all_nodes(original)}
        assert called & set(wanted) <= left, "a function is gone but called"
        assert all(key in called or key not in before for key in left), "a function is left that nobody calls"
    _provenance(original, model, result)
    absorbing = {name for f in result.folds for name in (*f.into, *f.through)}
    for graph in all_graphs(original):
        absorbing |= _summed(graph, merged)
    if inlined:
        # Nodes that came out of a function may have merged, under their new names.
        absorbing |= {n.name for n in all_nodes(model)} - {n.name for n in all_nodes(original)}
    if inlined and merged:
        # And a sum that came out of one may have been of branches that went into the call.
        calls = {label(n) for n in all_nodes(original) if n.op_type in inlined}
        for graph in all_graphs(original):
            absorbing |= _summed(graph, calls)
    absorbing |= dequantizers(original, absorbing)
    # What is inlined may bring bodies of its own; the main graph comes first.
    pairs = zip(bodies(original.graph), bodies(model.graph), strict=not inlined)
    for i, (before_graph, after_graph) in enumerate(pairs):
        if i == 0 or before_graph.name == after_graph.name:
            _graph_fidelity(before_graph, after_graph, absorbing, listing=model.ir_version < 4 and i == 0)


def _provenance(original: ModelProto, model: ModelProto, result: Result) -> None:
    """Four entries are new, or have the place of an earlier run's; all others are what they were."""
    said = {
        "bnfold.version": bnfold.__version__,
        "bnfold.source_sha256": result.report.source_sha256,
        "bnfold.folds": str(len(result.folds)),
    }
    entries = {p.key: p.value for p in model.metadata_props}
    said["bnfold.config_sha256"] = entries["bnfold.config_sha256"]
    assert re.fullmatch("[0-9a-f]{64}", said["bnfold.config_sha256"])
    assert {key: entries[key] for key in said} == said
    own = said.keys()
    assert [_bytes(p) for p in model.metadata_props if p.key not in own] == [
        _bytes(p) for p in original.metadata_props if p.key not in own
    ]
    before = [p.key for p in original.metadata_props]
    keys = [p.key for p in model.metadata_props]
    assert keys[: len(before)] == before
    assert sorted(keys[len(before) :]) == sorted(own - set(before))


def _graph_fidelity(before: GraphProto, after: GraphProto, absorbing: set[str], *, listing: bool) -> None:
    assert after.name == before.name
    assert after.doc_string == before.doc_string
    assert [_bytes(o) for o in after.output] == [_bytes(o) for o in before.output]
    assert [_bytes(q) for q in after.quantization_annotation] == [
        _bytes(q) for q in before.quantization_annotation
    ]
    assert [_bytes(p) for p in after.metadata_props] == [_bytes(p) for p in before.metadata_props]
    stored_before = {t.name for t in before.initializer} | {s.values.name for s in before.sparse_initializer}
    stored_after = {t.name for t in after.initializer} | {s.values.name for s in after.sparse_initializer}
    real = [_bytes(i) for i in before.input if i.name not in stored_before]
    assert [_bytes(i) for i in after.input if i.name not in stored_after] == real
    listed = {i.name for i in after.input}
    if listing:
        assert stored_after <= listed, "IR 3 wants every initializer listed as an input"
    else:
        assert listed & stored_after <= {i.name for i in before.input}, (
            "a written initializer must not be an input"
        )

    for declared in (*after.input, *after.value_info):
        for t in (t for t in after.initializer if t.name == declared.name):
            kind = declared.type.tensor_type
            assert kind.elem_type == t.data_type, f"the declared type of {t.name}"
            dims = [d.dim_value for d in kind.shape.dim]
            assert not kind.HasField("shape") or dims == list(t.dims), f"the declared shape of {t.name}"

    # Tensors: one that changed under its name is read by nodes that absorbed something, and by no other.
    changed = _changed_nodes(before, after)
    tensors = {t.name: _bytes(t) for t in after.initializer}
    for t in before.initializer:
        if t.name not in tensors:
            assert not _reads(after, t.name), f"{t.name} is gone but read"
            assert _reads(before, t.name), f"{t.name} was never read, no fold can have touched it"
        elif tensors[t.name] != _bytes(t):
            readers = [n for g in bodies(after) for n in g.node if t.name in n.input]
            assert all(not n.name or n.name in absorbing for n in readers), f"{t.name} changed for others too"
            assert readers, f"{t.name} changed for nobody"
    order = [_bytes(t) for t in before.initializer if tensors.get(t.name) == _bytes(t)]
    assert _subsequence(order, [_bytes(t) for t in after.initializer]), "initializers changed places"

    # Nodes: those left are the same bytes in the same order, but for the ones at a fold.
    shapes = {_skeleton(n) for n in before.node}
    for node in changed:
        known = _skeleton(node) in shapes or label(node) in absorbing or any(node_bodies(node))
        assert known or _is_new(node, before), f"{label(node)} changed and absorbed nothing"
    left = {_bytes(n) for n in after.node}
    same = [_bytes(n) for n in before.node if _bytes(n) in left]
    assert _subsequence(same, [_bytes(n) for n in after.node]), "nodes changed places"

    # Shapes: no entry is invented for a tensor that was there, and none of a surviving tensor is lost.
    produced = {o for n in after.node for o in n.output}
    infos = {i.name: _bytes(i) for i in after.value_info}
    for info in before.value_info:
        if info.name in produced:
            assert infos.get(info.name) == _bytes(info), f"value_info of {info.name}"


def _summed(graph: GraphProto, sums: set[str]) -> set[str]:
    """The nodes between a merged sum and the linear operators whose results it added, both included."""
    made_by = {name: node for node in graph.node for name in node.output}
    found: list[NodeProto] = [n for n in graph.node if label(n) in sums]
    for node in found:  # grows while it is walked
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            found += [made_by[name] for name in node.input if name in made_by and made_by[name] not in found]
    return {node.name for node in found}


def _changed_nodes(before: GraphProto, after: GraphProto) -> list[NodeProto]:
    old = {_bytes(n) for n in before.node}
    return [n for n in after.node if _bytes(n) not in old]


def _skeleton(node: NodeProto) -> bytes:
    """The node without the names of its tensors."""
    bare = NodeProto()
    bare.CopyFrom(node)
    del bare.input[:]
    del bare.output[:]
    return _bytes(bare)


def _is_new(node: NodeProto, before: GraphProto) -> bool:
    return not node.name or all(node.name != n.name for n in before.node)


def _reads(graph: GraphProto, name: str) -> bool:
    return any(name in n.input for g in bodies(graph) for n in g.node) or any(
        name == o.name for g in bodies(graph) for o in g.output
    )


def inlined_calls(result: Result) -> dict[str, int]:
    """How many calls of each local function were inlined, by the report's own account."""
    pattern = re.compile(r"local function '(.*)' was inlined at (\d+) calls?")
    found = (pattern.fullmatch(note) for note in result.report.notes)
    return {match[1]: int(match[2]) for match in found if match}


# --- the one call -----------------------------------------------------------------------------------------


def sound(model: ModelProto, feeds: Feeds, *, runtime: bool = True) -> bool:
    """The test's own model is valid, and onnxruntime agrees with the oracle about it.

    Returns:
        Whether onnxruntime runs it.
    """
    onnx.checker.check_model(model)
    return runtime and runtime_agrees(model, model, feeds)


def expect(
    model: ModelProto,
    *,
    folded: set[str] | list[str] | None = None,
    kept: Mapping[str, str | set[str]] | None = None,
    feeds: Feeds | None = None,
    runtime: bool = True,
    values: bool = True,
    inlined: Mapping[str, int] | None = None,
    **options: Attribute,
) -> Result:
    """Optimizes `model` and asserts every claim of this module about the result.

    Args:
        model: the original.
        folded: the labels of the BatchNormalization nodes that must be folded.
        kept: the labels of those that must stay, each with its reason code (or those that are true of it).
        feeds: values for the inputs; drawn when left out.
        runtime: also load and run both in onnxruntime.
        values: compare the values too.
        inlined: how many calls of which local functions must be inlined. Each normalization in them stands in
            the result by itself, and is called `CALL/NAME`.
        options: for `bnfold.optimize`.

    Returns:
        The result.
    """
    given = draw_feeds(model) if feeds is None else feeds
    runs = sound(model, given, runtime=runtime)
    before = _bytes(model)
    result = bnfold.optimize(model, verify=False, **options)
    assert _bytes(model) == before, "the caller's model was changed"

    folds = [f.node for f in result.folds if f.op == BN]
    refusals = {r.node: str(r.code) for r in result.kept if r.op == BN}
    if folded is not None:
        assert sorted(folds) == sorted(folded), f"kept: {refusals}"
    if kept is not None:
        assert set(refusals) == set(kept), f"folded: {folds}"
        for name, codes in kept.items():
            assert refusals[name] in ({codes} if isinstance(codes, str) else codes), (name, refusals[name])
    originals = batch_norms(model)
    left = batch_norms(result.model)
    staying = [r.node for r in result.kept if r.op == BN]
    found = inlined_calls(result)
    assert inlined is None or found == inlined, result.report.notes
    if found:
        known = set(map(label, originals))
        for name in folds + staying:
            own = name.rpartition("/")[2]
            assert own in known or re.sub(r"_\d+$", "", own) in known, f"{name} comes from nowhere"
    else:
        assert sorted(folds + staying) == sorted(map(label, originals)), "every BN is folded or kept"
    assert len(left) == len(staying), "as many stay as are kept"
    # a merge may rename the output by which a nameless one is called
    assert {n.name for n in left} <= {*staying, ""}, "what is kept is what stays"
    for refusal in result.kept:
        assert refusal.reason.evidence, refusal

    onnx.checker.check_model(result.model, full_check=model.ir_version >= 4 and runs)
    if not options.get("freeze"):
        fidelity(model, result)
    if values:
        same_function(
            model, result.model, given, {name for f in result.folds for name in (*f.into, *f.through)}
        )
        if runs:
            assert runtime_agrees(result.model, result.model, given), "onnxruntime ran only the original"
    return result
