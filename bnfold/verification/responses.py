"""A wrong weight, however small it is beside the others of its layer: what a layer answers to one channel.

An image excites all weights of a layer at once; what one of the small ones adds is lost in what rounding does
to the large ones. A layer that is given zeros but for one value in one channel answers with single weights.
So the part that lies between two tensors that bear the same names in both models is cut out of both, is given
such values, and is evaluated in float64. What it answers, less its answer to zeros, is compared value by
value:

    |folded - original| <= eps/2 * (16 * sum |ways| + rms) + 8 eps64 * sum |ways of zeros|

*Ways* are what each path from the value to the answer contributes: branches that a fold merges into one
weight may cancel, but what was rounded is each of them. The second term, the RMS of all that the channel
answers, leaves alone what is nothing beside that: a thousandth of what is less than 1/16000 of it; the third
what float64 (eps64 = 2^-52) rounds where the answer to zeros is taken away.

Inner tensors are nobody's contract: where answers differ by a factor for each channel that goes in and each
that comes out, a fold may have carried it. Where more than a tenth differ it is another tensor, and
so it is where real values differ by more than a slip makes of them (`stands`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx.external_data_helper import uses_external_data

from bnfold.verification.judge import Place, answered
from bnfold.verification.layers import REWRITTEN
from bnfold.verification.probes import Layer, free, layer_of, placed
from bnfold.verification.slices import Slice, Wiring
from bnfold.verification.truth import NoHooks, Truth, TruthUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx

    from bnfold.verification.truth import Hooks, Step
    from bnfold.verification.verdict import OutputEvidence

Array = np.ndarray[Any, np.dtype[Any]]

# As between tensors (`layers`): several times what a fold in the weights' own type was seen to need.
FACTOR = 16.0
# Where more of the answers differ it is another tensor.
ANOTHER = 0.1
# Answers that are compared by their quotient: others are too small to have one.
_CLEAR = 1e-3
# Roundings of float64 on the way to an answer: a few steps, each with one term that is not zero.
_FLOAT64 = 16 * 2.0**-53
# A scale and a shift go through any two values.
_FEW = 2
_HALF = float(np.finfo(np.float16).eps)


@dataclass(frozen=True)
class Parts:
    """Both models, to be cut.

    Attributes:
        original: the model to be trusted.
        folded: the model to be judged.
        folders: where their external data lies.
        names: tensors that both compute, and that nothing inside a node bears too.
        epsilon: spacing of the weights' dtype relative to 1.
        watched: wraps the hooks of an evaluation.
    """

    original: onnx.ModelProto
    folded: onnx.ModelProto
    folders: tuple[Path, Path]
    names: frozenset[str]
    epsilon: float
    watched: Callable[[Hooks], Hooks]


class Keeper(NoHooks):
    """Keeps what a model computes in float64, by name: shapes, and some of the values."""

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.values: dict[str, Array] = {}

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002 - truth.Hooks
        """Keep the results."""
        for name, value in zip(step.outputs, outputs, strict=False):
            if getattr(value, "dtype", None) == np.float64:
                self.shapes[name] = value.shape
                if name in self._names:
                    self.values[name] = value
        return outputs


@dataclass(frozen=True)
class Wrong:
    """A layer with a weight that is not the original's, if its tensors are.

    Attributes:
        cut: the layer in the folded model.
        out: where the channels are of what it computes.
        evidence: of the weight.
    """

    cut: Slice
    out: int
    evidence: OutputEvidence


@dataclass(frozen=True)
class Answers:
    """What the layers of a model say one by one.

    Attributes:
        wrong: those with a wrong weight.
        unknown: nodes with stored weights of which nothing can be said.
    """

    wrong: tuple[Wrong, ...]
    unknown: tuple[str, ...]


def wrong_answers(parts: Parts, shapes: Mapping[str, tuple[int, ...]]) -> Answers:
    """Layers of the folded model with a weight that is not the original's.

    Args:
        parts: the models.
        shapes: of tensors of the original that are floats: its inputs, and what it computes from them.

    Raises:
        BudgetSpentError: time is up.
    """
    first, second = Wiring(parts.original), Wiring(parts.folded)
    common = (parts.names & shapes.keys()) | {value.name for value in parts.original.graph.input}
    common -= first.constants | second.constants
    wrong: list[Wrong] = []
    settled: set[str] = set()
    for target in (name for node in parts.folded.graph.node for name in node.output if name in common):
        cut = second.slice(target, common)
        before = first.slice(target, cut.feeds) if cut is not None and cut.linear else None
        if cut is None or before is None:
            continue
        if _same(before, cut):
            settled.update(node.output[0] for node in cut.linear)
            continue
        for feed in sorted(before.feeds):
            compared = _compared(parts, before, cut, feed, shapes)
            if compared is None:
                continue
            settled.update(compared.layers)
            if compared.evidence is not None:
                wrong.append(Wrong(cut, compared.out, compared.evidence))
    return Answers(tuple(wrong), second.layers_but(settled))


@dataclass(frozen=True)
class _Compared:
    """What the answers from one tensor to the next say.

    Attributes:
        layers: of the folded model, by what they compute.
        out: where the channels of the answers are.
        evidence: of a wrong weight, if there is one.
    """

    layers: tuple[str, ...]
    out: int
    evidence: OutputEvidence | None


def _same(one: Slice, other: Slice) -> bool:
    """Whether both are the same, bit for bit, as far as the models themselves say it."""
    models = one.model, other.model
    if any(uses_external_data(tensor) for model in models for tensor in model.graph.initializer):
        return False
    first, second = (model.SerializeToString(deterministic=True) for model in models)
    return bool(first == second)


def _compared(
    parts: Parts, before: Slice, cut: Slice, feed: str, shapes: Mapping[str, tuple[int, ...]]
) -> _Compared | None:
    """What is between one tensor and the next; None where nothing can be said."""
    if not before.feeds <= shapes.keys() or len(shapes[feed]) < 2:  # noqa: PLR2004 - a batch and channels
        return None
    zeros = {name: np.zeros(shapes[name]) for name in before.feeds}
    models = Truth(before.model, parts.folders[0]), Truth(cut.model, parts.folders[1])
    run = _Run(before, cut, models, feed, zeros, parts.watched)
    try:
        layers = run.layers()
        if not any(layer.reads == feed for layer in layers):
            return None
        alone = len(zeros) == 1
        for probes in free(layers, shapes[feed], feed) if alone else (), placed(layers, shapes[feed], feed):
            try:
                found = [run.answers(x) for x in probes]
            except TruthUnavailableError:
                continue
            if found:
                return _judged(found, cut, feed, layers[-1].out, parts.epsilon)
    except TruthUnavailableError:
        return None
    return None


def stands(kept: Array, value: Array, out: int) -> bool:
    """Whether a tensor is the original's but for rounding, a scale and a shift of each channel, and a slip.

    A tool may reuse a name: the sum of a layer and its input, made one layer, may bear that of the layer
    before. Then it is no slip that weights differ, but what they compute differs altogether.

    Args:
        kept: the original's, float64.
        value: the folded model's, float64.
        out: where the channels are.
    """
    if kept.shape != value.shape:
        return False
    x, y = (np.moveaxis(each, out, 0).reshape(each.shape[out], -1) for each in (kept, value))
    if x.shape[1] > _FEW:
        x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
        spread = np.sum(x * x, axis=1, keepdims=True)
        x = x * (np.sum(x * y, axis=1, keepdims=True) / np.where(spread > 0, spread, 1.0))
    return bool(np.sum(np.square(y - x)) <= REWRITTEN**2 * np.sum(np.square(y)))


class _Found(NamedTuple):
    """What is answered to some values; all of the same shape.

    Attributes:
        first: by the original.
        second: by the folded model.
        ways: the sum of what came along each way of the original.
        own: what float64 rounds in the original's answer.
        other: the same of the folded model's.
    """

    first: Array
    second: Array
    ways: Array
    own: Array
    other: Array


@dataclass(frozen=True)
class _Run:
    """Both slices, ready to be asked."""

    before: Slice
    cut: Slice
    models: tuple[Truth, Truth]
    feed: str
    zeros: Mapping[str, Array]
    watched: Callable[[Hooks], Hooks]

    def layers(self) -> tuple[Layer, ...]:
        """What is between the tensors: of the original and, at the end, of the folded model."""
        found: list[Layer] = []
        for part, model in zip((self.before, self.cut), self.models, strict=True):
            shapes = _Shapes(part)
            model.run(self.zeros, self.watched(shapes))
            found += shapes.layers
        return tuple(found)

    def answers(self, x: Array) -> _Found:
        """What both models answer to a batch, without what they answer to zeros.

        Args:
            x: float64. Where the first image is all zeros, it is what the others are compared with.
        """
        ways = [NoHooks(), NoHooks(), *([_Ways(self.before)] if self.before.sums else [])]
        first, second, *summed = (
            self._answer(self.models[number % 2], x, hooks)
            for number, hooks in zip((0, 1, 2), ways, strict=False)
        )
        noise = [self._noise(number, x, first.shape) for number in (0, 1)]
        return _Found(first, second, summed[0] if summed else np.abs(first), *noise)

    def _answer(self, model: Truth, x: Array, hooks: Hooks) -> Array:
        (y,) = model.run({**self.zeros, self.feed: x}, self.watched(hooks)).values()
        if y.ndim and len(y) == len(x) > 1 and len(self.zeros) == 1 and not x[0].any():
            return np.asarray(y[1:] - y[:1])
        (still,) = model.run({**self.zeros, self.feed: np.zeros_like(x)}, self.watched(hooks)).values()
        return np.asarray(y - still)

    def _noise(self, number: int, x: Array, shape: tuple[int, ...]) -> Array:
        """How far the answers are off by what float64 rounds of that which is taken away from them."""
        hooks = self.watched(_Ways((self.before, self.cut)[number]))
        alone = len(self.zeros) == 1 and not x[0].any()
        quiet = np.zeros_like(x[:1] if alone else x)
        (y,) = self.models[number].run({**self.zeros, self.feed: quiet}, hooks).values()
        if y.shape[1:] != shape[1:] or len(y) not in {1, shape[0]}:
            raise TruthUnavailableError("one image alone has an answer of another shape")
        return np.broadcast_to(_FLOAT64 * y, shape)


class _Shapes(NoHooks):
    """Finds the linear operators of a slice, and how they are used."""

    def __init__(self, part: Slice) -> None:
        self._nodes = {node.output[0]: node for node in part.linear}
        self._moving = part.moving
        self.layers: list[Layer] = []

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Keep what its operands look like."""
        node = self._nodes.get(step.outputs[0])
        if node is not None:
            data = 0 if node.input[0] in self._moving else 1
            self.layers.append(layer_of(node, data, inputs[data].ndim, inputs[1 - data].shape))
        return outputs


