"""What is to be said of nested graphs that no feed runs: an error there moves no output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.verification.branches import branches, is_same
from bnfold.verification.case import Evidence, few
from bnfold.verification.truth import BudgetSpentError, TruthUnavailableError
from bnfold.verification.watch import Watch

if TYPE_CHECKING:
    from bnfold.verification.branches import Branch
    from bnfold.verification.case import Case
    from bnfold.verification.feeds import Feed
    from bnfold.verification.real import Reals

_WAY_OUT = "pass inputs that run it"


def unrun(case: Case, everything: Reals, feed: Feed) -> Evidence:
    """Make nested graphs run that no feed runs and that the models do not share, and compare the outputs.

    Args:
        case: the pair.
        everything: both models, all feeds evaluated.
        feed: what to evaluate them with.
    """
    findings, doubts = [], []
    waiting: list[tuple[Branch, ...]] = [(branch,) for branch in everything.unrun()]
    known = {path[-1] for path in waiting}
    for path in waiting:
        branch = path[-1]
        if everything.is_gone(branch):
            findings.append(f"no feed runs {branch}, which is not in the other model")
            continue
        reals = everything.forcing(path).watched(Watch(f"running {branch}", case.say, case.deadline))
        try:
            wrong = any(row.outcome == "fail" for row in reals.evidence(feed).rows)
        except (BudgetSpentError, TruthUnavailableError) as error:
            doubts.append(f"no feed runs {branch}, nor could it be made to run ({error}); {_WAY_OUT}")
            continue
        left = everything.unrun()
        if branch in left:
            doubts.append(f"no feed runs {branch}, nor could it be made to run; {_WAY_OUT}")
        elif wrong:
            doubts.append(f"no feed runs {branch}, and made to run the models differ; {_WAY_OUT}")
        else:
            findings.append(f"no feed runs {branch}: made to run, it was compared in float64 alone")
        # What is nested in it was out of reach before.
        deeper = [found for found in left if found not in known]
        waiting += [(*path, found) for found in deeper]
        known.update(deeper)
    return Evidence(findings=tuple(findings), doubts=tuple(doubts))


def unknown(case: Case) -> tuple[str, ...]:
    """What onnxruntime does not tell: whether it ran a nested graph that the models do not share."""
    models, folders = (case.original.proto, case.folded.proto), (case.original.folder, case.folded.folder)
    names = [str(branch) for branch in branches(models[0]) if not is_same(branch, *models, folders)]
    if not names:
        return ()
    return (f"without float64 it is not known whether any feed runs {few(names)}",)
