"""What an operator can offer to a fold, as plain values.

An operator is an entry of the table in `bnfold.fold.ops` and a file of pure functions. It looks at one
node and answers; it never walks the graph, never changes it and never chooses a name. That is the
engine's part (`bnfold.fold.plan`, `bnfold.fold.draft`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnfold.fold.affine import Affine
    from bnfold.fold.draft import Draft
    from bnfold.fold.reasons import Reason
    from bnfold.fold.weight import Weight
    from bnfold.model.view import Node


@dataclass(frozen=True)
class SetWeight:
    """Give input `position` of `node` this constant."""

    node: Node
    position: int
    weight: Weight


@dataclass(frozen=True)
class SetOperator:
    """Turn `node` into `op` with these attributes; its name and edges stay."""

    node: Node
    op: str
    attributes: Mapping[str, int | float]


@dataclass(frozen=True)
class Dissolve:
    """Take `node` out: what feeds its input `position` now produces its output."""

    node: Node
    position: int


@dataclass(frozen=True)
class AppendNode:
    """Put a binary operator with one constant behind the only output of `node`."""

    node: Node
    op: str
    weight: Weight
    attributes: Mapping[str, int | float]


Change = SetWeight | SetOperator | Dissolve | AppendNode


@dataclass(frozen=True)
class Absorbed:
    """The affine ends here: these changes make the node compute `affine(output)` itself."""

    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Carried:
    """The affine passes through: input `position` must become `affine(input)`, and these changes hold too."""

    position: int
    affine: Affine
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Refused:
    """It cannot be done exactly: every reason, the gravest first."""

    reasons: tuple[Reason, ...]


Outcome = Absorbed | Carried | Refused


@dataclass(frozen=True)
class Operator:
    """One row of the operator table.

    Attributes:
        backward: given that output 0 must become `affine(output)`: swallow it, pass it on, or say why not.
        linear: whether it has weights of its own, so that a BatchNormalization behind it is expected to fold.
        ignores_attributes: whether its rule holds whatever its attributes say, so that in a local function
            they may be left to the caller.
    """

    backward: Callable[[Node, Affine, Draft], Outcome]
    linear: bool = False
    ignores_attributes: bool = False
