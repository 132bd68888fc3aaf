"""Running a model in onnxruntime, in another process.

onnxruntime can crash on a valid model (1.31.1 does on an opset-9 BatchNormalization whose trailing outputs
are empty). A crash, a timeout or a kill of that process becomes a value here, and the runs it had not
reached are given to a fresh process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import helper

from bnfold.environment import available_cores
from bnfold.errors import UsageError
from bnfold.verification.paths import is_utf8, utf8_link

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Level = Literal["disable_all", "enable_all"]
Array = np.ndarray[Any, np.dtype[Any]]

PROVIDERS: Mapping[str, str] = MappingProxyType(
    {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
    }
)
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Run:
    """One evaluation to do.

    Attributes:
        level: onnxruntime's graph optimization level.
        feed: a name for the feed, unique among the runs of a level.
        inputs: arrays by input name; strings as objects.
        group: of the runs of a group, the first that succeeds is the last that is tried; "" for none.
    """

    level: Level
    feed: str
    inputs: Mapping[str, Array]
    group: str = ""


@dataclass(frozen=True)
class Ran:
    """Outputs of a run by name: arrays, or a string naming the type where it is no tensor.

    The tensors of an output that is a sequence stand under `name[0]`, `name[1]`, ...
    """

    outputs: Mapping[str, Array | str]
    provider: str


@dataclass(frozen=True)
class Failure:
    """A run that gave no outputs.

    Attributes:
        stage: whether the model could not be loaded, the run failed, or the process died.
        reason: one line.
    """

    stage: Literal["load", "run", "crash", "timeout", "fallback"]
    reason: str


Outcome = Ran | Failure


def run_model(
    model: Path,
    runs: Sequence[Run],
    *,
    provider: str = "cpu",
    timeout: float = 600.0,
    data_folder: Path | None = None,
) -> dict[tuple[Level, str], Outcome]:
    """Run a model in onnxruntime.

    Args:
        model: the model's file; external data is resolved beside it.
        runs: what to evaluate; runs of one level share a session.
        provider: a key of `PROVIDERS`. Falling back to the CPU silently is a `Failure`.
        timeout: seconds that one process may take.
        data_folder: where external data lies; None for the model's own folder.

    Returns:
        An outcome for each run, by level and feed; runs of a group after its first success are absent.

    Raises:
        UsageError: an unknown provider.
    """
    if provider not in PROVIDERS:
        raise UsageError(f"provider={provider!r}; expected one of {', '.join(PROVIDERS)}")
    outcomes: dict[tuple[Level, str], Outcome] = {}
    left = list(runs)
    while left:
        finished = _run_in_process(model, left, provider, timeout, data_folder)
        outcomes |= finished
        succeeded = {run.group for run in runs if isinstance(outcomes.get((run.level, run.feed)), Ran)} - {""}
        left = [run for run in left if (run.level, run.feed) not in outcomes and run.group not in succeeded]
    return outcomes


def _run_in_process(
    model: Path, runs: Sequence[Run], provider: str, timeout: float, data_folder: Path | None
) -> dict[tuple[Level, str], Outcome]:
    """One process; where it dies, the guilty run (or all runs of the level it was loading) gets a Failure."""
    folder = Path(tempfile.mkdtemp(prefix="bnfold-verify-"))
    try:
        _write_job(folder, model, runs, provider, data_folder)
        death = run_worker(_WORKER, folder, timeout)
        outcomes = _read(folder, runs, provider, death)
        return {key: _named(outcome, model) for key, outcome in outcomes.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _named(outcome: Outcome, model: Path) -> Outcome:
    """The outcome with the model's name in the place of its path, which may be a passing one."""
    if isinstance(outcome, Ran):
        return outcome
    return replace(outcome, reason=outcome.reason.replace(str(model.absolute()), model.name))


def _write_job(
    folder: Path, model: Path, runs: Sequence[Run], provider: str, data_folder: Path | None
) -> None:
    by_level: dict[str, list[dict[str, Any]]] = {}
    written: dict[int, str] = {}
    for index, run in enumerate(runs):
        inputs = [write_input(folder, name, array, written) for name, array in run.inputs.items()]
        entry = {"index": index, "feed": run.feed, "group": run.group, "inputs": inputs}
        by_level.setdefault(run.level, []).append(entry)
    job = {
        **model_entry(model, data_folder, folder / "beside"),
        "provider": PROVIDERS[provider],
        "threads": available_cores(),
        "runs": by_level,
    }
    (folder / "job.json").write_text(json.dumps(job))


def model_entry(model: Path, data_folder: Path | None, link: Path) -> dict[str, str | None]:
    """Where a worker finds a model and its external data, which lies beside it where no folder is given.

    `link` may be made, to a folder whose name onnxruntime does not take.
    """
    # Links are not followed: a download cache keeps data beside the link, under the name the model knows.
    path = model.absolute()
    data = path.parent if data_folder is None else data_folder.absolute()
    beside = utf8_link(data, link)
    return {
        "model": str(path),
        # onnxruntime takes paths in UTF-8 alone: any other model comes as bytes, its data through a link.
        "data_folder": None if beside == path.parent and is_utf8(path) else str(beside),
    }


