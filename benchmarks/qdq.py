"""How much faster a quantized network is once its normalizations are folded into the integer weights.

    python benchmarks/qdq.py [--layers 8] [--channels 32] [--size 56] [--rounds 200] [--results FILE]

Conv, BatchNormalization, Relu, over and over, quantized to 8 bits by onnxruntime's own quantizer in the QDQ
format, with quantizers in front of each Conv. Both models run in onnxruntime with all its optimizations, on
one thread, in turns; the ratio is the median of the quotients within each round, with a bootstrap interval.
The original takes turns with itself, too: how far that ratio is from 1 shows what the machine does.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - what is measured
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (  # noqa: TID251 - as above
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

import bnfold

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WARM_UP = 10
_RESAMPLES = 2000


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    def __init__(self, image: NDArray[np.float32]) -> None:
        self.left = [{"x": image}]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


def network(layers: int, channels: int, size: int) -> ModelProto:
    """The float network, with weights that keep activations near unit variance."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i in range(layers):
        tensors = {
            "w": rng.normal(size=(channels, channels, 3, 3)) * np.sqrt(2 / (9 * channels)),
            "scale": rng.uniform(0.5, 1.5, channels) * rng.choice([-1.0, 1.0], channels),
            "bias": rng.normal(size=channels) * 0.3,
            "mean": rng.normal(size=channels) * 0.2,
            "var": rng.uniform(0.5, 2.0, channels),
        }
        names = [f"{name}{i}" for name in tensors]
        weights += [
            numpy_helper.from_array(v.astype(np.float32), n)
            for n, v in zip(names, tensors.values(), strict=True)
        ]
        nodes += [
            helper.make_node("Conv", [x, names[0]], [f"c{i}"], f"conv{i}", pads=[1] * 4),
            helper.make_node("BatchNormalization", [f"c{i}", *names[1:]], [f"n{i}"], f"bn{i}"),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"], f"relu{i}"),
        ]
        x = f"r{i}"
    shape = [1, channels, size, size]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x)]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized(model: ModelProto, image: NDArray[np.float32]) -> ModelProto:
    """The model with 8-bit weights and activations; its normalizations stay where they are."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float.onnx"), Path(folder, "quantized.onnx")
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            _Images(image),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
        return onnx.load(target)


def session(model: ModelProto) -> tuple[ort.InferenceSession, Counter[str]]:
    """A session with all optimizations on one thread, and the operators that it runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        made = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    return made, Counter(node.op_type for node in graph.node)


def seconds(made: ort.InferenceSession, image: NDArray[np.float32]) -> float:
    """One run."""
    started = time.perf_counter()
    made.run(None, {"x": image})
    return time.perf_counter() - started


def processor() -> str:
    """Its name, where the system tells."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def load() -> str:
    """How busy the machine was, without which no time means anything."""
    return f"load average {os.getloadavg()[0]:.1f} at the start"


def main() -> None:
    """Measure, print, and keep the report where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("layers", 8), ("channels", 32), ("size", 56), ("rounds", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--results", type=Path, help="also write the report to this file")
    asked = parser.parse_args()
    busy = load()
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1, asked.channels, asked.size, asked.size)).astype(np.float32)
    original = quantized(network(asked.layers, asked.channels, asked.size), image)
    result = bnfold.optimize(original)
    sessions = {
        name: session(model)
        for name, model in (("original", original), ("original again", original), ("folded", result.model))
    }
    for _ in range(_WARM_UP):
        for made, _ in sessions.values():
            seconds(made, image)
    times = {name: np.zeros(asked.rounds) for name in sessions}
    for turn in range(asked.rounds):
        for name in list(sessions)[:: -1 if turn % 2 else 1]:
            times[name][turn] = seconds(sessions[name][0], image)
    versions = (
        f"bnfold {bnfold.__version__}, onnxruntime {ort.__version__}, Python {platform.python_version()}"
    )
    kind = f"{asked.layers} layers of Conv, BatchNormalization and Relu, {asked.channels} channels of "
    kind += f"{asked.size}x{asked.size}, quantized to 8 bits. {len(result.folds)} of {asked.layers} folded; "
    kind += f"{result.verdict.summary if result.verdict else 'not verified'}."
    how = (
        f"Median of {asked.rounds} rounds, one thread, all of onnxruntime's optimizations. How many times as "
    )
    how += "fast as the original: median of the quotients within a round, with a bootstrap interval of 95 %."
    command = " ".join(["python", "benchmarks/qdq.py", *sys.argv[1:]])
    lines = ["# A quantized network, its normalizations kept and folded", "", f"`{command}`", ""]
    lines += [f"{versions}, {processor()}; {busy}.", "", kind, "", how, ""]
    lines += ["| model | operators that onnxruntime runs | time, ms | times as fast |", "|---|---|---:|---|"]
    for name, (_, operators) in sessions.items():
        ratios = times["original"] / times[name]
        drawn = np.median(rng.choice(ratios, (_RESAMPLES, asked.rounds)), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        said = "" if name == "original" else f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"
        counts = ", ".join(f"{count} {op}" for op, count in operators.items())
        lines.append(f"| {name} | {counts} | {np.median(times[name]) * 1e3:.2f} | {said} |")
    report = "\n".join(lines) + "\n"
    print(report, end="")
    if asked.results:
        asked.results.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
