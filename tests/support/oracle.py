"""What an ONNX model computes, in plain float64 NumPy, with a bound on what rounding may do to it.

Written from the ONNX operator specification alone and slow on purpose: every operator is the sum its
specification writes down. Stored values are used as they are stored (a float16 weight is a float16 number);
everything computed from them is computed in float64 and never rounded.

`evaluate` gives the values. `evaluate_bounded` also gives, for every tensor,

* `magnitude`: the value obtained when every product and sum is taken over absolute values. The rounding error
  of any evaluation order in a format of unit roundoff u is at most n*u*magnitude, n being the operations on a
  path (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
* `error`: how far the value may be from the value of the model this one was rounded from. It starts at the
  tensors named in `rounded` with half an ulp of their type (0.5 for an int32 that is dequantized: such a bias
  is rounded to its scale; no other integer may change), and each operator passes it on. For an operator
  that is linear in each operand, |f(x+dx, w+dw) - f(x, w)| <= F(|x|+ex, |w|+ew) - F(|x|, |w|), F being f with
  absolute values; activations used here have a known Lipschitz constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)
from support import oracle_normalize, oracle_resample, unsupported

Array = NDArray[Any]
Attribute = Any  # what an ONNX attribute holds
Unsupported = unsupported.Unsupported

# Bits of the significand (the hidden one included) and the exponent of the smallest normal number.
_FORMATS: dict[int, tuple[int, int]] = {
    TensorProto.FLOAT16: (11, -14),
    TensorProto.BFLOAT16: (8, -126),
    TensorProto.FLOAT: (24, -126),
    TensorProto.DOUBLE: (53, -1022),
}
FLOAT_TYPES = frozenset(_FORMATS)


def unit_roundoff(elem_type: int) -> float:
    """Half the distance from 1 to the next number of a floating-point type."""
    return 2.0 ** -_FORMATS[elem_type][0]


def half_ulp(values: Array, elem_type: int) -> Array:
    """Half the spacing of `elem_type` at each of `values`: the most that one rounding to it changes."""
    bits, smallest_exponent = _FORMATS[elem_type]
    exponent = np.frexp(np.abs(values))[1] - 1
    exponent = np.where(values == 0, smallest_exponent, np.maximum(exponent, smallest_exponent))
    return np.asarray(np.ldexp(1.0, exponent - bits))


def to_float64(tensor: TensorProto) -> Array:
    """The values of a tensor; floating-point types become float64, the others keep their own type."""
    array = numpy_helper.to_array(tensor)
    return np.asarray(array.astype(np.float64) if tensor.data_type in FLOAT_TYPES else array)


def sparse_to_float64(tensor: onnx.SparseTensorProto) -> Array:
    """A sparse tensor written out, with indices given per dimension or linear."""
    values = to_float64(tensor.values)
    dense = np.zeros(list(tensor.dims), values.dtype)
    indices = numpy_helper.to_array(tensor.indices)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


@dataclass(frozen=True)
class Value:
    """One tensor of a running model.

    Attributes:
        data: float64 for floating-point tensors, else the tensor's own type.
        elem_type: the type the model says it has (`TensorProto.DataType`).
        constant: nothing it was computed from can be changed by the caller.
        magnitude: see the module; `None` when bounds are off or the tensor is no float.
        error: see the module; `None` as above.
    """

    data: Array
    elem_type: int
    constant: bool = False
    magnitude: Array | None = None
    error: Array | None = None

    @property
    def is_float(self) -> bool:
        return self.elem_type in FLOAT_TYPES


@dataclass(frozen=True)
class Call:
    """One operator at work: its attributes and the version of its operator set."""

    node: NodeProto
    attrs: Mapping[str, Any]
    opset: int
    inputs: tuple[Value | None, ...]

    def get(self, name: str, default: Attribute) -> Attribute:
        return self.attrs.get(name, default)

    def elem(self, index: int) -> int:
        value = self.inputs[index]
        assert value is not None
        return value.elem_type

    @property
    def wanted(self) -> int:
        return len(self.node.output)

    def wants(self, index: int) -> bool:
        return index < self.wanted and bool(self.node.output[index])


Arrays = Sequence[Any]  # the operands: arrays, None where an optional one is left out
Result = Any  # an array, or several in the order of the outputs
Kernel = Callable[[Call, Arrays], Result]


def _at(arrays: Arrays, index: int) -> Result:
    return arrays[index] if index < len(arrays) else None


def _ints(array: Result) -> list[int]:
    return [int(i) for i in np.asarray(array).reshape(-1)]


# --- linear algebra ---------------------------------------------------------------------------------------


def _window_pads(
    call: Call, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    mode = call.get("auto_pad", b"NOTSET")
    rank = len(size)
    if mode == b"NOTSET":
        pads = call.get("pads", [0] * (2 * rank))
        return [(pads[i], pads[i + rank]) for i in range(rank)]
    if mode == b"VALID":
        return [(0, 0)] * rank
    result = []
    for i in range(rank):
        total = max(
            (math.ceil(size[i] / strides[i]) - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[i],
            0,
        )
        small, large = total // 2, total - total // 2
        result.append((small, large) if mode == b"SAME_UPPER" else (large, small))
    return result


def _under(index: Iterable[Any]) -> tuple[Any, ...]:
    """Indexes the last dimensions."""
    return (..., *index)


def _conv(call: Call, arrays: Arrays) -> Result:
    x, w, b = arrays[0], arrays[1], _at(arrays, 2)
    rank = x.ndim - 2
    kernel = w.shape[2:]
    strides = call.get("strides", [1] * rank)
    dilations = call.get("dilations", [1] * rank)
    groups = call.get("group", 1)
    pads = _window_pads(call, x.shape[2:], kernel, strides, dilations)
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    out_size = [(x.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(rank)]
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    w = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel)
    y = np.zeros((x.shape[0], groups, w.shape[1], *out_size))
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(
                tap[i] * dilations[i], tap[i] * dilations[i] + (out_size[i] - 1) * strides[i] + 1, strides[i]
            )
            for i in range(rank)
        )
        y += np.einsum("ngi...,goi->ngo...", x[_under(window)], w[_under(tap)])
    y = y.reshape(y.shape[0], y.shape[1] * y.shape[2], *out_size)
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _conv_transpose(call: Call, arrays: Arrays) -> Result:
    x, w, b = arrays[0], arrays[1], _at(arrays, 2)
    rank = x.ndim - 2
    kernel = w.shape[2:]
    strides = call.get("strides", [1] * rank)
    dilations = call.get("dilations", [1] * rank)
    extra = call.get("output_padding", [0] * rank)
    groups = call.get("group", 1)
    full = [
        strides[i] * (x.shape[2 + i] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(rank)
    ]
    mode = call.get("auto_pad", b"NOTSET")
    shape = call.get("output_shape", None)
    if shape is None and mode in (b"SAME_UPPER", b"SAME_LOWER"):
        shape = [x.shape[2 + i] * strides[i] for i in range(rank)]
    if shape is not None:
        total = [full[i] - shape[-rank:][i] for i in range(rank)]
        if min(total) < 0:
            raise Unsupported("ConvTranspose with an output_shape beyond its input's reach")
        first = [t // 2 if mode == b"SAME_UPPER" else t - t // 2 for t in total]
        pads = [(f, t - f) for f, t in zip(first, total, strict=True)]
    else:
        pads = _window_pads(call, x.shape[2:], kernel, strides, dilations)
    x = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    w = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel)
    y = np.zeros((x.shape[0], groups, w.shape[2], *full))
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(
                tap[i] * dilations[i],
                tap[i] * dilations[i] + (x.shape[3 + i] - 1) * strides[i] + 1,
                strides[i],
            )
            for i in range(rank)
        )
        y[_under(window)] += np.einsum("ngi...,gio->ngo...", x, w[_under(tap)])
    y = y.reshape(y.shape[0], y.shape[1] * y.shape[2], *full)
    y = y[_under(slice(begin, full[i] - end) for i, (begin, end) in enumerate(pads))]
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _gemm(call: Call, arrays: Arrays) -> Result:
    a = arrays[0].T if call.get("transA", 0) else arrays[0]
    b = arrays[1].T if call.get("transB", 0) else arrays[1]
    c = _at(arrays, 2)
    y = call.get("alpha", 1.0) * (a @ b)
    return y if c is None else y + call.get("beta", 1.0) * c


def _gemm_absolute(call: Call, up: Arrays, _low: Arrays) -> Result:
    scaled = dict(call.attrs) | {k: abs(call.get(k, 1.0)) for k in ("alpha", "beta")}
    return _gemm(replace(call, attrs=scaled), up)


def _normalizes_by_batch(call: Call) -> bool:
    """Whether this BatchNormalization trains, each version of the operator saying so in its own way."""
    if call.opset >= 14:
        return bool(call.get("training_mode", 0))
    if call.opset >= 7:
        return any(call.wants(i) for i in range(1, call.wanted))
    return not call.get("is_test", 0)


def _per_channel(statistic: Array, x: Array) -> Array:
    # spatial=0 gives one statistic an activation: [C, D1, ...]
    return statistic.reshape(-1, *[1] * (x.ndim - 2)) if statistic.ndim == 1 and x.ndim >= 2 else statistic


def _batch_norm(call: Call, arrays: Arrays) -> Result:
    x, scale, bias, mean, var = arrays[:5]
    epsilon = float(np.float32(call.get("epsilon", 1e-5)))
    if not _normalizes_by_batch(call):
        s, b, m, v = (_per_channel(a, x) for a in (scale, bias, mean, var))
        return (x - m) / np.sqrt(v + epsilon) * s + b
    spatial = call.opset >= 9 or call.get("spatial", 1)
    axes = (0, *range(2, x.ndim)) if spatial else (0,)
    batch_mean, batch_var = x.mean(axes), x.var(axes)
    s, b, m, v = (_per_channel(a, x) for a in (scale, bias, batch_mean, batch_var))
    y = (x - m) / np.sqrt(v + epsilon) * s + b
    momentum = call.get("momentum", 0.9)
    running = [old * momentum + new * (1 - momentum) for old, new in ((mean, batch_mean), (var, batch_var))]
    return [y, *running, batch_mean, batch_var][: max(call.wanted, 1)]


def _batch_norm_absolute(call: Call, up: Arrays, low: Arrays) -> Result:
    if _normalizes_by_batch(call):
        raise Unsupported("no bound for a BatchNormalization that trains")
    epsilon = float(np.float32(call.get("epsilon", 1e-5)))
    s, b, m = (_per_channel(a, up[0]) for a in up[1:4])
    v = _per_channel(low[4], up[0])
    return (up[0] + m) / np.sqrt(v + epsilon) * s + b


# --- elementwise ------------------------------------------------------------------------------------------


def _broadcast_pair(call: Call, a: Array, b: Array) -> tuple[Array, Array]:
    """Opsets below 7 align the second operand at `axis` instead of at the right."""
    if call.opset >= 7 or b.size == 1:
        return a, b
    if not call.get("broadcast", 0):
        assert a.shape == b.shape, "without `broadcast` both operands have one shape"
        return a, b
    axis = call.attrs["axis"] % a.ndim if "axis" in call.attrs else a.ndim - b.ndim
    part = a.shape[axis : axis + b.ndim]
    # Ones are not in the specification, but in the cases that onnx stores.
    assert all(d in (1, n) for d, n in zip(b.shape, part, strict=True)), "the second is a part of the first"
    return a, b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))


def _add(call: Call, arrays: Arrays) -> Result:
    a, b = _broadcast_pair(call, arrays[0], arrays[1])
    return a + b


def _sub(call: Call, arrays: Arrays) -> Result:
    a, b = _broadcast_pair(call, arrays[0], arrays[1])
    return a - b


def _mul(call: Call, arrays: Arrays) -> Result:
    a, b = _broadcast_pair(call, arrays[0], arrays[1])
    return a * b


def _div(call: Call, arrays: Arrays) -> Result:
    a, b = _broadcast_pair(call, arrays[0], arrays[1])
    if np.issubdtype(a.dtype, np.integer):
        return np.trunc(a / b).astype(a.dtype)
    return a / b


def _div_absolute(call: Call, up: Arrays, low: Arrays) -> Result:
    return _div(call, [up[0], low[1]])


def _sum(_call: Call, arrays: Arrays) -> Result:
    return sum(arrays[1:], arrays[0])


def _slope(call: Call, x: Array, slope: Array) -> Result:
    # Before opset 7 a slope of size C belongs to the channel axis; since then it is broadcast from the right.
    return (
        slope.reshape(-1, *[1] * (x.ndim - 2))
        if call.opset < 7 and slope.size > 1 and slope.ndim == 1
        else slope
    )


def _prelu(call: Call, arrays: Arrays) -> Result:
    x, slope = arrays[0], _slope(call, arrays[0], arrays[1])
    return np.where(x < 0, slope * x, x)


def _clip(call: Call, arrays: Arrays) -> Result:
    low, high = _at(arrays, 1), _at(arrays, 2)
    if call.opset < 11:
        low, high = call.get("min", None), call.get("max", None)
    x = arrays[0]
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _leaky_relu(call: Call, arrays: Arrays) -> Result:
    return np.where(arrays[0] < 0, call.get("alpha", 0.01) * arrays[0], arrays[0])


def _relu(_call: Call, arrays: Arrays) -> Result:
    return np.maximum(arrays[0], 0)


def _sigmoid(_call: Call, arrays: Arrays) -> Result:
    return 1 / (1 + np.exp(-arrays[0]))


# --- pooling and reduction --------------------------------------------------------------------------------


def _pool(call: Call, x: Array, fill: float) -> tuple[list[Array], Array]:
    """The values under each tap of the kernel, and how many of them count in an average."""
    rank = x.ndim - 2
    kernel = call.attrs["kernel_shape"]
    strides = call.get("strides", [1] * rank)
    dilations = call.get("dilations", [1] * rank)
    pads = _window_pads(call, x.shape[2:], kernel, strides, dilations)
    ceil_mode = call.get("ceil_mode", 0)
    sizes = []
    for i in range(rank):
        span = x.shape[2 + i] + sum(pads[i]) - (kernel[i] - 1) * dilations[i] - 1
        size = (math.ceil(span / strides[i]) if ceil_mode else span // strides[i]) + 1
        if ceil_mode and (size - 1) * strides[i] >= x.shape[2 + i] + pads[i][0]:
            size -= 1  # a window that starts in the padding behind the input is left out
        sizes.append(size)
    needed = [(sizes[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(rank)]
    counted = np.ones(x.shape[2:])
    include = call.get("count_include_pad", 0)
    counted = np.pad(counted, pads, constant_values=1.0 if include else 0.0)
    overhang = [(0, max(0, needed[i] - counted.shape[i])) for i in range(rank)]
    counted = np.pad(counted, overhang)
    x = np.pad(
        x,
        [(0, 0), (0, 0), *((p[0], p[1] + o[1]) for p, o in zip(pads, overhang, strict=True))],
        constant_values=fill,
    )
    taps, counts = [], np.zeros(sizes)
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(tap[i] * dilations[i], tap[i] * dilations[i] + (sizes[i] - 1) * strides[i] + 1, strides[i])
            for i in range(rank)
        )
        taps.append(x[_under(window)])
        counts += counted[window]
    return taps, counts


def _average_pool(call: Call, arrays: Arrays) -> Result:
    taps, counts = _pool(call, arrays[0], 0.0)
    return sum(taps[1:], taps[0]) / counts


def _max_pool(call: Call, arrays: Arrays) -> Result:
    taps = np.stack(_pool(call, arrays[0], -np.inf)[0])
    if not call.wants(1):
        return taps.max(axis=0)
    if call.get("storage_order", 0):
        raise Unsupported("MaxPool with Indices in column order")
    flat = np.arange(arrays[0].size, dtype=np.float64).reshape(arrays[0].shape)
    places = np.stack(_pool(call, flat, -1.0)[0])
    chosen = np.take_along_axis(places, taps.argmax(axis=0)[None], axis=0)[0]
    return [taps.max(axis=0), chosen.astype(np.int64)]


def _global_average_pool(_call: Call, arrays: Arrays) -> Result:
    return arrays[0].mean(tuple(range(2, arrays[0].ndim)), keepdims=True)


def _global_max_pool(_call: Call, arrays: Arrays) -> Result:
    return arrays[0].max(tuple(range(2, arrays[0].ndim)), keepdims=True)


def _reduce_axes(call: Call, arrays: Arrays, since: int) -> tuple[int, ...] | None:
    axes = _at(arrays, 1) if call.opset >= since else call.get("axes", None)
    return None if axes is None or len(_ints(axes)) == 0 else tuple(_ints(axes))


def _extreme(function: Callable[..., Array], lowest: float) -> Callable[..., Array]:
    """The maximum or minimum, also of nothing."""

    def of(x: Array, axis: tuple[int, ...] | None, *, keepdims: bool) -> Array:
        empty: float = lowest
        if x.dtype.kind == "b":
            empty = lowest > 0
        elif x.dtype.kind in "iu":
            empty = np.iinfo(x.dtype).min if lowest < 0 else np.iinfo(x.dtype).max
        return function(x, axis, initial=empty, keepdims=keepdims)

    return of


def _reduce(function: Callable[..., Array], since: int) -> Kernel:
    """A reduction whose axes are an input since opset `since`."""

    def kernel(call: Call, arrays: Arrays) -> Result:
        axes = _reduce_axes(call, arrays, since)
        if axes is None and call.get("noop_with_empty_axes", 0):
            return arrays[0]
        return function(arrays[0], axis=axes, keepdims=bool(call.get("keepdims", 1)))

    return kernel


# --- movement ---------------------------------------------------------------------------------------------


def _reshape(call: Call, arrays: Arrays) -> Result:
    x = arrays[0]
    shape = _ints(call.attrs["shape"] if call.opset < 5 else arrays[1])
    if not call.get("allowzero", 0):
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    if -1 in shape and 0 in x.shape:
        known = math.prod(d for d in shape if d != -1)
        shape = [(0 if known == 0 else x.size // known) if d == -1 else d for d in shape]
    return x.reshape(shape)


def _transpose(call: Call, arrays: Arrays) -> Result:
    return np.transpose(arrays[0], call.get("perm", None))


def _flatten(call: Call, arrays: Arrays) -> Result:
    x = arrays[0]
    axis = call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _axes(call: Call, arrays: Arrays) -> list[int] | None:
    axes = _at(arrays, 1) if call.opset >= 13 else call.get("axes", None)
    return None if axes is None else _ints(axes)


def _squeeze(call: Call, arrays: Arrays) -> Result:
    axes = _axes(call, arrays)
    return np.squeeze(arrays[0], None if axes is None else tuple(axes))


def _unsqueeze(call: Call, arrays: Arrays) -> Result:
    return np.expand_dims(arrays[0], tuple(_axes(call, arrays) or ()))


def _concat(call: Call, arrays: Arrays) -> Result:
    return np.concatenate(list(arrays), call.get("axis", 1))


def _split(call: Call, arrays: Arrays) -> Result:
    x, axis = arrays[0], call.get("axis", 0)
    sizes = _at(arrays, 1) if call.opset >= 13 else call.get("split", None)
    if sizes is None:
        count = call.get("num_outputs", call.wanted)
        each = math.ceil(x.shape[axis] / count)
        sizes = [min(each, x.shape[axis] - i * each) for i in range(count)]
    return np.split(x, np.cumsum(_ints(sizes))[:-1], axis)


def _slice(call: Call, arrays: Arrays) -> Result:
    x = arrays[0]
    if call.opset < 10:
        starts, ends = call.attrs["starts"], call.attrs["ends"]
        axes, steps = call.get("axes", range(len(starts))), [1] * len(starts)
    else:
        starts, ends = _ints(arrays[1]), _ints(arrays[2])
        axes = range(len(starts)) if _at(arrays, 3) is None else _ints(arrays[3])
        steps = [1] * len(starts) if _at(arrays, 4) is None else _ints(arrays[4])
    index: list[Any] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        begin, stop = (i + size if i < 0 else i for i in (start, end))
        # Negative steps start at the last element at most, and may end before the first.
        lowest, highest = ((0, 0), (size, size)) if step > 0 else ((0, -1), (size - 1, size - 1))
        begin, stop = min(max(begin, lowest[0]), highest[0]), min(max(stop, lowest[1]), highest[1])
        index[axis] = np.arange(begin, stop, step)
        x = x[tuple(index)]
        index[axis] = slice(None)
    return x


def _gather(call: Call, arrays: Arrays) -> Result:
    return np.take(arrays[0], arrays[1], axis=call.get("axis", 0))


def _pad(call: Call, arrays: Arrays) -> Result:
    x = arrays[0]
    mode = call.get("mode", b"constant").decode()
    if call.opset < 11:
        pads = call.attrs["pads" if call.opset >= 2 else "paddings"]
        value: Any = call.get("value", 0.0)
        axes = list(range(x.ndim))
    else:
        pads = _ints(arrays[1])
        value = 0.0 if _at(arrays, 2) is None else np.asarray(arrays[2]).reshape(()).item()
        axes = list(range(x.ndim)) if _at(arrays, 3) is None else _ints(arrays[3])
    for i, axis in enumerate(axes):
        before, after = pads[i], pads[i + len(axes)]
        width = [(0, 0)] * x.ndim
        width[axis] = (max(before, 0), max(after, 0))
        kind = {"constant": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}[mode]
        x = np.pad(x, width, constant_values=value) if kind == "constant" else np.pad(x, width, mode=kind)  # type: ignore[call-overload]  # the mode is a variable
        if min(before, after) < 0:
            x = np.take(x, range(-min(before, 0), x.shape[axis] + min(after, 0)), axis)
    return x


def _pad_absolute(call: Call, up: Arrays, _low: Arrays) -> Result:
    return _pad(replace(call, attrs={k: abs(v) if k == "value" else v for k, v in call.attrs.items()}), up)


def _expand(_call: Call, arrays: Arrays) -> Result:
    return arrays[0] * np.ones(_ints(arrays[1]), arrays[0].dtype)


def _identity(_call: Call, arrays: Arrays) -> Result:
    return arrays[0]


def _dropout(call: Call, arrays: Arrays) -> Result:
    x = arrays[0]
    if call.opset >= 12:
        ratio = 0.5 if _at(arrays, 1) is None else float(np.asarray(arrays[1]).reshape(-1)[0])
        trains = bool(_at(arrays, 2)) if _at(arrays, 2) is not None else False
    else:
        ratio = call.get("ratio", 0.5)
        trains = call.opset < 7 and not call.get("is_test", 0)
    mask = np.ones(x.shape, bool)
    if trains and ratio > 0:
        mask = np.random.default_rng(0).random(x.shape) >= ratio  # any mask will do: nobody may count on it
        x = x * mask / (1 - ratio)
    return [x, mask][: call.wanted]


def _shape(call: Call, arrays: Arrays) -> Result:
    return np.array(arrays[0].shape[call.get("start", 0) : call.get("end", None)], np.int64)


def _constant_of_shape(call: Call, arrays: Arrays) -> Result:
    value = to_float64(call.attrs["value"]) if "value" in call.attrs else np.zeros(1)
    return np.full(_ints(arrays[0]), value.reshape(-1)[0])


def _constant(call: Call, _arrays: Arrays) -> Result:
    ((name, value),) = call.attrs.items()
    match name:
        case "value":
            return to_float64(value)
        case "sparse_value":
            return sparse_to_float64(value)
        case "value_float" | "value_floats":
            return np.asarray(value, np.float64)
        case "value_int" | "value_ints":
            return np.asarray(value, np.int64)
        case _:
            return np.asarray(value)


def _rounded_to(array: Array, elem_type: int) -> Array:
    """Values as `elem_type` stores them; float64 stands for every floating-point type."""
    if elem_type in FLOAT_TYPES:
        return array.astype(helper.tensor_dtype_to_np_dtype(elem_type)).astype(np.float64)
    kind = helper.tensor_dtype_to_np_dtype(elem_type)
    if kind.kind not in "iub":
        raise Unsupported(f"Cast to {kind}")
    return array.astype(kind)


def _cast_target(call: Call) -> int:
    if call.node.op_type == "CastLike":
        return call.elem(1)
    to = call.attrs["to"]
    return TensorProto.DataType.Value(to.decode()) if isinstance(to, bytes) else int(to)


def _cast(call: Call, arrays: Arrays) -> Result:
    target = _cast_target(call)
    source = call.inputs[0]
    assert source is not None
    if target in FLOAT_TYPES and source.is_float and not source.constant:
        return arrays[0]  # running values are never rounded; constants are what the model stores
    return _rounded_to(arrays[0], target)


def _where(_call: Call, arrays: Arrays) -> Result:
    return np.where(arrays[0], arrays[1], arrays[2])


# --- quantization -----------------------------------------------------------------------------------------


def _quantize_axis(call: Call, parameter: Array, x: Array) -> Array:
    if parameter.size == 1:
        return parameter.reshape(())
    axis = call.get("axis", 1) % x.ndim
    if block := call.get("block_size", 0):
        index = np.arange(x.shape[axis]) // block
        return np.asarray(np.take(parameter, index, axis))
    return parameter.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def _dequantize(call: Call, arrays: Arrays) -> Result:
    x, scale, zero = arrays[0].astype(np.float64), arrays[1], _at(arrays, 2)
    shift = 0.0 if zero is None else _quantize_axis(call, zero.astype(np.float64), x)
    return (x - shift) * _quantize_axis(call, scale, x)


def _dequantize_absolute(call: Call, up: Arrays, low: Arrays) -> Result:
    zero = _at(low, 2)
    x = np.abs(low[0].astype(np.float64))
    shift = 0.0 if zero is None else np.abs(_quantize_axis(call, zero.astype(np.float64), x))
    return (x + shift) * _quantize_axis(call, up[1], x)


def _quantize(call: Call, arrays: Arrays) -> Result:
    if call.get("block_size", 0):
        raise Unsupported("blocked QuantizeLinear")
    x, scale, zero = arrays[0], arrays[1], _at(arrays, 2)
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    if kind.kind not in "iu":
        raise Unsupported(f"QuantizeLinear to {kind}")
    limits = np.iinfo(kind)
    shift = 0.0 if zero is None else _quantize_axis(call, zero.astype(np.float64), x)
    y = np.rint(x / _quantize_axis(call, scale, x)) + shift
    return np.clip(y, limits.min, limits.max).astype(kind)


KERNELS: dict[str, Kernel] = {
    "Abs": lambda _c, a: np.abs(a[0]),
    "Add": _add,
    "And": lambda _c, a: np.logical_and(a[0], a[1]),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": oracle_resample.depth_to_space,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Dropout": _dropout,
    "Equal": lambda _c, a: a[0] == a[1],
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    **dict.fromkeys(oracle_normalize.KINDS, oracle_normalize.normalize),
    "Greater": lambda _c, a: a[0] > a[1],
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "Less": lambda _c, a: a[0] < a[1],
    "MatMul": lambda _c, a: np.matmul(a[0], a[1]),
    "Max": lambda _c, a: np.maximum.reduce(np.broadcast_arrays(*a)),
    "MaxPool": _max_pool,
    "Mean": lambda c, a: _sum(c, a) / len(a),
    "Min": lambda _c, a: np.minimum.reduce(np.broadcast_arrays(*a)),
    "Mul": _mul,
    "Neg": lambda _c, a: -a[0],
    "Not": lambda _c, a: np.logical_not(a[0]),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": lambda _c, a: np.power(a[0], a[1]),
    "QuantizeLinear": _quantize,
    "Reciprocal": lambda _c, a: 1 / a[0],
    "ReduceMax": _reduce(_extreme(np.max, -np.inf), 18),
    "ReduceMean": _reduce(np.mean, 18),
    "ReduceMin": _reduce(_extreme(np.min, np.inf), 18),
    "ReduceSum": _reduce(np.sum, 13),
    "Relu": _relu,
    "Reshape": _reshape,
    "Resize": oracle_resample.resize,
    "Shape": _shape,
    "Sigmoid": _sigmoid,
    "Slice": _slice,
    "SpaceToDepth": oracle_resample.space_to_depth,
    "Split": _split,
    "Sqrt": lambda _c, a: np.sqrt(a[0]),
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Sum": _sum,
    "Tanh": lambda _c, a: np.tanh(a[0]),
    "Tile": lambda _c, a: np.tile(a[0], _ints(a[1])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": oracle_resample.resize,
    "Where": _where,
}

# Which type the output has, where it is not that of the first operand.
_RESULT_TYPES: dict[str, Callable[[Call], Sequence[int]]] = {
    "Cast": lambda c: [_cast_target(c)],
    "CastLike": lambda c: [_cast_target(c)],
    "DequantizeLinear": lambda c: [int(c.get("output_dtype", 0)) or c.elem(1)],
    "Dropout": lambda c: [c.elem(0), TensorProto.BOOL],
    "Where": lambda c: [c.elem(1)],
    "BatchNormalization": lambda c: [c.elem(0), c.elem(3), c.elem(3), c.elem(3), c.elem(3)],
}


# The bound of an operator: F(upper bounds of |operands|, lower bounds of |operands|). An operator that only
# adds and multiplies its operands is its own F.
Absolute = Callable[[Call, Arrays, Arrays], Result]


def _itself(call: Call, up: Arrays, _low: Arrays) -> Result:
    return KERNELS[call.node.op_type](call, up)


_ABSOLUTE: dict[str, Absolute] = {
    **dict.fromkeys(
        (
            "Abs",
            "Add",
            "AveragePool",
            "Cast",
            "CastLike",
            "Concat",
            "Constant",
            "ConstantOfShape",
            "Conv",
            "ConvTranspose",
            "DepthToSpace",
            "Dropout",
            "Expand",
            "Flatten",
            "Gather",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "Identity",
            "MatMul",
            "MaxPool",
            "Mean",
            "Mul",
            "ReduceMax",
            "ReduceMean",
            "ReduceSum",
            "Reshape",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "Sum",
            "Tile",
            "Transpose",
            "Unsqueeze",
            "Where",
        ),
        _itself,
    ),
    "BatchNormalization": _batch_norm_absolute,
    "DequantizeLinear": _dequantize_absolute,
    "Div": _div_absolute,
    "Gemm": _gemm_absolute,
    # whichever operand wins, the result moves by no more than they all do
    "Max": lambda c, up, _low: _sum(c, up),
    "Min": lambda c, up, _low: _sum(c, up),
    "Neg": lambda _c, up, _low: up[0],
    "Pad": _pad_absolute,
    "Reciprocal": lambda _c, _up, low: 1 / low[0],
    "ReduceMin": lambda c, up, _low: _reduce(_extreme(np.max, -np.inf), 18)(c, up),
    "Resize": oracle_resample.resize_absolute,
    "Upsample": oracle_resample.resize_absolute,
    "Sqrt": lambda _c, up, _low: np.sqrt(up[0]),
    "Sub": lambda c, up, _low: _add(c, up),
    # Activations: |f(x)| <= L|x| + |f(0)|, and the error grows by their Lipschitz constant L at most.
    "Clip": lambda c, up, _low: sum((np.abs(b) for b in _clip_bounds(c, up)), up[0]),
    "LeakyRelu": lambda c, up, _low: max(1.0, abs(c.get("alpha", 0.01))) * up[0],
    "PRelu": lambda c, up, _low: (1.0 + _slope(c, up[0], up[1])) * up[0],
    "Relu": lambda _c, up, _low: up[0],
    "Sigmoid": lambda _c, up, _low: up[0] + 1.0,
    "Tanh": lambda _c, up, _low: up[0],
}

# The maximum moves by no more than the largest error under the window, whoever wins.
_MAXIMA = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"})

# Moves values or repeats them: what it gives was rounded before.
_EXACT = frozenset({
    "Concat", "Constant", "ConstantOfShape", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Max",
    "Min", "Neg", "Pad", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Abs",
    "Clip", "Where", "DepthToSpace", "SpaceToDepth", "Tile",
})  # fmt: skip


# Up to opset 10 these keep their constants in attributes, in float32 whatever the tensors hold.
BY_ATTRIBUTE: dict[str, tuple[str, ...]] = {"Clip": ("min", "max"), "Pad": ("value",)}


def _clip_bounds(call: Call, arrays: Arrays) -> list[Any]:
    if call.opset < 11:
        return [call.attrs[k] for k in ("min", "max") if k in call.attrs]
    return [a for a in (_at(arrays, 1), _at(arrays, 2)) if a is not None]


# --- the interpreter --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scope:
    """The tensors a node can see: those of its graph and of the graphs around it."""

    values: dict[str, Value]
    outer: Scope | None = None
    absent: frozenset[str] = frozenset()  # parameters of a function that its caller leaves out

    def get(self, name: str) -> Value | None:
        """None for an input that is left out, here or by the caller."""
        return None if not name or name in self.absent else self[name]

    def __getitem__(self, name: str) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        raise KeyError(f"no tensor called {name!r}")


@dataclass(frozen=True)
class Interpreter:
    """Runs one model.

    Attributes:
        model: the model.
        bounded: also follow magnitudes and errors.
        rounded: initializers and Constant nodes, wherever they stand, that carry half an ulp of error.
    """

    model: ModelProto
    bounded: bool = False
    rounded: frozenset[str] = frozenset()
    functions: dict[tuple[str, str, str], FunctionProto] = field(default_factory=dict)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Value]:
        self.functions.update({(f.domain, f.name, f.overload): f for f in self.model.functions})
        opsets = {o.domain or "ai.onnx": o.version for o in self.model.opset_import}
        graph = self.model.graph
        given = {
            info.name: self._fed(np.asarray(feeds[info.name]), info.type.tensor_type.elem_type)
            for info in graph.input
            if info.name in feeds
        }
        overridable = {i.name for i in graph.input} if self.model.ir_version >= 4 else set()
        values = self._graph(graph, given, None, opsets, overridable)
        return dict(zip((o.name for o in graph.output), values, strict=True))

    def _fed(self, array: Array, elem_type: int) -> Value:
        return self.lift(array.astype(np.float64) if elem_type in FLOAT_TYPES else array, elem_type)

    def lift(self, data: Array, elem_type: int, *, constant: bool = False, rounded: bool = False) -> Value:
        """A tensor that nothing was computed for yet."""
        if not self.bounded or elem_type not in FLOAT_TYPES:
            return Value(data, elem_type, constant)
        error = half_ulp(data, elem_type) if rounded else np.zeros(data.shape)
        return Value(data, elem_type, constant, np.abs(data), error)

    def _graph(
        self,
        graph: GraphProto,
        given: Mapping[str, Value],
        outer: Scope | None,
        opsets: Mapping[str, int],
        overridable: set[str],
    ) -> list[Value]:
        scope = Scope({}, outer)
        dense = [(t.name, to_float64(t), t.data_type) for t in graph.initializer]
        sparse = [(t.values.name, sparse_to_float64(t), t.values.data_type) for t in graph.sparse_initializer]
        for name, data, elem_type in dense + sparse:
            constant = name not in overridable
            scope.values[name] = self.lift(data, elem_type, constant=constant, rounded=name in self.rounded)
        scope.values.update(given)
        for node in graph.node:
            self._node(node, scope, opsets, {})
        return [scope[o.name] for o in graph.output]

    def _node(
        self, node: NodeProto, scope: Scope, opsets: Mapping[str, int], refs: Mapping[str, AttributeProto]
    ) -> None:
        given = {}
        for attribute in node.attribute:
            actual = refs.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
            if (
                actual is not None
            ):  # an attribute of the function that the caller left out is left out here too
                given[attribute.name] = actual
        attrs = {name: helper.get_attribute_value(actual) for name, actual in given.items()}
        inputs = tuple(scope.get(name) for name in node.input)
        function = self.functions.get((node.domain, node.op_type, node.overload))
        if function is not None:
            outputs: Sequence[Value] = self._function(function, given, inputs)
        elif node.domain not in ("", "ai.onnx"):
            raise Unsupported(f"{node.domain}.{node.op_type}")
        elif node.op_type in ("If", "Loop", "Scan"):
            outputs = getattr(self, f"_{node.op_type.lower()}")(attrs, inputs, scope, opsets)
        else:
            outputs = self._operator(Call(node, attrs, opsets["ai.onnx"], inputs))
        for name, value in zip(node.output, outputs, strict=False):
            if name:
                scope.values[name] = value

    def _function(
        self,
        function: FunctionProto,
        attributes: Mapping[str, AttributeProto],
        inputs: Sequence[Value | None],
    ) -> list[Value]:
        given = {a.name: a for a in function.attribute_proto} | dict(attributes)
        opsets = {o.domain or "ai.onnx": o.version for o in function.opset_import}
        values = {n: v for n, v in zip(function.input, inputs, strict=False) if v is not None}
        scope = Scope(values, absent=frozenset(function.input) - values.keys())
        for inner in function.node:
            self._node(inner, scope, opsets, given)
        return [scope[name] for name in function.output]

    # --- control flow --------------------------------------------------------------------------------------

    def _if(
        self,
        attrs: Mapping[str, Any],
        inputs: Sequence[Value | None],
        scope: Scope,
        opsets: Mapping[str, int],
    ) -> list[Value]:
        assert inputs[0] is not None
        branch = attrs["then_branch" if bool(inputs[0].data.reshape(-1)[0]) else "else_branch"]
        return self._graph(branch, {}, scope, opsets, set())

    def _loop(
        self,
        attrs: Mapping[str, Any],
        inputs: Sequence[Value | None],
        scope: Scope,
        opsets: Mapping[str, int],
    ) -> list[Value]:
        body: GraphProto = attrs["body"]
        trips = 2**62 if inputs[0] is None else int(inputs[0].data.reshape(-1)[0])
        keep = True if len(inputs) < 2 or inputs[1] is None else bool(inputs[1].data.reshape(-1)[0])
        carried = [v for v in inputs[2:] if v is not None]
        collected: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - len(carried))]
        step = 0
        while step < trips and keep:
            counter = Value(np.asarray(step, np.int64), TensorProto.INT64)
            condition = Value(np.asarray(keep), TensorProto.BOOL)
            given = dict(zip((i.name for i in body.input), [counter, condition, *carried], strict=True))
            out = self._graph(body, given, scope, opsets, set())
            keep = bool(out[0].data.reshape(-1)[0])
            carried = out[1 : 1 + len(carried)]
            for store, value in zip(collected, out[1 + len(carried) :], strict=True):
                store.append(value)
            step += 1
        return [*carried, *(_stacked(values, 0) for values in collected)]

    def _scan(
        self,
        attrs: Mapping[str, Any],
        inputs: Sequence[Value | None],
        scope: Scope,
        opsets: Mapping[str, int],
    ) -> list[Value]:
        if opsets["ai.onnx"] < 9:
            raise Unsupported("Scan before opset 9")
        body: GraphProto = attrs["body"]
        scanned = attrs["num_scan_inputs"]
        state = [v for v in inputs[: len(inputs) - scanned] if v is not None]
        sequences = [v for v in inputs[len(inputs) - scanned :] if v is not None]
        in_axes = attrs.get("scan_input_axes", [0] * scanned)
        backwards = attrs.get("scan_input_directions", [0] * scanned)
        count = len(body.output) - len(state)
        out_axes = attrs.get("scan_output_axes", [0] * count)
        out_backwards = attrs.get("scan_output_directions", [0] * count)
        steps = sequences[0].data.shape[in_axes[0]]
        collected: list[list[Value]] = [[] for _ in range(count)]
        for step in range(steps):
            taken = [
                _taken(v, steps - 1 - step if back else step, axis)
                for v, axis, back in zip(sequences, in_axes, backwards, strict=True)
            ]
            given = dict(zip((i.name for i in body.input), [*state, *taken], strict=True))
            out = self._graph(body, given, scope, opsets, set())
            state = out[: len(state)]
            for store, value in zip(collected, out[len(state) :], strict=True):
                store.append(value)
        pieces = [
            _stacked(values[::-1] if back else values, axis)
            for values, axis, back in zip(collected, out_axes, out_backwards, strict=True)
        ]
        return [*state, *pieces]

    # --- one operator --------------------------------------------------------------------------------------

    def _operator(self, call: Call) -> list[Value]:
        kind = call.node.op_type
        if kind not in KERNELS:
            raise Unsupported(kind)
        with np.errstate(all="ignore"):
            results = _listed(KERNELS[kind](call, [None if v is None else v.data for v in call.inputs]))
            types = self._types(call, results)
            constant = all(v is None or v.constant for v in call.inputs)
            if kind == "Shape":
                constant = True
            values = [
                Value(np.asarray(data), elem_type, constant)
                for data, elem_type in zip(results, types, strict=False)
            ]
            if not self.bounded:
                return values
            if kind in oracle_normalize.KINDS:
                return [_normalized_with_bounds(call, values[0])]
            return self._with_bounds(call, values)

    @staticmethod
    def _types(call: Call, results: Sequence[Array]) -> Sequence[int]:
        kind = call.node.op_type
        if kind in _RESULT_TYPES:
            return _RESULT_TYPES[kind](call)
        if kind == "Constant":
            stored = call.attrs.get("value") or getattr(call.attrs.get("sparse_value"), "values", None)
            return [stored.data_type if stored is not None else _type_of(results[0])]
        if kind == "ConstantOfShape":
            return [call.attrs["value"].data_type if "value" in call.attrs else TensorProto.FLOAT]
        if results[0].dtype == np.float64:
            return [call.elem(0)] * len(results)
        return [_type_of(r) for r in results]

    def _with_bounds(self, call: Call, values: list[Value]) -> list[Value]:
        if not any(v.is_float for v in values):
            return values
        kind = call.node.op_type
        operands = call.inputs
        errors = [None if v is None or v.error is None else v.error for v in operands]
        certain = not any(e is not None and e.any() for e in errors)
        if kind not in _ABSOLUTE or (kind == "BatchNormalization" and _normalizes_by_batch(call)):
            if certain:
                return [self.lift(v.data, v.elem_type, constant=v.constant) for v in values]
            raise Unsupported(f"no bound for {kind}")

        def majorant(up: Arrays, low: Arrays) -> list[Array]:
            return _listed(_ABSOLUTE[kind](call, up, low))

        size = [None if v is None else np.abs(v.data) if v.is_float else v.data for v in operands]
        base = majorant(size, size)
        magnitude = majorant(
            [s if v is None or v.magnitude is None else v.magnitude for s, v in _zip(size, operands)], size
        )
        error = [np.zeros_like(b) for b in base] if certain else _error(kind, majorant, size, errors, base)
        result = []
        for i, value in enumerate(values):
            if not value.is_float:
                result.append(value)
                continue
            grown = error[i]
            if kind == "Constant" and call.node.output[0] in self.rounded:
                grown = half_ulp(value.data, value.elem_type)
            if value.constant and kind not in _EXACT:
                # A runtime rounds what it computes from constants; whoever reads the model may or may not.
                grown = grown + half_ulp(value.data, value.elem_type)
            grown = grown + _written(call, self.rounded)
            bound = np.maximum(np.broadcast_to(magnitude[i], value.data.shape), np.abs(value.data))
            result.append(replace(value, magnitude=bound, error=np.broadcast_to(grown, value.data.shape)))
        return result


def _written(call: Call, names: frozenset[str]) -> Array:
    """What an operator's own constants were rounded by, beside its operands."""
    if call.node.op_type == "DequantizeLinear" and call.node.input[0] in names:
        return _written_counts(call)
    return _written_attributes(call) if call.node.output[0] in names else np.zeros(())


