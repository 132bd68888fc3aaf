"""From numbers to places on an axis, in per cent of its width, so that a plot fits any screen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEFT, _RIGHT = 4.0, 98.0  # per cent: a mark at an end stays whole
_ZERO = 1.0  # where a logarithmic axis has what it cannot show
_DECADES = 6  # more are not all labelled
_RATIOS = (1e-3, 0.01, 0.1, 0.2, 0.5, 0.67, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 5, 10, 100, 1e3)
_NARROWEST = 1.05  # an axis of ratios reaches this far on both sides of 1
_WIDE, _CROWDED = 2.0, (0.85, 1.2)
_STEPS = 4


@dataclass(frozen=True)
class Tick:
    """A labelled place."""

    x: float
    label: str


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: the number at its left end.
        high: the number at its right end.
        logarithmic: whether equal factors are equal distances.
        ticks: labels.
    """

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """The place of a number, rounded to a hundredth of a per cent."""
        if self.logarithmic and value <= 0:
            return _ZERO
        low, high, here = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        part = (here - low) / (high - low)
        return round(_LEFT + (_RIGHT - _LEFT) * min(max(part, 0.0), 1.0), 2)

    def with_ticks(self, values: Iterable[tuple[float, str]]) -> Scale:
        """The same with these labels."""
        ticks = tuple(Tick(self.at(value), label) for value, label in values)
        return Scale(self.low, self.high, self.logarithmic, ticks)


def decades(values: Iterable[float]) -> Scale | None:
    """A logarithmic axis from one power of ten to another; None without a positive number."""
    positive = [value for value in values if value > 0]
    if not positive:
        return None
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    high = max(high, low + 1)
    step = math.ceil((high - low) / _DECADES)
    # float("1e-7"), since 10.0**-7 is another number.
    powers = [(float(f"1e{n}"), f"1e{n}") for n in range(low, high + 1, step)]
    return Scale(float(f"1e{low}"), float(f"1e{high}"), logarithmic=True).with_ticks(powers)


def from_zero(values: Iterable[float], unit: str) -> Scale:
    """A linear axis that begins at zero."""
    largest = max(values, default=0.0) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(largest / _STEPS))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude * _STEPS >= largest * 0.999)
    count = math.ceil(largest / step - 1e-9)
    ticks = [(i * step, f"{i * step:.6g}" + (f" {unit}" if i == count else "")) for i in range(count + 1)]
    return Scale(0.0, count * step, logarithmic=False).with_ticks(ticks)


def around_one(values: Iterable[float]) -> Scale:
    """A logarithmic axis of ratios that has 1 in it."""
    known = [value for value in values if value > 0]
    low = min([1 / _NARROWEST, *known]) / 1.02
    high = max([_NARROWEST, *known]) * 1.02
    inside = [ratio for ratio in _RATIOS if low <= ratio <= high]
    if high / low > _WIDE:
        # Labels near 1 would lie upon each other.
        inside = [ratio for ratio in inside if ratio == 1 or not _CROWDED[0] < ratio < _CROWDED[1]]
    return Scale(low, high, logarithmic=True).with_ticks((ratio, f"{ratio:g}") for ratio in inside)
