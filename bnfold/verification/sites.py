"""Evidence for each fold: what the folded layer computes beside what the normalization makes of its input.

The input of every normalization that went is captured from the original, run by onnxruntime with all its
optimizations off, and put through the reference BatchNormalization (`bnfold.runtime`, on a GPU where there is
one) in float64. The folded layer's output, captured from the folded model, is compared with that. Where the
tensor of the normalization does not outlive the fold, the first tensor behind it that both models have is
compared with the original's own. Beside that stands the original's own error at that tensor, by an evaluation
in float64: in both models the rounding errors of all layers before it are part of it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bnfold import runtime
from bnfold.verification.case import case_of
from bnfold.verification.errors import Error
from bnfold.verification.feeding import choose_feeds
from bnfold.verification.feeds import NoFeedError
from bnfold.verification.inputs import Wishes, understand
from bnfold.verification.judge import epsilon_of, is_float
from bnfold.verification.measures import closeness
from bnfold.verification.sessions import Ran, Run, run_model
from bnfold.verification.truth import BudgetSpentError, NoHooks, Truth, TruthUnavailableError
from bnfold.verification.truth.tensors import stored
from bnfold.verification.verdict import FoldEvidence
from bnfold.verification.watch import Watch, Watched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bnfold.fold.folded import Fold
    from bnfold.verification.case import Case, Model, Progress
    from bnfold.verification.feeds import Array, Feed
    from bnfold.verification.options import Verification
    from bnfold.verification.truth import Step

# Captured tensors are written to disk and read back: of so many sites at a time.
SITES_AT_A_TIME = 16
_PARAMETERS = 5


def per_fold(
    original: Path | bytes,
    folded: Path | bytes,
    folds: Sequence[Fold],
    how: Verification,
    *,
    progress: Progress | None = None,
) -> tuple[FoldEvidence, ...]:
    """The evidence of every fold for one feed, the worst first, then those that could not be captured.

    Raises:
        ModelError: a model cannot be read.
        EnvironmentFault: onnxruntime does not run on the provider that was asked for.
        UsageError: feeds that do not fit the model.
    """
    wishes = how.inputs if isinstance(how.inputs, Wishes) else understand(how.inputs, how.ranges)
    with case_of(original, folded, how, progress) as case:
        try:
            feeds, _ = choose_feeds(case, wishes)
        except NoFeedError as error:
            return tuple(_missing(fold, str(error)) for fold in folds)
        sites = _sites(case, folds)
        truth = {} if how.truth == "bound" else _truth(case, sites, feeds[0])
        found: list[FoldEvidence] = []
        for start in range(0, len(sites), SITES_AT_A_TIME):
            case.say(f"capturing activations ({start + 1} of {len(sites)})")
            found += _examined(case, sites[start : start + SITES_AT_A_TIME], feeds[0], truth)
    return tuple(sorted(found, key=_size, reverse=True))


def _size(evidence: FoldEvidence) -> float:
    """Non-finite values in other places are worse than any number; what was not captured comes last."""
    if not evidence.tensor:
        return -1.0
    return float("inf") if evidence.note or evidence.relative_l2 is None else evidence.relative_l2


@dataclass(frozen=True)
class _Site:
    """Where a fold can be looked at.

    Attributes:
        fold: the fold.
        tensor: a tensor that both models have; "" where there is none.
        normalization: the node, where `tensor` is its own output and its parameters are stored.
        why: why it cannot be looked at.
    """

    fold: Fold
    tensor: str = ""
    normalization: onnx.NodeProto | None = None
    why: str = ""


def _sites(case: Case, folds: Sequence[Fold]) -> list[_Site]:
    graph = case.original.proto.graph
    by_label = {node.name or next(iter(node.output), ""): node for node in graph.node}
    common = _tensors(case.folded.proto.graph) & _tensors(graph)
    # A map that passes a node changes its values, though the tensor keeps its name.
    changed = {
        name
        for fold in folds
        for label in (*fold.through, *(fold.into if fold.direction == "backward" else ()))
        if label in by_label
        for name in by_label[label].output
    }
    own = {name for fold in folds if fold.node in by_label for name in by_label[fold.node].output[:1]}
    return [_site(fold, by_label, graph, common - (changed - own)) for fold in folds]


def _site(
    fold: Fold, by_label: Mapping[str, onnx.NodeProto], graph: onnx.GraphProto, common: set[str]
) -> _Site:
    node = by_label.get(fold.node)
    if fold.scope or node is None:
        return _Site(fold, why=f"it stands in {fold.scope or 'a local function'}")
    if fold.direction != "forward" and node.output[0] in common:
        known = node.op_type == "BatchNormalization" and set(node.input[1:]) <= _stored(graph).keys()
        return _Site(fold, node.output[0], node if known else None)
    starts = [by_label[label] for label in fold.into if label in by_label]
    first = (
        [name for start in starts for name in start.output] if fold.direction == "forward" else node.output
    )
    behind = next((name for name in _downstream(first, graph) if name in common), "")
    return _Site(fold, behind, why="" if behind else "no tensor behind it is in both models")


def _downstream(names: Iterable[str], graph: onnx.GraphProto) -> Iterator[str]:
    """Tensors, those computed from them, and so on; the nearest first."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    pending, seen = deque(names), set(names)
    while pending:
        name = pending.popleft()
        yield name
        for node in readers.get(name, ()):
            for output in node.output:
                if output and output not in seen:
                    seen.add(output)
                    pending.append(output)


