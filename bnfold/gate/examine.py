"""Look at one model: whatever is wrong with it becomes a value, so that the next one gets its turn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnfold.config import NO_FEEDS, Feeds
from bnfold.errors import BnfoldError, ModelError, UsageError
from bnfold.fold.reasons import Code
from bnfold.gate.finding import Examined, Finding, Kind

if TYPE_CHECKING:
    from pathlib import Path

    from bnfold.benchmarking.result import Benchmark, Level
    from bnfold.fold.folded import Fold
    from bnfold.fold.reasons import Refusal
    from bnfold.gate.targets import Target
    from bnfold.result import Result
    from bnfold.verification.options import Provider
    from bnfold.verification.verdict import Verdict

_AS_DEPLOYED: Level = "enable_all"
_RACE_SECONDS = 20.0
_NONFINITE = (Code.NON_FINITE, Code.VARIANCE)


@dataclass(frozen=True)
class Questions:
    """What to ask of every model.

    Attributes:
        root: names of files in messages are relative to it.
        include: patterns of normalizations that may be folded; all when there are none.
        exclude: patterns of normalizations that stay.
        verify: whether the folded model computes the same.
        race: whether it is slower.
        provider: what runs models for that.
        feeds: what they are fed.
    """

    root: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    verify: bool = False
    race: bool = False
    provider: Provider = "cpu"
    feeds: Feeds = NO_FEEDS

    @property
    def on_demand(self) -> frozenset[str]:
        """The rules that only these questions can find anything about."""
        return frozenset(("BNF030", "BNF031") * self.verify + ("BNF032",) * self.race)


def examine(target: Target, questions: Questions) -> Examined:
    """What is to be said of one model; writes nothing.

    Raises:
        UsageError: what the settings say about the model makes no sense; all that is wrong with the model
            itself, and with the machine, is a value.
    """
    try:
        result, speed = _asked(target, questions)
    except ModelError as error:
        # The finding stands beside the name.
        said = _told(error, questions.root).removeprefix(target.name).lstrip(": ")
        return Examined(target.name, findings=(Finding("BNF002", Kind.INVALID, "", "", "", said),))
    except UsageError as error:
        raise UsageError(f"{target.name}: {_told(error, questions.root)}") from error
    except BnfoldError as error:
        return Examined(target.name, fault=_told(error, questions.root))
    except MemoryError:
        return Examined(target.name, fault="out of memory")
    except Exception as error:  # noqa: BLE001  # the other models want their turn; this one is reported
        what = f"{type(error).__name__}: {_told(error, questions.root) or 'no message'}"
        return Examined(
            target.name,
            fault=f"internal error, please report it ({what}); BNFOLD_TRACEBACK=1 bnfold inspect shows where",
        )
    report = result.report
    findings = (
        *judgement(report.verdict if questions.verify else None),
        *slower(speed),
        *map(foldable, report.folds),
        *map(kept, report.kept),
    )
    return Examined(target.name, report.found, findings)


def _asked(target: Target, questions: Questions) -> tuple[Result, Benchmark | None]:
    from bnfold import pipeline  # noqa: PLC0415  # slow, and the first of many processes only waits

    include, exclude = questions.include, questions.exclude
    if questions.verify or questions.race:
        from bnfold.verification.inputs import parse  # noqa: PLC0415  # slow

        result = pipeline.optimize(
            target.path,
            verify=questions.verify,
            dry_run=True,
            include=include,
            exclude=exclude,
            inputs=parse(questions.feeds.of(target.path)),
            provider=questions.provider,
        )
        if not questions.race or result.content is None or not (result.folds or result.report.merged):
            return result, None
        return result, pipeline.benchmark(
            target.path,
            result.content,
            levels=[_AS_DEPLOYED],
            provider=questions.provider,
            seconds=_RACE_SECONDS,
        )
    return pipeline.inspect(target.path, include=include, exclude=exclude), None


def foldable(fold: Fold) -> Finding:
    """A normalization that could be gone."""
    into = ", ".join(f"{op} {name!r}" for op, name in zip(fold.into_op, fold.into, strict=True))
    message = f"it can be folded into {into}"
    return Finding("BNF001", Kind.FOLDABLE, fold.node, fold.op, fold.scope, message)


def kept(refusal: Refusal) -> Finding:
    """A normalization that stays; damaged statistics are the news, whatever else is in the way."""
    reason = next((r for r in refusal.reasons if r.code in _NONFINITE), refusal.reason)
    kind = Kind.NONFINITE if reason.code in _NONFINITE else Kind.KEPT
    return Finding(
        reason.code.value, kind, refusal.node, refusal.op, refusal.scope, reason.evidence, reason.hint
    )


def judgement(verdict: Verdict | None) -> tuple[Finding, ...]:
    """What verification, where it was asked for, has against the folded model."""
    if verdict is None or verdict.status == "equivalent":
        return ()
    if verdict.status == "different":
        return (Finding("BNF030", Kind.MISMATCH, "", "", "", verdict.summary),)
    return (Finding("BNF031", Kind.INCONCLUSIVE, "", "", "", verdict.summary),)


def slower(speed: Benchmark | None) -> tuple[Finding, ...]:
    """What measuring found against the folded model; nothing where it was not done."""
    for level in speed.levels if speed is not None else ():
        for timing in level.steady:
            ratio = timing.comparison.speedup
            if timing.comparison.finding == "slower" and ratio is not None:
                said = (
                    f"onnxruntime runs the folded model slower ({level.level}, {timing.work}): speedup "
                    f"{ratio.value:.2f}, 95 % interval {ratio.low:.2f} to {ratio.high:.2f}"
                )
                return (Finding("BNF032", Kind.SLOWER, "", "", "", said),)
    return ()


def _told(error: Exception, root: Path) -> str:
    """In one line, and the same wherever the repository lies."""
    return " ".join(str(error).split()).replace(f"{root}{os.sep}", "")
