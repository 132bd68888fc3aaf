"""What the steps of one verification share."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

from bnfold.errors import ModelError, UsageError
from bnfold.model.census import calls
from bnfold.progress import Stage
from bnfold.verification.chance import seed
from bnfold.verification.external import unlinked
from bnfold.verification.paths import utf8_link
from bnfold.verification.sessions import Level, Outcome, run_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnfold.verification.options import Verification
    from bnfold.verification.sessions import Run
    from bnfold.verification.verdict import OutputEvidence

Progress = Callable[[str], None]
Outcomes = Mapping[tuple[Level, str], Outcome]
_PREFIX = "verifying: "
_NAMED = 3
_REPLACEABLE_SINCE_IR = 4  # before, every initializer had to be an input
LEVELS: tuple[Level, ...] = ("disable_all", "enable_all")


@dataclass(frozen=True)
class Model:
    """A model to compare.

    Attributes:
        proto: the model without its external data.
        path: its file.
        folder: where its external data lies, as `proto` names it.
        chance: the random operators that were given a seed; `path` is a copy then, without external data.
    """

    proto: onnx.ModelProto
    path: Path
    folder: Path
    chance: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A pair of models and how to compare them."""

    original: Model
    folded: Model
    provider: str
    seed: int
    say: Progress
    scratch: Path
    budget: float
    deadline: float

    @property
    def left(self) -> float:
        """Seconds until the time budget is spent; a moment at least, so that what begins can say so."""
        return max(1.0, self.deadline - time.monotonic())

    def run(self, model: Model, runs: Sequence[Run]) -> Outcomes:
        """What one of the models gives in onnxruntime."""
        data_folder = model.folder if model.chance else None
        return run_model(model.path, runs, provider=self.provider, timeout=self.left, data_folder=data_folder)


@contextmanager
def case_of(
    original: Path | bytes, folded: Path | bytes, how: Verification, progress: Progress | None
) -> Iterator[Case]:
    """A case with a folder for what passes.

    Raises:
        ModelError: a model cannot be read.
        UsageError: a budget that is no time.
    """
    # No thread can wait for longer than that: centuries.
    if not 0 < how.budget <= threading.TIMEOUT_MAX:
        raise UsageError(f"budget={how.budget!r}; expected a number of seconds above zero")

    def say(line: str) -> None:
        if progress is not None:
            progress(line.prefixed(_PREFIX) if isinstance(line, Stage) else f"{_PREFIX}{line}")

    with tempfile.TemporaryDirectory(prefix="bnfold-verify-") as folder:
        scratch = Path(folder)
        yield Case(
            original=_seeded(open_model(original, scratch / "original.onnx"), scratch / "original"),
            folded=_seeded(open_model(folded, scratch / "folded.onnx"), scratch / "folded"),
            provider=how.provider,
            seed=how.seed,
            say=say,
            scratch=scratch,
            budget=how.budget,
            deadline=time.monotonic() + how.budget,
        )


@dataclass(frozen=True)
class Evidence:
    """What a step found.

    Attributes:
        rows: what was compared.
        findings: what else is to be said.
        doubts: why nobody can call the models equivalent although nothing that was compared differs.
    """

    rows: tuple[OutputEvidence, ...] = ()
    findings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.rows + other.rows, self.findings + other.findings, self.doubts + other.doubts)


def few(names: Sequence[str]) -> str:
    """The first of several names, as a finding says them."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def open_model(source: Path | bytes, scratch: Path) -> Model:
    """Read a model; bytes are written to `scratch`, since onnxruntime runs in another process.

    Raises:
        ModelError: it cannot be read.
    """
    path = source if isinstance(source, Path) else scratch
    if isinstance(source, bytes):
        path.write_bytes(source)
    try:
        if isinstance(source, bytes):
            proto = onnx.load_model_from_string(source)
        else:
            proto = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model ({error})") from error
    return Model(proto, path, utf8_link(unlinked(proto, path.parent), scratch.with_suffix(".data")))


def _seeded(model: Model, scratch: Path) -> Model:
    """The model whose random operators draw the same numbers in every run; a copy, where it has any."""
    chance = seed(model.proto)
    if not chance:
        return model
    scratch.mkdir()
    path = scratch / model.path.name
    path.write_bytes(model.proto.SerializeToString())
    return replace(model, path=path, chance=chance)


def interface_mismatch(case: Case) -> str:
    """How the models' inputs and outputs differ; empty when they do not."""
    for kind in ("input", "output"):
        first, second = (_signature(model.proto, kind) for model in (case.original, case.folded))
        if first != second:
            return f"{kind}s {_listed(first)} became {_listed(second)}"
    return ""


def fixed(case: Case) -> tuple[str, ...]:
    """Initializers that callers may replace in the original, as of IR version 4, and not in the other."""
    theirs = _replaceable(case.folded.proto) & {
        name for node in calls(case.folded.proto) for name in node.input
    }
    return tuple(sorted(_replaceable(case.original.proto) - theirs))


def _replaceable(model: onnx.ModelProto) -> set[str]:
    if model.ir_version < _REPLACEABLE_SINCE_IR:
        return set()
    return {value.name for value in model.graph.input} & {tensor.name for tensor in model.graph.initializer}


def _signature(model: onnx.ModelProto, kind: str) -> list[tuple[str, int]]:
    backed = {tensor.name for tensor in model.graph.initializer} if kind == "input" else set()
    backed |= {tensor.values.name for tensor in model.graph.sparse_initializer} if kind == "input" else set()
    return [
        (value.name, value.type.tensor_type.elem_type)
        for value in getattr(model.graph, kind)
        if value.name not in backed
    ]


def _listed(signature: list[tuple[str, int]]) -> str:
    return (
        ", ".join(f"{name} ({onnx.TensorProto.DataType.Name(number).lower()})" for name, number in signature)
        or "none"
    )
