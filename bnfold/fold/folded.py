"""A normalization that goes, as data; one that stays is a `bnfold.fold.reasons.Refusal`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fold:
    """A normalization that goes.

    Attributes:
        node: its name, or that of its output when it has none.
        op: its operator, or the chain that spells one out (`Sub+Mul+Add`).
        scope: the graph it stands in (`""` for the main graph).
        into: the nodes that take it in.
        into_op: their operators.
        through: the nodes its map passes on the way.
        direction: against the data flow (`backward`), along it (`forward`), or into a parallel branch
            (`sideways`).
    """

    node: str
    op: str
    scope: str
    into: tuple[str, ...]
    into_op: tuple[str, ...]
    through: tuple[str, ...]
    direction: str = "backward"
