"""The part of a graph between tensors that two models have in common, and whether it is linear in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from bnfold.verification.truth.nodes import nested_graphs
from bnfold.verification.truth.tensors import PROMOTED_TYPES

if TYPE_CHECKING:
    from collections.abc import Collection

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that are linear, or linear and a constant, in the operand that carries data ...
_STRAIGHT = frozenset(
    {
        *LINEAR,
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Concat",
        "DepthToSpace",
        "Div",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GlobalAveragePool",
        "Identity",
        "Mean",
        "Mul",
        "Neg",
        "Pad",
        "ReduceMean",
        "ReduceSum",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Sub",
        "Sum",
        "Transpose",
        "Unsqueeze",
    }
)
# ... of which these are not if several of them do.
_PRODUCTS = frozenset({*LINEAR, "BatchNormalization", "Div", "Mul"})
# Operators that read the shape or the type of these operands alone.
_UNREAD = {"CastLike": (1,), "Shape": (0,), "Size": (0,)}
_FLOATS = PROMOTED_TYPES | {onnx.TensorProto.DOUBLE}
# A slice is a layer or two; where it is more, the models have too little in common.
_LARGEST = 200


@dataclass(frozen=True)
class Slice:
    """The nodes that compute a tensor from others.

    Attributes:
        model: these nodes alone, with the weights that they read.
        feeds: the tensors that they start from.
        target: the tensor that they compute.
        moving: the names of what depends on the feeds; everything else is constant.
        linear: the nodes that multiply data by weights.
        sums: whether a value may come along several ways.
    """

    model: onnx.ModelProto
    feeds: frozenset[str]
    target: str
    moving: frozenset[str]
    linear: tuple[onnx.NodeProto, ...]
    sums: bool

    def behind(self, feed: str) -> tuple[str, ...]:
        """What those linear nodes compute that depend on one of the feeds."""
        reached, found = {feed}, []
        for node in self.model.graph.node:
            if reached & set(node.input):
                reached.update(node.output)
                found += [node.output[0]] if node in self.linear else []
        return tuple(found)


class Wiring:
    """Who computes what in a model.

    Attributes:
        constants: names of tensors that do not depend on any input.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.constants = frozenset(self._constants())
        self._producers = {
            name: (place, node) for place, node in enumerate(model.graph.node) for name in node.output if name
        }

    def _constants(self) -> set[str]:
        """Names of what is stored, and of what is computed from that alone."""
        known = set(self._weights)
        for node in self._model.graph.node:
            if all(name in known for name in node.input if name) and not any(nested_graphs(node)):
                known.update(node.output)
        return known

    def layers_but(self, known: Collection[str]) -> tuple[str, ...]:
        """Nodes that multiply by stored weights, without those that compute a tensor among `known`."""
        return tuple(
            node.name or node.output[0]
            for node in self._model.graph.node
            if node.op_type in LINEAR
            and node.output[0] not in self.constants | set(known)
            and self.constants & set(node.input[:2])
        )

    def slice(self, target: str, stops: Collection[str]) -> Slice | None:
        """What computes `target` from tensors among `stops`; None where that is not linear."""
        found = self._behind(target, stops)
        if found is None:
            return None
        nodes, feeds = found
        moving, linear, sums = set(feeds), [], False
        for node in nodes:
            unread = _UNREAD.get(node.op_type, ())
            carried = [name for at, name in enumerate(node.input) if name in moving and at not in unread]
            if not carried:
                continue
            if node.op_type not in _STRAIGHT or node.domain not in {"", "ai.onnx"} or _bends(node):
                return None
            if node.op_type in _PRODUCTS and (len(carried) > 1 or not _first(node, carried[0])):
                return None
            if node.op_type in LINEAR:
                linear.append(node)
            sums |= len(carried) > 1 or "Pool" in node.op_type or node.op_type.startswith("Reduce")
            moving.update(node.output)
        graph = onnx.GraphProto(name="slice")
        graph.node.extend(nodes)
        graph.initializer.extend(
            self._weights[name]
            for name in sorted({n for node in nodes for n in node.input} & self._weights.keys())
        )
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in sorted(feeds))
        graph.output.append(onnx.ValueInfoProto(name=target))
        model = onnx.ModelProto(ir_version=self._model.ir_version, graph=graph)
        model.opset_import.extend(self._model.opset_import)
        several = sums or len(linear) > 1
        return Slice(model, frozenset(feeds), target, frozenset(moving), tuple(linear), several)

    def _behind(self, target: str, stops: Collection[str]) -> tuple[list[onnx.NodeProto], set[str]] | None:
        pending, feeds = [target], set[str]()
        places: dict[int, onnx.NodeProto] = {}
        while pending:
            name = pending.pop()
            if name in stops and name != target:
                feeds.add(name)
                continue
            if not name or name in self._weights:
                continue
            place, node = self._producers.get(name, (-1, None))
            if node is None or len(places) > _LARGEST or any(nested_graphs(node)):
                return None
            if place not in places:
                places[place] = node
                pending += node.input
        return [places[place] for place in sorted(places)], feeds


def _first(node: onnx.NodeProto, name: str) -> bool:
    """Whether a product is linear in this operand."""
    return node.op_type in {"MatMul", "Mul"} or name == node.input[0]


def _bends(node: onnx.NodeProto) -> bool:
    """Whether attributes make a node something else: a Cast to integers, a normalization in training."""
    given = {attribute.name: attribute.i for attribute in node.attribute}
    return bool(given.get("training_mode")) or (node.op_type == "Cast" and given.get("to") not in _FLOATS)
