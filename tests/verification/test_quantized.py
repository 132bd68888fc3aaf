"""Quantized networks as onnxruntime's own quantizer makes them, folded and verified."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - its quantizer and its optimizer are what is tested against
import pytest
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import (  # noqa: TID251 - as above
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from support.build import Net
from support.claims import label
from support.quantized import X_SCALE, dequantized, integers, quantized, stored

import bnfold

MODELS = Path(__file__).parents[2] / "models"
LINEAR = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


class Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not typed
    """A few normal inputs."""

    def __init__(self, model: ModelProto) -> None:
        (info,) = model.graph.input
        shape = [d.dim_value or 4 for d in info.type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        self.feeds = [{info.name: rng.normal(size=shape).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Any] | None:
        """The next input, until there is none left."""
        return self.feeds.pop() if self.feeds else None


def quantize(
    model: ModelProto, folder: Path, *, per_channel: bool, activations: str, bias: bool = True
) -> ModelProto:
    """The model with quantizers in front of its linear layers, and none between them and what follows."""
    source, target = folder / "float.onnx", folder / "quantized.onnx"
    onnx.save(model, source)
    quantize_static(
        source,
        target,
        Calibration(model),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.from_string(activations),
        weight_type=QuantType.QInt8,
        op_types_to_quantize=LINEAR,
        extra_options={"OpTypesToExcludeOutputQuantization": LINEAR, "QuantizeBias": bias},
    )
    return onnx.load(target)


def network(*, bias: bool, layers: int = 4, channels: int = 8) -> ModelProto:
    """Conv, BatchNormalization, Relu, over and over; half of the scales are negative."""
    net = Net()
    x = net.input("x", 1, channels, 10, 10)
    for i in range(layers):
        w = net.init(net.draw(channels, channels, 3, 3) / np.sqrt(4.5 * channels))
        b = net.init(net.draw(channels) / 8) if bias else ""
        y = net.conv(x, channels, channels, weight=w, bias=b, pads=[1] * 4, name=f"conv{i}")
        x = net.node("Relu", net.bn(y, channels, name=f"bn{i}"))
    net.output(x)
    return net.model()


def optimized(model: ModelProto, folder: Path) -> Counter[str]:
    """The operators that onnxruntime makes of a model."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("bias", ["none", "float", "int32"])
@pytest.mark.parametrize(("per_channel", "activations"), [(True, "QUInt8"), (False, "QInt8")])
def test_a_quantized_network(tmp_path: Path, per_channel: bool, activations: str, bias: str) -> None:
    original = quantize(
        network(bias=bias != "none"),
        tmp_path,
        per_channel=per_channel,
        activations=activations,
        bias=bias == "int32",
    )
    biases = [t for t in original.graph.initializer if t.data_type == onnx.TensorProto.INT32]
    assert bool(biases) == (bias == "int32")
    result = bnfold.optimize(original)
    assert not result.kept
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    after = Counter(node.op_type for node in result.model.graph.node)
    before = Counter(node.op_type for node in original.graph.node)
    assert before - after == Counter(BatchNormalization=4)
    assert not after - before
    for tensor in original.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1:
            old, new = (
                numpy_helper.to_array(t).astype(int) for t in (tensor, _named(result.model, tensor.name))
            )
            np.testing.assert_array_equal(np.abs(new), np.abs(old))
    assert optimized(original, tmp_path)["QLinearConv"] == 0
    # The last layer has no quantizer behind it.
    assert optimized(result.model, tmp_path)["QLinearConv"] == 3


def _named(model: ModelProto, name: str) -> onnx.TensorProto:
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    assert isinstance(tensor, onnx.TensorProto)
    return tensor