class _Ways(NoHooks):
    """Adds up what comes along each way: with nothing negative nothing cancels."""

    def __init__(self, part: Slice) -> None:
        self._moving = part.moving

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
        """Make every constant positive, and what is subtracted negative."""
        taken = [_positive(value) for value in inputs]
        if step.operator == "Sub":
            taken[1] = _negated(taken[1])
        if step.operator == "BatchNormalization":
            taken[3] = _negated(taken[3])
        return taken

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002 - truth.Hooks
        """Make every result positive."""
        return [_positive(value) for value in outputs]


def _positive(value: Any) -> Any:  # noqa: ANN401 - arrays, sequences of them, or None
    return np.abs(value) if getattr(value, "dtype", None) == np.float64 else value


def _negated(value: Any) -> Any:  # noqa: ANN401 - arrays, sequences of them, or None
    return -value if getattr(value, "dtype", None) == np.float64 else value


def _judged(found: Sequence[_Found], cut: Slice, feed: str, out: int, epsilon: float) -> _Compared | None:
    """The worst answer, where it cannot be that of a correct fold."""
    layers = cut.behind(feed)
    if any(each.first.shape != each.second.shape or each.first.ndim < 2 for each in found):  # noqa: PLR2004 - a batch and channels
        return None
    every = _Found(*(_rows(np.concatenate(list(each)), out) for each in zip(*found, strict=True)))
    for this in (every, *_scaled(every)):
        excess = _excess(this, epsilon)
        wrong = np.count_nonzero(excess > 1)
        if not wrong:
            return _Compared(layers, out, None)
    if wrong > ANOTHER * np.count_nonzero(every.ways):
        return None
    at = np.unravel_index(int(np.argmax(excess)), excess.shape)
    exact, folded = float(this.first[at]), float(this.second[at])
    limit = abs(folded - exact) / float(excess[at])
    node = cut.linear[-1]
    place = Place(f"tensor {cut.target}", f"one channel of {feed}", "float64")
    told = f"a weight of {node.op_type} {node.name or node.output[0]!r}"
    return _Compared(layers, out, answered(place, exact, folded, limit, told))


