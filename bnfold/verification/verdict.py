"""What verification says, and the evidence behind it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bnfold.verification.measures import Closeness

SCHEMA = "bnfold.verdict/1"

Status = Literal["equivalent", "different", "inconclusive", "not verified"]
Outcome = Literal["pass", "fail", "near-tie", "ill-conditioned"]


@dataclass(frozen=True, slots=True)
class OutputEvidence:
    """One output, under one feed, at one level.

    Errors are absolute, in the unit of the output; None where a number is not defined.

    Attributes:
        output: name of the output.
        feed: name of the feed.
        level: "float64" (both models evaluated in float64), "disable_all" or "enable_all" (onnxruntime).
        against: what the errors are measured against.
        signal_rms: root mean square of the reference.
        original_rms: root mean square error that the original model has by rounding alone.
        original_max: its largest error.
        folded_rms: root mean square error of the folded model.
        folded_max: its largest error.
        ratio: folded_rms / original_rms.
        limit_rms: what folded_rms may be at most.
        limit_max: what folded_max may be at most.
        rule: the bound in words.
        outcome: "ill-conditioned" where the original's own error is too large to say anything.
        note: what else was seen; empty for nothing.
        original: how close the original is to the reference; None where it is the reference, or exact.
        folded: how close the folded model is.
    """

    output: str
    feed: str
    level: str
    against: str
    signal_rms: float | None
    original_rms: float | None
    original_max: float | None
    folded_rms: float | None
    folded_max: float | None
    ratio: float | None
    limit_rms: float | None
    limit_max: float | None
    rule: str
    outcome: Outcome
    note: str = ""
    original: Closeness | None = None
    folded: Closeness | None = None


@dataclass(frozen=True, slots=True)
class FoldEvidence:
    """One fold by itself: what the folded layer computes, beside what the normalization makes of its input.

    Attributes:
        node: the normalization.
        scope: the graph it stood in.
        into: what took it in.
        tensor: what was compared; empty where nothing could be.
        against: what it was compared with.
        signal_rms: root mean square of the reference.
        error_rms: root mean square of the difference.
        error_max: the largest difference.
        relative_l2: Euclidean norm of the difference by that of the reference; the absolute RMS where the
            reference is zero.
        sqnr_db: signal to noise ratio in dB; None without a difference.
        ulp_p99: what 99 % of the differences do not exceed, in units in the last place.
        note: why nothing could be compared, or what else was seen.
        original_rms: the original's own error there, against its evaluation in float64: what rounding has
            made of the tensor so far. None where that could not be evaluated.
    """

    node: str
    scope: str
    into: tuple[str, ...]
    tensor: str
    against: str
    signal_rms: float | None
    error_rms: float | None
    error_max: float | None
    relative_l2: float | None
    sqnr_db: float | None
    ulp_p99: float | None
    note: str = ""
    original_rms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two models compute the same function.

    Attributes:
        status: the verdict.
        summary: one line that a person can believe.
        outputs: the evidence, one entry per output, feed and level.
        findings: what else is worth knowing, one line each.
        feeds: names of the feeds.
        provider: the provider that really ran; empty where none did.
        seed: seed of the feeds.
        seconds: wall-clock time of the verification.
        per_fold: evidence for each fold, the worst first; empty where nobody asked for it.
        guilty: the first fold that makes the results differ, by the name of its normalization, and those that
            were dropped for it.
        original_sha256: of the file that was judged by, external data not included; empty where a report
            around the verdict says it.
        folded_sha256: of the file that was judged.
    """

    status: Status
    summary: str
    outputs: tuple[OutputEvidence, ...]
    findings: tuple[str, ...]
    feeds: tuple[str, ...]
    provider: str
    seed: int
    seconds: float
    per_fold: tuple[FoldEvidence, ...] = ()
    guilty: tuple[str, ...] = ()
    original_sha256: str = ""
    folded_sha256: str = ""

    @property
    def exit_code(self) -> int:
        """What the command line returns: 0 equivalent, 1 different, 5 nothing can be said."""
        return {"equivalent": 0, "different": 1}.get(self.status, 5)

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain data; every number is finite, so that it is strict JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        """Strict JSON, indented, keys in the order of the schema."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
