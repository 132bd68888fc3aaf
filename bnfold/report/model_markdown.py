"""The report of one model, of two, or of their speed, in Markdown: for a comment on a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.report.command import of_benchmark, of_pair, of_report
from bnfold.report.evidence import relative, telling
from bnfold.report.markdown import block, code, details, fitted, plain, span
from bnfold.report.units import binary_size
from bnfold.report.wording import level_name, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnfold.benchmarking.result import Benchmark, LevelResult, Timing
    from bnfold.report.pair import PairReport
    from bnfold.report.schema import Report
    from bnfold.verification.verdict import Verdict

# GitHub takes 65,536 characters of a comment; counted in bytes there is room to spare.
LIMIT = 65_000
_LONGEST = 300  # letters of a name or sentence
_ROWS_SHOWN = 20  # more are folded away
_MILLI = 1e3


def render(report: Report) -> str:
    """The verdict, what stays and why, the speed, and what went; cut from the end where it is too long."""
    return fitted(list(_parts(report)), LIMIT)


def render_pair(pair: PairReport) -> str:
    """The verdict on two models."""
    head = f"### {_span(pair.folded)} beside {_span(pair.original)}\n"
    verdict = pair.verdict
    digests = {"original": verdict.original_sha256, "folded": verdict.folded_sha256}
    command = of_pair(pair.original, pair.folded, pair.options)
    repeat = _repeat(command, {"bnfold": pair.version, **pair.environment}, digests)
    return fitted([head, *_verdict(verdict), *repeat], LIMIT)


def render_benchmark(benchmark: Benchmark) -> str:
    """How fast two models are."""
    names = [_span(facts.source or "model in memory") for facts in (benchmark.b, benchmark.a)]
    versions = {"bnfold": benchmark.version, "onnxruntime": benchmark.machine.onnxruntime}
    repeat = _repeat(of_benchmark(benchmark), versions, {"A": benchmark.a.sha256, "B": benchmark.b.sha256})
    return fitted([f"### {names[0]} beside {names[1]}\n", *_speed(benchmark), *repeat], LIMIT)


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
    codes = ", ".join(f"{count} {code}" for code, count in report.kept_by_code.items())
    yield from _table(f"{len(report.kept)} kept: {codes}", list(_kept(report)))
    digests = {"model": report.source_sha256, "result": report.result_sha256}
    yield from _repeat(of_report(report), {"bnfold": report.version, **report.environment}, digests)
    yield from _table(f"{len(report.folds)} {gone}", list(_folds(report, gone)))


def _table(summary: str, pieces: Sequence[str]) -> Iterator[str]:
    """A header and its rows; nothing where there are none, and folded away where there are many."""
    if len(pieces) > 1 + _ROWS_SHOWN:
        yield from details(summary, pieces)
    elif len(pieces) > 1:
        yield from pieces


def _kept(report: Report) -> Iterator[str]:
    yield "\n| kept | code | why | what helps |\n|---|---|---|---|\n"
    for refusal in report.kept:
        reason = refusal.reason
        place = _place(refusal.node, refusal.scope)
        yield f"| {place} | {refusal.code.value} | {_plain(reason.evidence)} | {_plain(reason.hint)} |\n"


def _folds(report: Report, gone: str) -> Iterator[str]:
    yield f"\n| {gone} | into |\n|---|---|\n"
    for fold in report.folds:
        into = ", ".join(
            f"{_plain(op)} {_code(name)}" for op, name in zip(fold.into_op, fold.into, strict=True)
        )
        yield f"| {_place(fold.node, fold.scope)} | {into} |\n"


def _repeat(command: str, versions: Mapping[str, str], digests: Mapping[str, str | None]) -> Iterator[str]:
    """How to make the report once more, and what to compare."""
    said = [", ".join(f"{name} {version}" for name, version in versions.items())]
    said += [f"sha256 of {name}: {digest}" for name, digest in digests.items() if digest]
    lines = (f"\n{_plain(line, 4 * _LONGEST)}\n" for line in said)
    yield from details("To repeat it", ([block(command)] if command else []) + list(lines))


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
