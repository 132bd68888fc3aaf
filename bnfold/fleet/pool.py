"""Processes that work on many models, of which none is lost when a process dies.

No more models are handed out than there are processes, so that when one dies few are in doubt. Each of those
is done again, alone in a process of its own: the one that lets it die again is the one, and is named. To do a
model twice is no harm: a result takes its place whole, and is the same bytes again.

The processes hear of the end of this one, however it comes, by a pipe that nothing is ever sent through:
then they stop, and clean up what they were writing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, get_context
from typing import TYPE_CHECKING, NoReturn, TypeVar

from bnfold.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from multiprocessing.connection import Connection

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def in_processes(
    work: Callable[[Task], Outcome],
    tasks: Sequence[Task],
    jobs: int,
    died: Callable[[Task, EnvironmentFault], Outcome],
) -> Iterator[tuple[int, Outcome]]:
    """Do the tasks, `jobs` at a time.

    Args:
        work: does one, and raises nothing; can be pickled, as tasks and outcomes can.
        tasks: one a model.
        jobs: how many processes.
        died: the outcome of a task that lets its process die.

    Yields:
        The index of a task and what came of it, in the order in which they are done.

    Raises:
        EnvironmentFault: no process could be started.
    """
    waiting = deque(enumerate(tasks))
    first = True
    while waiting:
        lost = yield from _until_one_dies(work, waiting, jobs, first=first)
        first = False
        for index, task in lost:
            if (yield from _until_one_dies(work, deque([(index, task)]), 1)):
                yield index, died(task, _death())


def _death() -> EnvironmentFault:
    return EnvironmentFault(
        "the process that worked on it died, twice; it may need more memory than there is: try it alone"
    )


def _until_one_dies(
    work: Callable[[Task], Outcome], waiting: deque[tuple[int, Task]], jobs: int, *, first: bool = False
) -> Generator[tuple[int, Outcome], None, list[tuple[int, Task]]]:
    """Take tasks from those that wait until none is left, or a process dies.

    Returns:
        The tasks that were taken and have no outcome.

    Raises:
        EnvironmentFault: no process could be started, which later would be the death of a process.
    """
    ended, here = Pipe(duplex=False)
    # Not forked: this process may have threads.
    spawned = get_context("spawn")
    with _interrupts_later():  # it starts a process of Python's own
        pool = ProcessPoolExecutor(jobs, mp_context=spawned, initializer=_start, initargs=(ended,))
    running: dict[Future[Outcome], tuple[int, Task]] = {}
    lost: list[tuple[int, Task]] = []
    try:
        if first:
            _check_that_one_starts(pool)
        while (waiting and not lost) or running:
            while waiting and not lost and len(running) < jobs:
                with _interrupts_later():
                    future = pool.submit(_work, work, waiting[0][1])
                running[future] = waiting.popleft()
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                if future.exception() is None:
                    yield running[future][0], future.result()
                else:
                    lost.append(running[future])
                del running[future]
    except BrokenExecutor:  # it died before it was given the next one
        lost += running.values()
    except BaseException:
        here.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        here.close()
        ended.close()
    return lost


def _check_that_one_starts(pool: ProcessPoolExecutor) -> None:
    try:
        with _interrupts_later():
            started = pool.submit(_nothing)
        started.result()
    except BrokenExecutor:
        raise EnvironmentFault(
            "no process can be started for the models; a script must call this below "
            "`if __name__ == '__main__':`, or with jobs=1"
        ) from None


def _nothing() -> None:
    """What a process that works can do."""


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """A process that is started meanwhile inherits that these are not for it: this one tells it to stop."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    several = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, several)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, several)


# --- in a process of the pool -------------------------------------------------------------------------------


def _start(ended: Connection) -> None:
    signal.signal(signal.SIGTERM, _vanish)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_watch, args=(ended,), daemon=True).start()


def _watch(ended: Connection) -> None:
    with suppress(EOFError, OSError):
        ended.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)


def _vanish(*_: object) -> NoReturn:
    """Between two tasks; unwinding would give up the lock of a message half read, for the next to read on."""
    os._exit(1)


def _leave(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
    raise SystemExit


def _work(work: Callable[[Task], Outcome], task: Task) -> Outcome:
    signal.signal(signal.SIGTERM, _leave)
    try:
        outcome = work(task)
    except SystemExit:
        # All is tidied up. Handed on, this would be a result, and the process would wait for a next model.
        os._exit(1)
    signal.signal(signal.SIGTERM, _vanish)
    return outcome
