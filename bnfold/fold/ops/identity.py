"""Identity and inference Dropout: the map passes as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.fold.operator import Carried, Operator, Outcome, Refused
from bnfold.fold.ops.weights import no_room
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_IS_TEST_UNTIL = 7  # opsets 1 and 6 say "inference" by an attribute
_TRAINING_INPUT_SINCE = 12  # later ones by an optional third input; between the two Dropout is inference only


def identity(_node: Node, affine: Affine, _draft: Draft) -> Outcome:
    """Nothing happens to the values."""
    return Carried(((0, affine),))


def dropout(node: Node, affine: Affine, draft: Draft) -> Outcome:
    """Nothing happens to the values either, once it is shown to be inference and its mask unread."""
    if (
        len(node.outputs) > 1
        and node.outputs[1] is not None
        and (node.outputs[1].is_output or node.outputs[1].uses)
    ):
        return Refused((
            Reason(
                Code.NO_LINEAR_NEIGHBOUR,
                node.label,
                f"the mask of Dropout {node.label!r} is read, so that it may be in training mode",
            ),
        ))  # fmt: skip
    if not _is_inference(node, draft):
        return Refused((
            Reason(
                Code.TRAINING_MODE,
                node.label,
                f"Dropout {node.label!r} is, or may be, in training mode",
                "export the model in evaluation mode",
            ),
        ))  # fmt: skip
    return Carried(((0, affine),))


def identity_forward(_node: Node, _position: int, affine: Affine, _draft: Draft) -> Outcome:
    """The same, along the data flow."""
    return Carried(((0, affine),))


def dropout_forward(node: Node, position: int, affine: Affine, draft: Draft) -> Outcome:
    """The same, along the data flow."""
    return no_room(node, position) if position else dropout(node, affine, draft)


def _is_inference(node: Node, draft: Draft) -> bool:
    if node.opset < _IS_TEST_UNTIL:
        return node.int_attribute("is_test", 0) != 0
    if node.opset < _TRAINING_INPUT_SINCE:
        return True
    training = draft.weight(node, 2)
    if training is None:
        return True
    return isinstance(training, Weight) and training.source is not None and not training.source.array().any()


IDENTITY = Operator(identity, identity_forward, summary="passes it on")
DROPOUT = Operator(dropout, dropout_forward, summary="passes it on at inference")
