"""What a fold costs when the model runs, and what it saves: nodes, and element operations.

A fold may leave more of neither. They are not weighed against each other: what a node costs by itself
depends on the runtime, what an operation costs on the machine.

- A normalization takes two operations for each element, a multiplication and an addition; an Add, Sub, Mul
  or Div that goes with it takes one.
- An Add that a layer without a bias gains takes one for each element of its output. These may be more than
  the normalization has: where a mean or a slice stands between, or where a MatMul makes more features of few.
- A bias of a layer's own takes none: its sums start there.
- A DequantizeLinear of a weight's own is a node, but takes no operations: runtimes compute a layer and its
  weight's DequantizeLinear in one (onnxruntime gives every layer one of its own before it does).

A dimension that the model leaves open counts as larger than any number: a sum that grows with one more of
them is the larger one. Where not even the number of dimensions is known, nodes alone decide.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from bnfold.fold.changes import AppendNode, Bypass, Dissolve
from bnfold.fold.reasons import Code, Reason
from bnfold.fold.weight import Weight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.model.view import Node, Value

_MATRIX = 2
_SAME_SIZE = frozenset({
    "BatchNormalization", "Cast", "Clip", "DepthToSpace", "Dropout", "Flatten", "Identity", "LeakyRelu",
    "PRelu", "Relu", "Reshape", "SpaceToDepth", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
_FAR = 100  # nodes between a normalization and its layer; beyond, shapes have to do


def gained_nodes(changes: Sequence[Change], draft: Draft) -> int:
    """How many nodes the changes add."""
    return sum(draft.adds_node(change) for change in changes)


def more_work(changes: Sequence[Change], draft: Draft) -> Reason | None:
    """Why the model would do more work after these changes than before; None when it would not."""
    gone = {change.node: change.position for change in changes if isinstance(change, (Dissolve, Bypass))}
    gained = gained_nodes(changes, draft)
    layers = [change.node for change in changes if isinstance(change, AppendNode)]
    if gained > len(gone):
        first = next(change.node for change in changes if draft.adds_node(change))
        evidence = f"{gained} nodes would have to be added to take {len(gone)} away"
        return Reason(Code.MORE_WORK, first.label, evidence)
    return _more_operations(gone, layers, draft) if layers else None


def _more_operations(gone: Mapping[Node, int], layers: Sequence[Node], draft: Draft) -> Reason | None:
    """The same for element operations alone: one for each element behind each layer, against those saved."""
    saved = [2 if node.op == "BatchNormalization" else 1 for node in gone]
    anchors = {_anchor(node.outputs[0], gone) for node in gone}
    shares = [_share(node, anchors, gone, draft) for node in layers]
    if len(anchors) == 1 and None not in shares:
        # All of them are parts or multiples of one tensor, whatever its size.
        added, taken = sum(filter(None, shares)), Fraction(sum(saved))
        if added <= taken:
            return None
        evidence = f"{float(added / taken):.3g} times the operations of what goes"
        return _reason(layers[0], evidence)
    before = _total([_size(node.outputs[0], draft) for node in gone], saved)
    after = _total([_size(node.outputs[0], draft) for node in layers], [1] * len(layers))
    if before is None or after is None or after <= before:
        return None
    return _reason(layers[0], f"{_said(after)}, what goes {_said(before)}")


def _reason(layer: Node, evidence: str) -> Reason:
    what = f"the Add that {layer.op} {layer.label!r} would gain takes {evidence}"
    return Reason(Code.MORE_WORK, layer.label, what)


def _anchor(value: Value | None, gone: Mapping[Node, int]) -> Value | None:
    """A tensor above with as many elements, as far up as that is certain without knowing any shape."""
    for _ in range(_FAR):
        node = None if value is None else value.producer
        if node is None or (node not in gone and node.op not in _SAME_SIZE):
            break
        value = node.inputs[gone.get(node, 0)]
    return value


def _share(
    layer: Node, anchors: set[Value | None], gone: Mapping[Node, int], draft: Draft
) -> Fraction | None:
    """How many times the elements of an anchor the output of a MatMul has; None when that is not certain."""
    if layer.outputs[0] in anchors:
        return Fraction(1)
    weight = draft.weight(layer, 1)
    if layer.op != "MatMul" or not isinstance(weight, Weight) or len(weight.dims) != _MATRIX:
        return None
    if _anchor(layer.inputs[0], gone) not in anchors or not weight.dims[0]:
        return None
    return Fraction(weight.dims[1], weight.dims[0])


def _size(value: Value | None, draft: Draft) -> tuple[int, int] | None:
    """How many dimensions of a tensor are open, and the product of the others."""
    shape = None if value is None else draft.shape(value)
    if shape is None:
        return None
    return sum(not isinstance(d, int) for d in shape), math.prod(d for d in shape if isinstance(d, int))


def _total(
    sizes: Sequence[tuple[int, int] | None], times: Sequence[int]
) -> tuple[tuple[int, int], ...] | None:
    """A sum of sizes as pairs of open dimensions and a number, the largest first; compared in this order."""
    known = [(size, n) for size, n in zip(sizes, times, strict=True) if size is not None]
    if len(known) < len(sizes):
        return None
    degrees = sorted({degree for (degree, _), _ in known}, reverse=True)
    return tuple((d, sum(n * product for (degree, product), n in known if degree == d)) for d in degrees)


def _said(total: tuple[tuple[int, int], ...]) -> str:
    degree, number = total[0]
    if not degree:
        return f"{number:,} operations"
    return f"{number:,} operations for each index of {degree} open dimension{'s' * (degree > 1)}"
