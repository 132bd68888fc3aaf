"""How a float64 evaluation answers to half-ulp changes of the weights, and to decisions taken elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bnfold.verification.errors import Error, difference
from bnfold.verification.truth.nodes import nested_graphs
from bnfold.verification.truth.tensors import PROMOTED_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnfold.verification.truth import Step

# Operand positions that hold parameters in operators a fold can touch.
PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1,),
    "BatchNormalization": (1, 2, 3, 4),
}

# Operators that move, choose or compare values and so never round them.
_EXACT = frozenset(
    {
        "Abs",
        "Clip",
        "Compress",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalMaxPool",
        "Identity",
        "If",
        "Loop",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "Pad",
        "Relu",
        "Reshape",
        "Scan",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)

# Operators whose result jumps: an operand moved by rounding may give another one altogether.
DISCONTINUOUS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "Ceil",
        "DynamicQuantizeLinear",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "Less",
        "LessOrEqual",
        "Mod",
        "NonMaxSuppression",
        "NonZero",
        "QuantizeLinear",
        "Round",
        "Sign",
        "TopK",
        "Unique",
    }
)


def jumps(step: Step, outputs: Sequence[Any]) -> bool:
    """Whether the result of a node is discontinuous in its operands."""
    if not outputs:
        return False
    if step.operator == "Cast":
        return bool(outputs[0].dtype.kind in "iub")
    return step.operator in DISCONTINUOUS


@dataclass(frozen=True)
class Decision:
    """One evaluation of a discontinuous node: what it decided on, and what it decided."""

    label: str
    operands: Sequence[Any]
    results: Sequence[Any]


class Recorder:
    """Keeps every decision of an evaluation, in order, by the name of the node's first output."""

    def __init__(self) -> None:
        self.decisions: dict[str, list[Decision]] = {}

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002 - truth.Hooks
        """Keep the operands."""
        return inputs

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Keep the results, and remember those that jump."""
        if jumps(step, outputs):
            decision = Decision(step.label, inputs, outputs)
            self.decisions.setdefault(step.outputs[0], []).append(decision)
        return outputs


class Replayer:
    """Imposes recorded decisions on another evaluation, and may move values as rounding does.

    With the decisions of the original imposed, what remains of the difference of two models is continuous.
    The operands of each decision are compared instead: a wrong fold shows there.

    Moving every weight by half an ulp is what storing it rounded may do. Moving the result of every operator
    too is what a runtime may do (Monte Carlo arithmetic: Parker, UCLA CSD-970002, 1997); sums inside an
    operator are rounded as well, and their error is of the size that moving the weights gives.

    An int32 that was stored to be dequantized is moved by half of 1: so much was lost when it was rounded.

    Args:
        decisions: what `Recorder` kept.
        counts: what `stored_counts` found.
        epsilon: spacing of the weights' dtype relative to 1; 0 moves nothing.
        results: whether results are moved too.
        seed: of the random signs.
    """

    def __init__(
        self,
        decisions: Mapping[str, Sequence[Decision]],
        *,
        counts: frozenset[str] = frozenset(),
        epsilon: float = 0.0,
        results: bool = False,
        seed: int = 0,
    ) -> None:
        self._left = {name: list(values) for name, values in decisions.items()}
        self._counts = counts
        self._epsilon = epsilon
        self._results = results
        self._generator = np.random.default_rng(seed)
        self.operands: list[tuple[str, Error, Error]] = []
        self.flipped: dict[str, int] = {}

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
        """Move the parameters among the operands."""
        if self._epsilon and step.operator == "DequantizeLinear" and step.inputs[0] in self._counts:
            return [inputs[0] + self._signs(inputs[0].shape) / 2, *inputs[1:]]
        places = PARAMETERS.get(step.operator, ()) if self._epsilon else ()
        return [self._moved(value) if place in places else value for place, value in enumerate(inputs)]

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Replace results that jump by the recorded ones; move the others."""
        if not jumps(step, outputs):
            move = self._results and step.operator not in _EXACT
            return [self._moved(value) for value in outputs] if move else outputs
        queue = self._left.get(step.outputs[0])
        if not queue:
            return outputs
        decision = queue.pop(0)
        for new, old in zip(inputs, decision.operands, strict=False):
            if getattr(old, "dtype", None) == np.float64:
                self.operands.append((decision.label, difference(old, new), Error.of(old[np.isfinite(old)])))
        count = sum(_flips(new, old) for new, old in zip(outputs, decision.results, strict=False))
        if count:
            self.flipped[decision.label] = self.flipped.get(decision.label, 0) + count
        return decision.results

    def _moved(self, value: Any) -> Any:  # noqa: ANN401 - arrays, sequences of them, or None
        if getattr(value, "dtype", None) != np.float64:
            return value
        # |value| * eps/2 lies between half an ulp and one ulp of value.
        return value * (1.0 + self._signs(value.shape) * (self._epsilon / 2))

    def _signs(self, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - an array of -1 and 1
        return self._generator.integers(0, 2, shape, dtype=np.int8) * 2.0 - 1.0


def _flips(new: Any, old: Any) -> int:  # noqa: ANN401 - arrays of any dtype
    return int(np.count_nonzero(new != old)) if new.shape == old.shape else int(max(new.size, old.size))


def stored_counts(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the int32 tensors that a graph stores, nested graphs included: quantized biases, if any."""
    names = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT32}
    for node in graph.node:
        names.update(name for inner in nested_graphs(node) for name in stored_counts(inner))
        if node.op_type == "Constant":
            held = (a.t for a in node.attribute if a.name == "value")
            names.update(node.output[0] for tensor in held if tensor.data_type == onnx.TensorProto.INT32)
    return frozenset(names)


def outputs_behind_jumps(graph: onnx.GraphProto) -> frozenset[str]:
    """Outputs of a graph that depend on a discontinuous node, nested graphs included."""
    tainted: set[str] = set()
    for node in graph.node:
        if _may_jump(node) or any(name in tainted for name in node.input) or _nested_taint(node, tainted):
            tainted.update(node.output)
    return frozenset(value.name for value in graph.output if value.name in tainted)


def _nested_taint(node: onnx.NodeProto, tainted: set[str]) -> bool:
    return any(
        _may_jump(inner) or any(name in tainted for name in inner.input) or _nested_taint(inner, tainted)
        for graph in nested_graphs(node)
        for inner in graph.node
    )


def _may_jump(node: onnx.NodeProto) -> bool:
    if node.op_type == "Cast":
        to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
        return to not in PROMOTED_TYPES and to != onnx.TensorProto.DOUBLE
    return node.op_type in DISCONTINUOUS
