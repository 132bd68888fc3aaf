"""The search: every BatchNormalization of a model becomes a fold or a refusal.

For one normalization the engine walks against the data flow. Each node it meets swallows the affine map,
passes it on changed, or refuses; each edge it crosses must lead nowhere else. Nothing changes until the
whole way is known to be possible.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from bnfold.fold.draft import Draft
from bnfold.fold.lift import of_node
from bnfold.fold.operator import Absorbed, Carried, Change, Dissolve, Outcome, Refused
from bnfold.fold.ops import TABLE, elementwise
from bnfold.fold.reasons import Code, Reason, Refusal
from bnfold.model.view import Node, Value, View

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.model.store import ModelFile

_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ABOUT_THE_EDGE = (Code.SEVERAL_CONSUMERS, Code.GRAPH_OUTPUT)
_INPUTS_OPTIONAL_SINCE_IR = 4


@dataclass(frozen=True)
class Options:
    """What the user may ask of the plan.

    Attributes:
        freeze: take initializers that the caller could override for constants.
        include: name patterns; when there are any, only normalizations matching one are folded.
        exclude: name patterns; normalizations matching one stay.
    """

    freeze: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fold:
    """A normalization that goes.

    Attributes:
        node: its name, or that of its output when it has none.
        op: its operator, or the chain that spells one out (`Sub+Mul+Add`).
        scope: the graph it stands in (`""` for the main graph).
        into: the node that takes it in.
        into_op: that node's operator.
        through: the nodes its map passes on the way, nearest first.
        direction: against the data flow (`backward`) or along it (`forward`).
    """

    node: str
    op: str
    scope: str
    into: str
    into_op: str
    through: tuple[str, ...]
    direction: str = "backward"


@dataclass(frozen=True)
class Plan:
    """What happens to every normalization of a model.

    Attributes:
        folds: those that go.
        kept: those that stay, each with its reasons.
        frozen: overridable initializers that become constants because the user asked for it.
        draft: the graph as the folds leave it; `bnfold.fold.emit` turns it into edits.
    """

    folds: tuple[Fold, ...]
    kept: tuple[Refusal, ...]
    frozen: tuple[str, ...]
    draft: Draft


@dataclass(frozen=True)
class _Site:
    """A normalization: a BatchNormalization, or the last node of a chain that spells one out.

    Attributes:
        node: the node.
        position: its runtime input.
        affine: the map from that input to its output.
        op: how reports name the operator.
    """

    node: Node
    position: int
    affine: Affine
    op: str


@dataclass(frozen=True)
class _Way:
    """A way that leads to an absorbing node."""

    into: Node
    through: tuple[Node, ...]
    changes: tuple[Change, ...]


def plan(model: ModelFile, options: Options | None = None) -> Plan:
    """Decide, for every normalization of the model, where it goes or why it stays.

    Raises:
        ModelError: a normalization or the data of a weight is invalid.
    """
    options = options or Options()
    view = View(model)
    draft = Draft(view, frozen=options.freeze)
    folds: list[Fold] = []
    kept: list[Refusal] = []
    # What overflows or turns out NaN is found by looking at the results, not by warnings on the way.
    with np.errstate(all="ignore"):
        for node in view.nodes():
            if node.op == "BatchNormalization":
                _settle(node, options, draft, folds, kept)
            elif node.op in elementwise.OPS and node not in draft.removed:
                _settle_chain(node, options, draft, folds, kept)
    normalizations = sum(node.op == "BatchNormalization" for node in view.nodes())
    settled = [*(fold.op for fold in folds), *(refusal.op for refusal in kept)].count("BatchNormalization")
    if settled != normalizations:
        raise AssertionError(f"{normalizations} BatchNormalization nodes, but {settled} of them settled")
    return Plan(tuple(folds), tuple(kept), _overridable(view) if options.freeze else (), draft)


def _settle(node: Node, options: Options, draft: Draft, folds: list[Fold], kept: list[Refusal]) -> None:
    lifted = of_node(node, draft)
    if isinstance(lifted, Refused):
        outcome: _Way | Refused = lifted
    else:
        outcome = _excluded(node, options) or _backward(_Site(node, 0, lifted, node.op), draft)
    if isinstance(outcome, Refused):
        kept.append(Refusal(node.label, node.op, node.graph.label, outcome.reasons))
    else:
        folds.append(_commit(node, node.op, outcome, draft))


def _settle_chain(node: Node, options: Options, draft: Draft, folds: list[Fold], kept: list[Refusal]) -> None:
    """A chain counts as a normalization where it stands behind weights; elsewhere it is just arithmetic."""
    chain = _spelled_out(node, draft)
    if chain is None:
        return
    site, head = chain
    outcome = _excluded(node, options) or _backward(site, draft)
    if isinstance(outcome, _Way):
        if TABLE[outcome.into.op].linear or outcome.into.op == "BatchNormalization":
            folds.append(_commit(node, site.op, outcome, draft))
    elif _has_weights(head) and outcome.reasons[0].code in _ABOUT_THE_EDGE:
        kept.append(Refusal(node.label, site.op, node.graph.label, outcome.reasons))


def _commit(node: Node, op: str, way: _Way, draft: Draft) -> Fold:
    for change in way.changes:
        draft.apply(change)
    through = tuple(n.label for n in way.through if n not in draft.removed)
    return Fold(node.label, op, node.graph.label, way.into.label, way.into.op, through)


def _backward(site: _Site, draft: Draft) -> _Way | Refused:
    """Follow the map from the normalization up to a node that swallows it.

    An edge that leads elsewhere too is remembered, not returned at once: it is the true reason only if
    there would have been somebody to take the map in.
    """
    current, position, affine = site.node, site.position, site.affine
    changes: list[Change] = [Dissolve(current, position)]
    through: list[Node] = []
    blocked: list[Reason] = []
    while True:
        value = current.inputs[position]
        if value is None:
            raise AssertionError("an operator carries a map only to an input that it has")
        if (reason := draft.free_edge(value)) is not None:
            blocked.append(reason)
        match _ask(value, current, affine, draft):
            case Refused() as refused:
                return refused
            case Absorbed(more):
                if blocked:
                    return Refused(tuple(blocked))
                return _Way(_producer(value), tuple(through), (*changes, *more))
            case Carried(position, affine, more):
                changes.extend(more)
                current = _producer(value)
                through.append(current)


def _ask(value: Value, consumer: Node, affine: Affine, draft: Draft) -> Outcome:
    """What the producer of `value` says to computing `affine(value)` instead."""
    producer = value.producer
    if producer is None:
        return Refused((_no_producer(value),))
    entry = TABLE.get(producer.op)
    if entry is None or producer.graph is not consumer.graph or producer.outputs[0] is not value:
        return Refused((_no_neighbour(producer, consumer),))
    if producer.refers_to_caller and not entry.ignores_attributes:
        return Refused((_attribute_of_caller(producer),))
    return entry.backward(producer, affine, draft)


def _producer(value: Value) -> Node:
    if value.producer is None:
        raise AssertionError("only a producer answers anything but a refusal")
    return value.producer


def _spelled_out(node: Node, draft: Draft) -> tuple[_Site, Node | None] | None:
    """The chain of constant arithmetic that ends at `node`, if it scales and shifts channel by channel.

    Returns:
        The site, and the node the chain starts behind.
    """
    result = node.outputs[0]
    if result is None:
        return None
    uses = draft.uses(result)
    if len(uses) == 1 and _is_step(uses[0].node, draft):
        return None
    ops: list[str] = []
    scales = shifts = False
    current: Node | None = node
    first = None
    while current is not None and current.op in elementwise.OPS and current not in draft.removed:
        step = elementwise.step(current, draft)
        if isinstance(step, Refused):
            break
        position, affine = step
        first = first or (position, affine)
        ops.append(current.op)
        scales = scales or (current.op in {"Mul", "Div"} and affine.size > 1)
        shifts = shifts or current.op in {"Add", "Sub"}
        source = current.inputs[position]
        current = source.producer if source is not None else None
        if source is None or draft.free_edge(source) is not None:
            break
    if first is None or not (scales and shifts):
        return None
    return _Site(node, first[0], first[1], "+".join(reversed(ops))), current


def _is_step(node: Node, draft: Draft) -> bool:
    return node.op in elementwise.OPS and not isinstance(elementwise.step(node, draft), Refused)


def _has_weights(node: Node | None) -> bool:
    return node is not None and node.op in TABLE and TABLE[node.op].linear


def _excluded(node: Node, options: Options) -> Refused | None:
    if options.include and not any(fnmatchcase(node.label, p) for p in options.include):
        return Refused((Reason(Code.EXCLUDED, node.label, f"{node.label!r} matches no --include pattern"),))
    for pattern in options.exclude:
        if fnmatchcase(node.label, pattern):
            return Refused(
                (Reason(Code.EXCLUDED, node.label, f"{node.label!r} matches --exclude {pattern}"),)
            )
    return None


def _no_producer(value: Value) -> Reason:
    if value.initializer is not None:
        what = "a stored constant"
    elif value.graph.is_function:
        what = "a parameter of the local function"
    else:
        what = "a graph input"
    return Reason(
        Code.NO_LINEAR_NEIGHBOUR, value.name, f"its input {value.name!r} is {what}; no weights come before it"
    )


def _no_neighbour(producer: Node, consumer: Node) -> Reason:
    if producer.op in _QUANTIZERS:
        return Reason(
            Code.QUANTIZER,
            producer.label,
            f"{producer.op} {producer.label!r} stands between it and the weights",
            "fold the float model before quantizing it, or move the quantizer behind the normalization",
        )
    if producer.graph is not consumer.graph:
        return Reason(
            Code.NO_LINEAR_NEIGHBOUR,
            producer.label,
            f"its input comes from {producer.op} {producer.label!r} in an outer graph",
        )
    return Reason(
        Code.NO_LINEAR_NEIGHBOUR,
        producer.label,
        f"it follows {producer.op} {producer.label!r}, which has no weights to take it in",
    )


def _attribute_of_caller(node: Node) -> Reason:
    return Reason(
        Code.NOT_CONSTANT,
        node.label,
        f"an attribute of {node.op} {node.label!r} is given by the caller of the local function",
        "inline the function before folding",
    )


def _overridable(view: View) -> tuple[str, ...]:
    """Initializers of the main graph that are graph inputs too; before IR 4 all of them had to be."""
    if view.model.proto.ir_version < _INPUTS_OPTIONAL_SINCE_IR:
        return ()
    return tuple(v.name for v in view.graphs[0].values.values() if v.initializer is not None and v.is_input)