def write_input(folder: Path, name: str, array: Array, written: dict[int, str]) -> dict[str, Any]:
    """Put an array where a worker finds it; `written` remembers the files of those that are there already."""
    if array.dtype == object:
        return {"name": name, "texts": array.reshape(-1).tolist(), "shape": list(array.shape)}
    native = array.dtype.kind in "fiub" and array.dtype.type.__module__ == "numpy"
    carrier = array.dtype if native else np.dtype(f"u{array.dtype.itemsize}")
    if id(array) not in written:
        written[id(array)] = f"input-{len(written)}.bin"
        np.ascontiguousarray(array).view(carrier).tofile(folder / written[id(array)])
    return {
        "name": name,
        "file": written[id(array)],
        "carrier": carrier.str,
        "native": native,
        "element_type": int(helper.np_dtype_to_tensor_dtype(array.dtype)),
        "shape": list(array.shape),
    }


def run_worker(script: Path, folder: Path, timeout: float) -> Failure | None:
    """Let a worker do the job that lies in a folder.

    Args:
        script: the worker; it gets the folder as its argument.
        folder: holds `job.json` and its inputs, and takes what the worker writes.
        timeout: seconds that it may take.

    Returns:
        What ended the worker before its job was done; None where it ended by itself in good order.
    """
    status, timed_out = _wait(script, folder, timeout)
    return _death(folder, status, timed_out=timed_out, timeout=timeout)


def _wait(script: Path, folder: Path, timeout: float) -> tuple[int, bool]:
    """Start the worker and wait for its end, whatever happens to either process.

    The worker gets a session of its own, so that Ctrl-C reaches the parent alone, and a pipe as stdin: when
    the parent dies the pipe closes and the worker ends itself.
    """
    with (folder / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of this package, a folder just made
            [sys.executable, "-P", str(script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            # onnxruntime leaves a file (.ses) among the temporary ones.
            env={**os.environ, "TMPDIR": str(folder)},
        )
        # `process.wait(timeout)` polls, and a Ctrl-C in the middle of that leaves its lock taken for ever.
        ended: SimpleQueue[int] = SimpleQueue()
        waiter = threading.Thread(target=lambda: ended.put(process.wait()), daemon=True)
        waiter.start()
        try:
            return ended.get(timeout=timeout), False
        except Empty:
            return 0, True
        finally:
            process.kill()
            waiter.join()
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()


def _death(folder: Path, status: int, *, timed_out: bool, timeout: float) -> Failure | None:
    if timed_out:
        return Failure("timeout", f"onnxruntime took more than {timeout:g} s")
    if status == 0:
        return None
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return Failure("crash", f"onnxruntime's process died of {name}")
    lines = (folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
    return Failure(
        "crash", f"onnxruntime's process ended with status {status}: {lines[-1] if lines else 'silently'}"
    )


def _read(
    folder: Path, runs: Sequence[Run], provider: str, death: Failure | None
) -> dict[tuple[Level, str], Outcome]:
    outcomes: dict[tuple[Level, str], Outcome] = {}
    started: dict[str, Any] = {}
    ran_on = ""
    for event in read_events(folder):
        level, kind = event["level"], event["event"]
        whole_level = [run for run in runs if run.level == level]
        started = {"loading": event, "running": event}.get(kind, {})
        if kind == "unloadable":
            outcomes |= _fail(whole_level, Failure("load", event["reason"]))
        elif kind == "loaded":
            ran_on = event["provider"]
            if ran_on != PROVIDERS[provider]:
                reason = f"{PROVIDERS[provider]} was asked for, onnxruntime silently took {ran_on}"
                outcomes |= _fail(whole_level, Failure("fallback", reason))
        elif (level, event.get("feed")) in outcomes:
            continue
        elif kind == "failed":
            outcomes[level, event["feed"]] = Failure("run", event["reason"])
        elif kind == "done":
            outcomes[level, event["feed"]] = Ran(_outputs(folder, event["outputs"]), ran_on)
    if death is not None:
        guilty = [
            run
            for run in runs
            if not started or (run.level == started["level"] and run.feed == started.get("feed", run.feed))
        ]
        outcomes = {**_fail(guilty, death), **outcomes}
    elif started or not outcomes:
        outcomes = {
            **_fail(runs, Failure("crash", "onnxruntime's process ended early without a word")),
            **outcomes,
        }
    return outcomes


def _fail(runs: Iterable[Run], failure: Failure) -> dict[tuple[Level, str], Outcome]:
    return {(run.level, run.feed): failure for run in runs}


def read_events(folder: Path) -> list[dict[str, Any]]:
    """What a worker reported before its end, in order."""
    path = folder / "events.jsonl"
    lines = path.read_text().split("\n") if path.exists() else []
    # A line without its newline was cut off by the death of the writer.
    return [json.loads(line) for line in lines[:-1]]


def _outputs(folder: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Array | str]:
    outputs: dict[str, Array | str] = {}
    for entry in entries:
        if entry["kind"] == "strings":
            outputs[entry["name"]] = np.array(entry["texts"], dtype=object).reshape(entry["shape"])
        elif entry["kind"] == "tensor":
            dtype = helper.tensor_dtype_to_np_dtype(entry["element_type"])
            outputs[entry["name"]] = np.fromfile(folder / entry["file"], dtype=dtype).reshape(entry["shape"])
        else:
            outputs[entry["name"]] = entry["kind"]
    return outputs
