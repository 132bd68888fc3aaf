"""Places the boxes of a small drawing in rows, so that every arrow points down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.report.wording import one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Collection

    from bnfold.fold.drawing import Box, Drawing

_WIDTH, _HEIGHT = 160, 42  # of a box, in pixels
_ACROSS, _DOWN = 12, 26  # between boxes
_LANE = 14  # an arrow that passes a row
_MARGIN = 2
_LETTERS = 23  # of a name, in a box
_OP_LETTERS = 19
_HEAD = 6  # of an arrow


@dataclass(frozen=True)
class Placed:
    """A box and where it is.

    Attributes:
        role: as `Box.role`.
        title: what stands in it, first line.
        subtitle: second line.
        full: the whole name.
        x: left edge.
        y: upper edge.
        obstacle: whether it stands in the way of a fold.
    """

    role: str
    title: str
    subtitle: str
    full: str
    x: int
    y: int
    obstacle: bool


@dataclass(frozen=True)
class Arrow:
    """Two SVG paths.

    Attributes:
        line: to be stroked.
        head: to be filled.
    """

    line: str
    head: str


@dataclass(frozen=True)
class Picture:
    """A drawing with places, in pixels.

    Attributes:
        width: of all of it.
        height: of all of it.
        boxes: the boxes; each is `box_width` by `box_height`.
        arrows: from the lower edge of a box to the upper edge of another.
        said: the same in words.
    """

    width: int
    height: int
    boxes: tuple[Placed, ...]
    arrows: tuple[Arrow, ...]
    said: str
    box_width: int = _WIDTH
    box_height: int = _HEIGHT


def picture(drawing: Drawing, obstacles: Collection[int] = ()) -> Picture:
    """Lay a drawing out; `obstacles` are the boxes that stand in the way of a fold, by index."""
    depth = _depths(drawing)
    rows: list[list[int | None]] = [[] for _ in range(max(depth, default=-1) + 1)]
    place: dict[int, int] = {}
    for index, row in enumerate(depth):
        place[index] = len(rows[row])
        rows[row].append(index)
    ways: list[list[tuple[int, int]]] = []  # of each arrow, its row and place in it, row by row
    for start, end in drawing.arrows:
        stops = [(depth[start], place[start])]
        for row in range(depth[start] + 1, depth[end]):
            stops.append((row, len(rows[row])))
            rows[row].append(None)
        ways.append([*stops, (depth[end], place[end])])
    width = max((_row_width(row) for row in rows), default=0) + 2 * _MARGIN
    centres = [_centres(row, width) for row in rows]
    boxes = tuple(
        _placed(
            box,
            round(centres[depth[index]][place[index]] - _WIDTH / 2),
            _top(depth[index]),
            obstacle=index in obstacles,
        )
        for index, box in enumerate(drawing.boxes)
    )
    height = _top(len(rows)) - _DOWN + _MARGIN if rows else 0
    arrows = tuple(_arrow([(centres[row][at], row) for row, at in stops]) for stops in ways)
    return Picture(round(width), height, boxes, arrows, _said(drawing, obstacles))


def _depths(drawing: Drawing) -> list[int]:
    """The row of each box: one below the lowest that points at it. Boxes stand in the order of the data."""
    depth = [0] * len(drawing.boxes)
    for start, end in sorted(drawing.arrows, key=lambda arrow: arrow[1]):
        depth[end] = max(depth[end], depth[start] + 1)
    # A second source belongs right above what it feeds.
    fed = {end for _, end in drawing.arrows}
    for index in range(len(depth)):
        targets = [depth[end] for start, end in drawing.arrows if start == index]
        if index not in fed and targets:
            depth[index] = min(targets) - 1
    return depth


def _row_width(row: list[int | None]) -> int:
    return sum(_LANE if each is None else _WIDTH for each in row) + _ACROSS * (len(row) - 1)


def _centres(row: list[int | None], width: int) -> list[float]:
    x = (width - _row_width(row)) / 2
    found = []
    for each in row:
        own = _LANE if each is None else _WIDTH
        found.append(x + own / 2)
        x += own + _ACROSS
    return found


def _top(row: int) -> int:
    return _MARGIN + row * (_HEIGHT + _DOWN)


def _arrow(stops: list[tuple[float, int]]) -> Arrow:
    x, row = stops[0]
    y = _top(row) + _HEIGHT
    parts = [f"M{x:g} {y}"]
    for number, (next_x, next_row) in enumerate(stops[1:], 2):
        last = number == len(stops)
        next_y = _top(next_row) - (_HEAD if last else 0)
        middle = (y + next_y) / 2
        parts.append(
            f"V{next_y}" if next_x == x else f"C{x:g} {middle:g} {next_x:g} {middle:g} {next_x:g} {next_y}"
        )
        if not last:
            parts.append(f"V{next_y + _HEIGHT}")
        x, y = next_x, next_y + _HEIGHT
    tip = _top(stops[-1][1])
    return Arrow("".join(parts), f"M{x - _HEAD / 2 - 1:g} {tip - _HEAD - 1}h{_HEAD + 2}L{x:g} {tip - 1}z")


def _placed(box: Box, x: int, y: int, *, obstacle: bool) -> Placed:
    name = one_line(box.name)
    title = "\u2026" if box.role == "hidden" else box.op or box.role
    return Placed(
        box.role,
        shortened(one_line(title.rpartition("::")[2]), _OP_LETTERS),
        shortened(name, _LETTERS),
        shortened(name, 200),
        x,
        y,
        obstacle,
    )


def _said(drawing: Drawing, obstacles: Collection[int]) -> str:
    """What the drawing shows, for who does not see it."""
    named = [
        (box.name if box.role == "hidden" else box.op or box.role) + " (in the way)" * (index in obstacles)
        for index, box in enumerate(drawing.boxes)
    ]
    steps = [f"{named[start]} to {named[end]}" for start, end in drawing.arrows]
    return one_line(", ".join(steps) or ", ".join(named) or "nothing")
