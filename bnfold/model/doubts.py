"""Where onnx (1.23) infers what a model does not compute: something else takes the place of its answer.

A pool that rounds up has the sizes that hold whether or not windows that start in the padding count, on which
runtimes differ. An If of before opset 11 has no shape that only one of its branches has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from bnfold.model.edits import Scope
from bnfold.model.inference import Types, declaration, declare, defined, graphs, home, opset_of
from bnfold.model.inference import run as _once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnfold.model.integers import Dim, Shape

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_IF_UNITES_SINCE = 11
_MOST_PASSES = 8  # each knows more of what comes behind the one before
_UNKNOWN = "bnfold.unknown"  # a domain of which inference knows no operator
_HIDDEN = "\0"


def run(model: ModelProto) -> Types:
    """As `inference.run`, but for what is wrong there."""
    if not any(_any_doubtful(nodes, opset) for nodes, opset in _parts(model)):
        return _once(model)
    trial = ModelProto()
    trial.CopyFrom(model)
    for function in trial.functions:
        # Nobody tells here what comes of it: that depends on the call.
        for node in _nested(function.node):
            node.domain = _UNKNOWN if _is_doubtful(node, opset_of(function.opset_import)) else node.domain
    names = {scope: defined(graph) for scope, graph in graphs(model.graph, Scope())}
    opset = opset_of(model.opset_import)
    doubts = [
        _Doubt(scope, index, node, tuple(node.output), tuple(declaration(graph, o) for o in node.output))
        for scope, graph in graphs(trial.graph, Scope())
        for index, node in enumerate(graph.node)
        if _is_doubtful(node, opset)
    ]
    for doubt in doubts:
        doubt.node.output[:] = [f"{name}{_HIDDEN}" if name else "" for name in doubt.outputs]
    types, before = _once(trial), None
    for _ in range(_MOST_PASSES):
        found = [_type(doubt, position, types, names) for doubt, position in _outputs(doubts)]
        if found == before:
            break
        for (doubt, position), (elem_type, shape) in zip(_outputs(doubts), found, strict=True):
            declare(doubt.infos[position], elem_type, shape)
        types, before = _once(trial), found
    return types


@dataclass(frozen=True)
class _Doubt:
    """A node of which inference would tell something wrong; it hides what it computes.

    Attributes:
        scope: where it stands.
        index: its place there.
        node: itself.
        outputs: the names of what it computes.
        infos: where that is declared instead.
    """

    scope: Scope
    index: int
    node: NodeProto
    outputs: tuple[str, ...]
    infos: tuple[ValueInfoProto, ...]


def _parts(model: ModelProto) -> Iterator[tuple[Iterable[NodeProto], int]]:
    yield model.graph.node, opset_of(model.opset_import)
    for function in model.functions:
        yield function.node, opset_of(function.opset_import)


def _any_doubtful(nodes: Iterable[NodeProto], opset: int) -> bool:
    return any(_is_doubtful(node, opset) for node in _nested(nodes))


def _is_doubtful(node: NodeProto, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "If":
        return opset < _IF_UNITES_SINCE
    return node.op_type in _POOLS and any(
        a.name == "ceil_mode" and (a.i != 0 or a.ref_attr_name) for a in node.attribute
    )


def _nested(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                yield from _nested(body.node)


def _outputs(doubts: Iterable[_Doubt]) -> Iterator[tuple[_Doubt, int]]:
    return ((doubt, position) for doubt in doubts for position in range(len(doubt.outputs)))


def _type(
    doubt: _Doubt, position: int, types: Types, names: Mapping[Scope, frozenset[str]]
) -> tuple[int, Shape | None]:
    """Element type and shape of an output, as far as they are certain."""
    node = doubt.node
    if node.op_type != "If":
        elem_type, shape = types.get((home(doubt.scope, node.input[0], names), node.input[0]), (0, None))
        return TensorProto.INT64 if position else elem_type, None if shape is None else _pooled(node, shape)
    kinds = []
    for attribute in node.attribute:
        inner = doubt.scope.body(doubt.index, attribute.name, 0)
        if position >= len(attribute.g.output):
            return 0, None
        name = attribute.g.output[position].name
        kinds.append(types.get((home(inner, name, names), name), (0, None)))
    elem_type, shape = kinds[0]
    for _, other in kinds[1:]:
        if shape is None or other is None or len(shape) != len(other):
            shape = None
        else:
            shape = tuple(dim if dim == same else None for dim, same in zip(shape, other, strict=True))
    return elem_type, shape


def _pooled(node: NodeProto, shape: Shape) -> Shape | None:
    """The sizes behind a pool that rounds up, where both readings of its last window agree."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    kernel = given.get("kernel_shape")
    if kernel is None or len(shape) != len(kernel) + 2:
        return None
    rank = len(kernel)
    free = (*shape[:2], *(None,) * rank)
    if len(given) < len(node.attribute) or given.get("auto_pad", b"NOTSET") not in {b"NOTSET", b""}:
        return free
    strides, dilations = (given.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = given.get("pads", [0] * (2 * rank))
    sizes: list[Dim] = []
    for size, k, stride, dilation, begin, end in zip(
        shape[2:], kernel, strides, dilations, pads, pads[rank:], strict=False
    ):
        rest = None if not isinstance(size, int) else size + begin + end - (k - 1) * dilation - 1
        if not isinstance(size, int) or rest is None or rest < 0:
            sizes.append(None)
            continue
        windows = -(-rest // stride) + 1
        sizes.append(windows if (windows - 1) * stride < size + begin else None)
    return (*shape[:2], *sizes) if len(sizes) == rank else free
