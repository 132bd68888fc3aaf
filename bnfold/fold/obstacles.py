"""What a walk with an affine map can meet, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.operator import Refused
from bnfold.fold.reasons import Code, Reason
from bnfold.model.quantizing import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from bnfold.model.view import Node, Value

HORIZON = 2000
"""How many nodes a map may pass; a normalization whose weights are farther away is left alone."""

_QUANTIZERS = QUANTIZE | DEQUANTIZE


def no_producer(value: Value) -> Reason:
    """Nobody computes the tensor."""
    if value.initializer is not None:
        what = "a stored constant"
    elif value.graph.is_function:
        what = "a parameter of the local function"
    else:
        what = "a graph input"
    return Reason(
        Code.NO_LINEAR_NEIGHBOUR, value.name, f"{value.name!r} is {what}; no weights come before it"
    )


def no_weights_before(producer: Node, consumer: Node) -> Reason:
    """The producer can neither take a map in nor pass it on."""
    if producer.op in _QUANTIZERS:
        return _quantizer(producer)
    if producer.graph is not consumer.graph:
        evidence = f"its input comes from {producer.op} {producer.label!r} in an outer graph"
    else:
        evidence = f"it follows {producer.op} {producer.label!r}, which has no weights to take it in"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, producer.label, evidence)


def no_weights_behind(consumer: Node) -> Reason:
    """The consumer can neither take a map in nor pass it on."""
    if consumer.op in _QUANTIZERS:
        return _quantizer(consumer)
    evidence = f"it feeds {consumer.op} {consumer.label!r}, which has no weights to take it in"
    return Reason(Code.NO_LINEAR_NEIGHBOUR, consumer.label, evidence)


def _quantizer(node: Node) -> Reason:
    return Reason(
        Code.QUANTIZER,
        node.label,
        f"{node.op} {node.label!r} stands between it and the weights",
        "fold the float model before quantizing it, or move the quantizer behind the normalization",
    )


def attribute_of_caller(node: Node) -> Reason:
    """Only the caller of the local function knows what the node does."""
    return Reason(
        Code.NOT_CONSTANT,
        node.label,
        f"an attribute of {node.op} {node.label!r} is given by the caller of the local function",
        "inline the function before folding",
    )


def too_far(end: str) -> Refused:
    """The walk has passed as many nodes as it may."""
    evidence = f"no weights within {HORIZON} nodes; the search ended at {end!r}"
    return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, end, evidence),))
