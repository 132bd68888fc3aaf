"""What is to change in a model, as plain data.

Everything is addressed by its position in the model as it was opened, never found by name, so that missing,
empty or repeated node names cannot send an edit to the wrong place. Tensors of one graph are the exception:
their names are unique in it by the rules of ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bnfold.model.dtypes import DATA_TYPES, ELEMENT_TYPES, to_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import onnx


@dataclass(frozen=True, slots=True, order=True)
class Body:
    """A graph held by an attribute of a node.

    Attributes:
        node: index of the node in its graph.
        attribute: name of the attribute.
        index: which graph of a list attribute; 0 for an attribute that holds one.
    """

    node: int
    attribute: str
    index: int = 0

    def __str__(self) -> str:
        return f"node {self.node} {self.attribute}" + (f"[{self.index}]" if self.index else "")


@dataclass(frozen=True, slots=True)
class Scope:
    """A list of nodes of the model: the main graph, a local function, or a body nested in either.

    Attributes:
        function: index in `ModelProto.functions`; None for the main graph.
        bodies: the way down, outermost first.
    """

    function: int | None = None
    bodies: tuple[Body, ...] = ()

    def __str__(self) -> str:
        root = "main graph" if self.function is None else f"function {self.function}"
        return " > ".join((root, *map(str, self.bodies)))

    def body(self, node: int, attribute: str, index: int = 0) -> Scope:
        """The scope of a graph held by a node of this one."""
        return Scope(self.function, (*self.bodies, Body(node, attribute, index)))


MAIN = Scope()


def graph_at(model: onnx.ModelProto, scope: Scope) -> onnx.GraphProto | onnx.FunctionProto:
    """The graph or function that a scope names.

    Raises:
        LookupError: the model has no such scope.
    """
    graph = model.graph if scope.function is None else model.functions[scope.function]
    for body in scope.bodies:
        attribute = next((a for a in graph.node[body.node].attribute if a.name == body.attribute), None)
        if attribute is None:
            raise LookupError(f"{scope}: no attribute {body.attribute!r}")
        graph = attribute.g if attribute.HasField("g") else attribute.graphs[body.index]
    return graph


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor of the result, whose bytes are made while they are written.

    Attributes:
        name: name of the tensor.
        dims: shape.
        data_type: a `TensorProto.DataType`, not STRING.
        nbytes: how many bytes `chunks` yields in all.
        chunks: starts the production: pieces of `raw_data` (little-endian, C order) in order. Each piece may
            be reused by the producer once the next one is asked for. Called once for each write.
    """

    name: str
    dims: tuple[int, ...]
    data_type: int
    nbytes: int
    chunks: Callable[[], Iterator[memoryview | bytes | np.ndarray]]

    @classmethod
    def of(cls, name: str, array: np.ndarray) -> NewTensor:
        """A tensor that is in memory already.

        Args:
            name: name of the tensor.
            array: any shape and any NumPy or ml_dtypes element type that ONNX has; 2-, 4- and 6-bit elements
                are packed here.
        """
        data_type = DATA_TYPES[array.dtype]
        data = to_raw(ELEMENT_TYPES[data_type], array)
        return cls(name, tuple(array.shape), data_type, data.nbytes, lambda: iter((data,)))


@dataclass(frozen=True, slots=True)
class GraphEdits:
    """The changes of one graph or function body. Node indices are those of the opened model.

    Attributes:
        scope: which one.
        nodes: by index, the node that takes its place, or None to remove it. A node may be a changed copy of
            the opened model's: tensors left out of it are put back from the source, and bodies of it that
            are unchanged in the copy still receive the edits of their own scopes.
        inserted: by index, nodes that come before the node of that index (and stay if it is removed);
            the number of nodes as index means the end.
        initializers: by name, the tensor that takes the place of an initializer (dense, typed, external or
            sparse), or None to remove it. It may carry another name, shape or type.
        added: initializers that are new.
        inputs_removed: names of graph inputs to remove.
        inputs_added: graph inputs that come after the present ones.
        dropped: names of tensors whose value_info and quantization_annotation are removed.
    """

    scope: Scope = MAIN
    nodes: Mapping[int, onnx.NodeProto | None] = field(default_factory=dict)
    inserted: Mapping[int, tuple[onnx.NodeProto, ...]] = field(default_factory=dict)
    initializers: Mapping[str, NewTensor | None] = field(default_factory=dict)
    added: tuple[NewTensor, ...] = ()
    inputs_removed: frozenset[str] = frozenset()
    inputs_added: tuple[onnx.ValueInfoProto, ...] = ()
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ModelEdits:
    """All changes of a model.

    Attributes:
        graphs: at most one entry for each scope.
        metadata: metadata_props to set; an entry whose key exists is replaced in place.
        functions_removed: indices of local functions to remove; they can have no edits.
    """

    graphs: tuple[GraphEdits, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    functions_removed: frozenset[int] = frozenset()
