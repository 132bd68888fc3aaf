"""Cast between floating-point types: a map passes where it cannot meet a type too narrow for its values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.reasons import Code, Reason

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

# How far each type reaches (exponent bits) and how finely it tells values apart (mantissa bits).
_REACH: dict[int, int] = {
    TensorProto.FLOAT16: 5,
    TensorProto.BFLOAT16: 8,
    TensorProto.FLOAT: 8,
    TensorProto.DOUBLE: 11,
}
_GRAIN: dict[int, int] = {
    TensorProto.FLOAT16: 10,
    TensorProto.BFLOAT16: 7,
    TensorProto.FLOAT: 23,
    TensorProto.DOUBLE: 52,
}


def backward(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """What is normalized must fit into the type before the cast."""
    before, behind = _types(node, draft)
    if before in _REACH and behind in _REACH and _REACH[before] >= _REACH[behind]:
        return Carried(((0, affine),))
    return _refused(node, "the type before it reaches less far than the one the normalization computes in")


def forward(node: Node, _position: int, affine: Affine, draft: Draft) -> Outcome:
    """What is not yet normalized must fit into the type behind the cast, without losing digits."""
    before, behind = _types(node, draft)
    if (
        before in _REACH
        and behind in _REACH
        and _REACH[before] <= _REACH[behind]
        and _GRAIN[before] <= _GRAIN[behind]
    ):
        return Carried(((0, affine),))
    return _refused(node, "the type behind it is narrower than the one the normalization computes in")


def _types(node: Node, draft: Draft) -> tuple[int, int]:
    source = node.inputs[0]
    return draft.view.elem_type(source) if source is not None else 0, node.int_attribute("to", 0)


def _refused(node: Node, why: str) -> Refused:
    evidence = f"Cast {node.label!r} stands between it and the weights, and {why}"
    return Refused((Reason(Code.MIXED_DTYPES, node.label, evidence),))


OPERATOR = Operator(backward, forward, summary="passes it on between floating-point types")
