"""The float64 side of a verification: truth, and what the folded weights do to it."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from bnfold.verification.branches import Forced, Seen, is_missing, is_same
from bnfold.verification.errors import Error, difference
from bnfold.verification.judge import Place, epsilon_of, is_float, judge_moved, judge_real
from bnfold.verification.layers import Evaluations, drawn, shared, wrong_layers
from bnfold.verification.responses import Keeper, Parts, stands, wrong_answers
from bnfold.verification.sensitivity import PARAMETERS, Recorder, Replayer, stored_counts
from bnfold.verification.truth import NoHooks, Truth
from bnfold.verification.watch import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bnfold.verification.branches import Branch
    from bnfold.verification.feeds import Feed
    from bnfold.verification.truth import Hooks
    from bnfold.verification.verdict import OutputEvidence
    from bnfold.verification.watch import Watch

Array = np.ndarray[Any, np.dtype[Any]]

# An allowance is the largest effect of several random draws. With a thousand outputs, each a sum over many
# weights, two draws say it all; a single number may come out near zero by chance, draw after draw.
DRAWS, DRAWS_OF_FEW_OUTPUTS = 2, 16
FEW_OUTPUTS = 256
# Flips are looked for with changes this much larger: rounding inside a runtime adds up over the layers.
FLIP_FACTOR = 16.0


@dataclass(frozen=True)
class RealEvidence:
    """What the float64 evaluations of one feed say.

    Attributes:
        truth: the original's outputs.
        rows: the folded model's outputs, and operands of its decisions, judged in float64.
        flips: decisions that half-ulp changes or the fold turned, by node.
    """

    truth: Mapping[str, Any]
    rows: tuple[OutputEvidence, ...]
    flips: Mapping[str, int]


@dataclass(frozen=True)
class Effects:
    """What moving values by half an ulp does: to outputs, to operands of decisions, and to decisions."""

    outputs: Mapping[str, Error]
    operands: Mapping[str, Error]
    flips: Mapping[str, int]


class Reals:
    """Both models, ready for float64.

    Args:
        original: the model to be trusted.
        folded: the model to be judged.
        folders: where their external data lies.

    Raises:
        TruthUnavailableError: a model cannot be compiled.
    """

    def __init__(
        self, original: onnx.ModelProto, folded: onnx.ModelProto, folders: tuple[Path, Path]
    ) -> None:
        self._models, self._folders = (original, folded), folders
        self._original = Truth(original, folders[0])
        self._folded = Truth(folded, folders[1])
        self._epsilon = weight_epsilon(original)
        self._counts = stored_counts(original.graph)
        self._graph = original.graph
        inside = {name for function in original.functions for node in function.node for name in node.output}
        self._shared = shared(original.graph, folded.graph, inside)
        self._watch: Watch | None = None
        self._seen = Seen()
        self._forced: tuple[Branch, ...] = ()

    def watched(self, watch: Watch) -> Reals:
        """The same models, whose evaluations `watch` sees."""
        other = copy(self)
        other._watch = watch  # noqa: SLF001 - of this class
        return other

    def forcing(self, branches: Sequence[Branch]) -> Reals:
        """The same models, made to run graphs that no feed runs."""
        other = copy(self)
        other._forced = tuple(branches)  # noqa: SLF001 - of this class
        return other

    def unrun(self) -> tuple[Branch, ...]:
        """Graphs of the original that have not run so far, and that the folded model does not share."""
        return tuple(
            branch for branch in self._seen.unrun() if not is_same(branch, *self._models, self._folders)
        )

    def is_gone(self, branch: Branch) -> bool:
        """Whether the folded model has no such graph."""
        return is_missing(branch, self._models[1])

    def _run(self, model: Truth, feed: Feed, hooks: Hooks) -> dict[str, Any]:
        hooks = Forced(hooks, self._forced) if self._forced else hooks
        hooks = self._seen.watching(hooks) if model is self._original else hooks
        outputs = model.run(feed.values, self._hooked(hooks))
        return dict(part for name, value in outputs.items() for part in _parts(name, value))

    def _hooked(self, hooks: Hooks) -> Hooks:
        return hooks if self._watch is None else Watched(hooks, self._watch)

    def _expect(self, originals: int, folded: int = 0) -> None:
        """Announce so many evaluations of each."""
        if self._watch is not None:
            self._watch.expect(originals * self._original.size + folded * self._folded.size)

    def truth(self, feed: Feed) -> dict[str, Any]:
        """The original's outputs in float64."""
        self._expect(1)
        return self._run(self._original, feed, NoHooks())

    def folded(self, feed: Feed) -> dict[str, Any]:
        """The folded model's outputs in float64, by its own decisions."""
        self._expect(0, 1)
        return self._run(self._folded, feed, NoHooks())

    def evidence(self, feed: Feed) -> RealEvidence:
        """Evaluate the original, the folded model, and the original with its weights moved.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated.
        """
        self._expect(1 + DRAWS, 1)
        recorder = Recorder()
        truth = self._run(self._original, feed, recorder)
        hooks = Replayer(recorder.decisions)
        folded = self._run(self._folded, feed, hooks)
        effects = self._effects(feed, truth, recorder, results=False)
        rows = [
            judge_real(
                Place(name, feed.name, "float64"), value, folded[name], effects.outputs[name], self._epsilon
            )
            for name, value in truth.items()
            if name in folded  # a sequence that is shorter there is seen in onnxruntime
        ]
        worst: dict[str, OutputEvidence] = {}
        for label, error, signal in hooks.operands:
            place = Place(f"operand of {label}", feed.name, "float64")
            row = judge_moved(place, error, signal, effects.operands[label], self._epsilon)
            if label not in worst or worst[label].outcome == "pass":
                worst[label] = row
        return RealEvidence(truth, (*rows, *worst.values()), {**effects.flips, **hooks.flipped})

    def layers(self, feed: Feed) -> tuple[OutputEvidence, ...]:
        """Tensors inside the folded model that show a wrong layer; none where each is as it should be.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated.
        """
        self._expect(4, 2)

        def fed(seed: int | None) -> Feed:
            if seed is None:
                return feed
            other = {
                name: drawn(value, name, seed) if is_float(value) else value
                for name, value in feed.values.items()
            }
            return replace(feed, values=other)

        pair = Evaluations(
            lambda hooks, seed: self._run(self._original, fed(seed), hooks),
            lambda hooks, seed: self._run(self._folded, fed(seed), hooks),
            self._graph,
            self._shared,
            self._epsilon,
            self._counts,
        )
        return wrong_layers(pair, feed.name)

    def answers(self, feed: Feed) -> tuple[tuple[OutputEvidence, ...], tuple[str, ...]]:
        """Evidence of weights that are wrong, layer by layer, and the nodes of which nothing can be said.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated.
        """
        # Each layer is evaluated a few times: for its shapes, for its answers, for zeros.
        self._expect(4, 3)
        kept = Keeper()
        self._run(self._original, feed, kept)
        given = {name: value.shape for name, value in feed.values.items() if is_float(value)}
        parts = Parts(*self._models, self._folders, self._shared, self._epsilon, self._hooked)
        answers = wrong_answers(parts, {**given, **kept.shapes})
        if not answers.wrong:
            return (), answers.unknown
        kept = Keeper(
            frozenset(name for wrong in answers.wrong for name in (wrong.cut.target, *wrong.cut.feeds))
        )
        self._run(self._original, feed, kept)
        other = Keeper(frozenset(wrong.cut.target for wrong in answers.wrong))
        self._run(self._folded, feed, other)
        values = {**feed.values, **kept.values}
        rows = []
        for wrong in answers.wrong:
            name, cut = wrong.cut.target, Truth(wrong.cut.model, self._folders[1])
            # By what it is given in the folded model, or, where rounding has grown by then, in the original.
            alone = cut.run({feed: values[feed] for feed in wrong.cut.feeds}, self._hooked(NoHooks()))[name]
            found = (stands(values[name], value, wrong.out) for value in (other.values[name], alone))
            rows += [wrong.evidence] if any(found) else []
        return tuple(rows), answers.unknown

    def runtime_allowances(self, feed: Feed) -> Mapping[str, Error]:
        """How far each output of the original moves when weights and results move by half an ulp.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated.
        """
        self._expect(1 + DRAWS)
        recorder = Recorder()
        truth = self._run(self._original, feed, recorder)
        return self._effects(feed, truth, recorder, results=True).outputs

    def _effects(self, feed: Feed, truth: Mapping[str, Any], recorder: Recorder, *, results: bool) -> Effects:
        outputs = dict.fromkeys(truth, Error())
        operands: dict[str, Error] = {}
        flips: dict[str, int] = {}
        few = any(is_float(value) and value.size < FEW_OUTPUTS for value in truth.values())
        draws = [self._epsilon] * (DRAWS_OF_FEW_OUTPUTS if few else DRAWS)
        factors = [*draws, FLIP_FACTOR * self._epsilon] if recorder.decisions else draws
        self._expect(len(factors) - DRAWS)
        for seed, epsilon in enumerate(factors):
            hooks = Replayer(
                recorder.decisions, counts=self._counts, epsilon=epsilon, results=results, seed=seed
            )
            moved = self._run(self._original, feed, hooks)
            flips |= hooks.flipped
            if epsilon > self._epsilon:
                continue
            for name, value in truth.items():
                if is_float(value) and name in moved:
                    outputs[name] = outputs[name].beyond(_measured(difference(value, moved[name])))
            for label, error, _signal in hooks.operands:
                operands[label] = operands.get(label, Error()).beyond(_measured(error))
        return Effects(outputs, operands, flips)


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - arrays, sequences of them, or None
    """An output, or the tensors of one that is a sequence, named as those of onnxruntime (`sessions.Ran`)."""
    if isinstance(value, list):
        yield from ((f"{name}[{place}]", item) for place, item in enumerate(value))
    else:
        yield name, value


def _measured(error: Error) -> Error:
    """An effect that could be measured; where moving a value changed a shape there is none."""
    return error if np.isfinite(error.max) else Error()


def weight_epsilon(model: onnx.ModelProto) -> float:
    """Spacing relative to 1 of the dtype that the weights are stored in.

    Of several dtypes the coarsest that holds a hundredth of the weights counts.
    """
    elements: dict[int, int] = {}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
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
    return max(spacings, default=float(np.finfo(np.float32).eps))
