"""What all operators with constant weights need: reading an operand, or saying why it is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from bnfold.errors import ModelError
from bnfold.fold.affine import Affine
from bnfold.fold.changes import Change, SetWeight
from bnfold.fold.operator import Refused
from bnfold.fold.quantized import Dequantized
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import FLOATS, Weight, non_finite
from bnfold.model.constants import NotConstant
from bnfold.model.quantizing import DEQUANTIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node

_INT32_END = 2.0**31
# Relative; a product of two float32 scales is rounded by 6e-8. What is taken for the same unit decides only
# whether the bias stays an int32: its integers are made anew from its exact values, in the exact unit.
_SAME_UNIT = 1e-5
# Between a quantized tensor and a layer, these leave every number what it was; runtimes look through them.
_KEEP_SCALE = frozenset({"Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})

_CODES = {
    "runtime": (
        Code.NOT_CONSTANT,
        "store it as an initializer, or export with constant folding",
    ),
    "overridable": (Code.OVERRIDABLE, "run with --freeze if no caller replaces it"),
    "quantized": (Code.QUANTIZER, "fold the float model before quantizing it"),
}


def not_constant(node: Node, role: str, found: NotConstant) -> Reason:
    """The reason for an operand of `node` that is no constant."""
    code, hint = _CODES[found.kind]
    return Reason(
        code, found.blocking, f"the {role} of {node.op} {node.label!r} is no constant: {found.why}", hint
    )


def operand(node: Node, position: int, role: str, draft: Draft) -> Weight | Refused:
    """The floating-point constant at an input.

    Raises:
        ModelError: a required input is missing.
    """
    found = draft.weight(node, position)
    if found is None:
        raise ModelError(f"{node.op} {node.label!r}: input {position} ({role}) is missing")
    if isinstance(found, NotConstant):
        return Refused((not_constant(node, role, found),))
    if found.dtype not in FLOATS:
        return Refused((
            Reason(
                Code.MIXED_DTYPES, found.name, f"the {role} of {node.label!r} holds {found.dtype.name}"
            ),
        ))  # fmt: skip
    return found


def addend(node: Node, position: int, role: str, draft: Draft) -> Weight | Refused:
    """A small constant operand whose values are all finite."""
    found = operand(node, position, role, draft)
    if isinstance(found, Weight) and not np.isfinite(found.float64()).all():
        return Refused((non_finite(found.name),))
    return found


def same_channels(node: Node, affine: Affine, channels: int) -> None:
    """Both sides of the edge must agree on the number of channels.

    Raises:
        ModelError: they do not, so that no runtime can run the model.
    """
    if affine.dims not in ((), (channels,)):
        raise ModelError(
            f"{node.op} {node.label!r} has {channels} output channels, "
            f"but the normalization behind it has {affine.dims[0]}: the model is invalid"
        )


def goes_along(affine: Affine, axis: int) -> bool:
    """Whether the map goes along this axis alone; one map for the whole tensor goes along any."""
    return affine.axes in ((), (axis,))


def fits(affine: Affine, axis: int, size: int) -> bool:
    """Whether the map goes along this axis alone, and has one entry or `size`."""
    return affine.axes == () or (affine.axes == (axis,) and affine.dims == (size,))


def wrong_axis(node: Node, affine: Affine, axis: int, side: str = "output") -> Refused:
    """The normalized axis is not the one the weights of `node` stand for."""
    what = f"{node.op} {node.label!r} has weights along axis {axis}"
    evidence = f"{what}, but its {side} is normalized along {along(affine)}"
    if affine.axes == (axis,):
        evidence = f"{what}, but not for {affine.dims[0]} channels, which are normalized"
    return Refused((Reason(Code.CHANNEL_AXIS, node.label, evidence),))


def shift_by(values: NDArray[np.float64]) -> Affine:
    """The map that adds `values`, one for each output channel."""
    return Affine.along(1, np.zeros(1), np.ones(1), values)


def along(affine: Affine) -> str:
    """The axes of a map, for a reason."""
    axes = " and ".join(map(str, affine.axes))
    return "all axes at once" if not axes else f"{'axes' if len(affine.axes) > 1 else 'axis'} {axes}"


def lowest(affine: Affine) -> str:
    """The channel of the smallest scale, for a reason."""
    place = np.unravel_index(np.argmin(affine.scale), affine.scale.shape)
    return "all channels" if not affine.axes else "channel " + ", ".join(str(int(i)) for i in place)


def no_room(node: Node, position: int) -> Refused:
    """The normalized tensor comes in where no constant can make up for it."""
    evidence = (
        f"{node.op} {node.label!r} reads the normalized tensor as input {position}, where nothing takes it in"
    )
    return Refused((Reason(Code.NO_LINEAR_NEIGHBOUR, node.label, evidence),))


def ordered_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum along the last axis, by halves.

    NumPy's own order of summation may depend on the machine; elementwise additions do not, and the same
    model shall give the same bytes everywhere. Rounding grows with the logarithm of the length.
    """
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        paired = values[..., :half] + values[..., half : 2 * half]
        if values.shape[-1] % 2:
            paired = np.concatenate((paired, values[..., -1:]), axis=-1)
        values = paired
    return values[..., 0] if values.shape[-1] else np.zeros(values.shape[:-1])


