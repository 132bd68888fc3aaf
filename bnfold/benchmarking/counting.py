"""What a model costs by its structure: normalizations, and multiplications."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bnfold.model.census import calls
from bnfold.model.edits import Scope
from bnfold.model.shapes import infer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    from bnfold.model.integers import Dim
    from bnfold.model.store import ModelFile

_STANDARD = frozenset({"", "ai.onnx"})
_BLOCKED = "com.microsoft.nchwc"  # onnxruntime's operators on channels in blocks

Shape = tuple[int, ...]


def count_bn(model: onnx.ModelProto) -> int:
    """BatchNormalization left in a model, those in nested graphs and local functions included.

    onnxruntime has no BatchNormalization on blocked channels and puts a Conv of 1 x 1 with a group for each
    channel in its place (core/optimizer/nchwc_transformer.cc): that is one that it left, too.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return sum(_is_bn(node) or _is_blocked_bn(node, weights) for node in calls(model))


def _is_bn(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" and node.domain in _STANDARD


def _is_blocked_bn(node: onnx.NodeProto, weights: Mapping[str, Shape]) -> bool:
    if node.op_type != "Conv" or node.domain != _BLOCKED:
        return False
    shape = weights.get(node.input[1], ())
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return len(shape) > 1 and groups == shape[0] > 1 and math.prod(shape[1:]) == 1


def count_macs(model: ModelFile, sizes: Mapping[str, Shape]) -> int | None:
    """Multiply-accumulate operations of Conv, ConvTranspose, Gemm and MatMul in one run.

    Taps that fall on padding count, as is customary.

    Args:
        model: the model.
        sizes: the shape of each input that is fed.

    Returns:
        None where a shape is not known, or where such an operator stands in a nested graph or a local
        function, which may run any number of times.
    """
    nested = sum(_is_counted(node) for node in calls(model.proto))
    nodes = [node for node in model.proto.graph.node if _is_counted(node)]
    if nested != len(nodes):
        return None
    types = infer(model, sizes)

    def shape(name: str) -> Shape | None:
        dims: tuple[Dim, ...] | None = types.get((Scope(), name), (0, None))[1]
        known = tuple(dim for dim in dims or () if isinstance(dim, int))
        return known if dims is not None and len(known) == len(dims) else None

    total = 0
    for node in nodes:
        shapes = [shape(name) for name in (node.input[0], node.input[1], node.output[0])]
        first, second, output = shapes
        if first is None or second is None or output is None:
            return None
        total += _MACS[node.op_type](node, first, second, output)
    return total


def _is_counted(node: onnx.NodeProto) -> bool:
    return node.op_type in _MACS and node.domain in _STANDARD


def _conv(_node: onnx.NodeProto, _x: Shape, weight: Shape, output: Shape) -> int:
    return math.prod(output) * math.prod(weight[1:])


def _conv_transpose(_node: onnx.NodeProto, x: Shape, weight: Shape, _output: Shape) -> int:
    return math.prod(x) * math.prod(weight[1:])


def _gemm(node: onnx.NodeProto, a: Shape, _b: Shape, output: Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(output) * a[0 if transposed else 1]


def _matmul(_node: onnx.NodeProto, a: Shape, _b: Shape, output: Shape) -> int:
    return math.prod(output) * a[-1]


_MACS: dict[str, Callable[[onnx.NodeProto, Shape, Shape, Shape], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
