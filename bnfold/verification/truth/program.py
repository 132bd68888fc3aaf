"""A graph made ready for float64 evaluation, and its evaluation.

onnx's ReferenceEvaluator keeps every intermediate tensor until the end, reads all weights at once, and knows
no default values of function attributes. This interpreter walks the same nodes, frees each tensor after its
last use, and reads a weight where it is first needed. What a single node computes is `nodes`' business.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import onnx

from bnfold.verification.truth.call import BudgetSpentError, TruthUnavailableError
from bnfold.verification.truth.tensors import dense, promoted, stored

if TYPE_CHECKING:
    from pathlib import Path

Scope = MutableMapping[str, Any]
Weight = onnx.TensorProto | onnx.SparseTensorProto


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes:
        label: operator and node name, for messages.
        operator: the operator's name.
        inputs: operands in order; "" where one is left out.
        outputs: results in order; "" where one is not wanted.
        captured: names that graphs nested in the node read from outside.
        dead: names nobody needs after this node.
        evaluate: `(operands, scope, hooks) -> results`.
    """

    label: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    dead: tuple[str, ...]
    evaluate: Evaluate


class Hooks(Protocol):
    """Sees every node of an evaluation, those of nested graphs and functions included."""

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
        """Choose the operands to use instead of `inputs`."""

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Choose the results to use instead of `outputs`."""


class NoHooks:
    """Changes nothing."""

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002 - the protocol's
        """Keep the operands."""
        return inputs

    def after(
        self,
        step: Step,  # noqa: ARG002 - the protocol's
        inputs: Sequence[Any],  # noqa: ARG002 - the protocol's
        outputs: Sequence[Any],
    ) -> Sequence[Any]:
        """Keep the results."""
        return outputs


Evaluate = Callable[[Sequence[Any], Scope, Hooks], Sequence[Any]]


@dataclass(frozen=True)
class Program:
    """A compiled graph or function body.

    Attributes:
        inputs: names of the inputs.
        outputs: names of the outputs.
        weights: initializers, read when a node first needs them.
        steps: the nodes in order.
        folder: where external data lies.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, Weight]
    steps: tuple[Step, ...]
    folder: Path | None

    def run(self, feeds: Mapping[str, Any], outer: Scope | None, hooks: Hooks) -> list[Any]:
        """Evaluate, and return the outputs in order.

        Args:
            feeds: values of the inputs; one that is an initializer too may be left out.
            outer: values of the enclosing graphs, which nested graphs may read; not changed.
            hooks: sees and may replace operands and results.

        Raises:
            TruthUnavailableError: an operator cannot be evaluated; the message names it.
        """
        local: dict[str, Any] = {name: promoted(value) for name, value in feeds.items()}
        scope: ChainMap[str, Any] = ChainMap(local, *([] if outer is None else [outer]))
        for step in self.steps:
            for name in (*step.inputs, *step.captured):
                self._read(name, local)
            results = self._results(step, scope, hooks)
            local.update(zip(step.outputs, results, strict=False))
            for name in step.dead:
                local.pop(name, None)
        for name in self.outputs:
            self._read(name, local)
        return [scope[name] for name in self.outputs]

    def _read(self, name: str, local: dict[str, Any]) -> None:
        if name in self.weights and name not in local:
            weight = self.weights[name]
            sparse = isinstance(weight, onnx.SparseTensorProto)
            local[name] = promoted(dense(weight) if sparse else stored(weight, self.folder))

    @staticmethod
    def _results(step: Step, scope: Scope, hooks: Hooks) -> Sequence[Any]:
        try:
            operands = [scope[name] if name else None for name in step.inputs]
            operands = list(hooks.before(step, operands))
            results = [promoted(value) for value in step.evaluate(operands, scope, hooks)]
        except BudgetSpentError:
            raise
        except TruthUnavailableError as error:
            # A message from inside a nested graph names its own operator already.
            named = str(error) if " cannot be evaluated: " in str(error) else None
            raise TruthUnavailableError(named or f"{step.label} cannot be evaluated: {error}") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TruthUnavailableError(f"{step.label} cannot be evaluated: {reason}") from error
        return hooks.after(step, operands, results)