def _written_attributes(call: Call) -> Array:
    """Half an ulp of each constant that stands in an attribute."""
    stored = [call.attrs[k] for k in BY_ATTRIBUTE.get(call.node.op_type, ()) if k in call.attrs]
    return np.asarray(sum(half_ulp(np.abs(a), TensorProto.FLOAT) for a in stored))


def _written_counts(call: Call) -> Array:
    """Half a step of an int32 that was written; other integers are mirrored at most."""
    integers, scale = call.inputs[0], call.inputs[1]
    assert integers is not None
    assert scale is not None
    rounded = 0.5 if integers.elem_type == TensorProto.INT32 else 0.0
    return np.asarray(rounded * np.abs(_quantize_axis(call, scale.data, integers.data)))


def _normalized_with_bounds(call: Call, value: Value) -> Value:
    """These are not linear in their input; their bounds are worked out in `oracle_normalize`."""
    data = [None if v is None else v.data for v in call.inputs]
    sizes = [None if v is None else v.magnitude for v in call.inputs]
    errors = [None if v is None else v.error for v in call.inputs]
    magnitude = np.maximum(oracle_normalize.magnitude(call, data, sizes), np.abs(value.data))
    return replace(value, magnitude=magnitude, error=oracle_normalize.error(call, data, errors))


