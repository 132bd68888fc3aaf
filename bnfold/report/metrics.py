"""A report as flat numbers, for a tracker of experiments.

Names hold letters, digits, `_` and `/`; numbers are finite. What was not found out has no name, so that a
number never stands for "unknown".
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.benchmarking.result import Benchmark
    from bnfold.report.schema import Report
    from bnfold.verification.verdict import Verdict


def metrics(report: Report) -> dict[str, float]:
    """The numbers of a report, by name.

    Returns:
        `found`, `folded`, `kept` and, for each reason code that occurs, `kept/BNF...`; `nodes_before`,
        `nodes_after`, `bytes_before`, `bytes_after`. Of a verification `equivalent` (1 or 0) and
        `error_ratio` (RMS error of the result by that of the original, the median; none where nothing was
        run). Of a benchmark, for each level and feed (`/1` is the second), `speedup/LEVEL` with `_low` and
        `_high` of its 95 % interval, and the medians in seconds `p50_before/LEVEL`, `p50_after/LEVEL`.
    """
    return {name: float(number) for name, number in _numbers(report)}


def _numbers(report: Report) -> Iterator[tuple[str, float]]:
    yield "found", report.found
    yield "folded", len(report.folds)
    yield "kept", len(report.kept)
    for code, count in report.kept_by_code.items():
        yield f"kept/{code}", count
    for when, size in (("before", report.before), ("after", report.after)):
        if size is not None:
            yield f"nodes_{when}", size.nodes
            yield f"bytes_{when}", size.nbytes
    if report.verdict is not None and report.verdict.status != "not verified":
        yield from _of_verdict(report.verdict)
    if report.benchmark is not None:
        yield from _of_benchmark(report.benchmark)


def _of_verdict(verdict: Verdict) -> Iterator[tuple[str, float]]:
    yield "equivalent", verdict.status == "equivalent"
    ratios = [output.ratio for output in verdict.outputs if output.ratio is not None]
    if ratios:
        yield "error_ratio", median(ratios)


def _of_benchmark(benchmark: Benchmark) -> Iterator[tuple[str, float]]:
    for level in benchmark.levels:
        for number, timing in enumerate(level.steady):
            name = f"{level.level}/{number}" if number else level.level
            yield f"p50_before/{name}", timing.a.p50
            yield f"p50_after/{name}", timing.b.p50
            speedup = timing.comparison.speedup
            if speedup is not None:
                yield f"speedup/{name}", speedup.value
                yield f"speedup_low/{name}", speedup.low
                yield f"speedup_high/{name}", speedup.high
