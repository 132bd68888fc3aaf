"""The float64 side of a verification: truth, and what the folded weights do to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from bnfold.verify.errors import Error, difference
from bnfold.verify.judge import Place, epsilon_of, is_float, judge_moved, judge_real
from bnfold.verify.sensitivity import PARAMETERS, Recorder, Replayer
from bnfold.verify.truth import Truth

if TYPE_CHECKING:
    from bnfold.verify.feeds import Feed
    from bnfold.verify.verdict import OutputEvidence
    from pathlib import Path
    from collections.abc import Mapping

Array = np.ndarray[Any, np.dtype[Any]]

# The allowance is the largest effect of several random draws. With a million weights one draw says it all,
# since the effect is a sum over them; with a handful a single draw may cancel out.
DRAWS = 4
DRAWS_OF_LARGE_MODELS = 1
LARGE_MODEL = 10**6
# Rounding inside onnxruntime moves a decision's operands by more than half-ulp changes of the weights do.
RUNTIME_DRAW = 16.0


@dataclass(frozen=True)
class RealEvidence:
    """What the float64 evaluations of one feed say.

    Attributes:
        truth: the original's outputs.
        rows: the folded model's outputs, and operands of its decisions, judged in float64.
        allowances: effect of half-ulp changes of the weights, by output.
        flips: decisions that half-ulp changes or the fold turned, by node.
    """

    truth: Mapping[str, Any]
    rows: tuple[OutputEvidence, ...]
    allowances: Mapping[str, Error]
    flips: Mapping[str, int]


class Reals:
    """Both models, ready for float64.

    Raises:
        TruthUnavailableError: the original cannot be compiled.
    """

    def __init__(
        self, original: onnx.ModelProto, folded: onnx.ModelProto, folders: tuple[Path, Path]
    ) -> None:
        self._original = Truth(original, folders[0])
        self._folded = Truth(folded, folders[1])
        self._epsilon, count = weight_epsilon(original)
        self._draws = DRAWS_OF_LARGE_MODELS if count > LARGE_MODEL else DRAWS

    def truth(self, feed: Feed) -> dict[str, Any]:
        """The original's outputs in float64."""
        return self._original.run(feed.values)

    def evidence(self, feed: Feed) -> RealEvidence:
        """Evaluate the original, the folded model, and the original with its weights moved.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated.
        """
        recorder = Recorder()
        truth = self._original.run(feed.values, recorder)
        folded_hooks = Replayer(recorder.decisions)
        folded = self._folded.run(feed.values, folded_hooks)
        allowances: dict[str, Error] = {}
        operands: dict[str, Error] = {}
        flips: dict[str, int] = dict(folded_hooks.flipped)
        for draw in range(self._draws):
            hooks = Replayer(recorder.decisions, epsilon=self._epsilon, seed=draw)
            moved = self._original.run(feed.values, hooks)
            for name, value in truth.items():
                if is_float(value):
                    allowances[name] = allowances.get(name, Error()).beyond(difference(value, moved[name]))
            for label, error, _signal in hooks.operands:
                operands[label] = operands.get(label, Error()).beyond(error)
            flips |= hooks.flipped
        if recorder.decisions:
            hooks = Replayer(recorder.decisions, epsilon=RUNTIME_DRAW * self._epsilon, seed=self._draws)
            self._original.run(feed.values, hooks)
            flips |= hooks.flipped
        rows = [
            judge_real(
                Place(name, feed.name, "float64"),
                value,
                folded[name],
                allowances.get(name, Error()),
                self._epsilon,
            )
            for name, value in truth.items()
        ]
        worst: dict[str, OutputEvidence] = {}
        for label, error, signal in folded_hooks.operands:
            place = Place(f"operand of {label}", feed.name, "float64")
            row = judge_moved(place, error, signal, operands.get(label, Error()), self._epsilon)
            if label not in worst or worst[label].outcome == "pass":
                worst[label] = row
        return RealEvidence(truth, (*rows, *worst.values()), allowances, flips)


def weight_epsilon(model: onnx.ModelProto) -> tuple[float, int]:
    """Spacing relative to 1 of the dtype that the weights are stored in, and how many elements they have.

    Of several dtypes the coarsest that holds a hundredth of the weights counts.
    """
    elements: dict[int, int] = {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors |= {
                node.output[0]: attribute.t for attribute in node.attribute if attribute.name == "value"
            }
        for place in PARAMETERS.get(node.op_type, ()):
            tensor = tensors.get(node.input[place]) if place < len(node.input) else None
            if tensor is not None:
                size = int(np.prod(tensor.dims))
                elements[tensor.data_type] = elements.get(tensor.data_type, 0) + size
    total = sum(elements.values())
    dtypes = [
        np.dtype(helper.tensor_dtype_to_np_dtype(number))
        for number, size in elements.items()
        if 100 * size >= total
    ]
    spacings = [epsilon_of(dtype) for dtype in dtypes if dtype.kind == "f" or dtype.name == "bfloat16"]
    return max(spacings, default=float(np.finfo(np.float32).eps)), total
