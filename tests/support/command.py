"""The command line as a user meets it: a process of its own, in another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto
from support.build import Net

import bnfold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BNFOLD = (sys.executable, "-m", "bnfold")


def environment(**extra: str) -> dict[str, str]:
    """This process's, with the package under test on the path and nothing that changes what is printed."""
    package = str(Path(bnfold.__file__).parent.parent)
    kept = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"}}
    return {**kept, "PYTHONPATH": package, **extra}


def run(
    *arguments: str | Path | bytes,
    cwd: Path,
    program: Sequence[str] = BNFOLD,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    """Runs `bnfold ARGUMENTS` to its end, without a terminal."""
    return subprocess.run(
        [*program, *arguments],
        check=False,
        cwd=cwd,
        encoding="utf-8",
        env=environment(**(env or {})),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        timeout=300,
    )


def start(
    *arguments: str | Path, cwd: Path, program: Sequence[str] = BNFOLD, **env: str
) -> subprocess.Popen[str]:
    """Starts `bnfold ARGUMENTS`."""
    return subprocess.Popen(
        [*program, *arguments],
        cwd=cwd,
        encoding="utf-8",
        env=environment(**env),
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


def prepared(before: str) -> tuple[str, ...]:
    """The command line in a process in which this code ran first."""
    return (sys.executable, "-c", f"{before}\nfrom bnfold.cli import main\nmain()")


@dataclass(frozen=True)
class Outcome:
    """What the command line said and returned."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr of a run that failed, and nothing on stdout."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("bnfold: ")
        return lines[0].removeprefix("bnfold: ")


# --- processes --------------------------------------------------------------------------------------------


def left_running(scratch: Path) -> list[str]:
    """Command lines of the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes()
        except OSError:  # it has just ended
            continue
        if str(scratch).encode() in line:
            found.append(line.decode())
    return found


def wait_for(condition: Callable[[], object], process: object, seconds: float = 60) -> None:
    """Waits until it holds; `process` is named if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, process
        time.sleep(0.002)


# --- models -------------------------------------------------------------------------------------------------


def folding(name: str = "bn") -> Net:
    """Conv, BatchNormalization `name`, Sigmoid, and a BatchNormalization `head` that nothing takes in."""
    net = Net()
    x = net.input("x", "N", 3, 6, 6)
    y = net.node("Sigmoid", net.bn(net.conv(x, 3, 4, name="conv"), 4, name=name), name="sigmoid")
    net.output(net.bn(y, 4, name="head", out="y"), shape=["N", 4, 4, 4])
    return net


def small() -> ModelProto:
    return folding().model()


def other() -> ModelProto:
    """The same interface as `small`, another function."""
    model = small()
    weight = model.graph.initializer[0]
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * np.float32(1.5)).tobytes()
    return model


def ill_conditioned() -> ModelProto:
    """Two biases that all but cancel: the last place of either is larger than the result."""
    net = Net()
    y = net.bn(net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv"), 4, name="bn")
    one, two = (net.conv(y, 4, 4, bias=net.init(np.full(4, 1e12))) for _ in range(2))
    net.output(net.node("Sub", one, two, out="y"))
    return net.model()


def many(count: int, kind: str) -> ModelProto:
    """`count` normalizations behind activations (`kept`), or each behind a Conv (`folded`)."""
    net = Net()
    x = net.input("x", 1, 2, 4, 4)
    for index in range(count):
        x = net.node("Sigmoid", x) if kind == "kept" else net.conv(x, 2, 2, [1, 1], name=f"conv{index}")
        x = net.bn(x, 2, name=f"/block.{index}/BatchNormalization")
    net.output(net.node("Sigmoid", x))
    return net.model()


def save(model: ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path