def _error(
    kind: str,
    majorant: Callable[[Arrays, Arrays], list[Array]],
    size: Arrays,
    errors: Arrays,
    base: Sequence[Array],
) -> list[Array]:
    """What the errors of the operands do to the outputs."""
    if kind in _MAXIMA:
        return majorant(errors, errors)
    wide = [s if e is None else s + e for s, e in _zip(size, errors)]
    tight = [s if e is None else np.maximum(s - e, 0.5 * s) for s, e in _zip(size, errors)]
    # The mask of a Dropout comes along; it is no number, and whoever asks for its error gets none.
    return [np.maximum(np.subtract(w, b, dtype=np.float64), 0) for w, b in _zip(majorant(wide, tight), base)]


def _zip(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(first, second, strict=True))


def _listed(result: Result) -> list[Array]:
    return [np.asarray(r) for r in result] if isinstance(result, list | tuple) else [np.asarray(result)]


def _type_of(array: Array) -> int:
    return (
        int(helper.np_dtype_to_tensor_dtype(array.dtype)) if array.dtype != np.float64 else TensorProto.FLOAT
    )


def _mapped(values: Sequence[Value], change: Callable[[list[Array]], Array]) -> Value:
    def part(name: str) -> Result:
        arrays = [getattr(v, name) for v in values]
        return None if arrays[0] is None else change(arrays)

    return replace(
        values[0], constant=False, data=part("data"), magnitude=part("magnitude"), error=part("error")
    )


