"""Which of two models is faster, and by how much?

1. A feed is made for each batch size (`feeding`).
2. A process for each model and level shows its peak memory and the graph that onnxruntime runs (`measuring`).
3. Blocks are measured, the levels in turns, until the time is over (`measuring`, `worker`).
4. The ratios of the blocks are judged (`comparison`).
"""

from __future__ import annotations

import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from bnfold.benchmarking.comparison import FEWEST, compare
from bnfold.benchmarking.counting import count_bn, count_macs
from bnfold.benchmarking.feeding import batch_of, choose_feeds, wished_feeds
from bnfold.benchmarking.measuring import Block, Setup, examine, measure
from bnfold.benchmarking.result import Benchmark, Facts, Latency, Level, LevelResult, Machine, Runtime, Timing
from bnfold.environment import available_cores
from bnfold.errors import EnvironmentFault, UsageError
from bnfold.model.census import calls
from bnfold.model.store import open_model
from bnfold.verification.case import Case, interface_mismatch
from bnfold.verification.case import open_model as open_case
from bnfold.verification.feeding import check_provider
from bnfold.verification.inputs import Wishes, understand
from bnfold.verification.sessions import PROVIDERS
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnfold.benchmarking.measuring import Times
    from bnfold.verification.feeds import Feed
    from bnfold.verification.inputs import Inputs

Progress = Callable[[str], None]

LEVELS: tuple[Level, ...] = ("disable_all", "enable_basic", "enable_all")
SECONDS = 60.0
_BLOCKS = 12  # aimed at, for each level
DEVICES = ("cpu", "cuda")
_OVERHEAD = 1.0  # seconds to start a process and load three sessions, before the first block tells
_SHORTEST, _LONGEST = 0.1, 3.0  # seconds of turns in a block
_TIMEOUT = 600.0  # seconds for one process
_MOST_THREADS = 1024  # more only keep the machine busy with starting them
_P90, _P99 = 10, 100  # times that it takes to tell a quantile


