"""How the time to view and plan a model grows with its length.

    python benchmarks/ladder.py [--rounds N] [--results FILE]

Every stage of `bnfold inspect` is timed in this process, on one core, beside copying the file and
`onnx.load`; the best of several rounds counts. Models are made for the purpose, from seeded numbers:

    chain       Conv, BatchNormalization, Relu, again and again: everything folds
    residual    x + Conv(Relu(BatchNormalization(x))): everything stays, each time for a reason to be found
    adds        Add(Identity(y), Identity(y)), again and again, one normalization behind: 2**depth ways
    concats     the same with Concat and Slice
    dense       every Conv reads the Concat of all before it, a normalization between
    joined      the same with the normalization behind each Conv: each goes into all Conv that follow
    shuffles    Conv, a normalization, a channel shuffle spelled out; one more normalization behind
    fan         one tensor, read by many normalizations with nothing to take them
    tied        Conv, BatchNormalization, Relu with the same weight in all layers
    calls       BatchNormalization in a local function, its Conv outside: all calls are inlined

Linear means that the time for twice the nodes is twice as long; the table says how long it was. In `joined`
the pairs of a normalization and a Conv that it goes into, and so the work, grow with the square.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bnfold.collector import paused
from bnfold.fold.calls import plan_through_calls
from bnfold.fold.emit import emit
from bnfold.model.store import open_model
from bnfold.model.validate import validate
from bnfold.model.view import View
from bnfold.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

CHANNELS = 4
STAGES = ("copy", "onnx.load", "read", "view", "plan", "edits")


class _Model:
    """A model under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.random = np.random.default_rng(0)

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, axis: int | None = None) -> str:
        name = f"{op}{len(self.nodes)}"
        node = helper.make_node(op, inputs, [f"t{name}"], name)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.nodes.append(node)
        return f"t{name}"

    def conv(self, x: str, channels: int = CHANNELS) -> str:
        weight = self.random.normal(size=(CHANNELS, channels, 1, 1)).astype(np.float32)
        return self.node("Conv", x, self.weight(weight))

    def norm(self, x: str, channels: int = CHANNELS) -> str:
        drawn = self.random.uniform(0.5, 1.5, (4, channels)).astype(np.float32)
        return self.node("BatchNormalization", x, *(self.weight(vector) for vector in drawn))

    def indices(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def save(self, path: Path, output: str) -> None:
        dims = [1, CHANNELS, 4, 4]
        graph = helper.make_graph(
            self.nodes,
            "ladder",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid("local", 1)] * bool(self.functions)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=self.functions)
        onnx.save(model, path)


