"""Integers that a model computes from shapes and constants, entry by entry, before it runs.

Exporters write `x[:, : x.shape[1] // 2]` as Shape, Gather, Div and Slice. With a symbolic batch the vector
that Shape gives is known in part, but the entry for the channels is. onnx's inference follows some of these
operators, but no Div; what is found here is given back to it as constants.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

Dim = int | str | None  # a size, the name of one that the caller chooses, or unknown
Shape = tuple[Dim, ...]
Entries = Any  # a NumPy array of Python integers and, where an entry is not known, None

_LONGEST = 512  # entries; no operand that speaks of axes or sizes is longer
_LARGEST = 1 << 31  # beyond, int32 wraps around; sizes and bounds that are computed are smaller
_NUMPY_BROADCAST = 7  # the opset since which shapes align on the right without attributes
_TYPES = (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)


def of_tensor(tensor: TensorProto) -> Entries | None:
    """The entries of a stored tensor; None when it holds no integers, many, or is stored elsewhere."""
    if tensor.data_type not in _TYPES or tensor.data_location == TensorProto.EXTERNAL:
        return None
    if math.prod(tensor.dims) > _LONGEST:
        return None
    return _entries(numpy_helper.to_array(tensor))


def to_tensor(entries: Entries, elem_type: int) -> TensorProto | None:
    """The tensor that holds the entries; None when not all are known."""
    if any(entry is None for entry in entries.reshape(-1)):
        return None
    return numpy_helper.from_array(entries.astype(helper.tensor_dtype_to_np_dtype(elem_type)))


def of_node(
    node: NodeProto, shape: Callable[[str], Shape | None], known: Mapping[str, Entries], opset: int
) -> Entries | None:
    """The only output of a node; None when nothing is known of it.

    Args:
        node: the node.
        shape: the shape of a tensor, as far as it is known.
        known: the entries of tensors.
        opset: the version of the default operator set.
    """
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return None
    if any(attribute.ref_attr_name for attribute in node.attribute):
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if _is_plain(a)}
    if len(attributes) < len(node.attribute):
        return None
    if node.op_type in {"Shape", "Size"}:
        return _of_shape(node.op_type, shape(node.input[0]), attributes)
    rule = _RULES.get(node.op_type)
    if rule is None:
        return None
    operands = [known.get(name) if name else None for name in node.input]
    if any(name and operand is None for name, operand in zip(node.input, operands, strict=True)):
        return None
    try:
        found = rule(operands, attributes, opset)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        # An operand that is known in part, or one the operator does not allow: then it is not known.
        return None
    return found if found is None or found.size <= _LONGEST else None


def _is_plain(attribute: AttributeProto) -> bool:
    return attribute.type in (AttributeProto.INT, AttributeProto.INTS, AttributeProto.TENSOR)


def _of_shape(op: str, shape: Shape | None, attributes: Mapping[str, Any]) -> Entries | None:
    if shape is None:
        return None
    sizes = [dim if isinstance(dim, int) else None for dim in shape]
    if op == "Size":
        whole = None if None in sizes else math.prod(size for size in sizes if size is not None)
        return _entries(whole)
    return _entries(sizes[attributes.get("start", 0) : attributes.get("end", len(sizes))])


def _entries(values: object) -> Entries:
    """Python integers, which never wrap around."""
    return np.array(values.tolist() if isinstance(values, np.ndarray) else values, object)


def _all(entries: Entries) -> NDArray[np.int64]:
    """The entries, all of which must be known.

    Raises:
        TypeError: one is not.
    """
    return np.array([int(entry) for entry in entries.reshape(-1)], np.int64).reshape(entries.shape)


def _each(function: Callable[..., int]) -> Callable[[Sequence[Entries], Any, int], Entries | None]:
    """A function of numbers, entry by entry."""

    def of_numbers(*numbers: int | None) -> int | None:
        if None in numbers:
            return None
        result = function(*numbers)
        return result if abs(result) < _LARGEST else None

    def rule(operands: Sequence[Entries], _attributes: object, opset: int) -> Entries | None:
        if opset < _NUMPY_BROADCAST:
            return None
        return np.asarray(np.frompyfunc(of_numbers, len(operands), 1)(*operands), object)

    return rule


def _quotient(one: int, other: int) -> int:
    """ONNX divides integers as C does, towards zero."""
    return abs(one) // abs(other) * (1 if (one < 0) == (other < 0) else -1)


def _cast(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries | None:
    small = all(entry is None or abs(entry) < _LARGEST for entry in operands[0].reshape(-1))
    wide = attributes.get("to") == TensorProto.INT64
    return operands[0] if wide or (attributes.get("to") == TensorProto.INT32 and small) else None


def _gather(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries:
    return np.asarray(np.take(operands[0], _all(operands[1]), attributes.get("axis", 0)), object)


def _concat(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries:
    return np.concatenate(operands, attributes["axis"])


def _slice(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries | None:
    """Of a vector, or the rows of a table; a start before the axis is left to onnx."""
    data, *rest = operands
    if not rest:
        rest = [_entries(list(attributes[name])) for name in ("starts", "ends", "axes") if name in attributes]
    starts, ends, *others = (_all(operand).tolist() if operand is not None else None for operand in rest)
    axes, steps = (*others, None, None)[:2]
    if starts is None or ends is None or len(starts) != 1 or axes not in (None, [0], [-data.ndim]):
        return None
    if steps is not None and starts[0] < -len(data):
        return None
    return data[starts[0] : ends[0] : steps[0] if steps else 1] if data.ndim else None


def _axes(operands: Sequence[Entries], attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    if len(operands) > 1 and operands[1] is not None:
        return tuple(_all(operands[1]).tolist())
    return tuple(attributes["axes"]) if "axes" in attributes else None


def _squeeze(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries:
    return np.squeeze(operands[0], _axes(operands, attributes))


def _unsqueeze(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries | None:
    axes = _axes(operands, attributes)
    return None if axes is None else np.expand_dims(operands[0], axes)


def _reshape(operands: Sequence[Entries], attributes: Mapping[str, Any], opset: int) -> Entries | None:
    if opset < 5:  # noqa: PLR2004  # before, the shape was an attribute
        return None
    target = _all(operands[1]).tolist()
    if 0 in target or attributes.get("allowzero"):
        return None
    return operands[0].reshape(target)


def _transpose(operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries:
    return operands[0].transpose(attributes.get("perm"))


def _constant(_operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int) -> Entries | None:
    if "value" in attributes:
        return of_tensor(attributes["value"])
    for name in ("value_int", "value_ints"):
        if name in attributes:
            return _entries(attributes[name])
    return None


def _constant_of_shape(
    operands: Sequence[Entries], attributes: Mapping[str, Any], _opset: int
) -> Entries | None:
    value = attributes.get("value")
    held = None if value is None else of_tensor(value)
    sizes = _all(operands[0]).tolist()
    if held is None or math.prod(sizes) > _LONGEST:
        return None
    return np.full(sizes, held.reshape(-1)[0], object)


def _where(operands: Sequence[Entries], _attributes: object, _opset: int) -> Entries:
    choose = np.frompyfunc(lambda c, x, y: None if c is None else x if c else y, 3, 1)
    return np.asarray(choose(*operands), object)


_RULES: Mapping[str, Callable[[Sequence[Entries], Any, int], Entries | None]] = {
    "Add": _each(lambda a, b: a + b),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _each(_quotient),
    "Equal": _each(lambda a, b: int(a == b)),
    "Gather": _gather,
    "Identity": lambda operands, _attributes, _opset: operands[0],
    "Max": _each(max),
    "Min": _each(min),
    "Mul": _each(lambda a, b: a * b),
    "Neg": _each(lambda a: -a),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _each(lambda a, b: a - b),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
