"""Looks at a tool's result, independently of every tool: what is left, and does it still compute the same.

    python examine.py ORIGINAL RESULT

prints one JSON object: `bn`, the BatchNormalization nodes left in all graphs; `spelled`, the nodes left that
multiply or divide by a stored value for each channel, as a spelled-out normalization does; `nodes`, those of
the main graph by operator; `structure`, a hash of all that decides how fast it runs; `bytes`, the size of the
files; `difference`, the largest one of the outputs for a
random input, in units of the RMS of the original's output (onnxruntime without optimizations), null where one
of the models does not run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def count_bn(nodes: Iterable[onnx.NodeProto]) -> int:
    """BatchNormalization nodes, those in nested graphs too."""
    count = 0
    for node in nodes:
        count += node.op_type == "BatchNormalization" and node.domain in {"", "ai.onnx"}
        for attribute in node.attribute:
            count += sum(count_bn(graph.node) for graph in (attribute.g, *attribute.graphs))
    return count


def count_spelled(graph: onnx.GraphProto) -> int:
    """Mul and Div of the main graph by constants of more than one element.

    A constant is stored, or computed from stored values alone.
    """
    elements = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    constant = set(elements)
    count = 0
    for node in graph.node:
        given = [name for name in node.input if name]
        if all(name in constant for name in given) and not node.op_type.startswith("Random"):
            constant.update(node.output)
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            size = int(np.prod(value.dims)) if value else max((elements.get(i, 1) for i in given), default=1)
            elements.update(dict.fromkeys(node.output, size))
        elif node.op_type in {"Mul", "Div"}:
            count += any(name in constant and elements[name] > 1 for name in given)
    return count


def structure(graph: onnx.GraphProto) -> str:
    """The same for graphs that differ in names and in the values of floating-point weights alone.

    Nodes count in the order in which they stand.
    """
    numbers: dict[str, int] = {}
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def numbered(name: str) -> int:
        return numbers.setdefault(name, len(numbers)) if name else -1

    def weight(name: str) -> tuple[Any, ...]:
        if name not in stored:
            return ()
        tensor = stored[name]
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).kind
        told = kind in "iub" and tensor.data_location != onnx.TensorProto.EXTERNAL
        return tensor.data_type, *tensor.dims, onnx.numpy_helper.to_array(tensor).tolist() if told else None

    digest = hashlib.sha256()
    for value in graph.input:
        digest.update(repr((numbered(value.name), value.type.SerializeToString(deterministic=True))).encode())
    for node in graph.node:
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        read = [(numbered(name), weight(name)) for name in node.input]
        made = [numbered(name) for name in node.output]
        digest.update(repr((node.domain, node.op_type, read, made, attributes)).encode())
    digest.update(repr([numbered(value.name) for value in graph.output]).encode())
    return digest.hexdigest()


def outputs(path: Path, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What onnxruntime computes, running the model as it is written."""
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    results: list[NDArray[Any]] = session.run(None, feeds)
    return results


def difference(original: Path, result: Path, graph: onnx.GraphProto) -> float | None:
    """The largest difference between the outputs, relative to the RMS of the original's."""
    stored = {tensor.name for tensor in graph.initializer}
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.standard_normal(
            [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim], np.float32
        )
        for value in graph.input
        if value.name not in stored
    }
    try:
        pairs = list(zip(outputs(original, feeds), outputs(result, feeds), strict=True))
    except Exception as error:  # noqa: BLE001  # onnxruntime has an exception class for each status
        print(f"{result.name} does not run: {error}", file=sys.stderr)
        return None
    return max(float(np.abs(a - b).max() / np.sqrt(np.mean(np.square(a)))) for a, b in pairs)


def main() -> None:
    """Print the findings on the result that the command line names."""
    original, result = map(Path, sys.argv[1:])
    model = onnx.load(result, load_external_data=False)
    finding = {
        "bn": count_bn(model.graph.node) + sum(count_bn(f.node) for f in model.functions),
        "spelled": count_spelled(model.graph),
        "nodes": Counter(node.op_type for node in model.graph.node),
        "structure": structure(model.graph),
        "bytes": sum(file.stat().st_size for file in result.parent.iterdir()),
        "difference": difference(original, result, onnx.load(original, load_external_data=False).graph),
    }
    print(json.dumps(finding))


if __name__ == "__main__":
    main()
