"""From a finished draft to the edits of the file: names, new initializers, and what nobody reads any more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx
from onnx import NodeProto, TensorProto, helper

from bnfold.model.edits import GraphEdits, ModelEdits, NewTensor

if TYPE_CHECKING:
    from bnfold.fold.draft import Draft
    from bnfold.fold.plan import Plan
    from bnfold.fold.weight import Stored
    from bnfold.model.view import Graph, Node, Value

_INPUTS_OPTIONAL_SINCE_IR = 4


@dataclass
class _Edits:
    """The edits of one graph while they are collected."""

    nodes: dict[int, NodeProto | None] = field(default_factory=dict)
    inserted: dict[int, list[NodeProto]] = field(default_factory=dict)
    initializers: dict[str, NewTensor | None] = field(default_factory=dict)
    added: list[NewTensor] = field(default_factory=list)
    inputs_removed: set[str] = field(default_factory=set)
    inputs_added: list[onnx.ValueInfoProto] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)


def emit(plan: Plan) -> tuple[ModelEdits, tuple[tuple[str, Stored], ...]]:
    """The edits that make the file what the draft is, and every weight they write with its tensor's name.

    No folds and nothing frozen give no edits at all.
    """
    return _Emitter(plan).run()


class _Emitter:
    def __init__(self, plan: Plan) -> None:
        self.draft: Draft = plan.draft
        self.view = plan.draft.view
        self.frozen = plan.frozen
        self.edits = {graph: _Edits() for graph in self.view.graphs}
        self.names: dict[Node, dict[int, str]] = {}
        self.written: list[tuple[str, Stored]] = []
        self.reader_counts: dict[Value, int] = {}
        self.lists_inputs = self.view.model.proto.ir_version < _INPUTS_OPTIONAL_SINCE_IR

    def run(self) -> tuple[ModelEdits, tuple[tuple[str, Stored], ...]]:
        self.edits[self.view.graphs[0]].inputs_removed.update(self.frozen)
        self._place_weights()
        dead = self._dead_nodes()
        for graph, edits in self.edits.items():
            for node in graph.nodes:
                if node in self.draft.removed or node in dead:
                    edits.nodes[node.index] = None
                elif node in self.draft.changed:
                    edits.nodes[node.index] = self._proto(node)
        for node in self.draft.appended:
            if node not in self.draft.removed:
                self.edits[node.graph].inserted.setdefault(node.index + 1, []).append(self._proto(node))
        for value in self.draft.replaced:
            self.edits[value.graph].dropped.add(value.name)
        self._drop_annotations()
        graphs = tuple(
            GraphEdits(
                scope=graph.scope,
                nodes=e.nodes,
                inserted={i: tuple(n) for i, n in e.inserted.items()},
                initializers=e.initializers,
                added=tuple(e.added),
                inputs_removed=frozenset(e.inputs_removed),
                inputs_added=tuple(e.inputs_added),
                dropped=frozenset(e.dropped),
            )
            for graph, e in self.edits.items()
            if any(
                (e.nodes, e.inserted, e.initializers, e.added, e.inputs_removed, e.inputs_added, e.dropped)
            )
        )
        return ModelEdits(graphs), tuple(self.written)

    def _place_weights(self) -> None:
        """Write each distinct folded tensor once: in place of the old one where all its readers agree."""
        groups: dict[tuple[Graph | None, Value | None, bytes], list[tuple[Node, int]]] = {}
        for (node, position), weight in self.draft.weights.items():
            if node in self.draft.removed:
                continue
            value = node.inputs[position] if position < len(node.inputs) else None
            # Without a stored original to share, a new tensor belongs to the node that reads it.
            home = value if value is not None and value.initializer is not None else None
            groups.setdefault((None if home else node.graph, home, weight.key), []).append((node, position))
        for (_, home, _), slots in groups.items():
            weight = self.draft.weights[slots[0]]
            if home is not None and self._takes_over(home, weight, slots):
                self._write(home.graph, home.name, weight, slots, replaces=True)
                continue
            for graph in dict.fromkeys(node.graph for node, _ in slots):
                here = [slot for slot in slots if slot[0].graph is graph]
                self._write(graph, self._new_name(weight), weight, here, replaces=False)

    def _new_name(self, weight: Stored) -> str:
        taken = weight.name in self.view.names
        return self.draft.unique(f"{weight.name}_folded" if taken else weight.name)

    def _takes_over(self, home: Value, weight: Stored, slots: list[tuple[Node, int]]) -> bool:
        """Whether nobody else reads the old tensor and the new one fits its declaration."""
        tensor = home.initializer
        # Every slot is a reader: as many are all of them.
        return (
            self._count_readers(home) == len(slots)
            and not home.is_output
            and isinstance(tensor, TensorProto)
            and tuple(tensor.dims) == weight.dims
            and tensor.data_type == helper.np_dtype_to_tensor_dtype(weight.dtype)
        )

    def _count_readers(self, home: Value) -> int:
        if home not in self.reader_counts:
            removed = self.draft.removed
            self.reader_counts[home] = len({(u.node, u.position) for u in home.uses if u.node not in removed})
        return self.reader_counts[home]

    def _write(
        self, graph: Graph, name: str, weight: Stored, slots: list[tuple[Node, int]], *, replaces: bool
    ) -> None:
        for node, position in slots:
            self.names.setdefault(node, {})[position] = name
        self.written.append((name, weight))
        data_type = helper.np_dtype_to_tensor_dtype(weight.dtype)
        tensor = NewTensor(name, weight.dims, data_type, weight.nbytes, weight.chunks)
        edits = self.edits[graph]
        if replaces:
            edits.initializers[name] = tensor
        elif graph.is_function or (self.lists_inputs and graph is not self.view.graphs[0]):
            first = min(node.index for node, _ in slots)
            edits.inserted.setdefault(first, []).append(self._constant_node(name, weight))
        else:
            edits.added.append(tensor)
            if self.lists_inputs:
                edits.inputs_added.append(helper.make_tensor_value_info(name, data_type, weight.dims))

    def _constant_node(self, name: str, weight: Stored) -> NodeProto:
        """Local functions hold no initializers, and neither do the nested graphs of IR 3."""
        raw = b"".join(chunk.tobytes() for chunk in weight.chunks())
        data_type = helper.np_dtype_to_tensor_dtype(weight.dtype)
        value = TensorProto(name=name, data_type=data_type, dims=weight.dims, raw_data=raw)
        node = helper.make_node("Constant", [], [name], name=self.draft.unique(f"{name}_constant"))
        node.attribute.append(onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=value))
        return node

    def _dead_nodes(self) -> dict[Node, None]:
        """Nodes and initializers whose last reader the folds took away."""
        dead: dict[Node, None] = {}
        read = [v for node in self.draft.removed for v in node.inputs if v is not None]
        read += [
            value
            for node, position in self.draft.weights
            if position < len(node.inputs) and (value := node.inputs[position]) is not None
        ]
        suspects = list(dict.fromkeys(read))
        while suspects:
            value = suspects.pop()
            if (
                value.is_output
                or value in self.draft.replaced
                or any(self._reads(u.node, u.position, dead) for u in value.uses)
            ):
                continue
            if value.initializer is not None:
                self._remove_initializer(value)
                continue
            producer = value.producer
            if (
                producer is None
                or producer in dead
                or producer in self.draft.removed
                or producer in self.draft.changed
            ):
                continue
            if any(v is not None and v is not value and self._is_read(v, dead) for v in producer.outputs):
                continue
            dead[producer] = None
            self.edits[value.graph].dropped.update(v.name for v in producer.outputs if v is not None)
            suspects.extend(v for v in producer.inputs if v is not None)
        return dead

    def _remove_initializer(self, value: Value) -> None:
        edits = self.edits[value.graph]
        if edits.initializers.get(value.name) is not None:
            return
        edits.initializers[value.name] = None
        edits.dropped.add(value.name)
        if value.is_input:
            # Only an initializer may disappear from the inputs: as a true input it would become required.
            edits.inputs_removed.add(value.name)

    def _is_read(self, value: Value, dead: dict[Node, None]) -> bool:
        return value.is_output or any(self._reads(u.node, u.position, dead) for u in value.uses)

    def _reads(self, node: Node, position: int, dead: dict[Node, None]) -> bool:
        return (
            node not in dead and node not in self.draft.removed and (node, position) not in self.draft.weights
        )

    def _proto(self, node: Node) -> NodeProto:
        """The node with its edges as the draft has them."""
        proto = NodeProto()
        proto.CopyFrom(node.proto)
        inputs = [v.name if v is not None else "" for v in node.inputs]
        for position, name in self.names.get(node, {}).items():
            inputs.extend([""] * (position + 1 - len(inputs)))
            inputs[position] = name
        proto.input[:] = inputs
        proto.output[:] = [v.name if v is not None else "" for v in node.outputs]
        return proto

    def _drop_annotations(self) -> None:
        """Quantization parameters of a tensor whose values changed no longer describe it."""
        for graph in self.view.graphs:
            if graph.is_function:
                continue
            annotated = {a.tensor_name for a in graph.proto.quantization_annotation}
            changed = {
                v.name for v in self.draft.revalued if v.graph is graph and v not in self.draft.replaced
            }
            changed |= {name for name, tensor in self.edits[graph].initializers.items() if tensor is not None}
            self.edits[graph].dropped |= annotated & changed
