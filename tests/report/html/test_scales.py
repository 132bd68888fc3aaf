"""Places on axes: order is kept, nothing leaves the axis, labels stand where their numbers do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.report.html.scales import around_one, decades, from_zero

positive = st.floats(1e-30, 1e30)

ROUNDING = 0.005  # places are rounded to two digits behind the point; one at an end is exact


@given(st.lists(positive | st.just(0.0), min_size=1))
def test_decades(values: list[float]) -> None:
    scale = decades(values)
    if scale is None:
        assert not any(values)
        return
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 < place < 100 for place in places)
    assert 2 <= len(scale.ticks) <= 7
    for tick in scale.ticks:
        assert tick.x == scale.at(float(tick.label))


def test_a_decade_is_a_decade() -> None:
    scale = decades([1e-7, 1e-5])
    assert scale is not None
    assert [tick.label for tick in scale.ticks] == ["1e-7", "1e-6", "1e-5"]
    assert scale.at(1e-6) == pytest.approx((scale.at(1e-7) + scale.at(1e-5)) / 2)
    assert scale.at(0.0) < scale.at(1e-7)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1))
def test_from_zero(values: list[float]) -> None:
    scale = from_zero(values, "ms")
    assert scale.low == 0
    assert max(values) <= scale.high * (1 + 1e-8)
    assert scale.high <= 2.5 * max(values)
    assert 2 <= len(scale.ticks) <= 6
    assert scale.ticks[0].label == "0"
    assert scale.ticks[-1].label.endswith(" ms")
    twice = [scale.at(value / 2) - scale.at(0.0) for value in (scale.high, scale.high / 2)]
    assert twice[0] == pytest.approx(2 * twice[1], abs=3 * ROUNDING + 1e-9)


@given(st.lists(st.floats(0.01, 100)))
def test_around_one(values: list[float]) -> None:
    scale = around_one(values)
    assert "1" in [tick.label for tick in scale.ticks]
    for value in (*values, 1.0):
        assert scale.low < value < scale.high
    places = [tick.x for tick in scale.ticks]
    assert places == sorted(set(places))
    # A factor and its inverse lie equally far from 1.
    far = min(scale.high, 1 / scale.low)
    assert math.isclose(
        scale.at(far) - scale.at(1.0), scale.at(1.0) - scale.at(1 / far), abs_tol=4 * ROUNDING + 1e-9
    )
