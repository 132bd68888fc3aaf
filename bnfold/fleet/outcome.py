"""What came of a model among many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnfold.errors import BnfoldError
    from bnfold.fleet.ledger import Record
    from bnfold.result import Result

# The gravest first: bnfold or the machine failed, wrong arguments, no valid model, other results, no verdict.
GRAVITY = (4, 2, 3, 1, 5, 0)


@dataclass(frozen=True)
class Outcome:
    """One model: a result, an error, or done before.

    Attributes:
        source: the model.
        output: where its result goes.
        result: as from `bnfold.optimize`, its model on disk; None with an error, and when it was done before.
        error: why there is none.
        resumed: whether an earlier run had made this very result, which was left as it is.
        verified: whether verification was asked for.
        record: what a later run needs to know of the result to leave it as it is.
    """

    source: str
    output: str
    result: Result | None = None
    error: BnfoldError | None = None
    resumed: bool = False
    verified: bool = True
    record: Record | None = None

    @property
    def exit_code(self) -> int:
        """What the command line would return for this model alone."""
        if self.error is not None:
            return self.error.exit_code
        if self.result is None or not self.verified:
            return 0
        return 5 if self.result.verdict is None else self.result.verdict.exit_code


def worst(outcomes: Iterable[Outcome]) -> int:
    """The exit code of all of them: the gravest of theirs."""
    return min((outcome.exit_code for outcome in outcomes), key=GRAVITY.index, default=0)
