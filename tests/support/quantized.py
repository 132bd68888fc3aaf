"""Layers whose weights are integers behind a DequantizeLinear, followed by a BatchNormalization.

net = Net(opset=17)
x = quantized_input(net, net.input("x", 1, 3, 6, 6))
w = dequantized(net, integers(net, 4, 3, 3, 3), scale=np.full(4, 0.01), axis=0)
net.output(net.bn(net.node("Conv", x, w), 4, name="bn"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from onnx import ModelProto
    from support.build import Array, Net, Numbers

INTEGERS = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int4": TensorProto.INT4,
    "uint4": TensorProto.UINT4,
    "int32": TensorProto.INT32,
}
X_SCALE = 0.03125  # a power of two: what the tests work out by hand is exact


def limits(kind: str) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    dtype = helper.tensor_dtype_to_np_dtype(INTEGERS[kind])
    info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]  # ml_dtypes types it by halves
    return int(info.min), int(info.max)


def middle(kind: str) -> int:
    """The zero point of a symmetric quantization."""
    low, high = limits(kind)
    return (low + high + 1) // 2


def integers(net: Net, *shape: int, kind: str = "int8") -> Array:
    """Integers that can be mirrored at `middle`: all of a type but its least."""
    low, high = limits(kind)
    return net.rng.integers(low + 1, high, shape, endpoint=True)


def dequantized(
    net: Net,
    q: Numbers,
    *,
    scale: Numbers,
    kind: str = "int8",
    zero: Numbers | None = 0,
    place: str = "raw",
    name: str = "w",
    scale_elem: int | None = None,
    **attrs: Any,  # noqa: ANN401 - attributes of the node
) -> str:
    """`(q - zero) * scale`; the constants are called `<name>_q`, `<name>_scale` and `<name>_zero`."""
    q, scale = np.asarray(q), np.asarray(scale)
    inputs = [
        net.const(q, place, name=f"{name}_q", elem=INTEGERS[kind]),
        net.const(scale, place, name=f"{name}_scale", elem=scale_elem),
    ]
    if zero is not None:
        points = np.broadcast_to(np.asarray(zero), scale.shape)
        inputs.append(net.const(points, place, name=f"{name}_zero", elem=INTEGERS[kind]))
    return net.node("DequantizeLinear", *inputs, out=name, name=f"{name}_dq", **attrs)


def quantized(net: Net, x: str, *, scale: float = X_SCALE, zero: int = 0, kind: str = "int8") -> str:
    """`x` rounded to multiples of `scale`, as activations are."""
    step, point = net.init(scale), net.init(np.array(zero), elem=INTEGERS[kind])
    return net.node("DequantizeLinear", net.node("QuantizeLinear", x, step, point), step, point)


def stored(model: ModelProto, name: str) -> Array:
    """The values of an initializer, as they are stored."""
    return np.asarray(next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name))
