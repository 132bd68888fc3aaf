"""What the user, or a verification that failed, may ask of a plan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rejected:
    """A normalization that must stay because verification found that its fold changes results.

    Attributes:
        node: its name, as `Fold.node`.
        scope: the graph it stands in, as `Fold.scope`.
        evidence: what was found.
    """

    node: str
    scope: str
    evidence: str


@dataclass(frozen=True)
class Options:
    """What the user, or a verification that failed, may ask of the plan.

    Attributes:
        freeze: take initializers that the caller could override for constants.
        include: name patterns; when there are any, only normalizations matching one are folded.
        exclude: name patterns; normalizations matching one stay.
        merge: join parallel linear branches that are summed.
        rejected: normalizations whose folds were found to be wrong.
    """

    freeze: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    merge: bool = True
    rejected: tuple[Rejected, ...] = ()