def benchmark(
    a: Path | bytes,
    b: Path | bytes,
    *,
    levels: Sequence[Level] = LEVELS,
    batches: Sequence[int] = (),
    inputs: Inputs | Wishes = None,
    threads: int = 1,
    provider: str = "cpu",
    seconds: float = SECONDS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure two models side by side in onnxruntime.

    Args:
        a: the model to compare with, a file or serialized bytes.
        b: the other one.
        levels: onnxruntime's optimization levels.
        batches: batch sizes; none takes the one that the model states, or 1.
        inputs: what both are fed instead, as in `bnfold.verify`.
        threads: of onnxruntime within an operator.
        provider: "cpu" or "cuda"; a silent fall back to the CPU is an error.
        seconds: how long it may take, about; each level is measured once in any case.
        seed: of the feeds and the bootstrap.
        progress: is told what happens, one short line at a time.

    Raises:
        ModelError: a model cannot be read.
        UsageError: the models have different inputs or outputs, or the arguments make no sense.
        EnvironmentFault: onnxruntime cannot run them at any of the levels.
    """
    started = time.monotonic()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    _check(levels, batches, threads, provider, seconds)
    if inputs is not None and batches:
        raise UsageError("give batch sizes or inputs, which have their own, not both")
    wishes = inputs if isinstance(inputs, Wishes) else understand(inputs)
    say = progress or (lambda _line: None)
    with tempfile.TemporaryDirectory(prefix="bnfold-bench-") as scratch:
        case = Case(
            original=open_case(a, Path(scratch, "a.onnx")),
            folded=open_case(b, Path(scratch, "b.onnx")),
            provider=provider,
            budget=_TIMEOUT,
            deadline=started + _TIMEOUT,
            seed=seed,
            say=say,
            scratch=Path(scratch),
        )
        mismatch = interface_mismatch(case)
        if mismatch:
            raise UsageError(f"the models cannot be compared: {mismatch}")
        feeds = choose_feeds(case, batches) if inputs is None else wished_feeds(case, wishes)
        setup = Setup(case.original.path, case.folded.path, feeds, provider, threads, _TIMEOUT)
        facts = (_facts(a, setup.a, feeds[0]), _facts(b, setup.b, feeds[0]))
        series = [_Series(level, seconds / (len(levels) * _BLOCKS)) for level in levels]
        # A block of each first: what cannot run at all shows at once.
        for each in series:
            say(f"{each.level}: first block")
            each.extend(setup)
        if all(each.failure for each in series):
            raise EnvironmentFault(f"nothing could be measured: {series[0].failure}")
        runtimes = [_runtimes(setup, each, say) for each in series]
        _fill(setup, series, started + seconds, say)
    results = tuple(_judge(each, pair, feeds, seed) for each, pair in zip(series, runtimes, strict=True))
    return Benchmark(
        version=__version__,
        a=facts[0],
        b=facts[1],
        threads=threads,
        seed=seed,
        seconds=time.monotonic() - started,
        machine=_machine(series, provider),
        levels=results,
        findings=tuple(_findings(series, threads, load)),
    )


@dataclass
class _Series:
    """The blocks of a level as they come in.

    Attributes:
        level: the level.
        share: seconds that a block may take.
        blocks: those measured.
        failure: why there will be no more; empty while there will.
        cost: seconds that the last block took.
        overhead: seconds of it that were no turns.
    """

    level: Level
    share: float
    blocks: list[Block] = field(default_factory=list)
    failure: str = ""
    cost: float = 0.0
    overhead: float = _OVERHEAD

    def extend(self, setup: Setup) -> None:
        """Measure one more block.

        Raises:
            EnvironmentFault: onnxruntime fell back from the provider that was asked for.
        """
        turns = min(max(self.share - self.overhead, _SHORTEST), _LONGEST)
        began = time.monotonic()
        block = measure(setup, self.level, len(self.blocks), turns)
        self.cost = time.monotonic() - began
        self.overhead = self.cost - turns
        if isinstance(block, Block):
            self.blocks.append(block)
        else:
            check_provider(setup.provider, block)
            self.failure = block.reason


def _fill(setup: Setup, series: Sequence[_Series], end: float, say: Progress) -> None:
    """Measure blocks, the levels in turns, as long as the next one ends in time."""
    while True:
        due = [each for each in series if not each.failure and time.monotonic() + each.cost <= end]
        if not due:
            return
        each = min(due, key=lambda one: len(one.blocks))
        left = max(0.0, end - time.monotonic())
        say(f"{each.level}: block {len(each.blocks) + 1}, {left:.0f} s left")
        each.extend(setup)


def _runtimes(setup: Setup, series: _Series, say: Progress) -> tuple[Runtime, Runtime]:
    if series.failure:
        return Runtime(None, None, None), Runtime(None, None, None)
    say(f"{series.level}: looking at both models")
    return examine(setup, series.level, setup.a), examine(setup, series.level, setup.b)


def _judge(
    series: _Series, runtimes: tuple[Runtime, Runtime], feeds: Sequence[Feed], seed: int
) -> LevelResult:
    if series.failure:
        return LevelResult(series.level, series.failure, *runtimes, None, ())
    steady = tuple(
        _timing(_work(feed), batch_of(feed), [block.turns[number] for block in series.blocks], seed)
        for number, feed in enumerate(feeds)
    )
    load = _timing("load", None, [block.load for block in series.blocks], seed)
    return LevelResult(series.level, "", *runtimes, load, steady)


def _work(feed: Feed) -> str:
    shapes = (f"{name} {'x'.join(map(str, a.shape)) or 'scalar'}" for name, a in feed.values.items())
    return "; ".join(shapes) or "no inputs"


def _timing(work: str, batch: int | None, blocks: Sequence[Times], seed: int) -> Timing:
    """What the turns of all blocks say; a turn counts by its median, a block by the median of its rounds."""
    speedups = [_ratio(block["a"], block["b"]) for block in blocks]
    noises = [_ratio(block["a"], block["again"]) for block in blocks]
    return Timing(
        work,
        batch,
        _latency(times for block in blocks for times in block["a"]),
        _latency(times for block in blocks for times in block["b"]),
        compare(speedups, noises, seed),
    )


def _ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    return median(median(one) / median(other) for one, other in zip(first, second, strict=True))


def _latency(turns: Iterable[Sequence[float]]) -> Latency:
    times = np.array([seconds for turn in turns for seconds in turn])
    p10, p25, p50, p75, p90, p99 = (float(p) for p in np.percentile(times, [10, 25, 50, 75, 90, 99]))
    latency = Latency(len(times), p50, None, None)
    if len(times) >= _P90:
        latency = replace(latency, p10=p10, p25=p25, p75=p75, p90=p90)
    return latency if len(times) < _P99 else replace(latency, p99=p99)


def _facts(source: Path | bytes, path: Path, feed: Feed) -> Facts:
    opened = open_model(path)
    return Facts(
        source=str(source) if isinstance(source, Path) else None,
        sha256=opened.sha256(),
        nbytes=opened.size_bytes,
        nodes=sum(1 for _ in calls(opened.proto)),
        bn=count_bn(opened.proto),
        macs=count_macs(opened, {name: array.shape for name, array in feed.values.items()}),
    )


def _machine(series: Sequence[_Series], provider: str) -> Machine:
    return Machine(
        processor=_processor(),
        cores=available_cores(),
        system=f"{platform.system()} {platform.release()}",
        onnxruntime=next(block.onnxruntime for each in series for block in each.blocks),
        provider=PROVIDERS[provider],
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _findings(series: Sequence[_Series], threads: int, load: float) -> Iterator[str]:
    if load + threads > available_cores():
        yield f"the machine was busy when this began: load average {load:.1f} on {available_cores()} cores"
    short = [each for each in series if not each.failure and len(each.blocks) < FEWEST]
    if short:
        needed = sum(each.cost for each in series if not each.failure) * (FEWEST + 1)
        yield f"{FEWEST} blocks of each level are needed to say anything; about {needed:.0f} s would do"


def _check(
    levels: Sequence[Level], batches: Sequence[int], threads: int, provider: str, seconds: float
) -> None:
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels or len(set(levels)) < len(levels):
        raise UsageError(f"levels={list(levels)}; expected some of {', '.join(LEVELS)}, each once")
    if any(batch < 1 for batch in batches) or len(set(batches)) < len(batches):
        raise UsageError(f"batches={list(batches)}; expected positive numbers, each once")
    if not 1 <= threads <= _MOST_THREADS:
        raise UsageError(f"threads={threads}; expected 1 to {_MOST_THREADS}")
    if provider not in DEVICES:
        raise UsageError(f"provider={provider!r}; expected one of {', '.join(DEVICES)}")
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds={seconds}; expected a positive number")