def _stacked(values: Sequence[Value], axis: int) -> Value:
    return _mapped(values, lambda arrays: np.stack(arrays, axis))


def _taken(value: Value, index: int, axis: int) -> Value:
    return _mapped([value], lambda arrays: np.take(arrays[0], index, axis))


def evaluate(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What `model` computes for `feeds`, in float64.

    Args:
        model: a model whose weights are loaded (no external data).
        feeds: an array for each graph input that has no initializer; others override theirs.

    Returns:
        The outputs of the main graph by name; floating-point ones as float64.

    Raises:
        Unsupported: an operator the oracle does not know.
    """
    return {name: value.data for name, value in Interpreter(model).run(feeds).items()}


def evaluate_bounded(
    model: ModelProto, feeds: Mapping[str, Array], rounded: frozenset[str] = frozenset()
) -> dict[str, Value]:
    """As `evaluate`, with the magnitude and the error of every output (see the module).

    Args:
        model: a model whose weights are loaded.
        feeds: as for `evaluate`.
        rounded: names of stored tensors that carry one rounding to their type.

    Returns:
        The outputs of the main graph by name.

    Raises:
        Unsupported: an operator the oracle does not know or has no bound for.
    """
    return Interpreter(model, bounded=True, rounded=rounded).run(feeds)
