"""The report as data: the one schema that every rendering is made from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.benchmarking.result import Benchmark
    from bnfold.fold.folded import Fold
    from bnfold.fold.obstructions import Obstruction
    from bnfold.fold.patterns import Pattern
    from bnfold.fold.reasons import Reason, Refusal
    from bnfold.verification.verdict import Verdict

SCHEMA = "bnfold.report/1"


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        nodes: operator calls, those of nested graphs and local functions included.
        nbytes: the model file and its external data.
    """

    nodes: int
    nbytes: int


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time of each stage."""

    read: float = 0.0
    plan: float = 0.0
    write: float = 0.0
    verify: float = 0.0
    bench: float = 0.0


@dataclass(frozen=True)
class Report:
    """What was found, done and proved.

    Attributes:
        version: the bnfold that made it.
        source: the model, as the caller named it; None for a model that came from memory.
        output: where the result was written; None when nothing was.
        source_sha256: of the model file, external data not included.
        opset: version of the default operator set.
        ir_version: of the file.
        producer: what wrote the model, by its own account.
        folds: the normalizations that went.
        kept: those that stay.
        merged: sums of parallel branches that went, by name.
        frozen: overridable initializers that became constants.
        before: size of the source.
        after: size of the result; None when there is none (`inspect`).
        verdict: whether both compute the same; None when there is nothing to compare.
        notes: what else the user should know, one line each.
        seconds: time spent.
        benchmark: how fast the source and the result run; None where that was not measured.
        result_sha256: of the resulting model file, external data not included; None when it was not verified.
        options: what was asked for, by the names of `bnfold.optimize`, as plain values.
        environment: versions of Python, of the platform and of the packages that bnfold uses.
        patterns: how the graph looks around the folds.
        obstructions: how it looks around what stays.
    """

    version: str
    source: str | None
    output: str | None
    source_sha256: str
    opset: int
    ir_version: int
    producer: str
    folds: tuple[Fold, ...]
    kept: tuple[Refusal, ...]
    merged: tuple[str, ...]
    frozen: tuple[str, ...]
    before: Size
    after: Size | None
    verdict: Verdict | None
    notes: tuple[str, ...]
    seconds: Seconds
    benchmark: Benchmark | None = None
    result_sha256: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    patterns: tuple[Pattern, ...] = ()
    obstructions: tuple[Obstruction, ...] = ()

    @property
    def found(self) -> int:
        """How many normalizations the model has."""
        return len(self.folds) + len(self.kept)

    @property
    def kept_by_code(self) -> dict[str, int]:
        """How many stay for each reason code, in the order of the codes."""
        return dict(sorted(Counter(r.code.value for r in self.kept).items()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data; keys are only ever added within one version of the schema."""
        return {
            "schema": SCHEMA,
            "bnfold": self.version,
            "model": {
                "source": self.source,
                "output": self.output,
                "sha256": self.source_sha256,
                "opset": self.opset,
                "ir_version": self.ir_version,
                "producer": self.producer,
            },
            "summary": {
                "found": self.found,
                "folded": len(self.folds),
                "kept": len(self.kept),
                "kept_by_code": self.kept_by_code,
                "status": None if self.verdict is None else self.verdict.status,
            },
            "size": {
                "before": _size(self.before),
                "after": None if self.after is None else _size(self.after),
            },
            "folds": [fold_data(f) for f in self.folds],
            "kept": [refusal_data(r) for r in self.kept],
            "merged": list(self.merged),
            "frozen": list(self.frozen),
            "verdict": None if self.verdict is None else self.verdict.to_dict(),
            "notes": list(self.notes),
            "seconds": {
                "read": self.seconds.read,
                "plan": self.seconds.plan,
                "write": self.seconds.write,
                "verify": self.seconds.verify,
                "bench": self.seconds.bench,
            },
            "benchmark": None if self.benchmark is None else self.benchmark.to_dict(),
            "result_sha256": self.result_sha256,
            "options": dict(self.options),
            "environment": dict(self.environment),
            "patterns": [pattern.to_dict() for pattern in self.patterns],
            "obstructions": [each.to_dict() for each in self.obstructions],
        }

    def to_json(self) -> str:
        """Strict JSON (no NaN, no infinities), indented, keys in the order of the schema."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)


def _size(size: Size) -> dict[str, int]:
    return {"nodes": size.nodes, "bytes": size.nbytes}


def fold_data(fold: Fold) -> dict[str, Any]:
    """A fold as plain data."""
    return {
        "node": fold.node,
        "op": fold.op,
        "scope": fold.scope,
        "into": list(fold.into),
        "into_op": list(fold.into_op),
        "through": list(fold.through),
        "direction": fold.direction,
    }


def refusal_data(refusal: Refusal) -> dict[str, Any]:
    """A refusal as plain data."""
    return {
        "node": refusal.node,
        "op": refusal.op,
        "scope": refusal.scope,
        "code": refusal.code.value,
        "reasons": [reason_data(r) for r in refusal.reasons],
    }


def reason_data(reason: Reason) -> dict[str, str]:
    """A reason as plain data."""
    return {
        "code": reason.code.value,
        "blocking": reason.blocking,
        "evidence": reason.evidence,
        "hint": reason.hint,
    }
