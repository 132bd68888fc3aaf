"""What can be said of a model at the gate, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """Sorts of findings, the gravest first; the names are those of `--fail-on`."""

    INVALID = "invalid"
    MISMATCH = "mismatch"
    NONFINITE = "nonfinite"
    FOLDABLE = "foldable"
    SLOWER = "slower"
    INCONCLUSIVE = "inconclusive"
    KEPT = "kept"


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a model.

    Attributes:
        rule: its stable code, a row of `bnfold.report.rules.RULES`.
        kind: its sort.
        node: the normalization; empty where the finding is about the whole model.
        op: operator of the normalization, or the chain that spells one out; empty like `node`.
        scope: the graph it stands in (`""` for the main graph).
        message: the fact, in one line without a full stop.
        hint: what can be done about it; empty when nothing helps.
    """

    rule: str
    kind: Kind
    node: str
    op: str
    scope: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Examined:
    """One model that was looked at.

    Attributes:
        name: its path, as reports give it.
        found: how many normalizations it has.
        findings: in the order of the model.
        fault: why it could not be looked at, through no fault of its own; empty where it was.
    """

    name: str
    found: int = 0
    findings: tuple[Finding, ...] = ()
    fault: str = ""


# Whether a finding lets the gate fail, is tolerated by the baseline, or is only worth knowing.
Standing = Literal["fails", "known", "noted"]


@dataclass(frozen=True)
class Judged:
    """A finding, and what follows from it."""

    finding: Finding
    standing: Standing


@dataclass(frozen=True)
class ModelJudgement:
    """A model with its findings judged.

    Attributes:
        name: its path, as reports give it.
        found: how many normalizations it has.
        findings: the gravest first: those that fail, then the known, then the noted.
        fault: why it could not be looked at; empty where it was.
    """

    name: str
    found: int
    findings: tuple[Judged, ...]
    fault: str

    def having(self, standing: Standing) -> tuple[Finding, ...]:
        """Its findings of one standing."""
        return tuple(each.finding for each in self.findings if each.standing == standing)

    @property
    def passes(self) -> bool:
        """Whether nothing about it lets the gate fail."""
        return not self.fault and not self.having("fails")


@dataclass(frozen=True)
class Gone:
    """An entry of the baseline that has nothing to tolerate any more."""

    model: str
    rule: str
    node: str
    scope: str


@dataclass(frozen=True)
class Survey:
    """What the gate says about all models: the one value that every rendering is made from.

    Attributes:
        version: the bnfold that made it.
        fail_on: the kinds that let the gate fail.
        models: in the order of their names.
        gone: entries of the baseline that are out of date.
        excluded: how many models were left out by pattern.
    """

    version: str
    fail_on: tuple[Kind, ...]
    models: tuple[ModelJudgement, ...]
    gone: tuple[Gone, ...] = ()
    excluded: int = 0

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Every finding that lets the gate fail."""
        return tuple(finding for model in self.models for finding in model.having("fails"))

    @property
    def exit_code(self) -> int:
        """4: a model could not be looked at; 1: a finding; 5: no verdict where one was asked for; or 0."""
        if any(model.fault for model in self.models):
            return 4
        if self.failing:
            return 1
        noted = (finding for model in self.models for finding in model.having("noted"))
        return 5 if any(finding.kind is Kind.INCONCLUSIVE for finding in noted) else 0

    @property
    def worst_first(self) -> tuple[ModelJudgement, ...]:
        """The models in the order in which somebody must look at them."""
        return tuple(sorted(self.models, key=_gravity))


def _gravity(model: ModelJudgement) -> tuple[bool, bool, int, int, str]:
    order = list(Kind)
    failing = model.having("fails")
    gravest = min((order.index(finding.kind) for finding in failing), default=len(order))
    return not model.fault, not failing, gravest, -len(failing), model.name
