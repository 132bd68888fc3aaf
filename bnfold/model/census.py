"""Every operator call of a model, wherever it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx


def calls(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph, of its nested graphs and of the local functions, each once."""
    for graph in (model.graph, *model.functions):
        yield from within(graph.node)


def within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of the graphs nested in them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from within(body.node)
