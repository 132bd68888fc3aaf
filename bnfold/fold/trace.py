"""What a search tried, as data: for the reader who wants to know why a normalization stays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold.fold.folded import Fold
    from bnfold.fold.reasons import Reason, Refusal


class Answer(StrEnum):
    """What a node or tensor on the way said."""

    TAKES = "takes it in"
    PASSES = "passes it on"
    REFUSES = "refuses"


@dataclass(frozen=True)
class Step:
    """One question of a search.

    Attributes:
        depth: how many nodes lie between it and the normalization.
        node: whom: a node's name, or a tensor's where nobody computes it or too many read it.
        op: the node's operator; empty for a tensor.
        answer: what it said.
        reasons: why, if it refused.
    """

    depth: int
    node: str
    op: str
    answer: Answer
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """One search.

    Attributes:
        direction: `backward` or `forward`.
        steps: what was asked, in order.
        reasons: why it led nowhere; empty where it did not.
    """

    direction: str
    steps: tuple[Step, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Explanation:
    """All that was tried for one normalization, and what came of it.

    Attributes:
        outcome: the fold, or the refusal.
        attempts: the searches; none, where the normalization itself was reason enough or a sum took it.
    """

    outcome: Fold | Refusal
    attempts: tuple[Attempt, ...]
