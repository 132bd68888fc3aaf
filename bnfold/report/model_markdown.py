"""The report of one model, of two, or of their speed, in Markdown: for a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.report.evidence import relative, telling
from bnfold.report.markdown import code, fitted, plain, span
from bnfold.report.units import binary_size
from bnfold.report.wording import level_name, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.benchmarking.result import Benchmark, LevelResult, Timing
    from bnfold.report.pair import PairReport
    from bnfold.report.schema import Report
    from bnfold.verification.verdict import Verdict

# GitHub takes 65,536 characters of a comment; counted in bytes there is room to spare.
LIMIT = 65_000
_LONGEST = 300  # letters of a name or sentence
_MILLI = 1e3


def render(report: Report) -> str:
    """The verdict, what stays and why, the speed, and what went; cut from the end where it is too long."""
    return fitted(list(_parts(report)), LIMIT)


def render_pair(pair: PairReport) -> str:
    """The verdict on two models."""
    head = f"### {_span(pair.folded)} beside {_span(pair.original)}\n"
    return fitted([head, *_verdict(pair.verdict)], LIMIT)


def render_benchmark(benchmark: Benchmark) -> str:
    """How fast two models are."""
    names = [_span(facts.source or "model in memory") for facts in (benchmark.b, benchmark.a)]
    return fitted([f"### {names[0]} beside {names[1]}\n", *_speed(benchmark)], LIMIT)


def _parts(report: Report) -> Iterator[str]:
    yield f"### {_span(report.source or 'model in memory')}\n\n"
    gone = "folded" if report.after is not None else "can be folded"
    said = f"{report.found} BatchNormalization: {len(report.folds)} {gone}, {len(report.kept)} kept"
    if report.after is not None:
        before, after = report.before, report.after
        said += f"; {before.nodes} -> {after.nodes} nodes"
        said += f", {binary_size(before.nbytes)} -> {binary_size(after.nbytes)}"
    if report.output is not None:
        said += f"; written to {_span(report.output)}"
    yield f"{said}.\n"
    if report.verdict is not None:
        yield from _verdict(report.verdict)
    if report.benchmark is not None:
        yield from _speed(report.benchmark)
    yield from (f"\n{_plain(note)}\n" for note in report.notes)
    if report.kept:
        yield "\n| kept | code | why | what helps |\n|---|---|---|---|\n"
        for refusal in report.kept:
            reason = refusal.reason
            place = _place(refusal.node, refusal.scope)
            yield f"| {place} | {refusal.code.value} | {_plain(reason.evidence)} | {_plain(reason.hint)} |\n"
    if report.folds:
        yield "\n| folded | into |\n|---|---|\n"
        for fold in report.folds:
            into = ", ".join(
                f"{_plain(op)} {_code(name)}" for op, name in zip(fold.into_op, fold.into, strict=True)
            )
            yield f"| {_place(fold.node, fold.scope)} | {into} |\n"


def _verdict(verdict: Verdict) -> Iterator[str]:
    said = verdict.summary.removeprefix(verdict.status).removeprefix(": ")
    yield f"\n**{verdict.status}**: {_plain(said, 4 * _LONGEST)}\n"
    yield from (f"\n{_plain(finding, 4 * _LONGEST)}\n" for finding in verdict.findings)
    rows = telling(verdict.outputs)
    if rows:
        yield "\n| error / signal | output | feed | original | folded | allowed | |\n"
        yield "|---|---|---|---:|---:|---:|---|\n"
    for row in rows:
        numbers = (relative(n, row.signal_rms) for n in (row.original_rms, row.folded_rms, row.limit_rms))
        yield (
            f"| {_plain(level_name(row.level))} | {_code(row.output)} | {_code(row.feed)} | "
            f"{' | '.join(numbers)} | {row.outcome} |\n"
        )


def _speed(benchmark: Benchmark) -> Iterator[str]:
    yield "\n| onnxruntime | work | B is | time of A / of B | 95 % interval | A / A | A, ms | B, ms |\n"
    yield "|---|---|---|---:|---:|---:|---:|---:|\n"
    for level in benchmark.levels:
        if level.failure:
            yield f"| {_plain(level.level.upper())} | | failed | | | | | |\n"
        for timing in (*level.steady, *((level.load,) if level.load else ())):
            yield _timing(level, timing)
    failed = [level for level in benchmark.levels if level.failure]
    yield from (f"\n{_plain(f'{level.level.upper()}: {level.failure}')}\n" for level in failed)
    yield from (f"\n{_plain(finding)}\n" for finding in benchmark.findings)
    machine = benchmark.machine
    threads = f"{benchmark.threads} thread{'s' * (benchmark.threads != 1)}"
    where = f"A is the original. {machine.provider} of onnxruntime {machine.onnxruntime}, {threads}, "
    yield f"\n{_plain(where + machine.processor)}\n"


def _timing(level: LevelResult, timing: Timing) -> str:
    comparison = timing.comparison
    speedup, noise = comparison.speedup, comparison.noise
    work = timing.work if timing.batch is None else f"batch {timing.batch}"
    cells = (
        _plain(level.level.upper()),
        _plain(work),
        comparison.finding,
        "" if speedup is None else f"{speedup.value:.3f}",
        "" if speedup is None else f"{speedup.low:.3f} to {speedup.high:.3f}",
        "" if noise is None else f"{noise.low:.3f} to {noise.high:.3f}",
        f"{timing.a.p50 * _MILLI:.3g}",
        f"{timing.b.p50 * _MILLI:.3g}",
    )
    return f"| {' | '.join(cells)} |\n"


def _place(node: str, scope: str) -> str:
    return f"{_code(node)} in {_code(scope)}" if scope else _code(node)


def _span(text: str) -> str:
    return span(shortened(text, _LONGEST))


def _code(text: str) -> str:
    return code(shortened(text, _LONGEST))


def _plain(text: str, longest: int = _LONGEST * 2) -> str:
    return plain(shortened(text, longest))
