"""Which of the evidence behind a verdict tells most."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.verification.verdict import OutputEvidence

_FAILURE_ROWS = 20


def telling(outputs: Sequence[OutputEvidence]) -> list[OutputEvidence]:
    """What failed; where nothing did, for each level what came nearest to its limit; the worst first."""
    failed = [each for each in outputs if each.outcome == "fail"]
    if failed:
        return sorted(failed, key=nearness, reverse=True)[:_FAILURE_ROWS]
    nearest: dict[str, OutputEvidence] = {}
    for each in outputs:
        if each.level not in nearest or nearness(each) > nearness(nearest[each.level]):
            nearest[each.level] = each
    return sorted(nearest.values(), key=nearness, reverse=True)


def nearness(row: OutputEvidence) -> tuple[bool, float]:
    """How near it comes to its limit; what says nothing comes last."""
    part = used(row)
    return row.outcome != "ill-conditioned", -1.0 if part is None else part


def used(row: OutputEvidence) -> float | None:
    """The part of what rounding allows that the folded model takes; None where there is no limit."""
    pairs = ((row.folded_rms, row.limit_rms), (row.folded_max, row.limit_max))
    return max((value / limit for value, limit in pairs if value is not None and limit), default=None)


def relative(error: float | None, signal: float | None) -> str:
    """An error by the size of the output, or as it is where that is zero."""
    if error is None:
        return "-"
    return f"{error / signal:.1e}" if signal else f"{error:.1e} absolute"
