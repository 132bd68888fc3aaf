"""Statements about times, on simulated ones whose truth is known."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bnfold.benchmarking import comparison
from bnfold.benchmarking.comparison import FEWEST, Comparison, Ratio, compare, finding, ratio

if TYPE_CHECKING:
    from bnfold.benchmarking.comparison import Finding

TRIALS = 1000
# The share of hits of a 95 % interval in so many trials is below this once in 50,000.
ALLOWED = 0.95 - 4.1 * math.sqrt(0.95 * 0.05 / TRIALS)


@pytest.fixture
def rng(monkeypatch: pytest.MonkeyPatch) -> np.random.Generator:
    """For those who simulate; they take fewer resamples, too."""
    monkeypatch.setattr(comparison, "_RESAMPLES", 1000)
    return np.random.default_rng(7)


def ratios(
    rng: np.random.Generator, spread: float, *, truth: float = 1.0, kind: str = "normal", count: int = 12
) -> list[float]:
    """With a median that is true: well-behaved, with heavy tails, or of a machine that is busy at times."""
    logs = rng.standard_t(2, count) if kind == "heavy" else rng.normal(size=count)
    if kind == "busy":
        logs = logs * np.where(rng.random(count) < 0.2, 10, 1)
    values: list[float] = (truth * np.exp(spread * logs)).tolist()
    return values


@pytest.mark.parametrize("kind", ["normal", "heavy", "busy"])
@pytest.mark.parametrize("count", [FEWEST, 12, 13])
def test_the_interval_holds_the_truth_in_95_percent(rng: np.random.Generator, kind: str, count: int) -> None:
    truth, hits = 1.2, 0
    for _ in range(TRIALS):
        found = ratio(ratios(rng, 0.05, truth=truth, kind=kind, count=count), 0)
        hits += found.low <= truth <= found.high
    assert hits / TRIALS >= ALLOWED


def test_without_the_expansion_it_would_not(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above can fail."""
    monkeypatch.setattr(comparison, "_tail", lambda _count: 0.025)
    found = [ratio(ratios(rng, 0.05, count=13), 0) for _ in range(TRIALS)]
    assert sum(each.low <= 1 <= each.high for each in found) / TRIALS < ALLOWED


@pytest.mark.parametrize("kind", ["normal", "busy"])
def test_a_model_against_itself(rng: np.random.Generator, kind: str) -> None:
    """No difference, but for the five in a hundred that the interval promises; those are noise mostly."""
    said: Counter[Finding] = Counter()
    for _ in range(TRIALS):
        said[compare(ratios(rng, 0.01, kind=kind), ratios(rng, 0.01, kind=kind), 0).finding] += 1
    assert said["no difference"] / TRIALS >= ALLOWED
    assert (said["faster"] + said["slower"]) / TRIALS <= 0.05


def test_a_machine_too_busy_to_tell(rng: np.random.Generator) -> None:
    said = Counter(compare(ratios(rng, 0.5), ratios(rng, 0.5), 0).finding for _ in range(TRIALS))
    assert said["too noisy"] / TRIALS >= ALLOWED
    assert said["no difference"] == 0


@pytest.mark.parametrize(("truth", "says"), [(1.3, "faster"), (1 / 1.3, "slower")])
def test_a_real_effect_is_found(rng: np.random.Generator, truth: float, says: Finding) -> None:
    spread, count = 0.03, 12
    error = 1.25 * spread / math.sqrt(count)  # the standard error of a median
    for _ in range(50):
        found = compare(ratios(rng, spread, truth=truth, count=count), ratios(rng, spread, count=count), 0)
        assert found.finding == says
        assert found.speedup is not None
        assert found.speedup.value == pytest.approx(truth, rel=7 * error)


