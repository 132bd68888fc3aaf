"""Look at many models, several at a time, in processes of their own."""

from __future__ import annotations

import os
import signal
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import TYPE_CHECKING

from bnfold.gate.examine import Questions, examine
from bnfold.gate.finding import Examined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bnfold.gate.targets import Target


@dataclass
class _State:
    """Of a process of the pool: whether it looks at a model, and whether it shall take no other."""

    working: bool = False
    interrupted: bool = False


_STATE = _State()


def examine_all(
    targets: Sequence[Target], questions: Questions, *, jobs: int, tell: Callable[[str], None]
) -> tuple[Examined, ...]:
    """Look at every model; the answers are in the order of the targets, however many work on them.

    Args:
        targets: the models.
        questions: what to ask of each.
        jobs: how many at a time; with 1 it is done in this process.
        tell: told how far it is.
    """
    jobs = min(jobs, len(targets))
    if jobs <= 1:
        return tuple(_one_by_one(targets, questions, tell))
    answers = _in_pool(targets, questions, jobs, tell)
    # A process that died took its neighbours along; each gets a pool of its own, to tell which model it was.
    for target in targets:
        if target not in answers:
            answers |= _in_pool([target], questions, 1, tell)
    return tuple(
        answers.get(target) or Examined(target.name, fault="the process that looked at it died")
        for target in targets
    )


def _one_by_one(
    targets: Sequence[Target], questions: Questions, tell: Callable[[str], None]
) -> Iterator[Examined]:
    for done, target in enumerate(targets):
        tell(f"model {done + 1} of {len(targets)}")
        yield examine(target, questions)


def _in_pool(
    targets: Sequence[Target], questions: Questions, jobs: int, tell: Callable[[str], None]
) -> dict[Target, Examined]:
    """The answers; those of a process that died, and of all after it, are missing."""
    answers = {}
    others = set(active_children())
    # Not forked: this process may have threads.
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        with _interrupts_later():
            futures = {pool.submit(_task, target, questions): target for target in targets}
        for future in as_completed(futures):
            if not isinstance(future.exception(), BrokenExecutor):
                answers[futures[future]] = future.result()
                tell(f"model {len(answers)} of {len(targets)}")
    except BaseException:
        # Ctrl-C at a terminal reaches all processes, a signal to this one does not.
        for child in set(active_children()) - others:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return answers


def _task(target: Target, questions: Questions) -> Examined:
    """In a process of the pool, which takes Ctrl-C from the first model on (see `_interrupts_later`)."""
    signal.signal(signal.SIGINT, _interrupt)
    _mask(block=False)
    if _STATE.interrupted:
        raise KeyboardInterrupt
    try:
        _STATE.working = True
        return examine(target, questions)
    finally:
        _STATE.working = False


def _interrupt(*_: object) -> None:
    """Stop at most once: a second signal would interrupt the cleaning up.

    Between two models there is nothing to stop, and Python's own code for processes would print a traceback.
    """
    first, _STATE.interrupted = not _STATE.interrupted, True
    if first and _STATE.working:
        raise KeyboardInterrupt


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes that are started meanwhile inherit that Ctrl-C has to wait."""
    _mask(block=True)
    try:
        yield
    finally:
        _mask(block=False)


def _mask(*, block: bool) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK if block else signal.SIG_UNBLOCK, {signal.SIGINT})
