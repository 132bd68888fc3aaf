"""The graph as the folds decided so far leave it: the one mutable thing of the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto, helper

from bnfold.fold.changes import AppendNode, Attributes, Bypass, Change, Dissolve, Drop, SetOperator, SetWeight
from bnfold.fold.obstacles import returned
from bnfold.fold.quantized import Dequantized, dequantized
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Stored, Weight
from bnfold.model.constants import Constants, NotConstant
from bnfold.model.quantizing import DEQUANTIZE, QUANTIZE
from bnfold.model.view import Node, Use, Value, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnfold.model.integers import Shape
    from bnfold.model.view import Graph

_SHOWN = 4  # readers named in a reason; enough to find the place
_READ_NO_VALUES = {"CastLike": (1,), "Shape": (0,), "Size": (0,)}  # inputs of which shape or type counts
_SAME_SHAPE = QUANTIZE | DEQUANTIZE | {"BatchNormalization", "Identity", "Relu"}


class Draft:
    """Answers what operators ask about a node, and applies the changes of folds that succeeded.

    Attributes:
        view: the topology; its edges are kept up to date with the changes.
        removed: nodes that are gone.
        appended: nodes that are new, in execution order; each stands somewhere behind its `index`.
        changed: nodes whose operator, attributes or edges differ from the model's.
        weights: constants that folds put in place of the model's.
        revalued: tensors that keep their name but not their values.
        replaced: tensors of the model that no longer exist.
    """

    def __init__(self, view: View, *, frozen: bool) -> None:
        """Start from the model as it is."""
        self.view = view
        self.removed: dict[Node, None] = {}
        self.appended: list[Node] = []
        self.changed: dict[Node, None] = {}
        self.weights: dict[tuple[Node, int], Stored] = {}
        self.revalued: dict[Value, None] = {}
        self.replaced: dict[Value, None] = {}
        self._constants = Constants(view, frozen=frozen)
        self._idle = frozenset(view.nodes()) - view.needed
        self._like: dict[Value, Value] = {}
        # A tensor may have thousands of readers, each of which asks for all; a change clears the answers.
        self._readers: dict[Value, list[Use]] = {}
        self._bound_edges: dict[Value, Reason | None] = {}
        self._namesakes: dict[str, int] = {}
        # An attribute holds float32; a second fold must not start from what the first one rounded.
        self._exact_attributes: dict[tuple[Node, str], float] = {}

    def weight(self, node: Node, position: int) -> Weight | NotConstant | None:
        """The constant at an input; None when the input is left out."""
        if (node, position) in self.weights:
            return self.weights[node, position]
        value = node.inputs[position] if position < len(node.inputs) else None
        if value is None:
            return None
        if value.producer is not None and value.producer.op in DEQUANTIZE:
            return dequantized(value.producer, [self.weight(value.producer, i) for i in range(3)])
        found = self._constants.get(value)
        return found if isinstance(found, NotConstant) else Weight.of(found)

    def shape(self, value: Value) -> Shape | None:
        """Dimensions as far as they are known; None when not even the rank is."""
        while True:
            value = self._like.get(value, value)
            known = self.view.shape(value)
            node = value.producer
            if known is not None:
                return known if node is None else self._refined(known, node)
            if node is None:
                return None
            if node.op not in _SAME_SHAPE or node.inputs[0] is None:
                return self._shape_by_weights(node)
            value = node.inputs[0]

    def integers(self, node: Node, position: int) -> tuple[int | None, ...] | None:
        """The entries of a small integer operand, None for one that is not known; None when all are not.

        An operand may be known in part: of a vector of sizes, say, all but the batch.
        """
        found = self.weight(node, position)
        if isinstance(found, Weight):
            return None if found.source is None else tuple(int(v) for v in found.source.array().reshape(-1))
        value = node.inputs[position] if found is not None else None
        return None if value is None else self.view.integers(value)

    def uses(self, value: Value) -> list[Use]:
        """Who reads the tensor now."""
        return [
            u for u in value.uses if u.node not in self.removed and (u.node, u.position) not in self.weights
        ]

    def readers(self, value: Value) -> list[Use]:
        """Who reads the values of the tensor now; Shape and the like read only what no fold changes.

        Nodes that compute for nobody count where all readers are such.
        """
        if value not in self._readers:
            readers = [u for u in self.uses(value) if u.position not in _READ_NO_VALUES.get(u.node.op, ())]
            self._readers[value] = [u for u in readers if self.is_needed(u.node)] or readers
        return self._readers[value]

    def is_needed(self, node: Node) -> bool:
        """Whether an output of the model depends on it; a node that a fold added counts as needed."""
        return node not in self._idle

    def float_attribute(self, node: Node, name: str, default: float) -> float:
        """A float attribute, unrounded where a fold has set it."""
        exact = self._exact_attributes.get((node, name))
        return node.float_attribute(name, default) if exact is None else exact

    def free_edge(self, value: Value) -> Reason | None:
        """Why the tensor cannot change its values for the sake of its one consumer; None when it can."""
        if value not in self._bound_edges:
            self._bound_edges[value] = self._bound_edge(value)
        return self._bound_edges[value]

    def _bound_edge(self, value: Value) -> Reason | None:
        if value.is_output:
            return returned(value)
        uses = self.readers(value)
        if len(uses) > 1:
            readers = sorted({u.node.label for u in uses})
            return Reason(
                Code.SEVERAL_CONSUMERS,
                value.name,
                f"{value.name!r}, which the fold would change, is read {len(uses)} times: "
                + ", ".join(readers[:_SHOWN] + ["..."] * (len(readers) > _SHOWN)),
            )
        return None

    def clash(self, changes: Iterable[Change]) -> Reason | None:
        """Why a name would come to mean two tensors; None when it would not.

        A nested graph may use a name for itself that an outer graph defines only later, or (as runtimes allow
        for its inputs and initializers) hide an outer one. A producer that takes the name of a later tensor
        over, or a nested reader that turns to an outer tensor, would meet the other meaning.
        """
        nested = [graph for graph in self.view.graphs if graph.parent is not None]
        sources: dict[Value, Value] = {}
        for change in changes if nested else ():
            if isinstance(change, Dissolve):
                taken, source = change.node.outputs[0], change.node.inputs[change.position]
                if taken is None or source is None:
                    continue
                graphs = _bodies_before(change.node, nested)
                graphs += [g for use in self.uses(source) for g in _inside(use.node.graph, taken.graph)]
            elif isinstance(change, Bypass):
                taken, result = change.node.inputs[change.position], change.node.outputs[0]
                if taken is None or result is None:
                    continue
                taken = sources[result] = sources.get(taken, taken)
                graphs = [g for use in self.uses(result) for g in _inside(use.node.graph, taken.graph)]
            else:
                continue
            for graph in graphs:
                if graph.values.get(taken.name, taken) is not taken:
                    evidence = f"{taken.name!r} also names another tensor, in {graph.label}"
                    return Reason(
                        Code.NAME_CLASH, taken.name, evidence, "give every tensor a name of its own"
                    )
        return None

    def apply(self, change: Change) -> None:
        """Carry out one change."""
        self._readers.clear()
        self._bound_edges.clear()
        match change:
            case SetWeight(node, position, weight):
                self._set(node, position, weight)
            case SetOperator(node, op, attributes):
                node.proto = _rewritten(node.proto, op, attributes)
                exact = {(node, n): v for n, v in attributes.items() if isinstance(v, float)}
                self._exact_attributes.update(exact)
                self.changed[node] = None
            case Dissolve(node, position):
                self._dissolve(node, position)
            case Bypass(node, position):
                self._bypass(node, position)
            case Drop(node):
                self.removed[node] = None
                self.replaced.update(dict.fromkeys(filter(None, node.outputs)))
            case AppendNode(node, op, weight, attributes):
                self._append(node, op, weight, attributes)

    def unique(self, base: str) -> str:
        """A name nobody in the model has yet; it is taken from now on."""
        names = self.view.names
        name, count = base, self._namesakes.get(base, 1)
        while name in names:
            count += 1
            name = f"{base}_{count}"
        self._namesakes[base] = count
        names.add(name)
        return name

    def adds_node(self, change: Change) -> bool:
        """Whether a change leaves one node more than there was."""
        return isinstance(change, AppendNode) or (
            isinstance(change, SetWeight)
            and isinstance(change.weight, Dequantized)
            and self._is_shared(change.node, change.position)
        )

    def _set(self, node: Node, position: int, weight: Weight) -> None:
        self.changed[node] = None
        if isinstance(weight, Stored):
            self.weights[node, position] = weight
        elif isinstance(weight, Dequantized):
            self._set_dequantized(node, position, weight)
        else:
            raise TypeError(f"a weight of an unknown kind: {type(weight).__name__}")

    def _set_dequantized(self, node: Node, position: int, weight: Dequantized) -> None:
        """The DequantizeLinear of an input gets other inputs; one that others read too is copied first."""
        if self._is_shared(node, position):
            self._duplicate(node, position)
        value = node.inputs[position]
        if value is None or value.producer is None:
            raise AssertionError("what was dequantized has a producer")
        source = value.producer
        self.changed[source] = None
        self.revalued[value] = None
        for place, part in enumerate(weight.parts):
            old = self.weight(source, place)
            if part is None or not isinstance(old, Stored):
                continue
            if part.key != old.key or self._is_rounded(source, place):
                self.weights[source, place] = part
        axis = source.int_attribute("axis", 1)
        own = (weight.axis, weight.axis - len(weight.dims))
        # In onnxruntime's own domain, no axis means one scale for the whole tensor.
        unsaid = source.op != "DequantizeLinear" and source.attribute("axis") is None
        if weight.scale.dims and not weight.block and (axis not in own or unsaid):
            source.proto = _rewritten(source.proto, source.proto.op_type, {"axis": weight.axis})

    def _is_rounded(self, node: Node, position: int) -> bool:
        """Whether the integers are made of floats when the model runs, by the scale as it was."""
        value = node.inputs[position]
        return value is not None and value.producer is not None and value.producer.op in QUANTIZE

    def _is_shared(self, node: Node, position: int) -> bool:
        value = node.inputs[position]
        return value is not None and (value.is_output or self.uses(value) != [Use(node, position)])

    def _duplicate(self, node: Node, position: int) -> None:
        """A producer of its own for one input of `node`."""
        value = node.inputs[position]
        if value is None or value.producer is None:
            raise AssertionError("only what a node computes can be computed twice")
        old = value.producer
        own = Value(self.unique(f"{value.name}_folded"), old.graph)
        label = self.unique(f"{old.label}_folded")
        proto = _rewritten(old.proto, old.proto.op_type, {})
        proto.name = label
        copy = own.producer = Node(old.graph, old.index, label, proto, list(old.inputs), [own])
        for place, source in enumerate(copy.inputs):
            if source is not None:
                source.uses.append(Use(copy, place))
            held = self.weights.get((old, place))
            if held is not None:
                self.weights[copy, place] = held
        self._like[own] = self._like.get(value, value)
        value.uses.remove(Use(node, position))
        own.uses.append(Use(node, position))
        node.inputs[position] = own
        self.appended.append(copy)

    def _dissolve(self, node: Node, position: int) -> None:
        source, result = node.inputs[position], node.outputs[0]
        if source is None or source.producer is None or result is None:
            raise AssertionError("a node is taken out only between a producer and its output")
        producer = source.producer
        producer.outputs = [result if v is source else v for v in producer.outputs]
        result.producer = producer
        self.removed[node] = None
        self.changed[producer] = None
        # What is left asks for shape or type alone, and finds the same in the result.
        self._redirect(source, result)

    def _bypass(self, node: Node, position: int) -> None:
        source, result = node.inputs[position], node.outputs[0]
        if source is None or result is None:
            raise AssertionError("a node is taken out only between its input and its readers")
        self.removed[node] = None
        self._redirect(result, source)

    def _redirect(self, gone: Value, instead: Value) -> None:
        """Whoever reads `gone` reads `instead` from now on."""
        self.replaced[gone] = None
        for use in self.uses(gone):
            use.node.inputs[use.position] = instead
            instead.uses.append(use)
            self.changed[use.node] = None

    def _append(self, node: Node, op: str, weight: Stored, attributes: Attributes) -> None:
        result = node.outputs[0]
        if result is None:
            raise AssertionError("a node without an output has nothing behind it")
        between = Value(self.unique(f"{result.name}_linear"), node.graph, producer=node)
        name = self.unique(f"{node.label}_bias")
        proto = _rewritten(NodeProto(name=name), op, attributes)
        added = Node(node.graph, node.index, name, proto, [between, None], [result])
        between.uses.append(Use(added, 0))
        self._like[between] = self._like.get(result, result)
        node.outputs = [between, *node.outputs[1:]]
        result.producer = added
        self.changed[node] = None
        # Right behind its node, so before whatever was put there earlier.
        place = self.appended.index(node) + 1 if node in self.appended else 0
        self.appended.insert(place, added)
        self.weights[added, 1] = weight

    def _refined(self, known: Shape, node: Node) -> Shape:
        """A sum of unknown channels that a fold has put into a layer has the channels of the layer."""
        if node not in self.changed or all(isinstance(size, int) for size in known[1:2]):
            return known
        told = self._shape_by_weights(node)
        if told is None or len(told) != len(known):
            return known
        return tuple(new if isinstance(new, int) else old for old, new in zip(known, told, strict=True))

    def _shape_by_weights(self, node: Node) -> Shape | None:
        """The rank of a layer's output follows from its weights even where its input is unknown."""
        if node.op == "Gemm":
            return (None, None)
        if node.op in {"Conv", "ConvTranspose"}:
            weight = self.weight(node, 1)
            if isinstance(weight, Weight):
                space = (None,) * (len(weight.dims) - 2)
                if node.op == "Conv":
                    return (None, weight.dims[0], *space)
                # How many groups there are is not known here where the caller of a function says so.
                group = None if node.refers_to_caller else node.int_attribute("group", 1)
                return (None, None if group is None else weight.dims[1] * group, *space)
        return None


def _bodies_before(node: Node, nested: list[Graph]) -> list[Graph]:
    """The graphs held by nodes that stand before `node` in its graph, at any depth."""
    own = node.graph.scope
    depth = len(own.bodies)
    return [
        graph
        for graph in nested
        if graph.scope.function == own.function
        and len(graph.scope.bodies) > depth
        and graph.scope.bodies[:depth] == own.bodies
        and graph.scope.bodies[depth].node < node.index
    ]


def _inside(graph: Graph, outer: Graph) -> Iterator[Graph]:
    """A nested graph and those around it, up to `outer`."""
    while graph is not outer and graph.parent is not None:
        yield graph
        graph = graph.parent


def _rewritten(proto: NodeProto, op: str, attributes: Attributes) -> NodeProto:
    """A copy of the node as another operator; attributes of the same name are replaced, others kept."""
    copy = NodeProto()
    copy.CopyFrom(proto)
    copy.op_type = op
    kept = [a for a in copy.attribute if a.name not in attributes]
    del copy.attribute[:]
    copy.attribute.extend(kept)
    copy.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return copy
