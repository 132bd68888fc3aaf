"""What a benchmark found, as data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnfold.benchmarking.comparison import Comparison

SCHEMA = "bnfold.bench/1"

Level = Literal["disable_all", "enable_basic", "enable_all"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to say of a model before it runs.

    Attributes:
        source: the model, as the caller named it; None for one from memory, or one that a report names.
        sha256: of the model file, external data not included.
        nbytes: the model file and its external data.
        nodes: operator calls, those of nested graphs and local functions included.
        bn: BatchNormalization nodes among them.
        macs: multiply-accumulate operations of Conv, ConvTranspose, Gemm and MatMul in one run of the first
            feed; None where a shape is not known.
    """

    source: str | None
    sha256: str
    nbytes: int
    nodes: int
    bn: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class Runtime:
    """What onnxruntime makes of a model at one level; None where it could not be seen.

    Attributes:
        bn_left: BatchNormalization in the graph that it runs, in whatever form (see `counting.count_bn`).
        nodes: operator calls in that graph.
        peak_memory: most resident memory, in bytes, of a process that loads the model and runs the first feed
            once. Includes the interpreter and onnxruntime; the memory of a GPU does not count.
    """

    bn_left: int | None
    nodes: int | None
    peak_memory: int | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of times, in seconds; None where there are too few times to tell.

    Attributes:
        times: how many were measured.
        p50: median.
        p90: from ten times on.
        p99: from a hundred times on.
        p10: from ten times on.
        p25: from ten times on.
        p75: from ten times on.
    """

    times: int
    p50: float
    p90: float | None
    p99: float | None
    p10: float | None = None
    p25: float | None = None
    p75: float | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of both models for the same work.

    Attributes:
        work: "load", or the batch size and shapes of the feed.
        batch: size of the first axis of the inputs; None for "load", or where they have none in common.
        a: times of model A.
        b: times of model B.
        comparison: what they say.
    """

    work: str
    batch: int | None
    a: Latency
    b: Latency
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class LevelResult:
    """Everything at one of onnxruntime's optimization levels.

    Attributes:
        level: "disable_all", "enable_basic" or "enable_all".
        failure: why there are no times; empty where there are.
        a: what onnxruntime makes of A.
        b: what it makes of B.
        load: time to create a session, the file being in the page cache.
        steady: time of a run after warm-up, for each feed.
    """

    level: Level
    failure: str
    a: Runtime
    b: Runtime
    load: Timing | None
    steady: tuple[Timing, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured.

    Attributes:
        processor: its name.
        cores: how many of them could be used.
        system: operating system and release.
        onnxruntime: version.
        provider: the execution provider that ran.
    """

    processor: str
    cores: int
    system: str
    onnxruntime: str
    provider: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Two models side by side.

    Attributes:
        version: the bnfold that measured.
        a: the model that is compared with.
        b: the other one.
        threads: of onnxruntime within an operator.
        seed: of feeds and bootstrap.
        seconds: wall-clock time of it all.
        machine: where.
        levels: the results.
        findings: what else is worth knowing, one line each.
        options: what was asked for, by the names of `bnfold.benchmark`, as plain values; empty where the
            benchmark is a part of `optimize`.
    """

    version: str
    a: Facts
    b: Facts
    threads: int
    seed: int
    seconds: float
    machine: Machine
    levels: tuple[LevelResult, ...]
    findings: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def timings(self) -> Iterator[tuple[LevelResult, Timing]]:
        """Everything that was timed, with its level: each batch size, then the load."""
        for level in self.levels:
            for timing in (*level.steady, *((level.load,) if level.load else ())):
                yield level, timing

    def to_dict(self) -> dict[str, Any]:
        """Plain data; keys are only ever added within one version of the schema."""
        return {"schema": SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        """Strict JSON (no NaN, no infinities), indented, keys in the order of the schema."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
