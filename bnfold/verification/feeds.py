"""What a model is fed: seeded values in sizes that the model accepts."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bnfold.model.census import within

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

Array = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["normal", "uniform", "zeros", "large"]

# Sizes that fully convolutional networks, classifiers with a fixed head, and text recognizers accept.
SPATIAL = (64, 96, 224, 256, 32, 128, 48, 160, 192, 299, 320, 384, 416, 512, 640)
VOLUME = (16, 32, 24, 48, 64, 96, 128)
SEQUENCE = (8, 12, 16, 32, 64, 128, 7, 1)
BATCH = (1, 2, 3)
CHANNELS = (3, 1, 4, 8, 16)
# "large" scales normal values by these: far from what training sees, short of overflow in most networks.
_LARGE, _LARGE_FLOAT16 = 1024.0, 32.0
_TRANSPARENT = frozenset(
    {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Expand"}
)
_SHAPE_INPUTS = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0, "Resize": 3, "Slice": 1}
_IMAGE_RANK, _VOLUME_RANK = 4, 5
# Sizes beyond 64 MiB of float32 are not tried: they test nothing that smaller ones do not.
_LARGEST = 2**24


class NoFeedError(Exception):
    """No feed can be made for the model; the message says for which input and why."""


@dataclass(frozen=True)
class Feed:
    """Values for every input of a model.

    Attributes:
        name: what it is, as a person reads it.
        values: arrays by input name.
    """

    name: str
    values: Mapping[str, Array]


@dataclass(frozen=True)
class InputSpec:
    """An input that must be fed.

    Attributes:
        name: its name.
        dtype: its NumPy dtype.
        shape: sizes; a string names a dynamic dimension, and equal strings are equal sizes.
        low: smallest integer it may hold.
        high: one more than the largest integer it may hold.
        limits: smallest and largest value that the user wants.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]
    low: int = 0
    high: int = 10
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sizes:
    """One choice of a size for every dynamic dimension."""

    by_symbol: Mapping[str, int] = field(default_factory=dict)

    def of(self, spec: InputSpec) -> tuple[int, ...]:
        """The shape that an input has under this choice."""
        return tuple(dim if isinstance(dim, int) else self.by_symbol[dim] for dim in spec.shape)

    def __str__(self) -> str:
        return ", ".join(f"{symbol}={size}" for symbol, size in self.by_symbol.items()) or "fixed shape"


def fed_inputs(model: onnx.ModelProto) -> tuple[onnx.ValueInfoProto, ...]:
    """The inputs of a model that a caller must feed; those backed by an initializer are left out."""
    backed = {tensor.name for tensor in model.graph.initializer}
    backed |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return tuple(value for value in model.graph.input if value.name not in backed)


def input_specs(model: onnx.ModelProto, given: Collection[str] = ()) -> tuple[InputSpec, ...]:
    """The inputs that need values made for them; `given` names those whose values are known.

    Raises:
        NoFeedError: an input is a sequence, optional, map, sparse or string.
    """
    return tuple(_spec(value, model.graph) for value in fed_inputs(model) if value.name not in given)


def _spec(value: onnx.ValueInfoProto, graph: onnx.GraphProto) -> InputSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        said = (kind or "untyped").removesuffix("_type")
        raise NoFeedError(f"input {value.name!r} is of type {said}; only tensors can be fed")
    tensor = value.type.tensor_type
    if tensor.elem_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        raise NoFeedError(f"input {value.name!r} holds strings or no stated type; pass values for it")
    if not tensor.HasField("shape"):
        raise NoFeedError(f"input {value.name!r} has no stated rank; pass values for it")
    shape: list[int | str] = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            shape.append(dim.dim_value)
        else:
            # Exporters write -1 for "any"; a dimension without a name is a symbol of its own.
            shape.append(dim.dim_param or f"{value.name}[{axis}]")
    channels = _channels_wanted(value.name, graph)
    if channels is not None and len(shape) > 1 and isinstance(shape[1], str):
        shape[1] = channels
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    low, high = _integer_range(value.name, dtype, graph) if dtype.kind in "iu" else (0, 0)
    return InputSpec(value.name, dtype, tuple(shape), low, high)


