"""The whole gate: find the models, look at them, weigh what was found against the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.errors import UsageError
from bnfold.gate import baseline as baselines
from bnfold.gate.finding import Survey
from bnfold.gate.fleet import examine_all
from bnfold.gate.policy import judge
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bnfold.gate.examine import Questions
    from bnfold.gate.finding import Kind
    from bnfold.gate.targets import Targets


@dataclass(frozen=True)
class Rules:
    """What the gate goes by.

    Attributes:
        fail_on: the kinds of findings that let it fail.
        baseline: file of the findings that are tolerated; None where none are.
        update: write the present findings to that file.
    """

    fail_on: tuple[Kind, ...]
    baseline: Path | None
    update: bool


def check(
    targets: Targets, questions: Questions, rules: Rules, *, jobs: int, tell: Callable[[str], None]
) -> Survey:
    """Look at the models and judge them.

    Args:
        targets: the models.
        questions: what to ask of each.
        rules: what follows from the answers.
        jobs: how many models at a time.
        tell: told how far it is.

    Raises:
        UsageError: the baseline cannot be read or is no place for one.
        EnvironmentFault: the baseline cannot be written.
    """
    known = _known(rules)
    examined = examine_all(targets.chosen, questions, jobs=jobs, tell=tell)
    if rules.baseline is None:
        nothing = baselines.EMPTY.tolerance("")
        models = tuple(judge(each, rules.fail_on, nothing) for each in examined)
        return Survey(__version__, rules.fail_on, models, excluded=targets.excluded)
    folder = rules.baseline.parent
    names = [baselines.name_in(rules.baseline, target) for target in targets.chosen]
    by_name = dict(zip(names, examined, strict=True))
    gone = baselines.outdated(
        known, by_name, lambda name: (folder / name).exists(), asked=questions.on_demand
    )
    if rules.update:
        known, gone = baselines.updated(known, by_name, gone, rules.fail_on), ()
        baselines.save(known, rules.baseline)
    models = tuple(judge(each, rules.fail_on, known.tolerance(name)) for name, each in by_name.items())
    return Survey(__version__, rules.fail_on, models, gone, targets.excluded)


def _known(rules: Rules) -> baselines.Baseline:
    if rules.baseline is None:
        if rules.update:
            raise UsageError("--update-baseline needs to know which: --baseline FILE")
        return baselines.EMPTY
    if rules.update and not rules.baseline.exists():
        if not rules.baseline.parent.is_dir():
            raise UsageError(f"--baseline {rules.baseline}: there is no such folder")
        return baselines.EMPTY
    return baselines.load(rules.baseline)
