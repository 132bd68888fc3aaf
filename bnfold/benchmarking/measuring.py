"""Blocks of times, each from a process of its own.

A process at a time, with all sessions in it: their runs alternate within milliseconds, on one core and at one
clock rate, with no process to be woken in between. Two processes in turns, joined by pipes, were tried: of a
model against itself their blocks scattered as much for one of 10 us, and half as much again for one of 1 ms.
What one process cannot show is the luck of its memory layout; that is what many blocks are for. A crash costs
its block and is a value.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx

from bnfold.benchmarking.counting import count_bn
from bnfold.benchmarking.result import Runtime
from bnfold.model.census import calls
from bnfold.verification.sessions import (
    PROVIDERS,
    Failure,
    model_entry,
    read_events,
    run_worker,
    write_input,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.benchmarking.result import Level
    from bnfold.verification.feeds import Feed

Seat = Literal["a", "again", "b"]

Times = Mapping[Seat, Sequence[Sequence[float]]]  # by seat, for each round, the seconds of each run

_WORKER = Path(__file__).with_name("worker.py")
# Each starts, with its rotations, one of the two classes of orders; taken in turns, every seat follows every
# other equally often.
_ORDERS: tuple[tuple[Seat, Seat, Seat], ...] = (
    ("a", "again", "b"),
    ("b", "again", "a"),
    ("again", "b", "a"),
    ("again", "a", "b"),
    ("b", "a", "again"),
    ("a", "b", "again"),
)


@dataclass(frozen=True)
class Setup:
    """What all blocks have in common.

    Attributes:
        a: file of model A.
        b: file of model B.
        feeds: what they are fed.
        provider: "cpu" or "cuda".
        threads: of onnxruntime within an operator.
        timeout: seconds that one process may take.
    """

    a: Path
    b: Path
    feeds: tuple[Feed, ...]
    provider: str
    threads: int
    timeout: float


@dataclass(frozen=True)
class Block:
    """Times of one process.

    Attributes:
        onnxruntime: its version.
        load: seconds to create a session.
        turns: for each feed, the seconds of its runs.
    """

    onnxruntime: str
    load: Times
    turns: tuple[Times, ...]


def measure(setup: Setup, level: Level, number: int, seconds: float) -> Block | Failure:
    """Measure one block.

    Args:
        setup: the models, and how to run them.
        level: onnxruntime's optimization level.
        number: of the block; decides who goes first.
        seconds: time for the runs, loading and warm-up not included.
    """
    models = {"a": setup.a, "again": setup.a, "b": setup.b}
    task = {"task": "measure", "order": _ORDERS[number % len(_ORDERS)], "seconds": seconds}
    with _job(setup, level, models, task) as folder:
        events = _run(folder, models, setup.timeout)
    if isinstance(events, Failure):
        return events
    turns = tuple(event["seconds"] for event in events if event["event"] == "turns")
    loads = next(event["seconds"] for event in events if event["event"] == "loads")
    return Block(events[-1]["onnxruntime"], loads, turns)


def examine(setup: Setup, level: Level, model: Path) -> Runtime:
    """See what onnxruntime makes of one model at one level.

    Why it comes no further, where it does not, is what the blocks tell as well.
    """
    with _job(setup, level, {"model": model}, {"task": "examine"}) as folder:
        ended = _run(folder, {"model": model}, setup.timeout)
        peak = next((e["peak"] for e in read_events(folder) if e["event"] == "memory"), None)
        if isinstance(ended, Failure):
            return Runtime(None, None, peak)
        graph = onnx.load(str(folder / "optimized.onnx"), load_external_data=False)
    return Runtime(count_bn(graph), sum(1 for _ in calls(graph)), peak)


@contextmanager
def _job(setup: Setup, level: Level, models: Mapping[str, Path], task: Mapping[str, Any]) -> Iterator[Path]:
    """A passing folder with a job in it."""
    with tempfile.TemporaryDirectory(prefix="bnfold-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        written: dict[int, str] = {}
        feeds = [
            [write_input(folder, name, array, written) for name, array in feed.values.items()]
            for feed in setup.feeds
        ]
        job = {
            **task,
            "models": {
                seat: model_entry(path, None, folder / f"beside-{seat}") for seat, path in models.items()
            },
            "level": level,
            "provider": PROVIDERS[setup.provider],
            "device": setup.provider,
            "threads": setup.threads,
            "feeds": feeds,
        }
        (folder / "job.json").write_text(json.dumps(job))
        yield folder


def _run(folder: Path, models: Mapping[str, Path], timeout: float) -> list[dict[str, Any]] | Failure:
    """Let the worker do the job: its events, or why it could not."""
    death = run_worker(_WORKER, folder, timeout)
    events = read_events(folder)
    seat = next((event["seat"] for event in reversed(events) if "seat" in event), next(iter(models)))
    model = "B" if seat == "b" else "A"
    failed = next((event for event in events if event["event"] == "failed"), None)
    if failed is not None:
        reason = failed["reason"].replace(str(models[seat].absolute()), models[seat].name)
        return Failure(failed["stage"], f"model {model}: {reason}")
    if death is not None:
        return Failure(death.stage, f"model {model}: {death.reason}")
    if not events or events[-1]["event"] != "finished":
        return Failure("crash", f"model {model}: onnxruntime's process ended early without a word")
    return events
