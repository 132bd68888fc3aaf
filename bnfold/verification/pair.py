"""Do two models compute the same function? The verdict, step by step.

1. Feeds are made in sizes that the original accepts (`feeding`).
2. onnxruntime runs both models, at DISABLE_ALL and at ENABLE_ALL, in a process of its own (`sessions`).
3. The original is evaluated in float64: the truth. At each level the folded model's error against it is
   judged by the original's (`gather`, `judge`).
4. For the first feed the folded model is evaluated in float64 too: what is left is the effect of its stored
   weights, judged by what half-ulp changes of the original's weights do (`real`, `sensitivity`).
5. A branch or a body of a loop that no feed runs is made to run (`unrun`, `branches`).
6. Where the outputs agree, layers are asked for their weights one by one (`responses`), and tensors inside
   are compared (`layers`), unless the caller knows the weights already.
7. Where there is no truth, the runtime's own answer to half-ulp changes is the yardstick (`bound`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from bnfold.errors import UsageError
from bnfold.verification.case import (
    LEVELS,
    Case,
    Evidence,
    Progress,
    case_of,
    few,
    fixed,
    interface_mismatch,
)
from bnfold.verification.conclusion import conclude, verdict
from bnfold.verification.feeding import choose_feeds
from bnfold.verification.feeds import NoFeedError
from bnfold.verification.gather import failures, judged_by_bound, judged_by_truth
from bnfold.verification.inputs import Wishes, understand
from bnfold.verification.options import TruthMode, Verification
from bnfold.verification.sessions import Run
from bnfold.verification.truth import BudgetSpentError, TruthUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from bnfold.verification.verdict import Verdict


def verify(
    original: Path | bytes,
    folded: Path | bytes,
    how: Verification | None = None,
    *,
    inside: bool = True,
    progress: Progress | None = None,
) -> Verdict:
    """Say whether two models compute the same function.

    Args:
        original: the model to be trusted, a file or serialized bytes.
        folded: the model to be judged.
        how: what to feed, what to run on, what to judge by.
        inside: whether layers and tensors inside are compared too (`responses`, `layers`). Whoever has
            compared every weight that was written with its exact value learns nothing from that.
        progress: is told what happens, one short line at a time.

    Raises:
        ModelError: a model cannot be read.
        EnvironmentFault: onnxruntime fell back from the provider that was asked for, or has none such.
        UsageError: feeds that do not fit the model, or an unknown provider or way to judge.
    """
    how = how or Verification()
    if how.truth not in get_args(TruthMode):
        raise UsageError(f"truth={how.truth!r}; expected one of {', '.join(get_args(TruthMode))}")
    wishes = how.inputs if isinstance(how.inputs, Wishes) else understand(how.inputs, how.ranges)
    started = time.monotonic()
    with case_of(original, folded, how, progress) as case:
        result = _verify(case, wishes, how.truth, inside=inside)
    return replace(result, seconds=time.monotonic() - started)


def _verify(case: Case, wishes: Wishes, mode: TruthMode, *, inside: bool) -> Verdict:
    mismatch = interface_mismatch(case)
    if mismatch:
        return verdict(case, "different", f"different: {mismatch}", Evidence(), ())
    try:
        feeds, sizes = choose_feeds(case, wishes)
    except NoFeedError as error:
        return verdict(case, "not verified", f"not verified: {error}", Evidence(), ())
    case.say("running both models in onnxruntime")
    runs = [Run(level, feed.name, feed.values) for level in LEVELS for feed in feeds]
    first = case.run(case.original, runs)
    second = case.run(case.folded, runs)
    known = sizes + _chance(case) + (_fixed(case) if inside else ())
    evidence = Evidence(findings=known) + failures(case, first, second)
    obstacle = "not asked for"
    if mode != "bound":
        try:
            evidence += judged_by_truth(case, feeds, first, second, inside=inside)
        except TruthUnavailableError as error:
            obstacle = str(error)
        except BudgetSpentError:
            obstacle = f"the time budget of {case.budget:g} s was spent"
        else:
            return conclude(case, evidence, feeds, first)
    if mode == "full":
        summary = f"not verified: no float64 truth; {obstacle}"
        return verdict(case, "not verified", summary, evidence, feeds, first)
    evidence += Evidence(findings=(f"judged by a bound, without float64 truth: {obstacle}",))
    return conclude(case, evidence + judged_by_bound(case, feeds, first, second), feeds, first)


def _chance(case: Case) -> tuple[str, ...]:
    """What is to be said of random numbers."""
    if not case.original.chance:
        return ()
    operators = ", ".join(case.original.chance)
    return (f"{operators} without a seed: both models were run with the same one, to draw the same numbers",)


def _fixed(case: Case) -> tuple[str, ...]:
    """What is to be said of initializers that a caller may no longer replace."""
    names = fixed(case)
    if not names:
        return ()
    return (f"callers may replace {few(names)} in the first model, and not in the second",)
