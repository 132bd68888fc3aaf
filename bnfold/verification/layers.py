"""A wrong weight that the outputs are too far away to show: every tensor that both models have is compared.

One weight of a million, off by a thousandth, moves an output by less than rounding all the others does. What
its own layer computes moves far beyond that, if the layer is given the same operands. So the folded model is
evaluated in float64 once more, and each tensor that bears the name of one of the original is

1. compared with it, channel by channel, by what moving the weights *since the last such tensors* by half an
   ulp does; and
2. where it agrees, replaced by it, so that the next layer starts from the same values.

Inner tensors are nobody's contract: a fold may scale one and undo that behind it. So a tensor that disagrees
is left as it is, and nothing is said of it where

- it is the original's up to a scale and a shift of each channel: that is what folds carry;
- it is another tensor altogether (a sum of branches merged into one, by the name of one of them); or
- the next tensors agree again: whatever happened was undone.

Then everything is repeated with other values in the inputs and in each tensor that feeds a linear operator,
drawn from its own but for zeros: so every weight is multiplied by something, those of channels too that no
image excites. There a tensor that agreed before must agree again.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.verification.judge import Place, unlike
from bnfold.verification.sensitivity import PARAMETERS, Recorder, Replayer
from bnfold.verification.truth.nodes import nested_graphs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import onnx

    from bnfold.verification.truth import Hooks, Step
    from bnfold.verification.verdict import OutputEvidence

Array = np.ndarray[Any, np.dtype[Any]]

# Correct folds were seen to use 4 times the effect at most (docs/verification.md).
FACTOR = 16.0
# Beyond a hundredth of its size a difference is no slip of a weight but another tensor.
REWRITTEN = 1e-2
# A channel that is small beside the others is rounded with them where they are added.
QUIET = 0.1
# The effect on a channel of few values may come out near zero by chance.
CHANCE = 0.3
# Shuffled evaluations; more where a tensor disagrees and may do so by more than a scale and a shift.
SHUFFLES, SHUFFLES_OF_DOUBT = 1, 3
# Elements that are kept of the original, 1 GiB; tensors behind them are not compared.
KEPT = 2**27
# A scale and a shift go through any two values.
_FEWEST = 3
# Elements of a tensor of which several evaluations are looked at together.
_SAMPLED = 2**20


@dataclass(frozen=True)
class Look:
    """How one tensor of the folded model differs from the original's of its name.

    Attributes:
        relative: RMS of the difference by that of the original.
        signal: RMS of each channel of the original, along the second axis and along the last.
        error: of the difference.
    """

    relative: float
    signal: tuple[Array, ...]
    error: tuple[Array, ...]


def shared(original: onnx.GraphProto, folded: onnx.GraphProto, functions: Collection[str]) -> frozenset[str]:
    """Names of tensors that the nodes of both graphs compute, and that nothing inside a node bears too."""
    return _computed(original, functions) & _computed(folded, functions)


def _computed(graph: onnx.GraphProto, functions: Collection[str]) -> frozenset[str]:
    own = {name for node in graph.node for name in node.output if name}
    inner: set[str] = set(functions)
    pending = [nested for node in graph.node for nested in nested_graphs(node)]
    while pending:
        nested = pending.pop()
        inner |= {name for node in nested.node for name in node.output}
        pending += [deeper for node in nested.node for deeper in nested_graphs(node)]
    return frozenset(own - inner)


@dataclass(frozen=True)
class Evaluations:
    """Both models with one feed.

    Attributes:
        original: evaluates the original, with the feed as it is or, given a seed, with values drawn from it.
        folded: evaluates the folded model.
        graph: the original's.
        names: what `shared` found.
        epsilon: spacing of the weights' dtype relative to 1.
        counts: what `sensitivity.stored_counts` found.
    """

    original: Callable[[Hooks, int | None], object]
    folded: Callable[[Hooks, int | None], object]
    graph: onnx.GraphProto
    names: frozenset[str]
    epsilon: float
    counts: frozenset[str]


def wrong_layers(pair: Evaluations, feed: str) -> tuple[OutputEvidence, ...]:
    """Tensors that show a wrong layer, the first ones first.

    Args:
        pair: what evaluates both models.
        feed: name of the feed that they are evaluated on.

    Raises:
        TruthUnavailableError: shuffled values lead to something that cannot be evaluated.
    """
    names, epsilon = pair.names, pair.epsilon
    plain = _Original(names)
    pair.original(plain, None)
    moved = _Moved(plain, frozenset(plain.kept), epsilon, pair.counts)
    pair.original(moved, None)
    other = _Folded(plain, None, moved.effect, epsilon)
    pair.folded(other, None)
    agreed = frozenset(other.agreed)
    samples = {
        name: [sample] for name, sample in other.samples.items() if other.looks[name].relative <= REWRITTEN
    }
    if all(_bends(kept, moved.effect[name], epsilon) is False for name, kept in samples.items()):
        samples = {}
    rows: list[OutputEvidence] = []
    effects: dict[str, tuple[Array, ...]] = {}
    if samples:
        # What counts is the effect of every weight since the last tensors that agree, as in the folded model.
        moved = _Moved(plain, agreed, epsilon, pair.counts)
        pair.original(moved, None)
        effects = {name: moved.effect[name] for name in samples}
    alone = dict(effects)
    followers = _followers(pair.graph, frozenset(plain.kept)) if samples else {}
    looks = other.looks
    fed = {node.input[0] for node in pair.graph.node if node.op_type in PARAMETERS and node.input}
    for seed in range(SHUFFLES_OF_DOUBT if samples else SHUFFLES):
        mixed = _Original(names, agreed & fed, seed)
        pair.original(mixed, seed)
        moved = _Moved(mixed, agreed, epsilon, pair.counts)
        pair.original(moved, seed)
        other = _Folded(mixed, agreed, moved.effect, epsilon)
        pair.folded(other, seed)
        for name, kept in samples.items():
            if name in other.samples:
                kept.append(other.samples[name])
                effects[name] = tuple(map(np.maximum, effects[name], moved.effect[name]))
        guilty = [name for name in other.looks if name in agreed and name not in other.agreed]
        if guilty:
            where = f"{feed}, shuffled"
            rows = [_row(name, where, other.looks[name], moved.effect[name], epsilon) for name in guilty]
            break
    slips = {name for name, kept in samples.items() if _bends(kept, effects[name], epsilon)}
    ends = {value.name for value in pair.graph.output}
    first = [name for name in samples if name in slips and (name in ends or slips & followers[name])]
    return (*(_row(name, feed, looks[name], alone[name], epsilon) for name in first), *rows)


class _Original(Recorder):
    """Keeps the tensors, and shuffles some of them for what comes behind."""

    def __init__(self, names: frozenset[str], mixed: frozenset[str] = frozenset(), seed: int = 0) -> None:
        super().__init__()
        self._names = names
        self._mixed = mixed
        self._seed = seed
        self._room = KEPT
        self.kept: dict[str, Array] = {}

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Keep what has a name that counts."""
        results = list(super().after(step, inputs, outputs))
        for place, name in enumerate(step.outputs[: len(results)]):
            value = results[place]
            if name not in self._names or not _comparable(value) or value.size > self._room:
                continue
            self._room -= value.size
            self.kept[name] = value
            results[place] = self.onward(name)
        return results

    def onward(self, name: str) -> Array:
        """What the nodes behind a kept tensor get."""
        value = self.kept[name]
        if name not in self._mixed:
            return value
        return drawn(value, name, self._seed)


