"""Graphs nested in If, Loop and Scan: which of them ran, and what makes one run that no feed reaches."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bnfold.model.census import calls, within
from bnfold.verification.truth.nodes import captured
from bnfold.verification.truth.tensors import stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bnfold.verification.truth import Hooks, Step

_BODIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"If": ("else_branch", "then_branch"), "Loop": ("body",), "Scan": ("body",)}
)


@dataclass(frozen=True)
class Branch:
    """A nested graph that did not run.

    Attributes:
        node: the first result of the node that holds it.
        label: operator and name of that node.
        operator: the operator.
        body: the attribute that it is.
    """

    node: str
    label: str
    operator: str
    body: str

    def __str__(self) -> str:
        """The branch as messages name it."""
        return f"{self.body} of {self.label}"


class Seen:
    """Remembers, over several evaluations of one model, which nested graphs ran."""

    def __init__(self) -> None:
        self._steps: dict[int, Step] = {}
        self._ran: dict[int, set[str]] = {}

    def watching(self, hooks: Hooks) -> Hooks:
        """The hooks of one more evaluation, watched."""
        return _Seeing(hooks, self)

    def note(self, step: Step, *bodies: str) -> None:
        """A node was reached, and ran these of its graphs."""
        self._steps[id(step)] = step
        self._ran.setdefault(id(step), set()).update(bodies)

    def unrun(self) -> tuple[Branch, ...]:
        """Graphs that did not run although their node was reached."""
        return tuple(
            Branch(step.outputs[0], step.label, step.operator, body)
            for key, step in self._steps.items()
            for body in _BODIES[step.operator]
            if body not in self._ran[key]
        )


class _Seeing:
    """Hooks of an evaluation whose nested graphs are noted."""

    def __init__(self, hooks: Hooks, seen: Seen) -> None:
        self._hooks, self._seen = hooks, seen
        # For each Loop and Scan that is being evaluated, whether a node of it was.
        self._entered: list[bool] = []

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
        """Note the branch that an If takes; keep what the hooks choose."""
        if self._entered:
            self._entered[-1] = True
        chosen = self._hooks.before(step, inputs)
        if step.operator == "If":
            self._seen.note(step, _BODIES["If"][bool(chosen[0].reshape(-1)[0])])
        elif step.operator in _BODIES:
            self._entered.append(False)
        return chosen

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Note whether a Loop or Scan ran; keep what the hooks choose."""
        if step.operator in _BODIES and step.operator != "If":
            self._seen.note(step, *_BODIES[step.operator][: self._entered.pop()])
        return self._hooks.after(step, inputs, outputs)


class Forced:
    """Hooks of an evaluation in which nodes run the graphs that they are told to.

    Args:
        hooks: see and replace what they like besides.
        branches: what is to run: that branch of an If, one iteration of a Loop.
    """

    def __init__(self, hooks: Hooks, branches: Sequence[Branch]) -> None:
        self._hooks = hooks
        self._branches = {branch.node: branch for branch in branches}

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
        """Replace the condition of a node that is told what to run."""
        chosen = self._hooks.before(step, inputs)
        branch = self._branches.get(step.outputs[0])
        if branch is None or branch.operator != step.operator:
            return chosen
        if branch.operator == "If":
            return [np.array(branch.body == "then_branch")]
        return [np.array(1), np.array(1, np.bool_), *chosen[2:]] if branch.operator == "Loop" else chosen

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Keep what the hooks choose."""
        return self._hooks.after(step, inputs, outputs)


def branches(model: onnx.ModelProto) -> Iterator[Branch]:
    """Every nested graph of a model, whether it runs or not."""
    for node in calls(model):
        for body in _BODIES.get(node.op_type, ()):
            yield Branch(
                node.output[0], f"{node.op_type} {node.name or node.output[0]!r}", node.op_type, body
            )


def is_missing(branch: Branch, model: onnx.ModelProto) -> bool:
    """Whether a model has no such graph: who made it may have known what a condition always is."""
    return _body(branch, model) is None


def is_same(
    branch: Branch, first: onnx.ModelProto, second: onnx.ModelProto, folders: tuple[Path, Path]
) -> bool:
    """Whether two models have the same there, with the same weights from around it."""
    nodes = [_body(branch, model) for model in (first, second)]
    if nodes[0] is None or nodes[1] is None:
        return False
    if _calls(nodes[0], first) and _functions(first) != _functions(second):
        return False
    if nodes[0].SerializeToString(deterministic=True) != nodes[1].SerializeToString(deterministic=True):
        return False
    names = set(captured(nodes[0]))
    weights = [dict(_weights(model, names)) for model in (first, second)]
    return weights[0].keys() == weights[1].keys() and all(
        _are_equal(stored(tensor, folders[0]), stored(weights[1][name], folders[1]))
        for name, tensor in weights[0].items()
    )


def _body(branch: Branch, model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The node that holds the graph, without anything else that it holds."""
    for node in calls(model):
        if node.op_type == branch.operator and node.output[0] == branch.node:
            own = [attribute for attribute in node.attribute if attribute.name == branch.body]
            return onnx.NodeProto(op_type=node.op_type, attribute=own)
    return None


def _calls(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    names = {(function.domain, function.name) for function in model.functions}
    return any((inner.domain, inner.op_type) in names for inner in within([node]))


def _functions(model: onnx.ModelProto) -> set[bytes]:
    return {function.SerializeToString(deterministic=True) for function in model.functions}


def _weights(model: onnx.ModelProto, names: set[str]) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in model.graph.initializer if tensor.name in names)
    for node in calls(model):
        if node.op_type == "Constant" and node.output[0] in names:
            yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from ((tensor.name, tensor) for tensor in graph.initializer if tensor.name in names)


def _are_equal(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
