"""The process that runs onnxruntime. It may die; its parent lives on and reads what it wrote until then.

Started as a script with a job folder as its argument. `job.json` says what to do (see `sessions`), and every
event is appended to `events.jsonl` as one line, so that a crash loses nothing that was finished before it.
This file imports nothing of bnfold: it starts fast and cannot share state with the parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # noqa: TID251 - the one file that runs onnxruntime, in a process of its own

LEVELS = {
    "disable_all": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "enable_basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "enable_all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


Report = Callable[..., None]


def main(folder: Path) -> None:
    """Do the job that lies in `folder`."""
    with at_work(folder) as (job, report):
        for level, runs in job["runs"].items():
            _level(job, level, runs, folder, report)


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[dict[str, Any], Report]]:
    """The job of a folder, and what tells the parent of it; nothing goes on without the parent."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = json.loads((folder / "job.json").read_text())
    with (folder / "events.jsonl").open("a", buffering=1) as events:

        def report(**event: object) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        yield job, report


def _die_with_parent() -> None:
    """The parent holds the other end of stdin; when it goes, however it went, so does this process."""
    # Not sys.stdin.read(): a thread inside a buffered reader makes the interpreter wait, then abort.
    while os.read(0, 1):
        pass
    os._exit(3)


def _level(job: dict[str, Any], level: str, runs: list[dict[str, Any]], folder: Path, report: Report) -> None:
    report(event="loading", level=level)
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 4
    options.intra_op_num_threads = job["threads"]
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    # Spinning threads burn the processor time that the float64 evaluation beside them needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = start_session(job, options, job["provider"])
    except Exception as error:  # noqa: BLE001 - whatever onnxruntime says is the answer
        report(event="unloadable", level=level, reason=one_line(error))
        return
    provider = session.get_providers()[0]
    report(event="loaded", level=level, provider=provider)
    if provider != job["provider"]:
        return
    done: set[str] = set()
    for run in runs:
        if run["group"] in done:
            continue
        report(event="running", level=level, feed=run["feed"])
        try:
            outputs = _outputs(session, run["inputs"], folder)
            names = [output.name for output in session.get_outputs()]
            parts = [part for each in zip(names, outputs, strict=True) for part in _parts(*each)]
            saved = [
                _save(name, value, folder / f"{level}-{run['index']}-{place}.bin")
                for place, (name, value) in enumerate(parts)
            ]
        except Exception as error:  # noqa: BLE001 - whatever onnxruntime says is the answer
            report(event="failed", level=level, feed=run["feed"], reason=one_line(error))
            continue
        if run["group"]:
            done.add(run["group"])
        report(event="done", level=level, feed=run["feed"], outputs=saved)


def start_session(entry: dict[str, Any], options: Any, provider: str) -> Any:  # noqa: ANN401 - as below
    """A session of a model of a job, as `sessions.model_entry` describes it."""
    model = entry["model"]
    if entry["data_folder"] is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", entry["data_folder"]
        )
        model = Path(model).read_bytes()
    return ort.InferenceSession(model, options, providers=[provider])


def _outputs(session: Any, inputs: list[dict[str, Any]], folder: Path) -> list[Any]:  # noqa: ANN401 - as below
    plain = any("texts" in entry for entry in inputs)
    plain = plain or any(output.type.startswith("seq(tensor") for output in session.get_outputs())
    if not plain:
        results: list[Any] = session.run_with_ort_values(
            None, {entry["name"]: value_of(entry, folder) for entry in inputs}
        )
        return results
    # onnxruntime makes no OrtValue of strings, and gives no tensor of an OrtValue that is a sequence; `run`
    # takes objects for the one and gives a list for the other.
    arrays = {
        entry["name"]: _array(entry, folder) if "texts" in entry else value_of(entry, folder)
        for entry in inputs
    }
    return [_wrapped(value) for value in session.run(None, arrays)]


def _wrapped(value: Any) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """What `run` gives, with the part of OrtValue's face that is used here; a list of such for a sequence."""
    if isinstance(value, list) and all(isinstance(item, np.ndarray) for item in value):
        return [_wrapped(item) for item in value]
    return ort.OrtValue.ortvalue_from_numpy(value) if _is_numeric(value) else _Texts(value)


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - onnxruntime has no types
    """An output, or the tensors of one that is a sequence, each with its name."""
    if isinstance(value, list):
        return [(f"{name}[{place}]", item) for place, item in enumerate(value)]
    return [(name, value)]


class _Texts:
    """A tensor of strings, or what is no tensor, with the part of OrtValue's face that is used here."""

    def __init__(self, value: Any) -> None:  # noqa: ANN401 - as below
        self._value = value

    def is_tensor(self) -> bool:
        return isinstance(self._value, np.ndarray)

    def data_type(self) -> str:
        return "tensor(string)" if self.is_tensor() else type(self._value).__name__

    def numpy(self) -> Any:  # noqa: ANN401 - as below
        return self._value


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _array(entry: dict[str, Any], folder: Path) -> Any:  # noqa: ANN401 - as below
    if "texts" in entry:
        return np.array(entry["texts"], dtype=object).reshape(entry["shape"])
    return np.fromfile(folder / entry["file"], dtype=entry["carrier"]).reshape(entry["shape"])


def value_of(entry: dict[str, Any], folder: Path) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """An input of a job, as `sessions.write_input` wrote it."""
    # Types NumPy does not know (bfloat16, float8) travel as unsigned integers of their width.
    array = _array(entry, folder)
    if entry["native"]:
        return ort.OrtValue.ortvalue_from_numpy(array)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, entry["element_type"])


def _save(name: str, value: Any, path: Path) -> dict[str, Any]:  # noqa: ANN401 - as above
    if not value.is_tensor():
        return {"name": name, "kind": value.data_type()}
    if value.data_type() == "tensor(string)":
        texts = value.numpy()
        return {
            "name": name,
            "kind": "strings",
            "shape": list(texts.shape),
            "texts": texts.reshape(-1).tolist(),
        }
    size = value.tensor_size_in_bytes()
    path.write_bytes(ctypes.string_at(value.data_ptr(), size) if size else b"")
    return {
        "name": name,
        "kind": "tensor",
        "element_type": value.element_type(),
        "shape": list(value.shape()),
        "file": path.name,
    }


def one_line(error: Exception) -> str:
    """What onnxruntime said, short enough to print."""
    return " ".join(str(error).split())[:500]


if __name__ == "__main__":
    ort.set_default_logger_severity(4)
    main(Path(sys.argv[1]))
    # All results are on disk; what onnxruntime's destructors would still do cannot matter, not even a crash.
    os._exit(0)