@pytest.mark.parametrize("per_channel", [True, False])
def test_the_sample_model_quantized(tmp_path: Path, per_channel: bool) -> None:
    """Trained statistics; Conv, ConvTranspose and Gemm. Its answers stay what they were."""
    original = quantize(
        onnx.load(MODELS / "digits.onnx"), tmp_path, per_channel=per_channel, activations="QUInt8"
    )
    result = bnfold.optimize(original)
    assert len(result.folds) == 5
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    with np.load(MODELS / "digits_test.npz") as file:
        images = file["image"]
    answers = [_answers(model, images) for model in (original, result.model)]
    assert (answers[0] == answers[1]).mean() >= 0.99


def _answers(model: ModelProto, images: Any) -> Any:  # noqa: ANN401 - arrays
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0].argmax(axis=1)


# --- a wrong result is found ------------------------------------------------------------------------------


def small() -> ModelProto:
    """Quantizer, Conv with an int32 bias, BatchNormalization, Relu, quantizer, Conv."""
    net = Net()
    x, step = quantized(net, net.input("x", 1, 4, 8, 8)), X_SCALE
    for i in range(2):
        w = dequantized(net, integers(net, 4, 4, 3, 3), scale=0.0078125, name=f"w{i}")
        b = dequantized(
            net, net.rng.integers(-900, 900, 4), scale=0.0078125 * step, kind="int32", name=f"b{i}"
        )
        y = net.bn(net.conv(x, 4, 4, weight=w, bias=b, name=f"conv{i}"), 4, name=f"bn{i}")
        step *= 2
        x = quantized(net, net.node("Relu", y), scale=step) if i == 0 else y
    net.output(x)
    return net.model()


def changed(model: ModelProto, name: str, place: int, by: float) -> ModelProto:
    """The model with one number of one tensor changed: an integer by a sum, a float by a factor."""
    other = ModelProto()
    other.CopyFrom(model)
    values = stored(other, name).copy()
    values.flat[place] = values.flat[place] + by if values.dtype.kind == "i" else values.flat[place] * by
    _named(other, name).CopyFrom(numpy_helper.from_array(values, name))
    return other


@pytest.mark.parametrize(("name", "place", "by"), [
    ("w0_q", 17, 1), ("w1_q", 100, -8), ("w0_scale_folded", 2, 1.001), ("w1_scale_folded", 0, 0.999),
    ("b0_q", 1, 20), ("b1_q", 3, -20), ("b1_scale_folded", 1, 1.1),
])  # fmt: skip
def test_a_wrong_part_is_found(name: str, place: int, by: float) -> None:
    original = small()
    result = bnfold.optimize(original)
    assert {label for f in result.folds for label in f.into} == {"conv0", "conv1"}
    assert result.verdict is not None
    assert result.verdict.status == "equivalent", result.verdict.summary
    wrong = changed(result.model, name, place, by)
    verdict = bnfold.verify(original.SerializeToString(), wrong.SerializeToString())
    assert verdict.status == "different", verdict.summary


def test_a_bias_that_was_never_rounded_may_not_be_rounded_now() -> None:
    """Only the rounding that an int32 bias of the original has is allowed."""
    net = Net()
    x = quantized(net, net.input("x", 1, 4, 8, 8))
    w = dequantized(net, integers(net, 4, 4, 3, 3), scale=0.0078125)
    net.output(net.bn(net.conv(x, 4, 4, weight=w, bias="b", name="conv"), 4, name="bn"))
    net.init(net.draw(4), "b")
    original = net.model()
    result = bnfold.optimize(original)
    assert result.verdict is not None
    assert result.verdict.status == "equivalent"
    rounded = ModelProto()
    rounded.CopyFrom(result.model)
    unit = stored(rounded, "w_scale_folded") * X_SCALE
    values = np.rint(stored(rounded, "b") / unit) * unit
    _named(rounded, "b").CopyFrom(numpy_helper.from_array(values.astype(np.float32), "b"))
    verdict = bnfold.verify(original.SerializeToString(), rounded.SerializeToString())
    assert verdict.status == "different"
    assert label(original.graph.node[-1]) == "bn"
