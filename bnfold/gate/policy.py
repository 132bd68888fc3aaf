"""What follows from the findings: which let the gate fail, which are known, which are only worth knowing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.errors import UsageError
from bnfold.gate.finding import Judged, Kind, ModelJudgement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bnfold.gate.finding import Examined, Finding, Standing

# What `--fail-on` takes.
CHOICES = (Kind.FOLDABLE, Kind.MISMATCH, Kind.SLOWER, Kind.NONFINITE, Kind.INVALID)
DEFAULT = (Kind.FOLDABLE, Kind.INVALID)
NOTHING = "none"
_STANDINGS: tuple[Standing, ...] = ("fails", "known", "noted")


def parse(names: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of `--fail-on`, in the order of their gravity.

    Args:
        names: kinds, or several with commas between; `none` alone, or no name, stands for no kind.

    Raises:
        UsageError: there is no such kind.
    """
    asked = [name.strip() for each in names for name in each.split(",")]
    if asked in ([], [NOTHING]):
        return ()
    for name in asked:
        if name not in {kind.value for kind in CHOICES}:
            choices = ", ".join(kind.value for kind in CHOICES)
            raise UsageError(
                f"--fail-on {name or repr(name)}: no such finding; choose of {choices}, or {NOTHING}"
            )
    return tuple(kind for kind in Kind if kind.value in asked)


def stricter(fail_on: Sequence[Kind]) -> tuple[Kind, ...]:
    """`--require-all`: every normalization must be gone, whatever keeps it."""
    return tuple(
        kind for kind in Kind if kind in fail_on or kind in {Kind.FOLDABLE, Kind.NONFINITE, Kind.KEPT}
    )


def counts(finding: Finding, fail_on: Sequence[Kind]) -> bool:
    """Whether a baseline has to know the finding for the gate to pass."""
    return finding.kind in fail_on or finding.kind is Kind.INCONCLUSIVE


def judge(examined: Examined, fail_on: Sequence[Kind], known: Callable[[Finding], bool]) -> ModelJudgement:
    """Weigh the findings of a model.

    Args:
        examined: the model.
        fail_on: the kinds that let the gate fail.
        known: whether the baseline tolerates this finding; asked once for each, in order.
    """
    judged = [Judged(finding, _standing(finding, fail_on, known)) for finding in examined.findings]
    kinds = list(Kind)
    # Stable: within one kind the order is that of the model.
    judged.sort(key=lambda each: (_STANDINGS.index(each.standing), kinds.index(each.finding.kind)))
    return ModelJudgement(examined.name, examined.found, tuple(judged), examined.fault)


def _standing(finding: Finding, fail_on: Sequence[Kind], known: Callable[[Finding], bool]) -> Standing:
    if not counts(finding, fail_on):
        return "noted"
    if known(finding):
        return "known"
    return "fails" if finding.kind in fail_on else "noted"
