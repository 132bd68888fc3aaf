"""Watches float64 evaluations: says how far they are, and ends them when the time is up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bnfold.progress import Stage
from bnfold.verification.truth.call import BudgetSpentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from bnfold.verification.truth import Hooks, Step


class Watch:
    """Counts the nodes of the evaluations of one feed.

    Args:
        stage: what is being done, in words.
        say: is told it, with the share that is done.
        deadline: on the clock of `time.monotonic`.
    """

    def __init__(self, stage: str, say: Callable[[str], None], deadline: float) -> None:
        self._stage = stage
        self._say = say
        self._deadline = deadline
        self._done = 0
        self._expected = 0
        self._told = -1

    def expect(self, nodes: int) -> None:
        """Announce so many more nodes."""
        self._expected += nodes

    def node(self) -> None:
        """One more node is reached.

        Raises:
            BudgetSpentError: the time is up.
        """
        if time.monotonic() > self._deadline:
            raise BudgetSpentError("the time budget is spent")
        self._done += 1
        percent = 100 * self._done // max(self._expected, self._done)
        if percent > self._told:
            self._told = percent
            self._say(Stage(self._stage, percent / 100))


class Watched:
    """Hooks of an evaluation that is watched."""

    def __init__(self, hooks: Hooks, watch: Watch) -> None:
        self._hooks = hooks
        self._watch = watch

    def before(self, step: Step, inputs: Sequence[Any]) -> Sequence[Any]:
        """Count the node; keep what the hooks choose."""
        self._watch.node()
        return self._hooks.before(step, inputs)

    def after(self, step: Step, inputs: Sequence[Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Keep what the hooks choose."""
        return self._hooks.after(step, inputs, outputs)
