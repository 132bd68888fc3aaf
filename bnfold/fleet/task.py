"""The work on one model of many, in whatever process, thread or machine an executor puts it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bnfold.errors import BnfoldError, EnvironmentFault
from bnfold.fleet.outcome import Outcome


@dataclass(frozen=True)
class Task:
    """What to do with one model; the options are those of `bnfold.optimize`.

    Attributes:
        source: the model.
        output: where its result goes.
        resume: leave a result alone that an earlier run has made.
    """

    source: str
    output: str
    resume: bool
    verify: bool
    dry_run: bool
    freeze: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    merge: bool
    provenance: bool
    seed: int


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
    return Outcome(task.source, task.output, error=error, verified=task.verify)


def _worked(task: Task) -> Outcome:
    from bnfold import pipeline  # noqa: PLC0415  # slow, and a process that only hands out work needs none of it

    if task.resume and _is_done(task):
        return Outcome(task.source, task.output, resumed=True, verified=task.verify)
    if not task.dry_run:
        _make_folder(Path(task.output).parent)
    result = pipeline.optimize(
        task.source,
        output=task.output,
        verify=task.verify,
        dry_run=task.dry_run,
        freeze=task.freeze,
        include=task.include,
        exclude=task.exclude,
        merge=task.merge,
        provenance=task.provenance,
        seed=task.seed,
    )
    # The model of a dry run is nobody's: sent from process to process, a few would fill the memory.
    return Outcome(task.source, task.output, replace(result, content=None), verified=task.verify)


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
    from bnfold.fold.plan import Options  # noqa: PLC0415  # slow, as above
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
    options = Options(task.freeze, task.include, task.exclude, task.merge)
    return said == Provenance(__version__, source.sha256(), config_sha256(options), said.folds)
