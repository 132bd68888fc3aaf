"""Weights that are stored as integers behind a DequantizeLinear.

`(q - zero_point) * scale` times a factor is `(q - zero_point) * (scale * factor)`: a fold multiplies the
scale, which may thereby become one for each channel, and leaves the integers alone. A scale keeps its sign: a
negative factor mirrors the integers of its channel at their zero point, and a factor of 0 puts them there.

A bias in the unit that the products of input and weight are summed in (`x_scale * w_scale`, which integer
kernels take for granted) stays in that unit, which the factor changes too. Its values are rounded to whole
units: half of one is to an int32 what half a unit in the last place is to a float.

A weight may also be stored as floats that a QuantizeLinear rounds whenever the model runs, as training for
quantization leaves it. Its integers are constants as well; they take the place of the floats.

Source: ONNX operator DequantizeLinear, versions 10, 13, 19, 21, 23, 24 and 25; of onnxruntime's own domain,
version 1; QLinearConv, version 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from bnfold.errors import ModelError
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import FLOATS, Stored, Weight, is_integer, non_finite, round_to
from bnfold.model.constants import NotConstant, computed
from bnfold.model.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bnfold.model.view import Node

_PER_AXIS_SINCE = 13  # before, a tensor has one scale; in onnxruntime's own domain it always may have several
_HINT = "fold the float model before quantizing it"


@dataclass(frozen=True, eq=False)
class Dequantized(Weight):
    """`(integers - zero_point) * scale`.

    Attributes:
        node: the DequantizeLinear.
        integers: of any integer type.
        scale: one number, one for each index of `axis`, or one for each block along it; not rounded yet.
        zero_point: as many numbers; None is 0.
        axis: counted from the front.
        block: how many integers along `axis` share a scale; 0 where all do.
        obstacle: why a factor could not be taken in.
    """

    node: Node
    integers: Stored
    scale: Stored
    zero_point: Stored | None
    axis: int
    block: int
    obstacle: Reason | None = None

    @property
    def parts(self) -> tuple[Stored, Stored, Stored | None]:
        """What the DequantizeLinear is to read, input by input."""
        return self.integers, self.scale, self.zero_point

    @property
    def steps(self) -> NDArray[np.float64] | None:
        """What one integer counts, float64 `[1]` or `[C]`, as it will be stored; None where blocks differ."""
        if self.block:
            return None
        return round_to(self.scale.float64(), self.scale.dtype).astype(np.float64).reshape(-1)

    def float64(self) -> NDArray[np.float64]:
        """The unrounded values, shape `dims`."""
        return (self.integers.float64() - self._zero()) * self._spread(self.scale)

    def scaled(self, factor: NDArray[np.float64], view: tuple[int, ...] | None = None) -> Dequantized:
        """This weight times `factor`, which broadcasts against `view` (by default against `dims`)."""
        factor = _on_axes(factor, view or self.dims, self.dims)
        size = np.where(factor == 0, 1.0, np.abs(factor))
        mirrored = self if (factor > 0).all() else self._mirrored(factor)
        if mirrored.obstacle is not None:
            return mirrored
        return mirrored._with_scaled_blocks(size) if self.block else mirrored._with_scaled_axis(size)  # noqa: SLF001  # its own class

    def counted(self, values: NDArray[np.float64], unit: NDArray[np.float64]) -> Dequantized:
        """Other values, counted in `unit`: float64 `[1]`, or `[C]` along the last axis of `values`."""
        unit = round_to(unit, self.scale.dtype).astype(np.float64)
        shape = unit.shape if unit.size > 1 else ()
        zero = self.zero_point
        return replace(
            self,
            dims=values.shape,
            integers=Weight.dense(self.integers.name, values / unit, self.integers.dtype),
            scale=Weight.dense(self.scale.name, unit.reshape(shape), self.scale.dtype),
            zero_point=None if zero is None else Weight.dense(zero.name, np.zeros(shape), zero.dtype),
            axis=max(0, values.ndim - 1),
            block=0,
        )

    def check(self) -> Reason | None:
        """Why the parts cannot stand for the exact weight; None when they do."""
        if self.obstacle is not None:
            return self.obstacle
        scale = np.abs(self.scale.float64())
        if not np.isfinite(scale).all():
            return non_finite(self.scale.name)
        reason = self.integers.check() or self.scale.check()
        if reason is not None or not scale.size:
            return reason
        tiny = max(_limit(kind, "smallest_normal") for kind in (self.dtype, self.scale.dtype))
        lost = scale[(scale > 0) & (scale < tiny)]
        if lost.size:
            return self._out_of_range(f"shrinks to {lost.max():.3g}, below the smallest normal {tiny:.3g}")
        largest = _limit(self.dtype, "max")
        if scale.max() * self._farthest() > largest:
            return self._out_of_range(f"reaches {scale.max():.3g}, which makes weights beyond {largest:.3g}")
        return None

    def _with_scaled_axis(self, size: NDArray[np.float64]) -> Dequantized:
        """The scale may differ along one axis at most."""
        scale, zero = self._spread(self.scale) * size, self._zero()
        axes = _varying(scale, zero)
        if len(axes) > 1:
            scale, zero = _without_constant_axes(scale), _without_constant_axes(zero)
            axes = _varying(scale, zero)
        if len(axes) > 1:
            where = " and ".join(map(str, axes))
            return self._refused(Code.MIXED_DTYPES, f"would need scales that differ along axes {where}")
        if not axes:
            shape = self.scale.dims if _size(self.scale) == 1 else ()
            return self._with_parameters(scale.reshape(shape), zero.reshape(shape), self.axis)
        if self.node.op == "DequantizeLinear" and self.node.opset < _PER_AXIS_SINCE:
            what = f"has one scale for all channels before opset {_PER_AXIS_SINCE}"
            return self._refused(Code.MIXED_DTYPES, what)
        length = (self.dims[axes[0]],)
        scale, zero = (np.broadcast_to(values.reshape(-1), length) for values in (scale, zero))
        return self._with_parameters(scale, zero, axes[0])

    def _with_scaled_blocks(self, size: NDArray[np.float64]) -> Dequantized:
        """All integers of a block are scaled alike."""
        reduced = size
        if size.shape[self.axis] > 1:
            reduced = size.take(np.arange(0, size.shape[self.axis], self.block), axis=self.axis)
            if not np.array_equal(_repeated(reduced, self.block, self.axis, size.shape[self.axis]), size):
                what = f"has one scale for {self.block} indices of axis {self.axis} that would need several"
                return self._refused(Code.MIXED_DTYPES, what)
        return replace(self, scale=_with_values(self.scale, self.scale.float64() * reduced))

    def _with_parameters(
        self, scale: NDArray[np.float64], zero: NDArray[np.float64], axis: int
    ) -> Dequantized:
        point = self.zero_point
        if point is not None and zero.size != _size(point):
            point = _with_values(point, zero)
        return replace(self, scale=_with_values(self.scale, scale), zero_point=point, axis=axis)

    def _mirrored(self, factor: NDArray[np.float64]) -> Dequantized:
        """The integers, counted from their zero point, times the sign of `factor`."""
        source = self.integers.source
        if source is None:
            raise AssertionError("only a bias is counted anew, and a bias is never multiplied")
        dtype, old = self.integers.dtype, source.array()
        limits = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]  # typed by halves
        new = np.empty(self.dims, dtype)
        zero, sign = (np.broadcast_to(v, self.dims) for v in (self._zero(), np.sign(factor)))
        for row, integers in enumerate(old):
            turned = (integers.astype(np.float64) - zero[row]) * sign[row] + zero[row]
            outside = (turned < limits.min) | (turned > limits.max)
            if outside.any():
                place = int(np.argmax(outside))
                was, would_be = (int(np.ravel(values)[place]) for values in (integers, turned))
                what = (
                    f"holds {was} in a channel that is scaled negatively; mirrored at its zero point that is "
                    f"{would_be}, beyond {dtype.name}"
                )
                return self._refused(Code.DTYPE_RANGE, what)
            new[row] = turned
        return replace(self, integers=Weight.of(computed(self.integers.name, new)))

    def _farthest(self) -> float:
        """How far an integer may be from its zero point, by its type."""
        limits = ml_dtypes.iinfo(self.integers.dtype)  # type: ignore[no-untyped-call]  # typed by halves
        zero = self._zero()
        return float(max(limits.max - zero.min(), zero.max() - limits.min)) if zero.size else 0.0

    def _zero(self) -> NDArray[np.float64]:
        """The zero point as an array that broadcasts with the integers."""
        if self.zero_point is None:
            return np.zeros((1,) * len(self.dims))
        return self._spread(self.zero_point)

    def _spread(self, parameter: Stored) -> NDArray[np.float64]:
        """A scale or zero point as an array that broadcasts with the integers."""
        values = parameter.float64()
        if self.block:
            return _repeated(values, self.block, self.axis, self.dims[self.axis])
        if values.size == 1:
            return values.reshape((1,) * len(self.dims))
        return values.reshape([-1 if place == self.axis else 1 for place in range(len(self.dims))])

    def _refused(self, code: Code, what: str) -> Dequantized:
        evidence = f"{self.node.op} {self.node.label!r} {what}"
        return replace(self, obstacle=Reason(code, self.node.label, evidence, _HINT))

    def _out_of_range(self, what: str) -> Reason:
        evidence = f"the folded scale of {self.node.op} {self.node.label!r} {what} ({self.dtype.name})"
        return Reason(Code.DTYPE_RANGE, self.scale.name, evidence, "export this layer in float32")


def dequantized(node: Node, parts: Sequence[Weight | NotConstant | None]) -> Weight | NotConstant:
    """What a DequantizeLinear computes from constants, or why that is no constant.

    Args:
        node: the DequantizeLinear.
        parts: its inputs: integers, scale, zero point.

    Raises:
        ModelError: the shapes of its inputs do not fit each other.
    """
    missing = next((part for part in parts if isinstance(part, NotConstant)), None)
    if missing is not None:
        return missing
    integers, scale, zero_point = parts
    output = node.outputs[0]
    if not isinstance(integers, Stored) or not isinstance(scale, Stored) or output is None:
        raise ModelError(f"{node.op} {node.label!r}: it lacks an input or output")
    dtype = scale.dtype
    if (number := node.int_attribute("output_dtype", 0)) in ELEMENT_TYPES:
        dtype = ELEMENT_TYPES[number].dtype
    if not is_integer(integers.dtype) or scale.dtype not in FLOATS or node.refers_to_caller:
        what = f"{node.op} {node.label!r} makes it of {integers.dtype.name} scaled by {scale.dtype.name}"
        return NotConstant(node.label, what, "quantized")
    rank, block = len(integers.dims), node.int_attribute("block_size", 0)
    axis = node.int_attribute("axis", 1)
    if -rank <= axis < rank:
        axis %= rank
    if not isinstance(zero_point, Stored):
        zero_point = None
    elif zero_point.dims != scale.dims and not _size(zero_point) == _size(scale) == 1:
        raise ModelError(
            f"{node.op} {node.label!r}: its scale {scale.name!r} has shape {list(scale.dims)}, "
            f"its zero point {list(zero_point.dims)}"
        )
    if _size(scale) == 1 and len(scale.dims) <= 1:
        block = 0
    elif not 0 <= axis < rank or scale.dims != _parameter_dims(integers.dims, axis, block):
        raise ModelError(
            f"{node.op} {node.label!r}: its scale {scale.name!r} has shape {list(scale.dims)}, "
            f"which does not fit {list(integers.dims)} along axis {axis}"
        )
    return Dequantized(
        output.name, dtype, integers.dims, None, node, integers, scale, zero_point, axis, block
    )


def _size(parameter: Stored) -> int:
    return math.prod(parameter.dims)


def _parameter_dims(dims: tuple[int, ...], axis: int, block: int) -> tuple[int, ...]:
    if not block:
        return (dims[axis],)
    return (*dims[:axis], -(-dims[axis] // block), *dims[axis + 1 :])


def _on_axes(
    factor: NDArray[np.float64], view: tuple[int, ...], dims: tuple[int, ...]
) -> NDArray[np.float64]:
    """A factor that broadcasts against `view` as one against `dims`, no larger than it must be."""
    factor = factor.reshape((1,) * (len(view) - factor.ndim) + factor.shape)
    if view != dims:
        tail = 0
        while (
            tail < min(len(view), len(dims))
            and view[-1 - tail] == dims[-1 - tail]
            and factor.shape[-1 - tail] == 1
        ):
            tail += 1
        head, ones = len(dims) - tail, (1,) * tail
        spread = np.broadcast_to(factor.reshape(factor.shape[: len(view) - tail]), view[: len(view) - tail])
        factor = spread.reshape((*dims[:head], *ones))
    return _without_constant_axes(factor)


def _without_constant_axes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis, length in enumerate(values.shape):
        first = values[(slice(None),) * axis + (slice(0, 1),)]
        if length > 1 and (values == first).all():
            values = first
    return values


def _varying(*arrays: NDArray[np.float64]) -> list[int]:
    return sorted({axis for array in arrays for axis, length in enumerate(array.shape) if length > 1})


def _repeated(values: NDArray[np.float64], block: int, axis: int, length: int) -> NDArray[np.float64]:
    repeated = np.repeat(values, block, axis=axis)
    return repeated[(slice(None),) * axis + (slice(0, length),)]


def _with_values(old: Stored, values: NDArray[np.float64]) -> Stored:
    return Weight.dense(old.name, values, old.dtype)


def _limit(dtype: np.dtype[Any], name: str) -> float:
    return float(getattr(ml_dtypes.finfo(dtype), name))  # type: ignore[no-untyped-call]  # typed by halves