def drawn(value: Array, name: str, seed: int) -> Array:
    """A tensor of values drawn from another one's, but for zeros: they would hide weights."""
    pool = value[value != 0]
    if not pool.size:
        return value
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    return np.asarray(pool[generator.integers(0, pool.size, value.shape)])


def _comparable(value: Any) -> bool:  # noqa: ANN401 - arrays, sequences of them, or None
    return getattr(value, "dtype", None) == np.float64 and value.size > 0 and bool(np.isfinite(value).all())


class _Moved(Replayer):
    """The original with its weights moved by half an ulp, set right again at some of its tensors."""

    def __init__(
        self, original: _Original, reset: frozenset[str], epsilon: float, counts: frozenset[str]
    ) -> None:
        super().__init__(original.decisions, counts=counts, epsilon=epsilon)
        self._original = original
        self._reset = reset
        self.effect: dict[str, tuple[Array, ...]] = {}

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Measure, and set right."""
        results = list(super().after(step, inputs, outputs))
        for place, name in enumerate(step.outputs[: len(results)]):
            kept = self._original.kept.get(name)
            if kept is None or results[place].shape != kept.shape:
                continue
            self.effect[name] = _channels(results[place] - kept)
            if name in self._reset:
                results[place] = self._original.onward(name)
        return results


class _Folded(Replayer):
    """The folded model, set right wherever it agrees.

    Args:
        original: what to compare with.
        reset: tensors that are set right whether they agree or not; None for those that agree.
        effect: of half-ulp changes, by tensor.
        epsilon: spacing of the weights' dtype relative to 1.
    """

    def __init__(
        self,
        original: _Original,
        reset: frozenset[str] | None,
        effect: Mapping[str, tuple[Array, ...]],
        epsilon: float,
    ) -> None:
        super().__init__(original.decisions)
        self._original = original
        self._reset = reset
        self._effect = effect
        self._spacing = epsilon
        self.looks: dict[str, Look] = {}
        self.agreed: set[str] = set()
        self.samples: dict[str, tuple[Array, Array]] = {}

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Compare, and set right."""
        results = list(super().after(step, inputs, outputs))
        for place, name in enumerate(step.outputs[: len(results)]):
            kept, effect, value = self._original.kept.get(name), self._effect.get(name), results[place]
            if kept is None or effect is None or getattr(value, "shape", None) != kept.shape:
                continue
            look = self.looks[name] = _look(kept, value)
            if excess(look, effect, self._spacing) <= FACTOR:
                self.agreed.add(name)
            else:
                self.samples[name] = (kept, value - kept)
            if name in self.agreed if self._reset is None else name in self._reset:
                results[place] = self._original.onward(name)
        return results


