"""A benchmark for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bnfold.report.units import binary_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.benchmarking.comparison import Comparison, Ratio
    from bnfold.benchmarking.result import Benchmark, Facts, Timing

_STYLES = {"faster": "bold green", "slower": "bold red", "no difference": "bold", "failed": "bold red"}
_MILLION = 1_000_000


def render_benchmark(benchmark: Benchmark) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [_facts(benchmark), Text(), _comparisons(benchmark)]
    parts += [Text(), _latencies(benchmark), Text(), _runtimes(benchmark), Text()]
    parts += [
        Text.assemble((f"{level.level.upper()}: ", "bold"), level.failure)
        for level in benchmark.levels
        if level.failure
    ]
    parts += [Text(f"note: {finding}") for finding in benchmark.findings]
    parts.append(Text(_circumstances(benchmark), style="dim"))
    return Group(*parts)


def render_speed(benchmark: Benchmark) -> RenderableType:
    """A line for each level."""
    table = _columns("speed", "", "", "")
    for level in benchmark.levels:
        if level.failure:
            table.add_row(level.level.upper(), Text("failed", style=_STYLES["failed"]), "", level.failure)
            continue
        for timing in level.steady:
            table.add_row(
                level.level.upper(),
                _finding(timing.comparison),
                _ratio(timing.comparison.speedup),
                f"{_milliseconds(timing.a.p50)} -> {_milliseconds(timing.b.p50)} ms, {_batch(timing)}",
            )
    return Group(table, *(Text(f"note: {finding}") for finding in benchmark.findings))


def _facts(benchmark: Benchmark) -> Table:
    a, b = benchmark.a, benchmark.b
    table = _columns("", "A", "B")
    table.add_row("model", a.source or "in memory", b.source or "in memory")
    table.add_row("size", binary_size(a.nbytes), binary_size(b.nbytes))
    table.add_row("nodes", str(a.nodes), str(b.nodes))
    table.add_row("BatchNormalization", str(a.bn), str(b.bn))
    table.add_row("million MACs", _macs(a), _macs(b))
    return table


def _comparisons(benchmark: Benchmark) -> Table:
    """Ratios with their 95 % intervals; of A against itself the interval alone."""
    table = _columns("", "", "B is", "time of A / of B", "A / A")
    for level, timing in benchmark.timings():
        speedup, noise = timing.comparison.speedup, timing.comparison.noise
        table.add_row(
            level.level.upper(),
            _batch(timing),
            _finding(timing.comparison),
            _ratio(speedup),
            "-" if noise is None else _interval(noise),
        )
    return table


def _latencies(benchmark: Benchmark) -> Table:
    table = _columns("milliseconds", "")
    for name in ("A p50", "p90", "p99", "B p50", "p90", "p99", "times"):
        table.add_column(name, justify="right", no_wrap=True)
    for level, timing in benchmark.timings():
        quantiles = (q for each in (timing.a, timing.b) for q in (each.p50, each.p90, each.p99))
        numbers = map(_milliseconds, quantiles)
        table.add_row(level.level.upper(), _batch(timing), *numbers, str(timing.a.times))
    return table


def _runtimes(benchmark: Benchmark) -> Table:
    table = _columns("in onnxruntime")
    for name in ("BN left: A", "B", "nodes: A", "B", "peak memory: A", "B"):
        table.add_column(name, justify="right", no_wrap=True)
    for level in benchmark.levels:
        pair = (level.a, level.b)
        memory = ("-" if each.peak_memory is None else binary_size(each.peak_memory) for each in pair)
        counts = (_count(n) for n in (*(each.bn_left for each in pair), *(each.nodes for each in pair)))
        table.add_row(level.level.upper(), *counts, *memory)
    return table


def _circumstances(benchmark: Benchmark) -> str:
    machine = benchmark.machine
    blocks = [timing.comparison.blocks for _, timing in benchmark.timings()]
    threads = f"{benchmark.threads} thread" + ("s" if benchmark.threads > 1 else "")
    return (
        f"{benchmark.seconds:.0f} s, blocks a level: {min(blocks)} or more, {machine.provider} of "
        f"onnxruntime {machine.onnxruntime}, {threads}, {machine.processor}, {machine.cores} cores, "
        f"{machine.system}"
    )


def _finding(comparison: Comparison) -> Text:
    return Text(comparison.finding, style=_STYLES.get(comparison.finding, "yellow"))


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.value:.3f} {_interval(ratio)}"


def _interval(ratio: Ratio) -> str:
    return f"[{ratio.low:.3f}, {ratio.high:.3f}]"


def _batch(timing: Timing) -> str:
    return timing.work if timing.batch is None else f"batch {timing.batch}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _macs(facts: Facts) -> str:
    return "unknown" if facts.macs is None else f"{facts.macs / _MILLION:.4g}"


def _columns(*names: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table
