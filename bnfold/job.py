"""One call of `optimize`: decide, write, check, and where results differ find out by whose fault."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.checking import Check
from bnfold.collector import paused
from bnfold.environment import environment
from bnfold.fold.calls import plan_through_calls
from bnfold.fold.emit import emit
from bnfold.fold.obstructions import obstructions
from bnfold.fold.options import Rejected
from bnfold.fold.patterns import patterns
from bnfold.model.census import calls
from bnfold.model.store import open_model
from bnfold.model.write import staged, to_bytes
from bnfold.provenance import Provenance, config_sha256
from bnfold.report.schema import Report, Seconds, Size
from bnfold.result import Result
from bnfold.source import naming, valid
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.checking import Progress
    from bnfold.fold.calls import Planned
    from bnfold.fold.options import Options
    from bnfold.fold.weight import Stored
    from bnfold.model.edits import ModelEdits
    from bnfold.model.store import ModelFile
    from bnfold.source import Model
    from bnfold.verification.options import Verification


class _NoTimeError(Exception):
    """The time budget is spent before the guilty fold is found."""


@dataclass(frozen=True)
class Job:
    """One call of `optimize`, but for the options of the plan, which a failed verification may change."""

    model: Model
    target: Path | None
    verified: bool
    measured: bool
    provenance: bool
    how: Verification
    tell: Progress

    def run(self, options: Options) -> Result:
        """Fold, verify and write."""
        decision = decide(self.model, options, self.tell)
        edits, written = decision.edits
        if self.provenance and edits.graphs:
            edits = replace(edits, metadata=_provenance(decision.report, options).entries())
        check = Check(self.verified, self.measured, self.model, edits, written, self.how, self.tell)
        self.tell("writing")
        if self.target is None:
            return _in_memory(decision.report, decision.opened, edits, check)
        return _on_disk(decision.report, decision.opened, edits, self.target, check)

    def guilty_sums(self, result: Result, options: Options) -> tuple[str, ...]:
        """Sums whose branches were joined, where results differ with that and agree without."""
        verdict, merged = result.verdict, result.report.merged
        if verdict is None or verdict.status != "different" or not merged:
            return ()
        self.tell("looking for what makes the difference (without joining branches)")
        trial = replace(self, target=None, measured=False, how=replace(self.how, per_fold=False))
        tried = trial.run(replace(options, merge=False)).verdict
        return () if tried is None or tried.status == "different" else tuple(merged)

    def guilty(self, result: Result, options: Options) -> Rejected | None:
        """The first fold that makes the results differ; None where they do not, or none was found in time."""
        from bnfold.verification.blame import first_guilty  # noqa: PLC0415  # for those who need it

        verdict, folds = result.verdict, result.folds
        if verdict is None or verdict.status != "different" or not folds:
            return None
        evidence = verdict.summary.removeprefix("different: ")
        trial = replace(self, target=None, measured=False, how=replace(self.how, per_fold=False))

        deadline = time.monotonic() + self.how.budget

        def differs(count: int) -> bool:
            if time.monotonic() > deadline:
                raise _NoTimeError
            self.tell(f"looking for the fold that makes the difference (with {count} of {len(folds)})")
            left_out = tuple(Rejected(fold.node, fold.scope, evidence) for fold in folds[count:])
            tried = trial.run(replace(options, rejected=(*options.rejected, *left_out))).verdict
            return tried is not None and tried.status == "different"

        try:
            index = first_guilty(len(folds), differs)
        except _NoTimeError:
            return None
        return None if index is None else Rejected(folds[index].node, folds[index].scope, evidence)


@dataclass(frozen=True)
class Decision:
    """A model that was read and planned.

    Attributes:
        opened: the model, with calls of local functions inlined where that is part of the decision.
        edits: what is to change, and the weights that are to be written.
        report: what is known before anything is written.
    """

    opened: ModelFile
    edits: tuple[ModelEdits, tuple[tuple[str, Stored], ...]]
    report: Report


def decide(model: Model, options: Options, tell: Progress) -> Decision:
    """Read the model and plan; nothing is written.

    Raises:
        ModelError: it cannot be read or is not valid.
    """
    # The digest takes about as long as the plan, and another core.
    with naming(model), ThreadPoolExecutor(1) as background:
        tell("reading")
        began = time.perf_counter()
        opened = valid(model)
        digest = background.submit(opened.sha256)
        tell("planning")
        started = time.perf_counter()
        with paused():
            planned = plan_through_calls(opened, options)
            edits = emit(planned.plan)
        seconds = Seconds(read=started - began, plan=time.perf_counter() - started)
        return Decision(planned.model, edits, _report(model, opened, planned, digest.result(), seconds))


def blaming(result: Result, names: Sequence[str]) -> Result:
    """The result with the names of the folds that make, or would have made, a difference."""
    verdict = result.verdict
    if verdict is None:
        return result
    if verdict.status == "different":
        finding = f"the first fold that makes a difference is that of {names[-1]!r}; --keep-going drops it"
    else:
        finding = f"dropped, because with them results differ: {', '.join(names)}"
    verdict = replace(verdict, guilty=tuple(names), findings=(finding, *verdict.findings))
    return replace(result, report=replace(result.report, verdict=verdict))


def blaming_sums(result: Result, names: Sequence[str]) -> Result:
    """The result with the names of the sums of branches that make, or would have made, a difference."""
    verdict = result.verdict
    if verdict is None:
        return result
    told = ", ".join(names)
    if verdict.status == "different":
        finding = (
            f"it is the joining of parallel branches that makes a difference ({told}); --no-merge leaves them"
        )
    else:
        finding = f"no branches were joined, because with that results differ: {told}"
    verdict = replace(verdict, guilty=(*verdict.guilty, *names), findings=(finding, *verdict.findings))
    return replace(result, report=replace(result.report, verdict=verdict))


def _in_memory(report: Report, opened: ModelFile, edits: ModelEdits, check: Check) -> Result:
    if opened.external:
        # The result of a model with external data needs a folder to be complete; verify it in a passing one.
        with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
            report = _on_disk(report, opened, edits, Path(folder) / "model.onnx", check).report
        return Result(replace(report, output=None), to_bytes(opened, edits))
    started = time.perf_counter()
    content = to_bytes(opened, edits)
    report = replace(report, seconds=replace(report.seconds, write=time.perf_counter() - started))
    report = replace(report, after=_size(open_model(content)))
    return Result(check.complete(report, content), content)


def _on_disk(report: Report, opened: ModelFile, edits: ModelEdits, target: Path, check: Check) -> Result:
    started = time.perf_counter()
    with staged(opened, edits, target) as stage:
        report = replace(report, seconds=replace(report.seconds, write=time.perf_counter() - started))
        report = replace(report, after=_size(open_model(stage.path)))
        report = check.complete(report, stage.path)
        if report.verdict is None or report.verdict.status != "different":
            stage.commit()
            report = replace(report, output=str(target))
    return Result(report, None)


def _report(model: Model, opened: ModelFile, planned: Planned, digest: str, seconds: Seconds) -> Report:
    proto, decided = opened.proto, planned.plan
    frozen = tuple(f"{name!r}, which callers could override, is a constant now" for name in decided.frozen)
    return Report(
        version=__version__,
        source=str(model) if isinstance(model, (str, Path)) else None,
        output=None,
        source_sha256=digest,
        opset=decided.draft.view.graphs[0].opset,
        ir_version=proto.ir_version,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        folds=decided.folds,
        kept=decided.kept,
        merged=decided.merged,
        frozen=decided.frozen,
        before=_size(opened),
        after=None,
        verdict=None,
        notes=(*frozen, *planned.notes),
        seconds=seconds,
        environment=environment(),
        patterns=patterns(decided),
        obstructions=obstructions(decided),
    )


def _provenance(report: Report, options: Options) -> Provenance:
    return Provenance(report.version, report.source_sha256, config_sha256(options), len(report.folds))


def _size(model: ModelFile) -> Size:
    return Size(sum(1 for _ in calls(model.proto)), model.size_bytes)