@pytest.mark.parametrize("kind", ["normal", "heavy", "busy"])
@pytest.mark.parametrize("count", [FEWEST, 12])
def test_of_equal_models_hardly_any_is_called_faster_or_slower(
    rng: np.random.Generator, kind: str, count: int
) -> None:
    """At any noise, in at most 5 % of the cases, the promise of the interval."""
    for spread in (0.002, 0.02, 0.2):
        said = Counter(
            compare(ratios(rng, spread, kind=kind, count=count), ratios(rng, spread, kind=kind), 0).finding
            for _ in range(TRIALS // 4)
        )
        assert (said["faster"] + said["slower"]) / (TRIALS // 4) <= 0.05


@pytest.mark.parametrize(("truth", "says"), [(1.1, "faster"), (1 / 1.1, "slower")])
@pytest.mark.parametrize(("kind", "power"), [("normal", 0.99), ("heavy", 0.95), ("busy", 0.8)])
def test_ten_percent_are_found(
    rng: np.random.Generator, truth: float, says: Finding, kind: str, power: float
) -> None:
    """By twelve blocks that scatter by 2 %, and never taken for the opposite."""
    said: Counter[Finding] = Counter()
    for _ in range(TRIALS // 4):
        said[compare(ratios(rng, 0.02, truth=truth, kind=kind), ratios(rng, 0.02, kind=kind), 0).finding] += 1
    assert said[says] / (TRIALS // 4) >= power
    assert said[{"faster": "slower", "slower": "faster"}[says]] == 0  # type: ignore[index]  # one of the two


def test_an_effect_as_large_as_the_noise_is_none(rng: np.random.Generator) -> None:
    """A in one session is 5 % faster than in another: then 4 % say nothing of B, however sharp."""
    found = compare(ratios(rng, 1e-4, truth=1.04), ratios(rng, 1e-4, truth=1.05), 0)
    assert found.finding == "too noisy"


ONE = Ratio(1.0, 0.99, 1.01)


@pytest.mark.parametrize(
    ("speedup", "noise", "says"),
    [
        (Ratio(1.1, 1.05, 1.15), ONE, "faster"),
        (Ratio(0.9, 0.85, 0.95), ONE, "slower"),
        (Ratio(1.0, 0.95, 1.05), ONE, "no difference"),
        (Ratio(1.05, 1.0, 1.1), ONE, "no difference"),
        (Ratio(1.05, 0.99, 1.11), ONE, "too noisy"),
        (Ratio(0.95, 0.90, 1.01), ONE, "too noisy"),
        (Ratio(1.5, 0.9, 3.0), ONE, "too noisy"),
        (Ratio(1.02, 1.01, 1.03), Ratio(1.0, 0.98, 1.03), "too noisy"),
        (Ratio(1.02, 1.01, 1.03), Ratio(1.0, 0.97, 1.01), "too noisy"),
        (Ratio(0.98, 0.97, 0.99), Ratio(1.0, 0.97, 1.01), "too noisy"),
        # A differs from itself by a hair, B from A by a third.
        (Ratio(1.33, 1.3, 1.36), Ratio(1.004, 1.001, 1.007), "faster"),
    ],
)
def test_what_intervals_allow_to_say(speedup: Ratio, noise: Ratio, says: Finding) -> None:
    assert finding(speedup, noise) == says


@pytest.mark.parametrize("count", range(FEWEST))
def test_few_blocks_say_nothing(count: int) -> None:
    ratios = (2.0,) * count
    assert compare(ratios, [1.0] * count, 0) == Comparison(None, None, "too few", count, ratios)


def test_without_any_spread_it_is_exact() -> None:
    found = ratio([1.25] * FEWEST, 0)
    # A logarithm and an exponential, each within an ulp (2.2e-16) or two.
    assert (found.value, found.low, found.high) == pytest.approx((1.25, 1.25, 1.25), rel=1e-15)


def test_exchanging_the_models_inverts_the_ratio() -> None:
    values = ratios(np.random.default_rng(1), 1.0, count=11)
    one, other = ratio(values, 3), ratio([1 / value for value in values], 3)
    # What is left is the rounding of each 1 / value, of a logarithm and of an exponential: some ulps.
    assert (other.value, other.low, other.high) == pytest.approx(
        (1 / one.value, 1 / one.high, 1 / one.low), rel=1e-14
    )


def test_a_seed_repeats() -> None:
    values = ratios(np.random.default_rng(1), 1.0, count=11)
    assert ratio(values, 5) == ratio(values, 5)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(5, 2.571), (7, 2.365), (10, 2.228), (20, 2.086), (30, 2.042)]
)
def test_the_quantile_of_students_distribution(freedom: int, quantile: float) -> None:
    """Against the printed table, to the three digits that the expansion promises."""
    assert comparison._student(1.959964, freedom) == pytest.approx(quantile, rel=2e-3)
