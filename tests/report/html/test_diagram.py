"""Drawings laid out: boxes apart, arrows down, from box to box."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bnfold.fold.drawing import Box, Drawing
from bnfold.report.html.diagram import picture


@st.composite
def drawings(draw: Any) -> Drawing:  # noqa: ANN401 - hypothesis gives it
    count = draw(st.integers(0, 12))
    boxes = tuple(
        Box(draw(st.sampled_from(["Conv", "", "x" * 99])), f"n{i}", "weights") for i in range(count)
    )
    pairs = list(combinations(range(count), 2))
    arrows = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []
    return Drawing(boxes, tuple(sorted(arrows)))


@given(drawings())
def test_layout(drawing: Drawing) -> None:
    made = picture(drawing)
    assert len(made.boxes) == len(drawing.boxes)
    for box in made.boxes:
        assert 0 <= box.x <= made.width - made.box_width
        assert 0 <= box.y <= made.height - made.box_height
        assert len(box.title) <= 19
        assert len(box.subtitle) <= 23
    for one, other in combinations(made.boxes, 2):
        assert abs(one.x - other.x) >= made.box_width or abs(one.y - other.y) >= made.box_height
    for (start, end), arrow in zip(drawing.arrows, made.arrows, strict=True):
        above, below = made.boxes[start], made.boxes[end]
        assert below.y > above.y
        x, y = map(float, re.findall(r"^M(\S+) (\d+)", arrow.line)[0])
        assert above.x < x < above.x + made.box_width
        assert y == above.y + made.box_height
        tip = re.findall(r"L(\S+) (\d+)z$", arrow.head)[0]
        assert below.x < float(tip[0]) < below.x + made.box_width
        assert float(tip[1]) == below.y - 1
    numbers = re.findall(r"-?[\d.]+", " ".join(arrow.line for arrow in made.arrows))
    assert all(0 <= float(number) <= max(made.width, made.height) for number in numbers)


def test_nothing_to_draw() -> None:
    assert picture(Drawing((), ())).said == "nothing"