def _consumers(name: str, graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Who reads the value, also behind operators that only move or convert it."""
    pending, seen = [name], {name}
    while pending:
        current = pending.pop()
        for node in within(graph.node):
            for index, operand in enumerate(node.input):
                if operand != current:
                    continue
                yield node, index
                if node.op_type in _TRANSPARENT and index == 0 and node.output[0] not in seen:
                    seen.add(node.output[0])
                    pending.append(node.output[0])


def _channels_wanted(name: str, graph: onnx.GraphProto) -> int | None:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[0] == name and node.input[1] in shapes:
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            return int(shapes[node.input[1]][1] * group)
    return None


def _integer_range(name: str, dtype: np.dtype[Any], graph: onnx.GraphProto) -> tuple[int, int]:
    """Which integers an input may hold, judged by what reads it."""
    limits = np.iinfo(dtype)
    highest = []
    for node, index in _consumers(name, graph):
        if node.op_type in _SHAPE_INPUTS and index >= _SHAPE_INPUTS[node.op_type] and index > 0:
            # A shape, a repetition, a bound: 1 is legal in each of these places.
            return 1, 2
        if node.op_type == "ConstantOfShape":
            return 1, 2
        if node.op_type in ("Gather", "GatherElements", "GatherND") and index == 1:
            highest.append(_gather_size(node, graph))
        if node.op_type == "OneHot" and index == 0:
            highest.append(_constant_scalar(node.input[1], graph))
        if node.op_type == "Cast" and limits.max <= np.iinfo(np.uint8).max:
            # An image of bytes.
            highest.append(int(limits.max) + 1)
    known = [size for size in highest if size is not None]
    return 0, max(1, min(known)) if known else 2


def _gather_size(node: onnx.NodeProto, graph: onnx.GraphProto) -> int | None:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if node.op_type == "GatherND":
        axis = 0
    for tensor in graph.initializer:
        if tensor.name == node.input[0]:
            return int(tensor.dims[axis])
    for other in graph.node:
        if other.op_type == "Constant" and other.output[0] == node.input[0]:
            return next((int(a.t.dims[axis]) for a in other.attribute if a.name == "value"), None)
    for value in (*graph.value_info, *graph.input):
        if value.name == node.input[0]:
            dims = value.type.tensor_type.shape.dim
            return int(dims[axis].dim_value) if len(dims) > axis and dims[axis].dim_value > 0 else None
    return None


def _constant_scalar(name: str, graph: onnx.GraphProto) -> int | None:
    tensors = [tensor for tensor in graph.initializer if tensor.name == name]
    tensors += [
        attribute.t
        for node in graph.node
        if node.op_type == "Constant" and node.output[0] == name
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    return int(numpy_helper.to_array(tensors[0]).reshape(-1)[0]) if tensors else None


def candidate_sizes(specs: Sequence[InputSpec]) -> tuple[Sizes, ...]:
    """Sizes worth trying for the dynamic dimensions, the most plausible first."""
    symbols = _symbols(specs)
    if not symbols:
        return (Sizes(),)
    lists = {symbol: _plausible(axis, rank) for symbol, (axis, rank) in symbols.items()}
    longest = max(len(values) for values in lists.values())
    # All image sides (or all sequence lengths) take the same size first: networks often add or join them.
    equal = [
        {symbol: values[min(step, len(values) - 1)] for symbol, values in lists.items()}
        for step in range(longest)
    ]
    # A batch of one is what most exporters traced with.
    single = [{s: (1 if symbols[s][0] == 0 else size) for s, size in sizes.items()} for sizes in equal]
    return _unique((*single, *equal), specs)


def other_sizes(specs: Sequence[InputSpec], chosen: Sizes) -> tuple[Sizes, ...]:
    """Sizes that differ from `chosen`: first in every dimension, then in ever fewer of them."""
    symbols = _symbols(specs)
    lists = {
        symbol: [size for size in _plausible(axis, rank) if size != chosen.by_symbol[symbol]]
        for symbol, (axis, rank) in symbols.items()
    }
    if not lists:
        return ()
    longest = max(len(values) for values in lists.values())
    everything = [
        {s: values[min(step, len(values) - 1)] for s, values in lists.items()} for step in range(longest)
    ]
    one_axis_kind = [
        {**chosen.by_symbol, **{s: size for s, size in sizes.items() if (symbols[s][0] == 0) == batch}}
        for batch in (False, True)
        for sizes in everything
    ]
    one_symbol = [{**chosen.by_symbol, symbol: size} for symbol, values in lists.items() for size in values]
    found = _unique((*everything, *one_axis_kind, *one_symbol), specs)
    return tuple(sizes for sizes in found if sizes != chosen)


def _unique(choices: Sequence[dict[str, int]], specs: Sequence[InputSpec]) -> tuple[Sizes, ...]:
    unique = {tuple(choice.items()): Sizes(choice) for choice in choices}
    affordable = [s for s in unique.values() if sum(math.prod(s.of(spec)) for spec in specs) <= _LARGEST]
    return tuple(affordable or list(unique.values())[:1])


def _symbols(specs: Sequence[InputSpec]) -> dict[str, tuple[int, int]]:
    """Dynamic dimensions in order of appearance: the axis and the rank where each is first seen."""
    found: dict[str, tuple[int, int]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str):
                found.setdefault(dim, (axis, len(spec.shape)))
    return found


def _plausible(axis: int, rank: int) -> tuple[int, ...]:
    if axis == 0 and rank > 1:
        return BATCH
    if rank >= _IMAGE_RANK:
        return CHANNELS if axis == 1 else SPATIAL if rank < _VOLUME_RANK else VOLUME
    return SEQUENCE


def make_feed(specs: Sequence[InputSpec], sizes: Sizes, kind: Kind, seed: int) -> Feed:
    """Values for every input.

    Each input has a generator of its own, seeded by the seed, the kind and its name, so that neither order
    nor number of inputs changes what one of them gets.
    """
    values = {}
    for spec in specs:
        # What is false among normal values is true among uniform ones: a condition is met and not met.
        opposite = spec.dtype == np.bool_ and kind == "uniform"
        drawn: Kind = "normal" if opposite else kind
        generator = np.random.default_rng([seed, zlib.crc32(drawn.encode()), zlib.crc32(spec.name.encode())])
        made = _values(spec, sizes.of(spec), drawn, generator)
        values[spec.name] = ~made if opposite else made
    shapes = "; ".join("x".join(map(str, value.shape)) or "scalar" for value in values.values())
    return Feed(f"{kind} {shapes}" if shapes else kind, values)


def _values(spec: InputSpec, shape: tuple[int, ...], kind: Kind, generator: np.random.Generator) -> Array:
    if spec.dtype == np.bool_:
        return _bools(shape, kind, generator)
    if spec.limits is not None:
        return _between(spec.limits, spec.dtype, shape, kind, generator)
    if spec.dtype.kind in "iu":
        return _integers(spec, shape, kind, generator)
    if kind == "zeros":
        return np.zeros(shape, dtype=spec.dtype)
    if kind == "uniform":
        return generator.random(shape).astype(spec.dtype)
    scale = 1.0
    if kind == "large":
        scale = _LARGE_FLOAT16 if spec.dtype == np.float16 else _LARGE
    return (generator.standard_normal(shape) * scale).astype(spec.dtype)


def _bools(shape: tuple[int, ...], kind: Kind, generator: np.random.Generator) -> Array:
    if kind in {"zeros", "large"}:
        return np.full(shape, kind == "large")
    return generator.integers(0, 2, shape).astype(bool)


def _integers(spec: InputSpec, shape: tuple[int, ...], kind: Kind, generator: np.random.Generator) -> Array:
    if kind in {"zeros", "large"}:
        return np.full(shape, spec.low if kind == "zeros" else spec.high - 1, dtype=spec.dtype)
    return generator.integers(spec.low, spec.high, shape).astype(spec.dtype)


def _between(
    limits: tuple[float, float],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    kind: Kind,
    generator: np.random.Generator,
) -> Array:
    """Values between two limits, both included; "large" takes nothing but the limits themselves."""
    low, high = limits
    if kind == "normal":
        values = np.clip(generator.normal((low + high) / 2, (high - low) / 4, shape), low, high)
    elif kind == "uniform":
        values = generator.uniform(low, high, shape)
    elif kind == "zeros":
        values = np.full(shape, min(max(0.0, low), high))
    else:
        values = np.where(generator.integers(0, 2, shape) == 1, high, low)
    if dtype.kind in "iu":
        values = np.clip(np.rint(values), math.ceil(low), math.floor(high))
    return np.asarray(values).astype(dtype)