def chain(model: _Model, nodes: int) -> str:
    """Everything folds."""
    y = "x"
    for _ in range(nodes // 3):
        y = model.node("Relu", model.norm(model.conv(y)))
    return y


def residual(model: _Model, nodes: int) -> str:
    """Everything stays."""
    y = model.conv("x")
    for _ in range(nodes // 4):
        y = model.node("Add", y, model.conv(model.node("Relu", model.norm(y))))
    return y


def adds(model: _Model, nodes: int) -> str:
    """Two ways into every sum."""
    y = model.conv("x")
    for _ in range(nodes // 3):
        y = model.node("Add", model.node("Identity", y), model.node("Identity", y))
    return model.norm(y)


def concats(model: _Model, nodes: int) -> str:
    """Two ways into every Concat."""
    y = model.conv("x")
    for _ in range(nodes // 4):
        y = model.node("Concat", model.node("Identity", y), model.node("Identity", y), axis=1)
        y = model.node("Slice", y, model.indices(2), model.indices(2 + CHANNELS), model.indices(1))
    return model.norm(y)


def dense(model: _Model, nodes: int) -> str:
    """DenseNet."""
    y, channels = model.conv("x"), CHANNELS
    for _ in range(nodes // 4):
        new = model.conv(model.node("Relu", model.norm(y, channels)), channels)
        y, channels = model.node("Concat", y, new, axis=1), channels + CHANNELS
    return y


def joined(model: _Model, nodes: int) -> str:
    """A growing Concat of normalizations."""
    y, channels = model.conv("x"), CHANNELS
    for _ in range(nodes // 4):
        new = model.norm(model.node("Relu", model.conv(y, channels)))
        y, channels = model.node("Concat", y, new, axis=1), channels + CHANNELS
    return model.conv(y, channels)


def shuffles(model: _Model, nodes: int) -> str:
    """Channels change places."""
    y = "x"
    apart, together = model.indices(1, 2, 2, 4, 4), model.indices(1, CHANNELS, 4, 4)
    for _ in range(nodes // 6):
        y = model.node("Reshape", model.norm(model.conv(y)), apart)
        y = model.node("Transpose", y)
        model.nodes[-1].attribute.append(helper.make_attribute("perm", [0, 2, 1, 3, 4]))
        y = model.node("Relu", model.node("Reshape", y, together))
    return model.norm(y)


def fan(model: _Model, nodes: int) -> str:
    """Many readers."""
    y = model.node("Relu", model.conv("x"))
    return model.node("Sum", *(model.node("Relu", model.norm(y)) for _ in range(nodes // 2)))


def tied(model: _Model, nodes: int) -> str:
    """One weight for all layers."""
    y, weight = "x", model.weight(model.random.normal(size=(CHANNELS, CHANNELS, 1, 1)).astype(np.float32))
    for _ in range(nodes // 3):
        y = model.node("Relu", model.norm(model.node("Conv", y, weight)))
    return y


def calls(model: _Model, nodes: int) -> str:
    """A normalization that a call separates from its weights."""
    names = ["x", "scale", "bias", "mean", "var"]
    body = [
        helper.make_node("BatchNormalization", names, ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["y"], "relu"),
    ]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "NormRelu", names, ["y"], body, opsets))
    y = "x"
    for _ in range(nodes // 3):
        drawn = model.random.uniform(0.5, 1.5, (4, CHANNELS)).astype(np.float32)
        y = model.node("NormRelu", model.conv(y), *(model.weight(vector) for vector in drawn))
        model.nodes[-1].domain = "local"
    return y


LADDERS: dict[Callable[[_Model, int], str], tuple[int, ...]] = {
    chain: (2_500, 5_000, 10_000, 20_000),
    residual: (2_500, 5_000, 10_000, 20_000),
    adds: (500, 1_000, 2_000, 4_000),
    concats: (500, 1_000, 2_000, 4_000),
    dense: (200, 400, 800),
    joined: (120, 240, 480),
    shuffles: (2_500, 5_000, 10_000, 20_000),
    fan: (2_500, 5_000, 10_000, 20_000),
    tied: (2_500, 5_000, 10_000, 20_000),
    calls: (2_500, 5_000, 10_000, 20_000),
}


def measured(path: Path, rounds: int) -> tuple[list[float], int, int]:
    """The best processor time of each stage in seconds, how many normalizations fold, and how many stay."""
    best = [float("inf")] * len(STAGES)
    for _ in range(rounds):
        times: list[float] = []
        start = time.process_time()

        def lap(times: list[float] = times) -> None:
            nonlocal start
            now = time.process_time()
            times.append(now - start)
            start = now

        shutil.copyfile(path, path.with_suffix(".copy"))
        lap()
        onnx.load(path)
        lap()
        with paused():
            opened = open_model(path)
            validate(opened)
            lap()
            View(opened)
            lap()
            planned = plan_through_calls(opened).plan
            lap()
            emit(planned)
            lap()
        # The plan makes a view of its own.
        times[4] -= times[3]
        best = [min(pair) for pair in zip(best, times, strict=True)]
    return best, len(planned.folds), len(planned.kept)


def _processor() -> str:
    """Its name, where the system tells."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure, print, and keep the report where it is asked for."""
    parser = argparse.ArgumentParser(description="Time to view and plan models of growing length.")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--results", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    versions = f"bnfold {__version__}, onnx {onnx.__version__}, Python {platform.python_version()}"
    lines = [
        "# Time to view and plan models of growing length",
        "",
        f"`{' '.join(['python', 'benchmarks/ladder.py', *sys.argv[1:]])}`",
        "",
        f"{versions}, {_processor()}; load average {os.getloadavg()[0]:.1f} at the start",
        "",
        f"Processor time in milliseconds, best of {arguments.rounds} rounds.",
        "",
        "| model | nodes | folds | kept | " + " | ".join(STAGES) + " | read to edits | for twice the nodes |",
        "|---|" + "---:|" * (len(STAGES) + 5),
    ]
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        for ladder, lengths in LADDERS.items():
            before = None
            for length in lengths:
                model = _Model()
                path = Path(folder) / "model.onnx"
                model.save(path, ladder(model, length))
                times, folds, kept = measured(path, arguments.rounds)
                whole = sum(times[2:])
                growth = "" if before is None else f"{whole / before:.1f}"
                cells = [ladder.__name__, f"{len(model.nodes):,}", str(folds), str(kept)]
                cells += [f"{1000 * seconds:.0f}" for seconds in (*times, whole)]
                lines.append("| " + " | ".join([*cells, growth]) + " |")
                print(lines[-1], file=sys.stderr, flush=True)
                before = whole
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if arguments.results:
        arguments.results.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
