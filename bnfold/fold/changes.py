"""What can happen to a graph, step by step: the only words in which a fold says what it wants.

`bnfold.fold.draft` carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.fold.weight import Stored, Weight
    from bnfold.model.view import Node

Attributes = Mapping[str, int | float | tuple[int, ...]]


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
    attributes: Attributes


@dataclass(frozen=True)
class Dissolve:
    """Take `node` out: what feeds its input `position` now produces its output."""

    node: Node
    position: int


@dataclass(frozen=True)
class Bypass:
    """Take `node` out: whoever reads its output now reads its input `position`."""

    node: Node
    position: int


@dataclass(frozen=True)
class AppendNode:
    """Put a binary operator with one constant behind the only output of `node`."""

    node: Node
    op: str
    weight: Stored
    attributes: Attributes


@dataclass(frozen=True)
class Drop:
    """Take `node` out for good: nobody reads what it computes any more."""

    node: Node


Change = SetWeight | SetOperator | Dissolve | Bypass | Drop | AppendNode
