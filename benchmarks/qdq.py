"""How much faster a quantized network is once its normalizations are folded into the integer weights.

    python benchmarks/qdq.py [--layers 8] [--channels 32] [--size 56] [--rounds 200]

Conv, BatchNormalization, Relu, over and over, quantized to 8 bits by onnxruntime's own quantizer in the QDQ
format, with quantizers in front of each Conv. Both models run in onnxruntime with all its optimizations, on
one thread, in turns; the ratio is the median of the quotients within each round, with a bootstrap interval.
"""

from __future__ import annotations

import argparse
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("layers", 8), ("channels", 32), ("size", 56), ("rounds", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1, asked.channels, asked.size, asked.size)).astype(np.float32)
    original = quantized(network(asked.layers, asked.channels, asked.size), image)
    result = bnfold.optimize(original)
    print(f"{len(result.folds)} of {asked.layers} folded; {result.verdict.summary if result.verdict else ''}")
    sessions = [session(model) for model in (original, result.model)]
    for name, (_, operators) in zip(("original", "folded"), sessions, strict=True):
        print(f"{name:9} {dict(operators)}")
    for _ in range(_WARM_UP):
        for made, _ in sessions:
            seconds(made, image)
    times = np.zeros((asked.rounds, 2))
    for turn in range(asked.rounds):
        for which in (0, 1) if turn % 2 else (1, 0):
            times[turn, which] = seconds(sessions[which][0], image)
    ratios = times[:, 0] / times[:, 1]
    drawn = np.median(rng.choice(ratios, (_RESAMPLES, asked.rounds)), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    before, after = np.median(times, axis=0) * 1e3
    print(f"original {before:.2f} ms, folded {after:.2f} ms: {np.median(ratios):.2f} times as fast")
    print(f"95 % interval of the ratio: {low:.2f} to {high:.2f}; onnxruntime {ort.__version__}")


if __name__ == "__main__":
    main()