def _rows(array: Array, axis: int) -> Array:
    """Images, channels, places."""
    moved = np.moveaxis(array, axis, 1)
    return moved.reshape(*moved.shape[:2], -1)


def _excess(found: _Found, epsilon: float) -> Array:
    ways = found.ways
    usual = np.sqrt(np.mean(np.square(ways), axis=(0, 2), keepdims=True))
    filled = np.count_nonzero(ways, axis=(0, 2), keepdims=True) / max(1, ways.shape[0] * ways.shape[2])
    floor = usual / np.sqrt(np.maximum(filled, 1e-300))
    # Small weights of float16 are a multiple of its smallest number.
    step = float(np.finfo(np.float16).smallest_subnormal) if epsilon == _HALF else 0.0
    limit = np.maximum(epsilon / 2 * (FACTOR * ways + floor) + step + found.own + found.other, 1e-300)
    return np.asarray(np.abs(found.second - found.first) / limit)


def _scaled(found: _Found) -> Iterator[_Found]:
    """The original's answers, with the factors of channels that explain most of the folded model's."""
    first, second = found.first, found.second
    usual = np.sqrt(np.mean(np.square(first), axis=(0, 2), keepdims=True))
    quotient = np.where(np.abs(first) > _CLEAR * usual, second / np.where(first == 0, 1.0, first), np.nan)
    out = _median(quotient, (0, 2))
    yield _times(found, out)
    into = _median(quotient / out, (1, 2))
    # The median of a row may have been taken at another channel than that of the next one.
    out = _median(quotient / into, (0, 2))
    yield _times(found, out * into)


def _times(found: _Found, factor: Array) -> _Found:
    size = np.abs(factor)
    return found._replace(first=found.first * factor, ways=found.ways * size, own=found.own * size)


def _median(values: Array, axes: tuple[int, ...]) -> Array:
    """The median of what is a number; 1 where nothing is."""
    some = np.any(np.isfinite(values), axis=axes, keepdims=True)
    result = np.nanmedian(np.where(some, values, 1.0), axis=axes, keepdims=True)
    return np.asarray(np.where(result == 0, 1.0, result))
