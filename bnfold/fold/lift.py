"""From a node to the affine map it computes at inference, or the reasons why it computes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import ModelError
from bnfold.fold.affine import Affine, Values, of_batch_normalization
from bnfold.fold.operator import Refused
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import FLOATS, Weight
from bnfold.model.constants import NotConstant

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_ROLES = ("scale", "bias", "mean", "variance")
_OUTPUTS_SAY_SO_SINCE = 7  # before, is_test does
_TRAINING_MODE_SINCE = 14  # from here on, training_mode does
_SPATIAL_UNTIL = 9
_DEFAULT_EPSILON = float(np.float32(1e-5))


def of_node(node: Node, draft: Draft) -> Affine | Refused:
    """The map of a BatchNormalization, or every reason against it.

    Source: ONNX operator BatchNormalization, versions 1, 6, 7, 9, 14 and 15.

    Raises:
        ModelError: an input is missing, or the statistics do not fit each other.
    """
    reasons = list(_mode(node))
    vectors: list[Weight] = []
    for position, role in enumerate(_ROLES, start=1):
        found = draft.weight(node, position)
        if found is None:
            raise ModelError(f"BatchNormalization {node.label!r}: input {position} ({role}) is missing")
        if isinstance(found, NotConstant):
            reasons.append(_not_constant(node, role, found))
        elif found.dtype not in FLOATS:
            raise ModelError(
                f"BatchNormalization {node.label!r}: its {role} {found.name!r} holds {found.dtype.name}"
            )
        else:
            vectors.append(found)
    _same_length(node, vectors)
    if len(vectors) < len(_ROLES):
        return Refused(tuple(reasons))
    spatial = _spatial(node, vectors[0])
    if spatial is not None:
        return Refused((*reasons, spatial))
    scale, bias, mean, var = (v.float64() for v in vectors)
    epsilon = node.float_attribute("epsilon", _DEFAULT_EPSILON)
    reasons.extend(_numbers(node, vectors, var, epsilon))
    if reasons:
        return Refused(tuple(reasons))
    affine = of_batch_normalization(scale, bias, mean, var, epsilon)
    if not affine.is_finite:
        return Refused((
            Reason(Code.NON_FINITE, node.label, f"scale / sqrt(var + epsilon) of {node.label!r} overflows"),
        ))  # fmt: skip
    _one_channel(node, affine, draft)
    return affine


def deviation(node: Node, draft: Draft) -> Values | None:
    """The square root of variance + epsilon of a BatchNormalization, float64 `[C]`; None if not constant."""
    var = draft.weight(node, 4)
    if not isinstance(var, Weight):
        return None
    return np.asarray(np.sqrt(var.float64() + node.float_attribute("epsilon", _DEFAULT_EPSILON)))


def _mode(node: Node) -> tuple[Reason, ...]:
    """Each version's own way of saying that the statistics of the batch at hand are used."""
    if node.refers_to_caller:
        return (
            Reason(
                Code.NOT_CONSTANT,
                node.label,
                f"an attribute of {node.label!r} is given by the caller of {node.graph.phrase}",
                "inline the function before folding",
            ),
        )
    extra = any(v is not None for v in node.outputs[1:])
    how = "it has outputs for the statistics of the batch" if extra else ""
    if node.opset < _OUTPUTS_SAY_SO_SINCE and node.int_attribute("is_test", 0) == 0:
        how = "is_test is 0"
    elif node.opset >= _TRAINING_MODE_SINCE and node.int_attribute("training_mode", 0) != 0:
        how = "training_mode is 1"
    if not how:
        return ()
    return (
        Reason(
            Code.TRAINING_MODE,
            node.label,
            f"{node.label!r} is in training mode ({how}): it normalizes by the statistics of each batch",
            "export the model in evaluation mode",
        ),
    )


def _not_constant(node: Node, role: str, found: NotConstant) -> Reason:
    if found.kind == "overridable":
        return Reason(
            Code.OVERRIDABLE,
            found.blocking,
            f"the {role} of {node.label!r}: {found.why}",
            "run with --freeze if no caller replaces it",
        )
    return Reason(
        Code.NOT_CONSTANT,
        found.blocking,
        f"the {role} of {node.label!r} is no constant: {found.why}",
        "store it as an initializer, or export with constant folding",
    )


def _same_length(node: Node, vectors: list[Weight]) -> None:
    shapes = {v.dims for v in vectors}
    if len(shapes) > 1:
        found = ", ".join(f"{v.name!r} {list(v.dims)}" for v in vectors)
        raise ModelError(
            f"BatchNormalization {node.label!r}: scale, bias, mean and variance differ in length: {found}"
        )


def _spatial(node: Node, scale: Weight) -> Reason | None:
    """Up to opset 8, spatial=0 has one statistic for every position and not only for every channel."""
    if len(scale.dims) == 1:
        return None
    if node.opset < _SPATIAL_UNTIL and node.int_attribute("spatial", 1) == 0:
        return Reason(
            Code.CHANNEL_AXIS,
            node.label,
            f"{node.label!r} has spatial=0: it normalizes every position by statistics of its own",
        )
    raise ModelError(
        f"BatchNormalization {node.label!r}: its scale {scale.name!r} has shape {list(scale.dims)}, not [C]"
    )


def _numbers(
    node: Node, vectors: list[Weight], var: np.typing.NDArray[np.float64], epsilon: float
) -> list[Reason]:
    reasons = [
        Reason(
            Code.NON_FINITE,
            vector.name,
            f"the {role} of {node.label!r} holds NaN or infinity",
            "the training went wrong here; repair the statistics and export again",
        )
        for role, vector in zip(_ROLES, vectors, strict=True)
        if not np.isfinite(vector.float64()).all()
    ]
    if not np.isfinite(epsilon):
        reasons.append(Reason(Code.NON_FINITE, node.label, f"epsilon of {node.label!r} is {epsilon}"))
    elif not reasons and var.size and (var + epsilon <= 0).any():
        channel = int(np.argmin(var))
        reasons.append(
            Reason(
                Code.VARIANCE,
                vectors[3].name,
                f"variance + epsilon of {node.label!r} is {var[channel] + epsilon:.3g} in channel {channel}",
                "a variance cannot be negative; repair the statistics and export again",
            )
        )
    return reasons


def _one_channel(node: Node, affine: Affine, draft: Draft) -> None:
    """A vector of length 1 would silently serve any number of channels; a BatchNormalization's must not."""
    source = node.inputs[0]
    if affine.axes or source is None:
        return
    shape = draft.shape(source)
    channels = shape[1] if shape is not None and len(shape) > 1 else 1
    if isinstance(channels, int) and channels != 1:
        raise ModelError(
            f"BatchNormalization {node.label!r} has 1 channel, but its input {source.name!r} has {channels}"
        )
