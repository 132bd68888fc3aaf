"""Look at many models, several at a time."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.fleet.pool import in_processes
from bnfold.gate.examine import Questions, examine
from bnfold.gate.finding import Examined

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from bnfold.gate.targets import Target

    Case = tuple[Target, Questions]


def examine_all(
    targets: Sequence[Target], questions: Questions, *, jobs: int, tell: Callable[[str], None]
) -> tuple[Examined, ...]:
    """Look at every model; the answers are in the order of the targets, however many work on them.

    Args:
        targets: the models.
        questions: what to ask of each.
        jobs: how many at a time; with 1 it is done in this process.
        tell: told how far it is.

    Raises:
        UsageError: what the settings say about a model makes no sense.
        EnvironmentFault: no process could be started.
    """
    cases = [(target, questions) for target in targets]
    answers: dict[int, Examined] = {}
    tell(f"looking at {len(cases)} models")
    with closing(_answers(cases, min(jobs, len(cases)))) as coming:
        for index, answer in coming:
            if isinstance(answer, UsageError):
                raise answer
            answers[index] = answer
            tell(f"looking at models: {len(answers)} of {len(cases)} done")
    return tuple(answers[index] for index in range(len(cases)))


def _answers(cases: Sequence[Case], jobs: int) -> Generator[tuple[int, Examined | UsageError], None, None]:
    if jobs > 1:
        yield from in_processes(_answer, cases, jobs, _died)
    else:
        yield from ((index, _answer(case)) for index, case in enumerate(cases))


def _answer(case: Case) -> Examined | UsageError:
    """What came of a model, in whatever process; nothing is raised, so that others get their turn."""
    try:
        return examine(*case)
    except UsageError as error:
        return error


def _died(case: Case, error: EnvironmentFault) -> Examined | UsageError:
    return Examined(case[0].name, fault=str(error))
