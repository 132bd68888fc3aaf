"""What the plots of a report show: rows of marks on an axis, each said in words as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.report.evidence import nearness, relative
from bnfold.report.html.scales import Scale, around_one, decades, from_zero
from bnfold.report.wording import level_name, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.benchmarking.comparison import Comparison
    from bnfold.benchmarking.result import Benchmark, Latency, LevelResult, Timing
    from bnfold.verification.verdict import FoldEvidence, OutputEvidence

_ERROR_ROWS = 24  # of a level
_FOLD_ROWS = 24
_MILLI = 1e3


@dataclass(frozen=True)
class Mark:
    """A sign on an axis: its form, and where it is in per cent."""

    form: str
    x: float


@dataclass(frozen=True)
class Row:
    """Marks on one line.

    Attributes:
        label: what it is about.
        detail: what tells it from others; may be empty.
        marks: the signs.
        spans: from where to where lines and boxes go, by form.
        said: the same in words.
    """

    label: str
    detail: str
    marks: tuple[Mark, ...]
    said: str
    spans: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    heading: str
    rows: tuple[Row, ...]
    left_out: int = 0


@dataclass(frozen=True)
class Plot:
    """Groups of rows on one axis."""

    scale: Scale
    groups: tuple[Group, ...]


def errors(outputs: Sequence[OutputEvidence]) -> Plot | None:
    """RMS errors of both models and what is allowed, by the size of the output; the worst first."""
    rows = [row for row in outputs if row.signal_rms]
    numbers = [n / row.signal_rms for row in rows if row.signal_rms for n in _rms(row) if n is not None]
    scale = decades(numbers)
    if scale is None:
        return None
    groups = []
    for level in dict.fromkeys(row.level for row in rows):
        ranked = sorted((row for row in rows if row.level == level), key=nearness, reverse=True)
        shown = tuple(_error_row(row, scale) for row in ranked[:_ERROR_ROWS])
        groups.append(Group(level_name(level), shown, len(ranked) - len(shown)))
    return Plot(scale, tuple(groups))


def _rms(row: OutputEvidence) -> tuple[float | None, float | None, float | None]:
    return row.original_rms, row.folded_rms, row.limit_rms


def _error_row(row: OutputEvidence, scale: Scale) -> Row:
    signal = row.signal_rms or 1.0
    names = zip(("original", "folded", "allowed"), _rms(row), strict=True)
    known = [(name, number) for name, number in names if number is not None]
    forms = {"folded": "failed"} if row.outcome == "fail" else {}
    marks = tuple(Mark(forms.get(name, name), scale.at(number / signal)) for name, number in known)
    said = ", ".join(f"{name} {relative(number, row.signal_rms)}" for name, number in known)
    outcome = "" if row.outcome == "pass" else row.outcome
    return Row(row.output, ", ".join(filter(None, (row.feed, outcome))), marks, said)


def per_fold(found: Sequence[FoldEvidence]) -> Plot | None:
    """Errors of both models at each fold, the worst first as they come; those at one tensor in one row."""
    places: dict[str, list[FoldEvidence]] = {}
    for each in found:
        if each.tensor and each.relative_l2 is not None:
            places.setdefault(each.tensor, []).append(each)
    own = (_own_error(alike[0]) for alike in places.values())
    scale = decades(
        error
        for each in (*(alike[0].relative_l2 for alike in places.values()), *own)
        if (error := each) is not None
    )
    if scale is None:
        return None
    rows = tuple(_fold_row(alike, scale) for alike in list(places.values())[:_FOLD_ROWS])
    return Plot(scale, (Group("", rows, len(places) - len(rows)),))


def _own_error(each: FoldEvidence) -> float | None:
    """The original's error by the size of the tensor."""
    return each.original_rms / each.signal_rms if each.original_rms is not None and each.signal_rms else None


def _fold_row(alike: Sequence[FoldEvidence], scale: Scale) -> Row:
    first = alike[0]
    known = [
        (form, error) for form, error in (("original", _own_error(first)), ("folded", first.relative_l2))
    ]
    marks = tuple(Mark(form, scale.at(error)) for form, error in known if error is not None)
    said = ", ".join(f"{form} {error:.1e}" for form, error in known if error is not None)
    others = f"and {len(alike) - 1} more" if len(alike) > 1 else ""
    return Row(first.node, ", ".join(filter(None, (first.scope, others))), marks, said)


