"""The plan: every BatchNormalization of a model becomes a fold or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from onnx import TensorProto

from bnfold.errors import ModelError
from bnfold.fold import merge
from bnfold.fold.affine import Affine
from bnfold.fold.cost import gained_nodes
from bnfold.fold.draft import Draft
from bnfold.fold.folded import Fold
from bnfold.fold.lift import of_node
from bnfold.fold.obstacles import HORIZON
from bnfold.fold.operator import Refused
from bnfold.fold.ops import TABLE, elementwise
from bnfold.fold.options import Options
from bnfold.fold.reasons import Code, Reason, Refusal
from bnfold.fold.search import DeadEnd, Seen, Site, Way, backward, forward
from bnfold.fold.spelled import Chain, spelled_out
from bnfold.fold.trace import Attempt
from bnfold.fold.weight import Weight
from bnfold.model.shapes import contradiction
from bnfold.model.view import Node, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.fold.trace import Step
    from bnfold.model.store import ModelFile

_ABOUT_THE_EDGE = (Code.SEVERAL_CONSUMERS, Code.GRAPH_OUTPUT)
_INPUTS_OPTIONAL_SINCE_IR = 4


@dataclass(frozen=True)
class Plan:
    """What happens to every normalization of a model.

    Attributes:
        folds: those that go.
        kept: those that stay, each with its reasons.
        merged: sums of parallel branches that went, by name.
        frozen: overridable initializers that become constants because the user asked for it.
        draft: the graph as the folds leave it; `bnfold.fold.emit` turns it into edits.
        goes: the nodes of those that go.
        ways: for the node of each fold, those that its map passes or reaches.
        stays: the nodes of those that stay.
        attempts: the searches for those that were to be traced.
    """

    folds: tuple[Fold, ...]
    kept: tuple[Refusal, ...]
    merged: tuple[str, ...]
    frozen: tuple[str, ...]
    draft: Draft
    goes: Mapping[Node, Fold]
    ways: Mapping[Node, tuple[Node, ...]]
    stays: Mapping[Node, Refusal]
    attempts: Mapping[Node, tuple[Attempt, ...]]


def plan(
    model: ModelFile,
    options: Options | None = None,
    aliases: Mapping[str, str] = MappingProxyType({}),
    traced: str | None = None,
) -> Plan:
    """Decide, for every normalization of the model, where it goes or why it stays.

    Args:
        model: the model.
        options: what the user asks for.
        aliases: what the user calls nodes that have another name in `model`.
        traced: the label of the normalizations whose searches are to be noted.

    Raises:
        ModelError: a normalization or the data of a weight is invalid.
    """
    options = options or Options()
    view = View(model, frozen=options.freeze)
    planner = _Planner(Draft(view, frozen=options.freeze), options, aliases, traced)
    nodes = list(view.nodes())
    try:
        planner.settle(nodes)
    except (ArithmeticError, LookupError, ValueError) as error:
        # The rules take what ONNX demands of a node for granted. To ask first whether it holds would cost
        # every valid model a strict inference of all its shapes.
        wrong = contradiction(model) or _wrong_channels(view)
        if wrong is None:
            raise
        raise ModelError(f"the model is invalid: {wrong}") from error
    folds, kept = planner.settled(nodes)
    normalizations = sum(node.op == "BatchNormalization" for node in nodes)
    settled = [*(fold.op for fold in folds), *(refusal.op for refusal in kept)].count("BatchNormalization")
    if settled != normalizations:
        raise AssertionError(f"{normalizations} BatchNormalization nodes, but {settled} of them settled")
    frozen = overridable(view) if options.freeze else ()
    return Plan(
        folds=folds,
        kept=kept,
        merged=tuple(planner.merged),
        frozen=frozen,
        draft=planner.draft,
        goes=planner.folds,
        ways=planner.ways,
        stays=planner.kept,
        attempts=planner.attempts,
    )


class _Planner:
    """What has been decided so far: first everything backward, then sideways, then what is left forward."""

    def __init__(
        self, draft: Draft, options: Options, aliases: Mapping[str, str], traced: str | None
    ) -> None:
        self.draft = draft
        self.traced = traced
        self.attempts: dict[Node, tuple[Attempt, ...]] = {}
        self.options = options
        self.aliases = aliases
        self.folds: dict[Node, Fold] = {}
        self.ways: dict[Node, tuple[Node, ...]] = {}
        self.kept: dict[Node, Refusal] = {}
        self.waiting: dict[Node, DeadEnd] = {}
        self.seen = Seen()
        self.merged: list[str] = []
        self.moved = False  # whether something happened that may let go what found nobody so far

    def settle(self, nodes: list[Node]) -> None:
        """Decide about all of them."""
        # What overflows or turns out NaN is found by looking at the results, not by warnings on the way.
        with np.errstate(all="ignore"):
            for node in nodes:
                self.settle_backward(node)
            while self._settle_again(nodes):
                pass

    def _settle_again(self, nodes: list[Node]) -> bool:
        """What earlier decisions have made possible; whether there was anything."""
        if self.options.merge and self.settle_merges(nodes):
            # Where branches became one, their sum has weights now.
            self.moved = True
        if self.moved:
            self.moved = False
            self.retry_backward(nodes)
            return True
        # From the back, since a later one stands in the way of an earlier one.
        return sum(self.settle_forward(node) for node in reversed(nodes)) > 0

    def settled(self, nodes: list[Node]) -> tuple[tuple[Fold, ...], tuple[Refusal, ...]]:
        """Both results in the order of the model."""
        return (
            tuple(self.folds[n] for n in nodes if n in self.folds),
            tuple(self.kept[n] for n in nodes if n in self.kept),
        )

    def settle_backward(self, node: Node) -> None:
        if node.op == "BatchNormalization":
            lifted = of_node(node, self.draft)
            refused = lifted if isinstance(lifted, Refused) else self._rejected(node) or self._excluded(node)
            if isinstance(refused, Refused):
                self.kept[node] = Refusal(node.label, node.op, node.graph.label, refused.reasons)
            elif isinstance(lifted, Affine):
                self._try_backward(Site(node, 0, lifted, node.op))
        elif node.op in elementwise.OPS and self._counts(node):
            chain = spelled_out(node, self.draft)
            wrong = None if chain is None else self._rejected(node)
            if chain is not None and wrong is not None:
                self.kept[node] = Refusal(node.label, chain.site.op, node.graph.label, wrong.reasons)
            elif chain is not None and self._excluded(node) is None:
                self._try_chain(chain)

    def _counts(self, node: Node) -> bool:
        """Whether arithmetic is worth a look: it still is there, and somebody needs what it computes."""
        return node not in self.draft.removed and self.draft.is_needed(node)

    def settle_merges(self, nodes: list[Node]) -> bool:
        """Sums of branches; a normalization among them goes into its neighbour. Whether there was any."""
        before = len(self.merged)
        for node in nodes:
            if node.op in merge.SUMS and self._counts(node):
                self._settle_merge(node)
        return len(self.merged) > before

    def retry_backward(self, nodes: list[Node]) -> None:
        """Ask again for those that found nobody."""
        self.seen = Seen()
        for node in nodes:
            if node in self.waiting or node.op in elementwise.OPS:
                self.settle_backward(node)

    def _settle_merge(self, node: Node) -> None:
        found = merge.find(node, self._movable, self.draft)
        if found is None:
            return
        for change in found.changes:
            self.draft.apply(change)
        self.merged.append(node.label)
        self._take_in_constants(found.into)
        for normalization in found.normalizations:
            del self.waiting[normalization]
            self.kept.pop(normalization, None)
            self.folds[normalization] = _fold(
                normalization, normalization.op, Way(into=(found.into,)), "sideways", self.draft
            )
            self.ways[normalization] = (found.into, found.sum, *found.nodes)

    def _take_in_constants(self, conv: Node) -> None:
        """What constants do behind the sum belongs to the Conv, as before the sum to a branch."""
        while (result := conv.outputs[0]) is not None and self.draft.free_edge(result) is None:
            reader = next((use.node for use in self.draft.readers(result)), None)
            if reader is None or reader.op not in elementwise.OPS:
                return
            step = elementwise.step(reader, self.draft)
            if isinstance(step, Refused):
                return
            position, affine = step
            found = backward(Site(reader, position, affine, reader.op), self.draft)
            if (
                not isinstance(found, Way)
                or found.into != (conv,)
                or any(map(self.draft.adds_node, found.changes))
            ):
                return
            for change in found.changes:
                self.draft.apply(change)

    def settle_forward(self, node: Node) -> bool:
        """A normalization that no producer could take: perhaps all its consumers can. Whether they do."""
        if node not in self.waiting:
            return False
        lifted = of_node(node, self.draft)
        if isinstance(lifted, Refused):
            self.kept[node] = Refusal(node.label, node.op, node.graph.label, lifted.reasons)
            return False
        site, before = Site(node, 0, lifted, node.op), self.waiting[node]
        trace: list[Step] | None = [] if node.label == self.traced else None
        behind = forward(site, self.draft, trace)
        lost = _cancellation(site, self.draft)
        if isinstance(behind, Way) and lost is not None:
            behind = DeadEnd((lost,), HORIZON + len(behind.through) + 1)
        self._note(site, "forward", trace, behind)
        if isinstance(behind, Way):
            del self.waiting[node]
            self._commit(site, behind, "forward")
            return True
        # Where both tell as much, what comes before is named first.
        ends = sorted((before, behind), key=lambda end: end.weight, reverse=True)
        reasons = dict.fromkeys(reason for end in ends for reason in end.reasons)
        self.kept[node] = Refusal(node.label, site.op, node.graph.label, tuple(reasons))
        return False

    def _try_backward(self, site: Site) -> None:
        found = self._backward(site)
        if isinstance(found, DeadEnd):
            self.waiting[site.node] = found
            return
        self.waiting.pop(site.node, None)
        cheaper = self._cheaper_forward(site, found)
        if cheaper is None:
            self._commit(site, found, "backward")
        else:
            self._commit(site, cheaper, "forward")

    def _cheaper_forward(self, site: Site, way: Way) -> Way | None:
        """What stands behind may have a bias where what stands before would gain an Add."""
        gained = gained_nodes(way.changes, self.draft)
        if not gained:
            return None
        behind = forward(site, self.draft)
        if isinstance(behind, DeadEnd) or gained_nodes(behind.changes, self.draft) >= gained:
            return None
        return behind if _cancellation(site, self.draft) is None else None

    def _backward(self, site: Site) -> Way | DeadEnd:
        trace: list[Step] | None = [] if site.node.label == self.traced else None
        # What earlier searches found would not show what it was found by.
        found = backward(site, self.draft, self.seen if trace is None else None, trace)
        self._note(site, "backward", trace, found)
        return found

    def _note(self, site: Site, direction: str, trace: list[Step] | None, found: Way | DeadEnd) -> None:
        """Note a search; that which it repeats counts no more."""
        if trace is not None:
            others = (a for a in self.attempts.get(site.node, ()) if a.direction != direction)
            reasons = found.reasons if isinstance(found, DeadEnd) else ()
            self.attempts[site.node] = (*others, Attempt(direction, tuple(trace), reasons))

    def _movable(self, node: Node) -> Affine | None:
        """The map of a normalization that waits, as it is by now: later ones may have merged into it."""
        lifted = of_node(node, self.draft) if node in self.waiting else None
        if (
            not isinstance(lifted, Affine)
            or _cancellation(Site(node, 0, lifted, node.op), self.draft) is not None
        ):
            return None
        return lifted

    def _try_chain(self, chain: Chain) -> None:
        """A chain counts as a normalization where weights take it in; elsewhere it is just arithmetic."""
        site = chain.site
        found = self._backward(site)
        if isinstance(found, Way):
            if all(TABLE[n.op].linear or n.op == "BatchNormalization" for n in found.into):
                self._commit(site, found, "backward")
        elif _has_weights(chain.head) and found.reasons[0].code in _ABOUT_THE_EDGE:
            self.kept[site.node] = Refusal(site.node.label, site.op, site.node.graph.label, found.reasons)

    def _commit(self, site: Site, way: Way, direction: str) -> None:
        # What lies between the normalization and the weights loses its map, or has it from now on.
        between = way.through if direction == "forward" else (*way.through, *way.into)
        self.draft.revalued.update((v, None) for node in between for v in node.outputs if v is not None)
        for change in way.changes:
            self.draft.apply(change)
        # Gone forward, it may have freed an edge, or given a layer a bias; gone into another normalization,
        # it may have turned a scale that stood in its way.
        self.moved |= direction == "forward" or any(n.op == "BatchNormalization" for n in way.into)
        self.kept.pop(site.node, None)
        self.folds[site.node] = _fold(site.node, site.op, way, direction, self.draft)
        self.ways[site.node] = (*way.into, *way.through)

    def _rejected(self, node: Node) -> Refused | None:
        for wrong in self.options.rejected:
            if (wrong.node, wrong.scope) == (node.label, node.graph.label):
                hint = "please report it with the model: a fold must never do this"
                return Refused((Reason(Code.RESULTS_DIFFER, node.label, wrong.evidence, hint),))
        return None

    def _excluded(self, node: Node) -> Refused | None:
        name = self.aliases.get(node.label, node.label)
        options = self.options
        if options.include and not any(fnmatchcase(name, p) for p in options.include):
            return Refused((Reason(Code.EXCLUDED, name, f"{name!r} matches no --include pattern"),))
        for pattern in options.exclude:
            if fnmatchcase(name, pattern):
                return Refused((Reason(Code.EXCLUDED, name, f"{name!r} matches --exclude {pattern}"),))
        return None


def _cancellation(site: Site, draft: Draft) -> Reason | None:
    """Why a normalization should not wait until after the weights behind it.

    `x - mean` is computed before anything is rounded. Folded forward the difference is taken between two sums
    that are larger by `|mean| / sqrt(var + epsilon)`, and that many times their rounding errors stay. A
    quarter of the digits of the type is what may be lost.
    """
    scale = draft.weight(site.node, 1)
    if site.op != "BatchNormalization" or not isinstance(scale, Weight):
        return None
    deviation = np.abs(scale.float64() / site.affine.scale)
    ratio = np.where(site.affine.scale == 0, 0.0, np.abs(site.affine.center) / deviation)
    digits = ml_dtypes.finfo(scale.dtype).nmant + 1  # type: ignore[no-untyped-call]  # typed by halves
    worst = int(np.argmax(ratio)) if ratio.size else 0
    if not ratio.size or ratio[worst] <= 2.0 ** (digits / 4):
        return None
    return Reason(
        Code.CANCELLATION,
        site.node.label,
        f"the mean of channel {worst} is {ratio[worst]:.3g} times its standard deviation: taken away only "
        f"behind the weights, the rest would drown in the rounding errors of {scale.dtype.name}",
    )


def _fold(node: Node, op: str, way: Way, direction: str, draft: Draft) -> Fold:
    return Fold(
        node=node.label,
        op=op,
        scope=node.graph.label,
        into=tuple(n.label for n in way.into),
        into_op=tuple(n.op for n in way.into),
        through=tuple(n.label for n in way.through if n not in draft.removed),
        direction=direction,
    )


def _has_weights(node: Node | None) -> bool:
    return node is not None and node.op in TABLE and TABLE[node.op].linear


def _wrong_channels(view: View) -> str | None:
    """A BatchNormalization with statistics for other channels; inference overlooks those of old opsets."""
    for node in view.nodes():
        if node.op != "BatchNormalization":
            continue
        source, mean = node.inputs[0], node.inputs[3]
        shape = None if source is None else view.shape(source)
        stored = None if mean is None else mean.initializer
        if shape is None or len(shape) < 2 or not isinstance(stored, TensorProto):  # noqa: PLR2004  # [N, C, ...]
            continue
        if isinstance(shape[1], int) and list(stored.dims) != [shape[1]]:
            found = f"statistics of {list(stored.dims)} for {shape[1]} channels"
            return f"BatchNormalization {node.label!r} has {found}"
    return None


def overridable(view: View) -> tuple[str, ...]:
    """Initializers of the main graph that are graph inputs too; before IR 4 all of them had to be."""
    if view.model.proto.ir_version < _INPUTS_OPTIONAL_SINCE_IR:
        return ()
    return tuple(v.name for v in view.graphs[0].values.values() if v.initializer is not None and v.is_input)
