"""What is found out about a result before it is handed over: its weights, its function, its speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.model.store import ModelFile, open_model
from bnfold.model.store import tensors as tensors_of
from bnfold.source import path_or_bytes
from bnfold.verification.verdict import FoldEvidence, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import onnx

    from bnfold.fold.folded import Fold
    from bnfold.fold.weight import Stored
    from bnfold.model.edits import ModelEdits
    from bnfold.report.schema import Report
    from bnfold.source import Model
    from bnfold.verification.options import Verification

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """What is to be found out about a result, and what that takes.

    Attributes:
        verify: whether the caller wants a verdict.
        bench: whether the caller wants a benchmark.
        source: the original.
        edits: what makes the result of it.
        written: the weights that were written, by name.
        how: what the verification feeds, runs on and judges by.
        tell: told the name of each stage as it begins.
    """

    verify: bool
    bench: bool
    source: Model
    edits: ModelEdits
    written: tuple[tuple[str, Stored], ...]
    how: Verification
    tell: Progress

    def complete(self, report: Report, result: Path | bytes) -> Report:
        """The report with a verdict on `result`, and a benchmark unless it is wrong."""
        started = time.perf_counter()
        with ThreadPoolExecutor(1) as background:
            # Beside a verification it takes no time of its own.
            digest = background.submit(open_model(result).sha256) if self.verify else None
            verdict = self._verdict(result, report.folds)
        verified = time.perf_counter()
        seconds = replace(report.seconds, verify=verified - started)
        report = replace(report, verdict=verdict, seconds=seconds)
        if digest is not None:
            report = replace(report, result_sha256=digest.result())
        if not self.bench or verdict.status == "different":
            return report
        report = self._measured(report, result)
        return replace(report, seconds=replace(report.seconds, bench=time.perf_counter() - verified))

    def _measured(self, report: Report, result: Path | bytes) -> Report:
        if not report.folds and not report.merged:
            return replace(report, notes=(*report.notes, "speed was not measured: nothing was folded"))
        from bnfold.benchmarking.pair import benchmark  # noqa: PLC0415  # a fold does without

        how = self.how
        try:
            measured = benchmark(
                path_or_bytes(self.source), result, provider=how.provider, seed=how.seed, progress=self.tell
            )
        except (EnvironmentFault, UsageError) as error:
            # The result is as good as without.
            return replace(report, notes=(*report.notes, f"speed was not measured: {error}"))
        # Where the result lies for now is nobody's business.
        return replace(report, benchmark=replace(measured, b=replace(measured.b, source=None)))

    def _verdict(self, result: Path | bytes, folds: tuple[Fold, ...]) -> Verdict:
        if not self.verify:
            return self._without_running("not verified", "verification was switched off")
        if not self.edits.graphs:
            return self._without_running(
                "equivalent", "nothing was changed: both are the same, byte for byte"
            )

        from bnfold.verification.pair import verify as judge  # noqa: PLC0415  # a fold without verification does without

        self.tell("verifying the weights")
        self._check_algebra(open_model(result))
        self.tell("verifying the results")
        verdict = judge(path_or_bytes(self.source), result, self.how, inside=False, progress=self.tell)
        return replace(verdict, per_fold=self._per_fold(folds, result)) if self.how.per_fold else verdict

    def _per_fold(self, folds: tuple[Fold, ...], result: Path | bytes) -> tuple[FoldEvidence, ...]:
        from bnfold.verification.sites import per_fold  # noqa: PLC0415  # as above

        return per_fold(path_or_bytes(self.source), result, folds, self.how, progress=self.tell)

    def _without_running(self, status: Status, summary: str) -> Verdict:
        return Verdict(status, summary, (), (), (), "", self.how.seed, 0.0)

    def _check_algebra(self, result: ModelFile) -> None:
        from bnfold.verification.algebra import check_algebra  # noqa: PLC0415  # as above

        stored: dict[str, list[onnx.TensorProto]] = {}
        for tensor, _ in tensors_of(result.proto):
            stored.setdefault(tensor.name, []).append(tensor)
        for name, weight in self.written:
            finding = None
            # Sibling graphs may use one name for different tensors; one of them is the one that was written.
            for tensor in stored[name]:
                flat = result.array(tensor).reshape(-1)
                findings = (check_algebra(exact, part) for exact, part in _aligned(weight, flat))
                finding = next((f for f in findings if f is not None), None)
                if finding is None:
                    break
            else:
                raise EnvironmentFault(f"bnfold wrote a wrong weight, which is a bug: {name!r}: {finding}")


def _aligned(
    weight: Stored, flat: np.ndarray[Any, Any]
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    start = 0
    for exact in weight.exact_blocks():
        yield exact.reshape(-1), flat[start : start + exact.size]
        start += exact.size
