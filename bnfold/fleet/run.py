"""`optimize_many`: a fleet of models, by whatever executor."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, CancelledError, as_completed
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from bnfold.environment import available_cores
from bnfold.errors import EnvironmentFault, UsageError
from bnfold.fleet import ledger
from bnfold.fleet.places import places
from bnfold.fleet.pool import in_processes
from bnfold.fleet.task import Options, Task, failed, work
from bnfold.urls import is_url, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from concurrent.futures import Executor, Future

    from bnfold.fleet.outcome import Outcome


def optimize_many(
    paths: Iterable[str | Path],
    *,
    out_dir: str | Path,
    executor: Executor | None = None,
    jobs: int | None = None,
    resume: bool = False,
    progress: Callable[[Outcome], None] | None = None,
    **options: Unpack[Options],
) -> tuple[Outcome, ...]:
    """Optimize many models; what goes wrong with one is a value, and stops no other.

    Args:
        paths: model files; folders, which mean every `.onnx` file below them; or globs.
        out_dir: where the results go. A file keeps its name, what is found in a folder or by a glob its way
            down from there.
        executor: does the work: a pool of threads or processes, `client.get_executor()` of a Dask cluster, or
            any other `concurrent.futures.Executor`. To its workers the paths must mean the same as here.
            None for processes of our own (a script must call this below `if __name__ == "__main__":`).
        jobs: how many models at a time without an executor; None for one to a core. With 1 it is done in this
            process.
        resume: leave a result alone that this version made from the same model with the same options, and
            found equivalent; without verification, whatever was found. `bnfold.fleet.ledger` remembers that.
        progress: told each outcome as it comes.
        options: those of `bnfold.optimize`, for every model; with `dry_run` nothing is written.

    Returns:
        An outcome for each model, in the order of `paths`. Where a process of our own dies, the models it and
        its neighbours were at are done again, each alone; one that dies again is an error. Where another
        executor gives up a model, that is an error, too.

    Raises:
        UsageError: a path that names no model, results that would replace each other or a model, or
            arguments that contradict each other; nothing has been done then.
        EnvironmentFault: no process can be started.
    """
    if is_url(out_dir):
        raise UsageError(f"out_dir={shown(out_dir)}: it must be on this machine, not at a URL")
    tasks = [
        Task(str(place.source), str(place.output), resume, options) for place in places(paths, Path(out_dir))
    ]
    return run(tasks, Path(out_dir), executor=executor, jobs=jobs, progress=progress)


def run(
    tasks: Sequence[Task],
    out_dir: Path,
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> tuple[Outcome, ...]:
    """Do the tasks; see `optimize_many`.

    Raises:
        UsageError: arguments that contradict each other.
        EnvironmentFault: no process can be started.
    """
    if executor is not None and jobs is not None:
        raise UsageError("an executor decides itself how many models it does at a time; give no jobs")
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs={jobs}: at least one model must be done at a time")
    names = [Path(task.output).relative_to(out_dir).as_posix() for task in tasks]
    known = ledger.read(out_dir)
    tasks = [replace(task, known=known.get(name)) for name, task in zip(names, tasks, strict=True)]
    outcomes: dict[int, Outcome] = {}
    with closing(_done(tasks, executor, jobs)) as done:
        for index, outcome in done:
            outcomes[index] = outcome
            if not tasks[index].options.get("dry_run"):
                ledger.note(out_dir, names[index], outcome.record)
            if progress is not None:
                progress(outcome)
    return tuple(outcomes[index] for index in range(len(tasks)))


def _done(
    tasks: Sequence[Task], executor: Executor | None, jobs: int | None
) -> Generator[tuple[int, Outcome], None, None]:
    """The outcomes, with the indices of their tasks, as they come."""
    if executor is not None:
        yield from _by(executor, tasks)
        return
    jobs = min(available_cores() if jobs is None else jobs, len(tasks))
    if jobs > 1:
        yield from in_processes(work, tasks, jobs, failed)
    else:
        yield from ((index, work(task)) for index, task in enumerate(tasks))


def _by(executor: Executor, tasks: Sequence[Task]) -> Generator[tuple[int, Outcome], None, None]:
    futures: dict[Future[Outcome], int] = {}
    try:
        for index, task in enumerate(tasks):
            try:
                futures[executor.submit(work, task)] = index
            except BrokenExecutor as broken:  # a process of a pool died before it had all models
                yield index, _given_up(task, broken)
        for future in as_completed(futures):
            index = futures[future]
            error = _error(future)
            yield index, future.result() if error is None else _given_up(tasks[index], error)
    finally:
        for future in futures:
            future.cancel()


def _error(future: Future[Outcome]) -> BaseException | None:
    return CancelledError("cancelled") if future.cancelled() else future.exception()


def _given_up(task: Task, error: BaseException) -> Outcome:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return failed(task, EnvironmentFault(f"the executor gave the model up ({said}); run again with resume"))
