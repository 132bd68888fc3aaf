"""Where onnx (1.23) infers what a model does not compute: something else takes the place of its answer.

A pool that rounds up has the sizes that hold whether or not windows that start in the padding count, on which
runtimes differ. An If of before opset 11 has no shape that only one of its branches has. A size times a
factor is known where it does not depend on the precision that a runtime computes it in. Padding of automatic
size beside dilations or output padding is left open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold.model.census import within
from bnfold.model.edits import Scope
from bnfold.model.inference import Types, declaration, declare, defined, graphs, home, opset_of
from bnfold.model.inference import run as _once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from bnfold.model.integers import Dim, Shape

_RESIZES = frozenset({"Resize", "Upsample"})
_SIZES = 3  # the input of a Resize that holds sizes
_MOST_AXES = 16  # of a tensor that is resized
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
        for node in within(function.node):
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
    factors = dict(_factors(trial))
    types, before = _once(trial), None
    for _ in range(_MOST_PASSES):
        found = [_type(doubt, position, types, names, factors) for doubt, position in _outputs(doubts)]
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
    return any(_is_doubtful(node, opset) for node in within(nodes))


def _is_doubtful(node: NodeProto, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "If":
        return opset < _IF_UNITES_SINCE
    if node.op_type in _RESIZES:
        by_sizes = len(node.input) > _SIZES and node.input[_SIZES] != ""
        return not by_sizes or any(a.name == "keep_aspect_ratio_policy" for a in node.attribute)
    given = {a.name: a for a in node.attribute}
    automatic = "auto_pad" in given and given["auto_pad"].s not in {b"NOTSET", b"", b"VALID"}
    if node.op_type == "ConvTranspose":
        return automatic and "output_padding" in given
    if node.op_type not in _POOLS:
        return False
    rounded = "ceil_mode" in given and (given["ceil_mode"].i != 0 or given["ceil_mode"].ref_attr_name != "")
    return rounded or (automatic and any(d != 1 for d in given.get("dilations", AttributeProto()).ints))


def _outputs(doubts: Iterable[_Doubt]) -> Iterator[tuple[_Doubt, int]]:
    return ((doubt, position) for doubt in doubts for position in range(len(doubt.outputs)))


def _type(
    doubt: _Doubt,
    position: int,
    types: Types,
    names: Mapping[Scope, frozenset[str]],
    factors: Mapping[tuple[Scope, str], TensorProto],
) -> tuple[int, Shape | None]:
    """Element type and shape of an output, as far as they are certain."""
    node = doubt.node
    if node.op_type == "ConvTranspose":
        return types.get((home(doubt.scope, node.input[0], names), node.input[0]), (0, None))[0], None
    if node.op_type in _RESIZES:
        elem_type, shape = types.get((home(doubt.scope, node.input[0], names), node.input[0]), (0, None))
        return elem_type, None if shape is None else _resized(doubt, shape, factors, names)
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


def _factors(model: ModelProto) -> Iterator[tuple[tuple[Scope, str], TensorProto]]:
    """The small float tensors that are stored in the model."""
    for scope, graph in graphs(model.graph, Scope()):
        tensors = [(tensor.name, tensor) for tensor in graph.initializer]
        for node in graph.node:
            if node.op_type == "Constant":
                tensors += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
        for name, tensor in tensors:
            stored = tensor.data_location != TensorProto.EXTERNAL
            if stored and tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) <= _MOST_AXES:
                yield (scope, name), tensor


def _resized(
    doubt: _Doubt,
    shape: Shape,
    factors: Mapping[tuple[Scope, str], TensorProto],
    names: Mapping[Scope, frozenset[str]],
) -> Shape:
    """The sizes times their factors, where single and double precision round alike."""
    node, unknown = doubt.node, (None,) * len(shape)
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    if "keep_aspect_ratio_policy" in given or len(given) < len(node.attribute):
        return unknown
    scales: NDArray[np.float32] | None = None
    if "scales" in given:
        scales = np.asarray(given["scales"], np.float32)
    else:
        name = next((n for n in reversed(node.input[1:3]) if n), "")
        tensor = factors.get((home(doubt.scope, name, names), name)) if name else None
        scales = None if tensor is None else numpy_helper.to_array(tensor).astype(np.float32).reshape(-1)
    axes = [axis % len(shape) for axis in given.get("axes", range(len(shape)))] if shape else []
    if scales is None or len(scales) != len(axes):
        return unknown
    sizes = list(shape)
    for axis, scale in zip(axes, scales, strict=True):
        size = shape[axis]
        if scale == 1:
            continue
        whole = isinstance(size, int) and np.floor(np.float32(size) * scale) == np.floor(size * float(scale))
        sizes[axis] = int(np.floor(size * float(scale))) if whole and isinstance(size, int) else None
    return tuple(sizes)


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
