"""The integers that a QuantizeLinear makes of a constant: those that every runtime computes anew.

`saturate(round(x / scale) + zero_point)`, the quotient in the type of `x`, rounded to nearest, ties to even.
Runtimes compute a quotient of float16 in float32: where that gives other integers, nobody knows which the
model means.

Source: ONNX operator QuantizeLinear, versions 10, 13, 19, 21, 23, 24 and 25; of onnxruntime's own domain,
version 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from bnfold.model.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bnfold.model.view import Node

QUANTIZE = frozenset({"QuantizeLinear", "com.microsoft::QuantizeLinear"})
DEQUANTIZE = frozenset({"DequantizeLinear", "com.microsoft::DequantizeLinear"})

_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))


def quantized(
    node: Node, x: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any] | None
) -> NDArray[Any] | str:
    """The output of a QuantizeLinear, or why it is not certain.

    Args:
        node: the QuantizeLinear.
        x: float32 or float16, of any shape.
        scale: of the same type: one number, one for each index of an axis, or one for each block along it.
        zero_point: integers, as many; None is 0.
    """
    kind = ELEMENT_TYPES.get(node.int_attribute("output_dtype", 0))
    dtype = zero_point.dtype if zero_point is not None else np.dtype(np.uint8) if kind is None else kind.dtype
    if x.dtype not in _FLOATS or scale.dtype != x.dtype or not dtype.name.startswith(("int", "uint")):
        return f"it makes {dtype.name} of {x.dtype.name} by a scale of {scale.dtype.name}"
    if node.int_attribute("precision", 0):
        return "it divides in a type of its own"
    parts = [_spread(node, part, x) for part in (scale, np.zeros(()) if zero_point is None else zero_point)]
    if parts[0] is None or parts[1] is None:
        return f"its scale of shape {list(scale.shape)} does not fit {list(x.shape)}"
    if not (np.isfinite(x).all() and np.isfinite(scale).all() and (scale != 0).all()):
        return "it rounds what is not finite"
    limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]  # typed by halves
    quotients = [x.astype(wide) / parts[0].astype(wide) for wide in {x.dtype, np.dtype(np.float32)}]
    zero = parts[1].astype(np.float64)
    found = [np.clip(np.rint(q).astype(np.float64) + zero, limits.min, limits.max) for q in quotients]
    if not all(np.array_equal(found[0], other) for other in found[1:]):
        return f"how it rounds {x.dtype.name} near a half depends on the runtime"
    return np.asarray(found[0].astype(dtype))


def _spread(node: Node, parameter: NDArray[Any], x: NDArray[Any]) -> NDArray[Any] | None:
    """A scale or zero point in a shape that broadcasts with `x`; None where it does not fit."""
    if parameter.size == 1:
        return parameter.reshape((1,) * x.ndim)
    axis, block = node.int_attribute("axis", 1), node.int_attribute("block_size", 0)
    if not -x.ndim <= axis < x.ndim:
        return None
    axis %= x.ndim
    if block and parameter.ndim == x.ndim:
        repeated = np.repeat(parameter.astype(np.float64), block, axis=axis).astype(parameter.dtype)
        cut = repeated[(slice(None),) * axis + (slice(x.shape[axis]),)]
        return cut if cut.shape == x.shape else None
    if block or parameter.shape != (x.shape[axis],):
        return None
    return parameter.reshape([-1 if place == axis else 1 for place in range(x.ndim)])
