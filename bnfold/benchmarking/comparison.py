"""From paired times to a statement: the median ratio, its 95 % interval, and what may be said.

The unit of observation is the block: a process that loads A, A once more, and B, and lets them take turns.
Within a block the runs share memory layout and the state of the machine, so they are not independent; blocks
are. A block gives one ratio of A to B, and one of A to itself, which shows what the machine does by itself.

The interval is the percentile bootstrap of the median over blocks, expanded for small samples (T. Hesterberg,
What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015, section 4): without that it
holds the true median in some 92 % of the cases for ten blocks. Fewer than six blocks bear no 95 % interval
of a median at all: that all five of them lie on one side happens in 6 % of the cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Finding = Literal["faster", "slower", "no difference", "too noisy", "too few"]

FEWEST = 6  # blocks
INDIFFERENT = 1.1  # an interval that reaches beyond this ratio shows no equality either
_CONFIDENCE = 0.95
_RESAMPLES = 10_000
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of times.

    Attributes:
        value: the median over blocks.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the times of two models say.

    Attributes:
        speedup: time of A / time of B; above 1 B is faster. None where there are fewer than `FEWEST` blocks.
        noise: time of A / time of A in another session, measured between the others; None likewise.
        finding: what B is. "no difference": the interval holds 1 and stays within `INDIFFERENT`. "too noisy":
            it holds 1 and does not, or A differs from itself as much as B does from A.
        blocks: how many were measured.
        ratios: time of A / time of B of each block, in the order of measurement.
    """

    speedup: Ratio | None
    noise: Ratio | None
    finding: Finding
    blocks: int
    ratios: tuple[float, ...] = ()


def compare(speedups: Sequence[float], noises: Sequence[float], seed: int) -> Comparison:
    """Judge the ratios of all blocks.

    Args:
        speedups: time of A / time of B, one a block.
        noises: time of A / time of A in another session, one a block.
        seed: of the bootstrap.
    """
    if len(speedups) < FEWEST:
        return Comparison(None, None, "too few", len(speedups), tuple(speedups))
    speedup, noise = ratio(speedups, seed), ratio(noises, seed)
    return Comparison(speedup, noise, finding(speedup, noise), len(speedups), tuple(speedups))


def ratio(values: Sequence[float], seed: int) -> Ratio:
    """The median of positive ratios, at least `FEWEST`, and its 95 % interval.

    Ratios are taken as logarithms, so that a factor and its inverse weigh the same: with A and B exchanged,
    the result is the inverse.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(logs), (_RESAMPLES, len(logs)))
    medians = np.median(logs[drawn], axis=1)
    tail = _tail(len(logs))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Ratio(math.exp(np.median(logs)), math.exp(low), math.exp(high))


def finding(speedup: Ratio, noise: Ratio) -> Finding:
    """What the intervals allow to say of B, and no more."""
    if speedup.low <= 1 <= speedup.high:
        equal = speedup.low >= 1 / INDIFFERENT and speedup.high <= INDIFFERENT
        return "no difference" if equal else "too noisy"
    drift = max(abs(math.log(noise.low)), abs(math.log(noise.high)))
    if abs(math.log(speedup.value)) <= drift:
        return "too noisy"
    return "faster" if speedup.value > 1 else "slower"


def _tail(count: int) -> float:
    """The part of the bootstrap distribution that lies beyond each end of the interval."""
    quantile = _student(_NORMAL.inv_cdf((1 + _CONFIDENCE) / 2), count - 1)
    return _NORMAL.cdf(-math.sqrt(count / (count - 1)) * quantile)


def _student(z: float, freedom: int) -> float:
    """The quantile of Student's t where the normal distribution has `z`.

    The expansion 26.7.5 of Abramowitz and Stegun, Handbook of Mathematical Functions, 1964; it is right to
    three digits from five degrees of freedom on.
    """
    square = z * z
    terms = (
        1.0,
        (square + 1) / 4,
        ((5 * square + 16) * square + 3) / 96,
        (((3 * square + 19) * square + 17) * square - 15) / 384,
    )
    return z * math.fsum(term / math.pow(freedom, power) for power, term in enumerate(terms))
