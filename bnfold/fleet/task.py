"""The work on one model of many, in whatever process, thread or machine an executor puts it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from bnfold.errors import BnfoldError, EnvironmentFault
from bnfold.fleet import ledger
from bnfold.fleet.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.fleet.ledger import Record
    from bnfold.result import Result
    from bnfold.verification.inputs import Inputs, Ranges, Wishes
    from bnfold.verification.options import Provider, TruthMode


class Options(TypedDict, total=False):
    """Those options of `bnfold.optimize` that are the same for all models."""

    verify: bool
    dry_run: bool
    freeze: bool
    include: Sequence[str]
    exclude: Sequence[str]
    merge: bool
    provenance: bool
    inputs: Inputs | Wishes
    ranges: Ranges
    seed: int
    truth: TruthMode
    provider: Provider
    budget: float
    per_fold: bool
    keep_going: bool


@dataclass(frozen=True)
class Task:
    """What to do with one model.

    Attributes:
        source: the model.
        output: where its result goes.
        resume: leave a result alone that an earlier run has made.
        options: of `bnfold.optimize`.
        known: how the result that is there was made.
    """

    source: str
    output: str
    resume: bool
    options: Options
    known: Record | None = None

    @property
    def verified(self) -> bool:
        """Whether the result is to be verified."""
        return self.options.get("verify", True)


def work(task: Task) -> Outcome:
    """Do it; whatever is wrong becomes a value, so that every other model gets its turn."""
    try:
        return _worked(task)
    except BnfoldError as error:
        return failed(task, error)
    except MemoryError:
        return failed(task, EnvironmentFault("out of memory; give fewer models at a time"))
    except Exception as error:  # noqa: BLE001  # the last line of defence, as on the command line
        what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        return failed(
            task,
            EnvironmentFault(
                f"internal error, please report it ({what}); alone, with BNFOLD_TRACEBACK=1, it tells more"
            ),
        )


def failed(task: Task, error: BnfoldError) -> Outcome:
    """What came of a model for which there is no result."""
    return Outcome(task.source, task.output, error=error, verified=task.verified)


def _worked(task: Task) -> Outcome:
    from bnfold import pipeline  # noqa: PLC0415  # slow, and a process that only hands out work needs none of it

    config = _config_sha256(task)
    if _is_done(task, config):
        return Outcome(task.source, task.output, resumed=True, verified=task.verified, record=task.known)
    if task.options.get("dry_run"):
        result = pipeline.optimize(task.source, output=task.output, **task.options)
        # The model of a dry run is nobody's: sent from process to process, a few would fill the memory.
        return Outcome(task.source, task.output, replace(result, content=None), verified=task.verified)
    # Before it is read: a model that changes meanwhile is done again.
    source = _digest(task.source)
    _make_folder(Path(task.output).parent)
    result = pipeline.optimize(task.source, output=task.output, **task.options)
    record = _record(result, config, source)
    return Outcome(
        task.source, task.output, replace(result, content=None), verified=task.verified, record=record
    )


def _record(result: Result, config: str, source: str | None) -> Record | None:
    report = result.report
    if report.output is None or source is None:
        return None
    output = _digest(report.output)
    status = "not verified" if report.verdict is None else report.verdict.status
    return None if output is None else ledger.Record(report.version, config, source, output, status)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"the folder {folder} cannot be made: {error.strerror}") from error


def _is_done(task: Task, config: str) -> bool:
    """Whether an earlier run has made this very result, and judged it as well as this one would."""
    from bnfold.version import __version__  # noqa: PLC0415  # as it is now

    known = task.known
    if not task.resume or known is None or (known.version, known.config) != (__version__, config):
        return False
    if task.verified and known.status != "equivalent":
        return False
    return known.source == _digest(task.source) and known.output == _digest(task.output)


def _digest(path: str) -> str | None:
    """None where the file cannot be read: the model is done again then, which says why."""
    try:
        return ledger.digest(Path(path))
    except (BnfoldError, OSError):
        return None


def _config_sha256(task: Task) -> str:
    """Of all options that decide what the result is."""
    from bnfold.fold import options  # noqa: PLC0415  # slow, as above
    from bnfold.provenance import config_sha256  # noqa: PLC0415  # as above

    folding = options.Options(
        task.options.get("freeze", False),
        tuple(task.options.get("include", ())),
        tuple(task.options.get("exclude", ())),
        task.options.get("merge", True),
    )
    others = (task.options.get("provenance", True), task.options.get("keep_going", False))
    return hashlib.sha256(f"{config_sha256(folding)} {others}".encode()).hexdigest()
