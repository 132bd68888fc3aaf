"""Networks as onnxruntime quantizes them, calibrated, their normalizations kept: always equivalent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime.quantization as ortq  # noqa: TID251 - its quantizer is what is tested against
import pytest
from support.build import Net

import bnfold

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

LINEAR = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


def weight(net: Net, *shape: int) -> str:
    """Weights that keep activations near unit variance."""
    return net.init(net.draw(*shape) / np.sqrt(np.prod(shape[1:]) / 2))


def residual() -> ModelProto:
    net = Net(opset=17)
    x = net.node("Conv", net.input("x", 1, 3, 20, 20), weight(net, 8, 3, 3, 3), pads=[1] * 4)
    x = net.node("Relu", net.bn(x, 8))
    for _ in range(2):
        y = net.node("Relu", net.bn(net.node("Conv", x, weight(net, 8, 8, 3, 3), pads=[1] * 4), 8))
        y = net.bn(net.node("Conv", y, weight(net, 8, 8, 3, 3), pads=[1] * 4), 8)
        x = net.node("Relu", net.node("Add", x, y))
    net.output(x)
    return net.model()


def depthwise() -> ModelProto:
    net = Net(opset=17)
    x, channels = net.input("x", 1, 3, 20, 20), 3
    for wide, stride in ((8, 1), (16, 2)):
        x = net.bn(net.node("Conv", x, weight(net, wide, channels, 1, 1)), wide)
        x = net.node("Clip", x, net.init(0.0), net.init(6.0))
        kernel = weight(net, wide, 1, 3, 3)
        x = net.bn(net.node("Conv", x, kernel, pads=[1] * 4, group=wide, strides=[stride] * 2), wide)
        x, channels = net.node("Clip", x, net.init(0.0), net.init(6.0)), wide
    y = net.node("Flatten", net.node("GlobalAveragePool", x))
    net.output(net.bn(net.node("Gemm", y, weight(net, 16, 10), net.init(net.draw(10))), 10))
    return net.model()


def perceptron() -> ModelProto:
    net = Net(opset=17)
    x = net.input("x", 4, 32)
    for _ in range(3):
        y = net.node("Gemm", x, weight(net, 32, 32), net.init(net.draw(32)), transB=1)
        x = net.node("Relu", net.bn(y, 32))
    net.output(x)
    return net.model()


def mixer() -> ModelProto:
    net = Net(opset=17)
    x = net.input("x", 2, 9, 16)
    for _ in range(2):
        y = net.node("Reshape", net.node("MatMul", x, weight(net, 16, 16)), net.ints(-1, 16))
        x = net.node("Reshape", net.node("Relu", net.bn(y, 16)), net.ints(2, 9, 16))
    net.output(x)
    return net.model()


def generator() -> ModelProto:
    net = Net(opset=17)
    x = net.input("x", 1, 8, 4, 4)
    for _ in range(3):
        y = net.node("ConvTranspose", x, weight(net, 8, 8, 4, 4), strides=[2, 2], pads=[1] * 4)
        x = net.node("Relu", net.bn(y, 8))
    net.output(x)
    return net.model()


def sequence() -> ModelProto:
    net = Net(opset=17)
    x = net.input("x", 1, 8, 50)
    for step in (1, 2, 3):
        y = net.node("Conv", x, weight(net, 8, 8, 3), dilations=[step], pads=[step] * 2)
        x = net.node("Relu", net.bn(y, 8))
    net.output(x)
    return net.model()


class Calibration(ortq.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """A few normal inputs."""

    def __init__(self, model: ModelProto) -> None:
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        self.feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(3)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, until there is none left."""
        return self.feeds.pop() if self.feeds else None


def quantize(model: ModelProto, folder: Path, scheme: str) -> ModelProto:
    """The model quantized; the scheme is `activations weights`, then `channels`, `floats` or both.

    Args:
        model: the float model.
        folder: for files.
        scheme: types; `channels` for a scale per channel, `floats` for weights that are rounded at run time,
            `everything` for quantizers behind the linear layers too.
    """
    activations, weights, *how = scheme.split()
    source, target = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(model, source)
    ortq.quantize_static(
        source,
        target,
        Calibration(model),
        quant_format=ortq.QuantFormat.QDQ,
        per_channel="channels" in how,
        activation_type=ortq.QuantType.from_string(activations),
        weight_type=ortq.QuantType.from_string(weights),
        op_types_to_quantize=LINEAR,
        extra_options={
            "OpTypesToExcludeOutputQuantization": [] if "everything" in how else LINEAR,
            "AddQDQPairToWeight": "floats" in how,
            "WeightSymmetric": True,
        },
    )
    return onnx.load(target)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [
    "QUInt8 QInt8 channels", "QInt8 QInt8 channels", "QUInt8 QInt8 channels floats", "QUInt8 QInt8",
    "QUInt8 QUInt8", "QInt8 QInt8 everything", "QUInt16 QInt8 channels", "QInt16 QInt16 channels",
    "QUInt8 QInt4",
])  # fmt: skip
@pytest.mark.parametrize("network", [residual, depthwise, perceptron, mixer, generator, sequence])
def test_a_network(tmp_path: Path, network: Callable[[], ModelProto], scheme: str) -> None:
    original = quantize(network(), tmp_path, scheme)
    result = bnfold.optimize(original)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    codes = Counter(str(refusal.code) for refusal in result.kept)
    if "everything" in scheme:
        assert not result.folds
        assert set(codes) == {"BNF015"}
    elif "channels" in scheme:
        assert not result.kept, [refusal.reason.evidence for refusal in result.kept]
        count = Counter(node.op_type for node in result.model.graph.node)
        assert count["BatchNormalization"] == 0
        if "floats" in scheme:
            weights = Counter(node.op_type for node in original.graph.node)["QuantizeLinear"]
            assert count["QuantizeLinear"] < weights
    else:
        # One scale for all channels: the least integer of the type may stand in a channel that is mirrored.
        assert set(codes) <= {"BNF017"}, [refusal.reason.evidence for refusal in result.kept]
