"""What a walk with an affine map can meet, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.reasons import Code, Reason
from bnfold.model.quantizing import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from bnfold.model.constants import NotConstant
    from bnfold.model.view import Graph, Node, Value

HORIZON = 2000
"""How many nodes a map may pass; a normalization whose weights are farther away is left alone."""

QUANTIZERS = QUANTIZE | DEQUANTIZE
_NEITHER = "has no weights and passes no scale or shift on"


def no_producer(value: Value) -> Reason:
    """Nobody computes the tensor."""
    what = "a stored constant" if value.initializer is not None else value.graph.role("input")
    return Reason(
        Code.NO_LINEAR_NEIGHBOUR, value.name, f"{value.name!r} is {what}; no weights come before it"
    )


def no_weights_before(producer: Node, consumer: Node) -> Reason:
    """The producer can neither take a map in nor pass it on."""
    if producer.op in QUANTIZERS:
        return _quantizer(producer)
    if producer.graph is not consumer.graph:
        evidence = f"it stands in {consumer.graph.phrase}, and {producer.op} {producer.label!r} outside of it"
    else:
        evidence = f"{producer.op} {producer.label!r}, which stands before it, {_NEITHER}"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, producer.label, evidence)


def no_weights_behind(consumer: Node) -> Reason:
    """The consumer can neither take a map in nor pass it on."""
    if consumer.op in QUANTIZERS:
        return _quantizer(consumer)
    evidence = f"{consumer.op} {consumer.label!r}, which stands behind it, {_NEITHER}"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, consumer.label, evidence)


def no_weights_beyond(node: Node, *, before: bool) -> Reason:
    """Whatever the node does to a map, nobody takes it in."""
    evidence = f"no operator with weights comes {'before' if before else 'behind'} {node.op} {node.label!r}"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, evidence)


def _quantizer(node: Node) -> Reason:
    return Reason(
        Code.QUANTIZER,
        node.label,
        f"{node.op} {node.label!r} stands between it and the weights",
        "fold the float model before quantizing it, or move the quantizer behind the normalization",
    )


def returned(value: Value) -> Reason:
    """Somebody outside of the graph gets the tensor as well."""
    evidence = f"{value.name!r}, which the fold would change, {_returned_by(value)}"
    return Reason(Code.GRAPH_OUTPUT, value.name, evidence, "remove it from the outputs if nobody uses it")


def needed_elsewhere(value: Value, consumer: Node) -> Reason:
    """Others need the tensor as it is, and nobody the consumer."""
    evidence = (
        f"others read {value.name!r}, which the fold would change, and no output of the model depends on "
        f"{consumer.op} {consumer.label!r}"
    )
    return Reason(Code.SEVERAL_CONSUMERS, value.name, evidence, "remove what is computed for nobody")


def end_of_graph(value: Value) -> Reason:
    """Somebody outside of the graph gets the tensor, and nobody inside reads it."""
    evidence = f"{value.name!r} {_returned_by(value)}; no weights come behind it"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, value.name, evidence)


def _returned_by(value: Value) -> str:
    """Who gives the tensor away: its own graph, or one nested in it."""
    for graph in value.graph.view.graphs:
        own: Graph | None = graph
        while own is not None and own.values.get(value.name) is not value:
            own = own.parent if value.name not in own.values else None
        if own is not None and value.name in graph.output_names:
            return f"is {graph.role('output')}"
    return "is read by the training information of the model"


def replaceable(consumer: Node, found: NotConstant) -> Reason:
    """The tensor is a constant, unless a caller gives another one."""
    return Reason(
        Code.OVERRIDABLE,
        found.blocking,
        f"{consumer.op} {consumer.label!r} reads a tensor that is no constant: {found.why}",
        "run with --freeze if no caller replaces it",
    )


def attribute_of_caller(node: Node) -> Reason:
    """Only the caller of the local function knows what the node does."""
    return Reason(
        Code.NOT_CONSTANT,
        node.label,
        f"an attribute of {node.op} {node.label!r} is given by the caller of {node.graph.phrase}",
        "inline the function before folding",
    )


def too_far(end: str) -> Reason:
    """The walk has passed as many nodes as it may."""
    evidence = f"no weights within {HORIZON} nodes; the search ended at {end!r}"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, end, evidence)
