"""What an operator of the float64 evaluator is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class TruthUnavailableError(Exception):
    """The float64 evaluation cannot be done; the message says which operator stands in the way."""


class BudgetSpentError(Exception):
    """Time is up in the middle of an evaluation."""


@dataclass(frozen=True, slots=True)
class Call:
    """One application of an operator.

    Attributes:
        inputs: the operands, floating-point ones in float64; None where the node leaves one out.
        attributes: the node's attributes as Python values (tensors as arrays), without defaults.
        opset: version of the node's domain.
        outputs: how many outputs the node names.
    """

    inputs: Sequence[Any]
    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1

    def tensor(self, index: int) -> Array:
        """The operand at `index`.

        Raises:
            TruthUnavailableError: the node leaves out an operand it needs.
        """
        value = self.optional(index)
        if value is None:
            raise TruthUnavailableError(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Array | None:
        """The operand at `index`, or None when the node leaves it out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """An INT attribute."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """An INTS attribute."""
        return tuple(int(value) for value in self.attributes.get(name, default))

    def number(self, name: str, default: float) -> float:
        """A FLOAT attribute: ONNX stores these in float32, and so does the default count."""
        return float(np.float32(self.attributes.get(name, default)))

    def string(self, name: str, default: str) -> str:
        """A STRING attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


Operator = Callable[[Call], tuple[Any, ...]]
