"""Random Conv + BatchNormalization networks, and a fold of them that shares no code with bnfold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Net:
    """What a network looks like."""

    layers: int = 3
    channels: int = 8
    kernel: int = 3
    dtype: type[np.generic] = np.float32
    seed: int = 0
    size: int | str = 12
    group: int = 1
    relu: bool = True
    bias: bool = False
    inputs: int = 3
    head: bool = False
    batch: int | str = 1


def random_net(rng: np.random.Generator) -> Net:
    """A network of 1 to 50 layers, as calibration draws them."""
    return Net(
        layers=int(rng.choice([1, 1, 2, 3, 5, 10, 20, 50])),
        channels=int(rng.choice([1, 2, 4, 8, 16, 32])),
        kernel=int(rng.choice([1, 3])),
        dtype=np.float16 if rng.random() < 0.4 else np.float32,
        seed=int(rng.integers(10**9)),
        size=int(rng.choice([1, 2, 5, 12])),
        group=int(rng.choice([1, 1, 2, 4])),
        relu=bool(rng.random() < 0.7),
        bias=bool(rng.random() < 0.5),
        inputs=int(rng.choice([1, 3, 4])),
        head=bool(rng.random() < 0.3),
    )


def build(
    net: Net, tail: tuple[onnx.NodeProto, ...] = (), output: tuple[str, int] | None = None
) -> onnx.ModelProto:
    """The network, with nodes after its last tensor `y` when `tail` is given."""
    rng = np.random.default_rng(net.seed)
    number = helper.np_dtype_to_tensor_dtype(np.dtype(net.dtype))
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def store(name: str, values: Array) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values).astype(net.dtype), name))
        return name

    current, fan = "x", net.inputs
    for i in range(net.layers):
        group = net.group if fan % net.group == 0 and net.channels % net.group == 0 else 1
        shape = (net.channels, fan // group, net.kernel, net.kernel)
        spread = np.sqrt(2 / (shape[1] * net.kernel**2))
        operands = [current, store(f"w{i}", rng.standard_normal(shape) * spread)]
        if net.bias:
            operands.append(store(f"b{i}", rng.standard_normal(net.channels)))
        pads = [net.kernel // 2] * 4
        nodes.append(
            helper.make_node("Conv", operands, [f"conv{i}"], name=f"conv{i}", pads=pads, group=group)
        )
        statistics = [
            store(f"scale{i}", rng.uniform(0.5, 1.5, net.channels)),
            store(f"shift{i}", rng.standard_normal(net.channels) * 0.3),
            store(f"mean{i}", rng.standard_normal(net.channels) * 0.3),
            store(f"var{i}", rng.uniform(0.3, 2, net.channels)),
        ]
        nodes.append(
            helper.make_node("BatchNormalization", [f"conv{i}", *statistics], [f"bn{i}"], name=f"bn{i}")
        )
        current, fan = f"bn{i}", net.channels
        if net.relu:
            nodes.append(helper.make_node("Relu", [current], [f"relu{i}"]))
            current = f"relu{i}"
    if net.head:
        nodes.append(helper.make_node("GlobalAveragePool", [current], ["pooled"]))
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
        store("head", rng.standard_normal((net.channels, 10)) / np.sqrt(net.channels))
        nodes.append(helper.make_node("Gemm", ["flat", "head"], ["logits"]))
        current = "logits"
    nodes.append(helper.make_node("Identity", [current], ["y"]))
    sides = [net.size, net.size] if isinstance(net.size, int) else [f"{net.size}_h", f"{net.size}_w"]
    name, kind = output or ("y", number)
    graph = helper.make_graph(
        [*nodes, *tail],
        "net",
        [helper.make_tensor_value_info("x", number, [net.batch, net.inputs, *sides])],
        [helper.make_tensor_value_info(name, kind, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def fold(model: onnx.ModelProto, *, own_dtype: bool = False) -> onnx.ModelProto:
    """Every BatchNormalization in its Conv; `own_dtype` computes in the weights' dtype, as others do."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    for node in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = producers[node.input[0]]
        dtype = values[conv.input[1]].dtype
        work = dtype if own_dtype else np.dtype(np.float64)
        weight = values[conv.input[1]].astype(work)
        bias = values[conv.input[2]].astype(work) if len(conv.input) > 2 else np.zeros(len(weight), work)
        gamma, beta, mean, var = (values[name].astype(work) for name in node.input[1:5])
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), np.float32(1e-5))
        scale = gamma / np.sqrt(var + work.type(np.float32(epsilon)))
        name = conv.input[1]
        store = {
            f"{name}_folded": weight * scale.reshape(-1, 1, 1, 1),
            f"{name}_bias": (bias - mean) * scale + beta,
        }
        graph.initializer.extend(numpy_helper.from_array(v.astype(dtype), k) for k, v in store.items())
        del conv.input[1:]
        conv.input.extend(store)
        conv.output[0] = node.output[0]
        graph.node.remove(node)
    return copy


def changed(model: onnx.ModelProto, name: str, values: Array) -> onnx.ModelProto:
    """A copy with one initializer replaced."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy


def weight(model: onnx.ModelProto, name: str) -> Array:
    """A writable copy of an initializer."""
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()


FLOAT, INT64, INT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8
