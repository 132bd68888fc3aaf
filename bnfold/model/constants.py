"""Which tensors of a model are constants, and their values: on demand, never more than needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from bnfold.errors import ModelError
from bnfold.model.quantizing import DEQUANTIZE, QUANTIZE, quantized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bnfold.model.store import ModelFile
    from bnfold.model.view import Node, Value, View

_OPERANDS = 3  # of a QuantizeLinear: x, scale, zero point
_LIMIT = 256 << 20  # bytes one computed constant may take

# Their value depends on more than their inputs, or on semantics that onnx's reference operators get wrong.
_NEVER_EVALUATED = frozenset({
    "BatchNormalization",  # the reference evaluator's is wrong at opsets 9 to 13
    "Bernoulli", "Dropout", "Multinomial",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
})  # fmt: skip
# A DequantizeLinear is none for whoever wants to multiply it: see bnfold.fold.quantized.
_QUANTIZERS = DEQUANTIZE | {"DynamicQuantizeLinear"}


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor whose value is known before the model runs.

    Attributes:
        name: the tensor's name.
        tensor: where it is stored; None when nodes compute it.
        dtype: NumPy type (ml_dtypes for bfloat16 and smaller).
        dims: its shape.
    """

    name: str
    tensor: TensorProto | None
    dtype: np.dtype[Any]
    dims: tuple[int, ...]
    _load: Callable[[], NDArray[Any]]
    _drop: Callable[[], None] | None = None

    @cached_property
    def _computed(self) -> NDArray[Any]:
        return self._load()

    def array(self) -> NDArray[Any]:
        """The values, read-only; mapped from disk where they are stored there."""
        # A stored tensor is looked up anew each time so that nothing keeps its pages in memory.
        return self._computed if self.tensor is None else self._load()

    def release(self) -> None:
        """Let the pages of a mapped tensor go; it can be read again."""
        if self._drop is not None:
            self._drop()


@dataclass(frozen=True)
class NotConstant:
    """Why a tensor is no constant.

    Attributes:
        blocking: the node or tensor that makes it so.
        why: one sentence without a full stop.
        kind: `runtime`, `overridable` (an initializer the caller may replace) or `quantized`.
    """

    blocking: str
    why: str
    kind: str = "runtime"


