"""Which fold makes the results differ: bisection over the folds in the order of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def first_guilty(count: int, differs: Callable[[int], bool]) -> int | None:
    """The first fold that makes a difference.

    Args:
        count: how many folds there are.
        differs: whether the result of the first so many folds alone differs from the original; asked about
            `log2(count) + 1` numbers, never about `count` itself, of which it is known.

    Returns:
        Its index, such that with the folds before it the results agree and with it they do not; None where
        they differ without any fold.
    """
    if differs(0):
        return None
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        if differs(middle):
            bad = middle
        else:
            good = middle
    return bad - 1
