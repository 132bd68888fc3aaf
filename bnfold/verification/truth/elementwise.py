"""Operators whose onnx reference is wrong in float64, wrong in old opsets, or too slow for activations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx

from bnfold.verification.truth.call import Array, Call, Operator, TruthUnavailableError
from bnfold.verification.truth.tensors import PROMOTED_TYPES, dense, promoted

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMPY_BROADCASTING = 7


def constant(call: Call) -> tuple[object]:
    """Constant in all its forms; floating-point values keep the rounding of the dtype they are stored in."""
    ((name, value),) = call.attributes.items()
    if name == "sparse_value":
        return (promoted(dense(value)),)
    if name in ("value_float", "value_floats"):
        return (np.asarray(value, dtype=np.float32).astype(np.float64),)
    if name in ("value_int", "value_ints"):
        return (np.asarray(value, dtype=np.int64),)
    if name in ("value_string", "value_strings"):
        values = value if name == "value_strings" else [value]
        text = np.array([item.decode() for item in values], dtype=object)
        return (text if name == "value_strings" else text.reshape(()),)
    return (promoted(value),)


def constant_of_shape(call: Call) -> tuple[Array]:
    """ConstantOfShape: an array of the given shape filled with `value`, float32 zero without it."""
    value = np.asarray(promoted(call.attributes.get("value", np.zeros(1, np.float32))))
    return (np.full(tuple(call.tensor(0)), value.reshape(-1)[0], dtype=value.dtype),)


def cast(call: Call) -> tuple[Array]:
    """Cast: towards a promoted type no rounding takes place."""
    to = call.attributes["to"]
    # Opsets below 6 name the type by a string.
    number = to if isinstance(to, int) else onnx.TensorProto.DataType.Value(to.decode())
    return (_cast(call, call.tensor(0), number),)


def cast_like(call: Call) -> tuple[Array]:
    """CastLike: promoted tensors are float64, whatever the dtype they were declared with."""
    like = call.tensor(1)
    number = int(onnx.helper.np_dtype_to_tensor_dtype(like.dtype))
    return (_cast(call, call.tensor(0), number),)


def _cast(call: Call, x: Array, number: int) -> Array:
    if number in PROMOTED_TYPES or number == onnx.TensorProto.DOUBLE:
        return x.astype(np.float64)
    if number == onnx.TensorProto.STRING:
        raise TruthUnavailableError("the text of a number depends on its dtype")
    target = onnx.helper.tensor_dtype_to_np_dtype(number)
    if target.kind in "iub" and x.dtype.kind in "fiub":
        return x.astype(target)
    from onnx.reference.ops.op_cast import cast_to  # noqa: PLC0415 - only float8 and 4-bit types need it

    return np.asarray(cast_to(x, number, bool(call.integer("saturate", 1))))  # type: ignore[arg-type]  # an int it is


def arithmetic(function: Callable[[Array, Array], Array]) -> Operator:
    """A binary operator; below opset 7 the second operand is broadcast from `axis`, not from the right."""

    def run(call: Call) -> tuple[Array]:
        a, b = call.tensor(0), call.tensor(1)
        if call.opset < _NUMPY_BROADCASTING and call.integer("broadcast", 0) and "axis" in call.attributes:
            axis = call.integer("axis", 0) % a.ndim
            b = b.reshape(*b.shape, *(1,) * (a.ndim - axis - b.ndim))
        y = function(a, b)
        return (np.asarray(y),)

    return run


def divide(a: Array, b: Array) -> Array:
    """Div: integers are divided towards zero, as C does."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype))


def power(a: Array, b: Array) -> Array:
    """Pow: the result has the dtype of the base."""
    return np.asarray(np.power(a, b).astype(a.dtype))


