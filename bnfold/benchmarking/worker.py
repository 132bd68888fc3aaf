"""The process that is measured. It may die; its parent reads what it wrote until then.

Started as a script with a job folder as its argument; `measuring` writes `job.json` and reads
`events.jsonl`. A job is one block of times, or a look at one model at one level.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort  # noqa: TID251 - the one file of this package that runs onnxruntime

sys.path.append(str(Path(__file__).parents[2]))
from bnfold.verification.worker import LEVELS, Report, at_work, one_line, start_session, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WARM_UP_RUNS, WARM_UP_SECONDS = 3, 0.05
TURN_SECONDS, MOST_REPEATS = 0.01, 50
MOST_ROUNDS = 99
LOAD_SECONDS, MOST_LOADS = 0.2, 30

Session = Any  # onnxruntime has no types
Job = dict[str, Any]
Times = dict[str, list[list[float]]]  # by seat, for each round, the seconds of each run


class Failed(Exception):
    """The job cannot be done; the reason has been reported."""


def main(folder: Path) -> None:
    """Do the job that lies in `folder`."""
    with at_work(folder) as (job, report):
        try:
            _TASKS[job["task"]](job, folder, report)
        except Failed:
            return
        report(event="finished", onnxruntime=ort.__version__)


def _measure(job: Job, folder: Path, report: Report) -> None:
    """One block. The seats of `order` are "a", "again" (A in another session) and "b"."""
    order: Sequence[str] = job["order"]
    for seat in order:
        # The first session of a process pays for what all share: libraries, pages of the file, arenas.
        if seat != "again":
            _run_once(job, seat, folder, report)
    feeds = [_values(job, inputs, folder) for inputs in job["feeds"]]
    gc.disable()
    sessions, loads = _loads(job, report)
    report(event="loads", seconds=loads)
    for number, feed in enumerate(feeds):
        runs = {seat: _runner(sessions[seat], feed, seat, job, report) for seat in order}
        report(event="turns", feed=number, seconds=_turns(order, runs, job["seconds"] / len(feeds)))


def _loads(job: Job, report: Report) -> tuple[dict[str, Session], Times]:
    """A session for each seat, and what it took to create them: again and again while that is quick."""
    order = job["order"]
    sessions: dict[str, Session] = {}
    times: Times = {seat: [] for seat in order}
    end = time.perf_counter() + LOAD_SECONDS
    number = 0
    while not number or (number < MOST_LOADS and time.perf_counter() < end):
        sessions.clear()
        for seat in _rotated(order, number):
            started = time.perf_counter()
            sessions[seat] = _load(job, seat, report)
            times[seat].append([time.perf_counter() - started])
        number += 1
    return sessions, times


def _rotated(order: Sequence[str], number: int) -> Sequence[str]:
    first = number % len(order)
    return (*order[first:], *order[:first])


def _turns(order: Sequence[str], runs: Mapping[str, Callable[[], float]], seconds: float) -> Times:
    """Let the seats take turns; a turn is one run that brings the weights back into the caches, then others.

    Rounds come in threes, in which each seat is first, second and third once.
    """
    slowest = max(_warm_up(runs[seat]) for seat in order)
    repeats = max(1, min(MOST_REPEATS, int(TURN_SECONDS / slowest)))
    times: Times = {seat: [] for seat in order}
    end = time.perf_counter() + seconds
    number = 0
    while not number or number % len(order) or (number < MOST_ROUNDS and time.perf_counter() < end):
        for seat in _rotated(order, number):
            run = runs[seat]
            run()
            times[seat].append([run() for _ in range(repeats)])
        number += 1
    return times


def _warm_up(run: Callable[[], float]) -> float:
    """Seconds of a run, once several have been done."""
    end = time.perf_counter() + WARM_UP_SECONDS
    times: list[float] = []
    while len(times) < WARM_UP_RUNS or time.perf_counter() < end:
        times.append(run())
    return min(times)


def _examine(job: Job, folder: Path, report: Report) -> None:
    """The peak memory of loading a model and running it once, and the graph that onnxruntime runs."""
    _run_once(job, "model", folder, report)
    report(event="memory", peak=_peak_memory())
    options = _options(job)
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    prefix = "session.optimized_model_external_initializers"
    options.add_session_config_entry(f"{prefix}_file_name", "optimized.data")
    options.add_session_config_entry(f"{prefix}_min_size_in_bytes", "1024")
    _load(job, "model", report, options)


_TASKS = {"measure": _measure, "examine": _examine}


def _run_once(job: Job, seat: str, folder: Path, report: Report) -> None:
    session = _load(job, seat, report)
    # Only now is it known that there is such a device.
    _runner(session, _values(job, job["feeds"][0], folder), seat, job, report)


def _options(job: Job) -> Any:  # noqa: ANN401 - onnxruntime has no types
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[job["level"]]
    options.log_severity_level = 4
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    # Threads of the session that has just run must not spin while the next one is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _load(job: Job, seat: str, report: Report, options: object = None) -> Session:
    report(event="loading", seat=seat)
    try:
        session = start_session(job["models"][seat], options or _options(job), job["provider"])
    except Exception as error:  # whatever onnxruntime says is the answer
        report(event="failed", seat=seat, stage="load", reason=one_line(error))
        raise Failed from error
    ran_on = session.get_providers()[0]
    if ran_on != job["provider"]:
        reason = f"{job['provider']} was asked for, onnxruntime silently took {ran_on}"
        report(event="failed", seat=seat, stage="fallback", reason=reason)
        raise Failed
    return session


def _values(job: Job, inputs: Sequence[Job], folder: Path) -> dict[str, Any]:
    """The feed, on the device; types that NumPy does not know stay with the CPU, every run copies them."""
    values = {}
    for each in inputs:
        value = value_of(each, folder)
        if job["device"] != "cpu" and each["native"]:
            value = ort.OrtValue.ortvalue_from_numpy(value.numpy(), job["device"], 0)
        values[each["name"]] = value
    return values


def _runner(
    session: Session, feed: Mapping[str, Any], seat: str, job: Job, report: Report
) -> Callable[[], float]:
    """A function that runs the session once and returns its seconds; all values stay on the device."""
    report(event="running", seat=seat)
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, job["device"])

    def run() -> float:
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return time.perf_counter() - started

    try:
        run()
    except Exception as error:  # whatever onnxruntime says is the answer
        report(event="failed", seat=seat, stage="run", reason=one_line(error))
        raise Failed from error
    return run


def _peak_memory() -> int | None:
    """Most resident memory of this process so far, in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    ort.set_default_logger_severity(4)
    main(Path(sys.argv[1]))
    # All results are on disk; what onnxruntime's destructors would still do cannot matter, not even a crash.
    os._exit(0)