def latencies(benchmark: Benchmark) -> list[tuple[str, str, Plot, str]]:
    """For each level and feed: the level, the feed, times of both models, and what may be said of them."""
    return [_latency(level, timing) for level in benchmark.levels for timing in level.steady]


def loads(benchmark: Benchmark) -> list[tuple[str, str, Plot, str]]:
    """The same for the time to load."""
    return [_latency(level, level.load) for level in benchmark.levels if level.load is not None]


def _latency(level: LevelResult, timing: Timing) -> tuple[str, str, Plot, str]:
    pair = (("A", timing.a), ("B", timing.b))
    scale = from_zero((max(_known(latency)) * _MILLI for _, latency in pair), "ms")
    rows = tuple(_box(name, latency, scale) for name, latency in pair)
    return level_name(level.level), work(timing), Plot(scale, (Group("", rows),)), finding(timing.comparison)


def _known(latency: Latency) -> list[float]:
    quantiles = (latency.p10, latency.p25, latency.p50, latency.p75, latency.p90, latency.p99)
    return [each for each in quantiles if each is not None]


def _box(name: str, latency: Latency, scale: Scale) -> Row:
    def at(seconds: float) -> float:
        return scale.at(seconds * _MILLI)

    spans = []
    if latency.p10 is not None and latency.p90 is not None:
        spans.append(("range", at(latency.p10), at(latency.p90)))
    if latency.p25 is not None and latency.p75 is not None:
        spans.append(("box", at(latency.p25), at(latency.p75)))
    marks = [Mark("median", at(latency.p50))]
    marks += [Mark("tail", at(latency.p99))] if latency.p99 is not None else []
    said = f"median {milliseconds(latency.p50)} ms"
    said += f", 90 % within {milliseconds(latency.p90)} ms" if latency.p90 is not None else ""
    said += f", 99 % within {milliseconds(latency.p99)} ms" if latency.p99 is not None else ""
    return Row(name, f"{latency.times} times", tuple(marks), said, tuple(spans))


def ratios(benchmark: Benchmark) -> Plot | None:
    """Time of A by time of B: each block, the median with its interval, and the noise of the machine."""
    known = [(level, t, t.comparison) for level, t in benchmark.timings() if t.comparison.ratios]
    values = [value for _, _, comparison in known for value in _extent(comparison)]
    if not values:
        return None
    scale = around_one(values)
    groups: dict[str, list[Row]] = {}
    for level, timing, comparison in known:
        groups.setdefault(level_name(level.level), []).append(_ratio_row(timing, comparison, scale))
    return Plot(scale, tuple(Group(name, tuple(rows)) for name, rows in groups.items()))


def _extent(comparison: Comparison) -> list[float]:
    intervals = (comparison.speedup, comparison.noise)
    return [*comparison.ratios, *(v for each in intervals if each is not None for v in (each.low, each.high))]


def _ratio_row(timing: Timing, comparison: Comparison, scale: Scale) -> Row:
    marks = [Mark("one", scale.at(1.0)), *(Mark("block", scale.at(ratio)) for ratio in comparison.ratios)]
    spans = []
    if comparison.noise is not None:
        spans.append(("noise", scale.at(comparison.noise.low), scale.at(comparison.noise.high)))
    if comparison.speedup is not None:
        spans.append(("interval", scale.at(comparison.speedup.low), scale.at(comparison.speedup.high)))
        marks.append(Mark("median", scale.at(comparison.speedup.value)))
    return Row(work(timing), "", tuple(marks), finding(comparison), tuple(spans))


def finding(comparison: Comparison) -> str:
    """What may be said of B, with the interval that it rests on, and no more."""
    blocks = f"{comparison.blocks} block{'s' * (comparison.blocks != 1)}"
    speedup = comparison.speedup
    if speedup is None:
        return f"too few: {blocks}, which bear no interval"
    interval = f"95 % interval {speedup.low:.3f} to {speedup.high:.3f}, {blocks}"
    return f"{comparison.finding}: time of A / time of B {speedup.value:.3f}, {interval}"


def work(timing: Timing) -> str:
    """What was measured."""
    named = one_line(timing.work)
    return named if timing.batch is None else f"batch {timing.batch} ({named})"


def milliseconds(seconds: float) -> str:
    """To three digits, whole from a second on."""
    return f"{seconds * _MILLI:.3g}" if seconds < 1 else f"{seconds * _MILLI:.0f}"