def checked(changes: tuple[Change, ...]) -> tuple[Change, ...] | Refused:
    """The changes, if every new weight can be stored in its type."""
    weights = [c.weight for c in changes if isinstance(c, SetWeight)]
    reasons = tuple(r for w in weights if (r := w.check()) is not None)
    return Refused(reasons) if reasons else changes


def attribute_value(node: Node, name: str, value: float, draft: Draft) -> float | Refused:
    """The unrounded value of a float attribute of `node`, if float32, which it is stored as, can hold it."""
    source = node.inputs[0]
    wide = source is not None and draft.view.elem_type(source) == TensorProto.DOUBLE
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    if not np.isfinite(stored) or (wide and stored != value):
        kind = "float64" if wide else "float32"
        evidence = (
            f"attribute {name} of {node.op} {node.label!r} would become {value:.3g}, but it holds float32"
        )
        hint = "export with opset 11 or later" if wide else ""
        return Refused((Reason(Code.DTYPE_RANGE, node.label, f"{evidence} for {kind} tensors", hint),))
    return value


def bias_change(
    node: Node, affine: Affine, channels: int, weight: Weight, draft: Draft
) -> tuple[Change, ...] | Refused:
    """Input 2 of a convolution becomes `affine(bias)`; a bias that would be all zero is not created.

    `weight` is the one that the convolution is going to have.
    """
    bias = addend(node, 2, "bias", draft) if draft.weight(node, 2) is not None else None
    if isinstance(bias, Refused):
        return bias
    if bias is not None and bias.dims != (channels,):
        raise ModelError(
            f"{node.op} {node.label!r}: bias {bias.name!r} has shape {list(bias.dims)}, not [{channels}]"
        )
    new = np.broadcast_to(affine(np.zeros(channels) if bias is None else bias.float64()), (channels,))
    if bias is None and not new.any():
        return ()
    stored = new_bias(node, new, bias, weight, draft)
    return stored if isinstance(stored, Refused) else (SetWeight(node, 2, stored),)


def new_bias(
    node: Node, values: NDArray[np.float64], old: Weight | None, weight: Weight, draft: Draft
) -> Weight | Refused:
    """`values` as what `node` adds to its products, stored as `old` was, if there was one.

    Where input and weight are quantized, integer kernels sum in units of both scales. They count the bias in
    these units too (onnxruntime by itself, even a bias that is a float), in an int32.

    Args:
        node: a linear operator with its input at 0 and its weight at 1.
        values: float64; the output channels are the last axis.
        old: what it added before.
        weight: the weight it is going to have.
        draft: the graph as it is now.
    """
    plain = (
        Weight.dense(f"{weight.name}_bias", values, weight.dtype)
        if old is None
        else Weight.dense(old.name, values, old.dtype)
    )
    step = _input_step(node, draft)
    unit, before = _unit(weight, step), _unit(draft.weight(node, 1), step)
    if unit is None or before is None or not values.size or unit.size not in (1, values.shape[-1]):
        return plain
    if not (np.abs(values) < _INT32_END * np.abs(unit)).all():
        if not _has_integer_kernel(node, weight, draft):
            return plain
        units = np.abs(values / unit).max()
        evidence = (
            f"the folded bias of {node.op} {node.label!r} is {units:.3g} times the unit of its products, "
            "more than the int32 of an integer kernel counts"
        )
        return Refused((Reason(Code.DTYPE_RANGE, node.label, evidence, _CODES["quantized"][1]),))
    if not isinstance(old, Dequantized) or old.integers.dtype != np.int32 or old.steps is None:
        return plain
    same = before.size in (1, old.steps.size) and np.allclose(old.steps, before, rtol=_SAME_UNIT, atol=0.0)
    return old.counted(values, unit) if same else plain


def _quantizer_before(node: Node) -> Node | None:
    """The DequantizeLinear that the input of `node` comes from, if it does."""
    value = node.inputs[0]
    while value is not None and value.producer is not None and value.producer.op in _KEEP_SCALE:
        value = value.producer.inputs[0]
    producer = None if value is None else value.producer
    return producer if producer is not None and producer.op in DEQUANTIZE else None


def _input_step(node: Node, draft: Draft) -> float | None:
    """What one integer of the quantized input of `node` counts; None where its input is not quantized."""
    quantizer = _quantizer_before(node)
    scale = None if quantizer is None else draft.weight(quantizer, 1)
    if not isinstance(scale, Weight) or scale.float64().size != 1:
        return None
    return float(scale.float64().reshape(-1)[0])


def _has_integer_kernel(node: Node, weight: Weight, draft: Draft) -> bool:
    """Whether both factors are integers of a byte at most; runtimes multiply wider ones as floats."""
    quantizer = _quantizer_before(node)
    zero = None if quantizer is None else draft.weight(quantizer, 2)
    if isinstance(zero, Weight) and zero.dtype.itemsize > 1:
        return False
    return isinstance(weight, Dequantized) and weight.integers.dtype.itemsize == 1


def _unit(weight: Weight | NotConstant | None, step: float | None) -> NDArray[np.float64] | None:
    """What one product of an integer of the input and one of the weight counts."""
    if not isinstance(weight, Dequantized) or weight.steps is None or step is None:
        return None
    return weight.steps * step
