"""The work on one model of many, in whatever process, thread or machine an executor puts it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from bnfold.errors import BnfoldError, EnvironmentFault, UsageError
from bnfold.fleet.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    Raises:
        UsageError: they contradict each other.
    """

    source: str
    output: str
    resume: bool
    options: Options

    def __post_init__(self) -> None:
        if self.resume and not self.options.get("provenance", True):
            raise UsageError("to resume, results must say where they come from: leave provenance on")

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

    if task.resume and _is_done(task):
        return Outcome(task.source, task.output, resumed=True, verified=task.verified)
    if not task.options.get("dry_run"):
        _make_folder(Path(task.output).parent)
    result = pipeline.optimize(task.source, output=task.output, **task.options)
    # The model of a dry run is nobody's: sent from process to process, a few would fill the memory.
    return Outcome(task.source, task.output, replace(result, content=None), verified=task.verified)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"the folder {folder} cannot be made: {error.strerror}") from error


def _is_done(task: Task) -> bool:
    """Whether the result says of itself that this version made it from this model with these options.

    A digest of a model file does not cover external data, so a model that has some is done again. So is one
    in which nothing was folded, since its result says nothing: that is quick, there is nothing to verify.
    """
    from bnfold.fold import options  # noqa: PLC0415  # slow, as above
    from bnfold.model.store import open_model  # noqa: PLC0415
    from bnfold.provenance import Provenance, config_sha256  # noqa: PLC0415
    from bnfold.version import __version__  # noqa: PLC0415

    try:
        made, source = open_model(task.output), open_model(task.source)
    except BnfoldError:
        return False
    said = Provenance.of(made.proto)
    if said is None or source.external:
        return False
    config = options.Options(
        task.options.get("freeze", False),
        tuple(task.options.get("include", ())),
        tuple(task.options.get("exclude", ())),
        task.options.get("merge", True),
    )
    return said == Provenance(__version__, source.sha256(), config_sha256(config), said.folds)
