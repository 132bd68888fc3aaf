"""The process that is measured: who runs when, and what counts."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from bnfold.benchmarking import measuring, worker

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Time that passes only when a model runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def runner(self, seat: str, seconds: float) -> Callable[[], float]:
        def run() -> float:
            self.log.append(seat)
            self.now += seconds
            return seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    return clock


def turns(clock: Clock, seconds: float, each: float = 0.5) -> tuple[worker.Times, list[str]]:
    """Times, and who ran after the warm-up, which is three times in a row at least."""
    order = ("a", "again", "b")
    times = worker._turns(order, {seat: clock.runner(seat, each) for seat in order}, seconds)
    counted = sum(1 + len(turn) for rounds in times.values() for turn in rounds)
    assert clock.log[:3] == ["a"] * 3
    return times, clock.log[-counted:]


def test_every_seat_is_first_second_and_third(clock: Clock) -> None:
    """Slow models: a turn is a run that does not count and one that does."""
    times, ran = turns(clock, 0.0)
    assert ran[::2] == ran[1::2]
    assert ran[::2] == ["a", "again", "b", "again", "b", "a", "b", "a", "again"]
    assert times == {seat: [[0.5]] * 3 for seat in ("a", "again", "b")}


def test_time_that_is_left_gives_whole_threes(clock: Clock) -> None:
    times, _ = turns(clock, 10.0)
    # A round takes 3 s; the fourth ends the 10 s, and two more make the set complete.
    assert {seat: len(rounds) for seat, rounds in times.items()} == {"a": 6, "again": 6, "b": 6}


def test_fast_models_run_often_in_a_turn_and_equally(clock: Clock) -> None:
    times, ran = turns(clock, 0.0, 1e-3)
    assert {len(turn) for rounds in times.values() for turn in rounds} == {10}
    assert len(set(Counter(ran).values())) == 1


def test_there_is_an_end(clock: Clock) -> None:
    times, _ = turns(clock, 1e9, 1e-4)
    assert {len(rounds) for rounds in times.values()} == {worker.MOST_ROUNDS}


def test_six_blocks_let_each_follow_each_equally_often() -> None:
    rounds = [
        tuple(worker._rotated(order, number)) for order in measuring._ORDERS for number in range(len(order))
    ]
    pairs = Counter(pair for order in rounds for pair in pairwise(order))
    assert len(pairs) == 6
    assert len(set(pairs.values())) == 1
    assert sorted({order[0] for order in measuring._ORDERS[:3]} | {"a"}) == ["a", "again", "b"]


def test_peak_memory_is_that_of_this_process() -> None:
    peak = worker._peak_memory()
    assert peak is None or 1 << 20 < peak < 1 << 40