def clip(call: Call) -> tuple[Array]:
    """Clip: bounds are attributes up to opset 10 and inputs from 11 on; the upper bound wins."""
    x = call.tensor(0)
    if "min" in call.attributes or "max" in call.attributes:
        x = np.maximum(x, call.number("min", -np.inf))
        return (np.minimum(x, call.number("max", np.inf)),)
    low, high = call.optional(1), call.optional(2)
    x = x if low is None else np.maximum(x, low)
    return (x if high is None else np.minimum(x, high),)


def dropout(call: Call) -> tuple[Array, ...]:
    """Dropout at inference: the input, and a mask of ones.

    Raises:
        TruthUnavailableError: the node is in training mode, where its result is random.
    """
    x = call.tensor(0)
    training = call.optional(2)
    if training is not None and bool(training.reshape(-1)[0]):
        ratio = call.optional(1)
        if ratio is None or float(ratio.reshape(-1)[0]) != 0.0:
            raise TruthUnavailableError("its result is random (training mode)")
    return (x, np.ones(x.shape, dtype=bool))[: call.outputs]


def reshape(call: Call) -> tuple[Array]:
    """Reshape: the shape is an attribute below opset 5; 0 keeps a size (no allowzero), -1 is what remains."""
    x = call.tensor(0)
    wanted = call.integers("shape", ()) if len(call.inputs) == 1 else tuple(int(d) for d in call.tensor(1))
    if not call.integer("allowzero", 0):
        wanted = tuple(x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted))
    if x.size == 0 and -1 in wanted:
        # NumPy finds no size for -1 where there are no elements; the others decide it.
        known = math.prod(size for size in wanted if size != -1)
        wanted = tuple((0 if known else 1) if size == -1 else size for size in wanted)
    return (x.reshape(wanted),)


def relu(call: Call) -> tuple[Array]:
    """Relu."""
    return (np.maximum(call.tensor(0), 0),)


def leaky_relu(call: Call) -> tuple[Array]:
    """LeakyRelu."""
    x = call.tensor(0)
    return (np.where(x >= 0, x, x * call.number("alpha", 0.01)),)


def prelu(call: Call) -> tuple[Array]:
    """PRelu: below opset 7 a slope `[C]` belongs to the channels, from 7 on it broadcasts from the right."""
    x, slope = call.tensor(0), call.tensor(1)
    if call.opset < _NUMPY_BROADCASTING and slope.ndim == 1 and x.ndim > 1:
        slope = slope.reshape(-1, *(1,) * (x.ndim - 2))
    return (np.where(x >= 0, x, x * slope),)


def sigmoid(call: Call) -> tuple[Array]:
    """Sigmoid, without overflow on either side."""
    x = call.tensor(0)
    small = np.exp(-np.abs(x))
    return (np.where(x >= 0, 1.0, small) / (1.0 + small),)


def gather_elements(call: Call) -> tuple[Array]:
    """GatherElements-13; the indices may cover a part of the other axes only."""
    x, indices = call.tensor(0), call.tensor(1)
    axis = call.integer("axis", 0) % x.ndim
    part = tuple(slice(None) if at == axis else slice(size) for at, size in enumerate(indices.shape))
    return (np.take_along_axis(x[part], indices.astype(np.int64), axis),)


def erf(call: Call) -> tuple[Array]:
    """Erf in float64; the standard library has it for scalars."""
    x = call.tensor(0)
    return (
        np.fromiter(map(math.erf, x.reshape(-1).tolist()), dtype=np.float64, count=x.size).reshape(x.shape),
    )


def total(call: Call) -> tuple[Array]:
    """Sum of any number of operands."""
    y = call.tensor(0)
    for index in range(1, len(call.inputs)):
        y = y + call.tensor(index)
    return (y,)


def random(_call: Call) -> tuple[Array]:
    """Refuse an operator whose result is random.

    Raises:
        TruthUnavailableError: always.
    """
    raise TruthUnavailableError("its result is random")


def bits(_call: Call) -> tuple[Array]:
    """Refuse an operator that reads the bits of a number, which promotion changes.

    Raises:
        TruthUnavailableError: always.
    """
    raise TruthUnavailableError("it reads the bits of a number, which float64 has other ones of")