def _look(kept: Array, value: Array) -> Look:
    gap = np.where(kept == value, 0.0, value - kept)
    size = float(np.sqrt(np.mean(np.square(kept))))
    relative = float(np.sqrt(np.mean(np.square(gap)))) / size if size else float("inf")
    return Look(relative, _channels(kept), _channels(gap))


def _axes(array: Array) -> tuple[int, ...]:
    return tuple(dict.fromkeys((min(1, array.ndim - 1), array.ndim - 1))) if array.ndim else ()


def _channels(array: Array) -> tuple[Array, ...]:
    """Root mean square of each channel, wherever the channels are."""
    if array.ndim == 0:
        return (np.abs(array),)
    squares = np.square(array)
    return tuple(np.sqrt(np.mean(_rows(squares, axis), axis=1)) for axis in _axes(array))


def _rows(array: Array, axis: int) -> Array:
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _bends(samples: Sequence[tuple[Array, Array]], effect: tuple[Array, ...], epsilon: float) -> bool | None:
    """Whether a tensor differs by more than a scale and a shift of each channel, wherever the channels are.

    Returns:
        None where there are too few values to tell.
    """
    kept, gap = samples[0]
    if kept.ndim == 0:
        return None
    if kept.size <= _SAMPLED:
        kept, gap = (np.stack([sample[part] for sample in samples]) for part in (0, 1))
    else:
        kept, gap = kept[None], gap[None]
    signal = _channels(kept[0])
    for axis in _axes(kept[0]):
        x, y = _rows(kept, axis + 1), _rows(gap, axis + 1)
        if x.shape[1] < _FEWEST:
            return None
        x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
        spread = np.sum(x * x, axis=1)
        slope = np.sum(x * y, axis=1) / np.where(spread > 0, spread, 1.0)
        bent = y - slope[:, None] * x
        shape = (kept.shape[axis + 1], *(size for at, size in enumerate(kept.shape) if at != axis + 1))
        bent = np.moveaxis(bent.reshape(shape), 0, axis + 1)
        worst = [_channels(each) for each in bent]
        error = tuple(np.max(parts, axis=0) for parts in zip(*worst, strict=True))
        if excess(Look(0.0, signal, error), effect, epsilon) <= FACTOR:
            return False
    return True


def excess(look: Look, effect: Sequence[Array], epsilon: float) -> float:
    """The largest error of a channel, in effects of half-ulp changes."""
    worst = 0.0
    for size, signal, moved in zip(look.error, look.signal, effect, strict=True):
        limit = np.maximum(_allowed(signal, moved, epsilon), 1e-300)
        worst = max(worst, float(np.max(np.where(size > 0, size / limit, 0.0))))
    return worst


def _allowed(signal: Array, effect: Array, epsilon: float) -> Array:
    whole, usual = (float(np.sqrt(np.mean(np.square(values)))) for values in (signal, effect))
    return np.asarray(np.maximum(effect, CHANCE * usual) + epsilon / 2 * np.maximum(signal, QUIET * whole))


def _followers(graph: onnx.GraphProto, names: frozenset[str]) -> dict[str, set[str]]:
    """For each of these tensors the next ones that are computed from it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, set[str]] = {}
    for start in names:
        pending, seen = [start], Counter([start])
        found[start] = set()
        while pending:
            for node in readers.get(pending.pop(), ()):
                for name in node.output:
                    if name in names:
                        found[start].add(name)
                    elif name and not seen[name]:
                        seen[name] += 1
                        pending.append(name)
    return found


def _row(name: str, feed: str, look: Look, effect: Sequence[Array], epsilon: float) -> OutputEvidence:
    """The worst channel of a tensor as evidence."""
    best = (0.0, 0.0, 0.0, 0.0)
    for error, signal, moved in zip(look.error, look.signal, effect, strict=True):
        allowed = _allowed(signal, moved, epsilon)
        ratio = error / np.maximum(allowed, 1e-300)
        at = int(np.argmax(ratio))
        numbers = [float(values.flat[at]) for values in (ratio, signal, error, allowed)]
        best = max(best, (numbers[0], numbers[1], numbers[2], numbers[3]))
    _, worst_signal, worst, limit = best
    return unlike(Place(f"tensor {name}", feed, "float64"), worst_signal, worst, limit, FACTOR)