class Constants:
    """Looks up constants of one view; every answer is kept.

    Args:
        view: the model.
        frozen: take initializers that the caller could override for constants.
    """

    def __init__(self, view: View, *, frozen: bool) -> None:
        """Read nothing yet."""
        self._view = view
        self._model = view.model
        self._overridable = view.model.proto.ir_version >= 4 and not frozen  # noqa: PLR2004  # IR 3 made all of them inputs
        self._known: dict[Value, Constant | NotConstant] = {}

    def get(self, value: Value) -> Constant | NotConstant:
        """The constant behind `value`, or why there is none.

        Raises:
            ModelError: its stored data is damaged.
        """
        # A chain of constant nodes can be deeper than Python's stack.
        pending = [value]
        while pending:
            current = pending[-1]
            if current in self._known:
                pending.pop()
                continue
            unknown = [v for v in self._needs(current) if v not in self._known]
            if unknown:
                pending.extend(unknown)
            else:
                self._known[current] = self._find(current)
        return self._known[value]

    def _needs(self, value: Value) -> list[Value]:
        node = value.producer
        if node is None or _refusal(node) is not None or node.op in _BY_METADATA:
            return []
        return [v for v in node.inputs if v is not None]

    def _find(self, value: Value) -> Constant | NotConstant:
        if value.initializer is not None:
            return self._stored(value, value.initializer)
        node = value.producer
        if node is None:
            return NotConstant(value.name, f"{value.name!r} is {value.graph.role('input')}")
        refusal = _refusal(node)
        if refusal is not None:
            return refusal
        if node.op == "Constant":
            return self._constant_node(value, node)
        if node.op in _BY_METADATA:
            return self._metadata(value, node)
        return self._computed(value, node)

    def _stored(self, value: Value, tensor: TensorProto | SparseTensorProto) -> Constant | NotConstant:
        if value.is_input and self._overridable:
            why = f"initializer {value.name!r} is also a graph input, so that a caller may replace it"
            return NotConstant(value.name, why, "overridable")
        if isinstance(tensor, SparseTensorProto):
            return self._sparse(value.name, tensor)
        return stored(self._model, value.name, tensor)

    def _computed(self, value: Value, node: Node) -> Constant | NotConstant:
        operands: dict[str, NDArray[Any]] = {}
        size = 0
        for operand in node.inputs:
            if operand is None:
                continue
            found = self._known[operand]
            if isinstance(found, NotConstant):
                return found
            size += int(np.prod(found.dims, dtype=np.int64)) * found.dtype.itemsize
            if size > _LIMIT:
                return _too_large(value)
            operands[operand.name] = found.array()
        if node.op in QUANTIZE:
            return _rounded(value, node, [operands[v.name] if v is not None else None for v in node.inputs])
        return self._evaluated(value, node.proto, operands)

    def _constant_node(self, value: Value, node: Node) -> Constant | NotConstant:
        for attribute in node.proto.attribute:
            if attribute.name == "value":
                return stored(self._model, value.name, attribute.t)
            if attribute.name == "sparse_value":
                return self._sparse(value.name, attribute.sparse_tensor)
            if attribute.name in {"value_float", "value_floats"}:
                numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                return computed(value.name, np.array(numbers, np.float32))
            if attribute.name in {"value_int", "value_ints"}:
                integers = attribute.i if attribute.name == "value_int" else list(attribute.ints)
                return computed(value.name, np.array(integers, np.int64))
        return NotConstant(node.label, f"the Constant node {node.label!r} holds no number")

    def _sparse(self, name: str, sparse: SparseTensorProto) -> Constant:
        values = self._model.array(sparse.values)
        indices = self._model.array(sparse.indices).astype(np.int64)
        dims = tuple(sparse.dims)
        if int(np.prod(dims, dtype=np.int64)) * values.dtype.itemsize > _LIMIT:
            raise ModelError(
                f"sparse tensor {name!r}: its dense form of shape {list(dims)} is too large to fold"
            )

        def dense() -> NDArray[Any]:
            array = np.zeros(dims, values.dtype)
            flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dims)
            array.reshape(-1)[flat] = values
            return array

        return Constant(name, None, values.dtype, dims, dense)

    def _metadata(self, value: Value, node: Node) -> Constant | NotConstant:
        """Operators that need only the type or shape of an operand, not its value."""
        operand = node.inputs[-1] if node.op == "CastLike" else node.inputs[0]
        if operand is None:
            return NotConstant(node.label, f"{node.op} {node.label!r} lacks an input")
        if node.op == "CastLike":
            return self._cast_like(value, node, self._view.elem_type(operand))
        shape = self._view.shape(operand)
        if shape is None or not all(isinstance(d, int) for d in shape):
            return NotConstant(operand.name, f"the shape of {operand.name!r} is not fixed")
        whole = np.array(shape, np.int64)
        if node.op == "Size":
            return computed(value.name, np.array(whole.prod(), np.int64))
        start = node.int_attribute("start", 0)
        end = node.int_attribute("end", len(shape))
        return computed(value.name, whole[slice(start, end)])

    def _cast_like(self, value: Value, node: Node, kind: int) -> Constant | NotConstant:
        source = node.inputs[0]
        if not kind or source is None:
            return NotConstant(node.label, f"the type that CastLike {node.label!r} casts to is not known")
        found = self.get(source)
        if isinstance(found, NotConstant):
            return found
        cast = helper.make_node("Cast", ["x"], ["y"], to=kind)
        return self._evaluated(value, cast, {"x": found.array()}, result="y")

    def _evaluated(
        self, value: Value, node: NodeProto, operands: dict[str, NDArray[Any]], result: str | None = None
    ) -> Constant | NotConstant:
        """Run one node through onnx's reference operators."""
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415  # loads every operator; few models need it

        wanted = result or value.name
        imports = [onnx.OperatorSetIdProto(version=max(value.graph.opset, 1))]
        graph = onnx.GraphProto(name="constant", node=[node], output=[onnx.ValueInfoProto(name=wanted)])
        graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in operands.items())
        model = onnx.ModelProto(ir_version=10, opset_import=imports, graph=graph)
        try:
            if not _fits(model, wanted):
                return _too_large(value)
            with np.errstate(all="ignore"):
                outputs = ReferenceEvaluator(model).run([wanted], {})
        except Exception as error:  # noqa: BLE001  # any operator, any error: then this is no constant for us
            text = str(error).strip().splitlines()
            return NotConstant(
                node.name or value.name,
                f"{node.op_type} of constants failed to evaluate ({text[0] if text else 'no reason given'})",
            )
        array: object = next(iter(outputs))
        if not isinstance(array, np.ndarray):
            return NotConstant(node.name or value.name, f"{node.op_type} does not compute a tensor")
        return computed(value.name, array)