def _tensors(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output if name}


def _stored(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return tensors


class _Keeper(NoHooks):
    """Keeps tensors of an evaluation on disk, where there is room for those of all layers."""

    def __init__(self, names: set[str], folder: Path) -> None:
        self._names = names
        self._folder = folder
        self.kept: dict[str, Path] = {}

    def after(
        self,
        step: Step,
        inputs: Sequence[Any],  # noqa: ARG002 - the protocol's
        outputs: Sequence[Any],
    ) -> Sequence[Any]:
        """Keep what has one of the names."""
        for name, value in zip(step.outputs, outputs, strict=False):
            if name in self._names and isinstance(value, np.ndarray):
                path = self._folder / f"truth{len(self.kept)}.npy"
                np.save(path, value)
                self.kept[name] = path
        return outputs


def _truth(case: Case, sites: Sequence[_Site], feed: Feed) -> Mapping[str, Path]:
    """Where the original's tensors in float64 lie, as far as its evaluation gets."""
    model = case.original.proto
    inside = {name for function in model.functions for node in function.node for name in node.output}
    keeper = _Keeper({site.tensor for site in sites if site.tensor} - inside, case.scratch)
    try:
        original = Truth(model, case.original.folder)
        # The other half of the time is for capturing.
        deadline = time.monotonic() + case.left / 2
        watch = Watch("evaluating the original layer by layer", case.say, deadline)
        watch.expect(original.size)
        original.run(feed.values, Watched(keeper, watch))
    except (BudgetSpentError, TruthUnavailableError):
        # The verdict says what stands in the way; the tensors before it are as good.
        return keeper.kept
    return keeper.kept


def _examined(
    case: Case, sites: Sequence[_Site], feed: Feed, truth: Mapping[str, Path]
) -> list[FoldEvidence]:
    reachable = [site for site in sites if site.tensor]
    inputs = [site.normalization.input[0] for site in reachable if site.normalization is not None]
    tensors = [site.tensor for site in reachable]
    first = _captured(case, case.original, [*tensors, *inputs], feed)
    second = _captured(case, case.folded, tensors, feed)
    found = []
    for site in sites:
        evidence = _evidence(case, site, first, second)
        if evidence.tensor in truth and not isinstance(first, str):
            own = _own_error(first.get(site.tensor), np.load(truth[evidence.tensor], mmap_mode="r"))
            evidence = replace(evidence, original_rms=own)
        found.append(evidence)
    return found


def _own_error(original: Array | None, truth: Array) -> float | None:
    """How far a tensor of the original is from its value in float64."""
    if original is None or original.shape != truth.shape:
        return None
    finite = np.isfinite(original) & np.isfinite(truth)
    return _number(Error.of(original[finite].astype(np.float64) - truth[finite]).rms)


def _captured(case: Case, model: Model, names: Iterable[str], feed: Feed) -> dict[str, Array] | str:
    """Values of tensors inside a model, or why there are none."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    given = {
        value.name: np.asarray(feed.values[value.name])
        for value in copy.graph.input
        if value.name in feed.values
    }
    present = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(names):
        if name in given or name in present:
            continue
        # onnxruntime infers the type of an output that states none.
        copy.graph.output.append(onnx.ValueInfoProto(name=name))
    path = case.scratch / "captured.onnx"
    path.write_bytes(copy.SerializeToString())
    outcomes = run_model(
        path,
        [Run("disable_all", feed.name, feed.values)],
        provider=case.provider,
        timeout=case.left,
        data_folder=model.folder,
    )
    outcome = outcomes["disable_all", feed.name]
    if not isinstance(outcome, Ran):
        return outcome.reason
    return given | {name: value for name, value in outcome.outputs.items() if isinstance(value, np.ndarray)}


def _evidence(
    case: Case, site: _Site, first: dict[str, Array] | str, second: dict[str, Array] | str
) -> FoldEvidence:
    if not site.tensor:
        return _missing(site.fold, site.why)
    if isinstance(first, str) or isinstance(second, str):
        return _missing(site.fold, first if isinstance(first, str) else str(second))
    result = second.get(site.tensor)
    node = site.normalization
    source = first.get(site.tensor if node is None else node.input[0])
    if result is None or source is None or not is_float(result) or not is_float(source):
        return _missing(site.fold, f"onnxruntime gives no floating-point tensor {site.tensor!r}")
    reference = np.asarray(source, dtype=np.float64)
    if node is not None:
        reference = _normalized(case, node, reference)
    wide = np.asarray(result, dtype=np.float64)
    close = closeness(reference, wide, epsilon_of(result.dtype)) if reference.size else None
    if close is None:
        return _missing(site.fold, f"{site.tensor!r} holds nothing that can be compared")
    finite = np.isfinite(reference) & np.isfinite(wide)
    masks = np.array_equal(np.isnan(reference), np.isnan(wide)) and np.array_equal(
        np.isinf(reference), np.isinf(wide)
    )
    error = Error.of(wide[finite] - reference[finite])
    return FoldEvidence(
        node=site.fold.node,
        scope=site.fold.scope,
        into=site.fold.into,
        tensor=site.tensor,
        against="the original's tensor" if node is None else "the reference BatchNormalization",
        signal_rms=_number(Error.of(reference[finite]).rms),
        error_rms=_number(error.rms),
        error_max=_number(error.max),
        relative_l2=close.relative_l2 if close.relative_l2 is not None else _number(error.rms),
        sqnr_db=close.sqnr_db,
        ulp_p99=close.ulp_p99,
        note="" if masks else "non-finite values stand in other places",
    )


def _normalized(case: Case, node: onnx.NodeProto, x: Array) -> Array:
    """The reference BatchNormalization of float64 activations, with the node's own parameters."""
    tensors = _stored(case.original.proto.graph)
    scale, bias, mean, var = (
        stored(tensors[name], case.original.folder).astype(np.float64) for name in node.input[1:_PARAMETERS]
    )
    # ONNX stores the attribute, and its default, in float32.
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), float(np.float32(1e-5)))
    return runtime.infer(x, scale, bias, mean, var, epsilon=epsilon)


def _missing(fold: Fold, why: str) -> FoldEvidence:
    return FoldEvidence(fold.node, fold.scope, fold.into, "", "", None, None, None, None, None, None, why)


def _number(value: Any) -> float | None:  # noqa: ANN401 - of either kind
    return float(value) if np.isfinite(value) else None