def stored(model: ModelFile, name: str, tensor: TensorProto) -> Constant:
    """The constant behind a stored tensor."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"tensor {name!r} has the unknown data type {tensor.data_type}") from error
    return Constant(
        name,
        tensor,
        np.dtype(dtype),
        tuple(tensor.dims),
        lambda: model.array(tensor),
        lambda: model.release(tensor),
    )


def computed(name: str, array: NDArray[Any]) -> Constant:
    """A constant that nodes compute."""
    array.flags.writeable = False
    return Constant(name, None, array.dtype, array.shape, lambda: array)


# Only the type (CastLike) or the shape (Shape, Size) of an operand counts, so it may be a runtime tensor.
_BY_METADATA = frozenset({"CastLike", "Shape", "Size"})


def _refusal(node: Node) -> NotConstant | None:
    label = node.label
    if node.op in _QUANTIZERS:
        return NotConstant(label, f"{node.op} {label!r} makes it a quantized tensor", "quantized")
    foreign = "::" in node.op and node.op not in QUANTIZE
    if node.op in _NEVER_EVALUATED or node.has_bodies or foreign:
        return NotConstant(label, f"{node.op} {label!r} computes it when the model runs")
    if node.refers_to_caller:
        return NotConstant(
            label, f"an attribute of {node.op} {label!r} is given by the caller of the local function"
        )
    return None


def _rounded(value: Value, node: Node, operands: Sequence[NDArray[Any] | None]) -> Constant | NotConstant:
    """The integers that a QuantizeLinear computes, x, scale and zero point given."""
    x, scale, zero_point = (*operands, None)[:_OPERANDS]
    if x is None or scale is None:
        return NotConstant(node.label, f"{node.op} {node.label!r} lacks an input")
    found = quantized(node, x, scale, zero_point)
    if isinstance(found, str):
        return NotConstant(node.label, f"{node.op} {node.label!r} quantizes it, and {found}", "quantized")
    return computed(value.name, found)


def _fits(model: onnx.ModelProto, name: str) -> bool:
    """Whether the result is known to stay within the limit (Expand, Tile, Range can ask for anything)."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    info = next(o for o in inferred.graph.output if o.name == name)
    shape = info.type.tensor_type.shape
    sizes = [d.dim_value for d in shape.dim if d.HasField("dim_value")]
    known = info.type.tensor_type.HasField("shape") and len(sizes) == len(shape.dim)
    return known and int(np.prod(sizes, dtype=object)) * 8 <= _LIMIT


def _too_large(value: Value) -> NotConstant:
    return NotConstant(value.name, f"computing {value.name!r} would take more than {_LIMIT >> 20} MiB")
