"""Weights that are quantized whenever the model runs, and the quantizers of onnxruntime's own domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort  # noqa: TID251 - what its own operators compute
import pytest
from support.build import FLOAT, FLOAT16, Array, Attribute, Net, feeds
from support.claims import expect, initializers, ops
from support.quantized import INTEGERS, dequantized, integers, limits, middle, quantized, stored
from support.ways import Stats, positive, turning, uniform

import bnfold

if TYPE_CHECKING:
    from onnx import ModelProto


def rounded(
    net: Net, w: str, *, scale: Array | float, zero: Array | int, kind: str = "int8", axis: int | None = None
) -> str:
    """Floats through a QuantizeLinear and a DequantizeLinear with the same constants."""
    step = net.init(np.asarray(scale), "w_scale")
    points = np.broadcast_to(np.asarray(zero), np.shape(scale))
    point = net.init(points, "w_zero", elem=INTEGERS[kind])
    attrs: dict[str, Attribute] = {} if axis is None else {"axis": axis}
    q = net.node("QuantizeLinear", w, step, point, out="w_q", name="quantize", **attrs)
    return net.node("DequantizeLinear", q, step, point, name="dequantize", **attrs)


def trained(
    *,
    kind: str = "int8",
    opset: int = 17,
    per_channel: bool = True,
    stats: Stats | None = None,
    elem: int = FLOAT,
) -> Net:
    """Conv with such a weight, as training for quantization leaves it: the floats are no multiples."""
    net = Net(opset=opset, elem=elem)
    x = net.input("x", 1, 3, 6, 6)
    weight = np.clip(net.draw(4, 3, 3, 3), -2.5, 2.5)
    # A channel that uses all of the symmetric range, and never the least integer of its type.
    largest = np.abs(weight).max(axis=(1, 2, 3)) / (limits(kind)[1] - middle(kind))
    scale = largest * 1.001 if per_channel else largest.max() * 1.001
    axis = 0 if per_channel else None
    w = rounded(net, net.init(weight, "w"), scale=scale, zero=middle(kind), kind=kind, axis=axis)
    net.output(net.bn(net.conv(x, 3, 4, weight=w, name="conv"), 4, name="bn", stats=stats))
    return net


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("kind", "opset"), [("int8", 13), ("uint8", 17), ("int8", 23), ("int16", 21), ("uint16", 21)]
)
def test_the_integers_take_the_place_of_the_floats(kind: str, opset: int, per_channel: bool) -> None:
    model = trained(kind=kind, opset=opset, per_channel=per_channel, stats=positive(4)).model()
    result = expect(model, folded={"bn"})
    assert ops(result.model) == ["DequantizeLinear", "Conv"]
    assert "w" not in initializers(result.model)
    np.testing.assert_array_equal(stored(result.model, "w_q_folded"), of_onnxruntime(model))


def of_onnxruntime(model: ModelProto) -> Array:
    """The integers that onnxruntime makes of the floats."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.add(name="w_q")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["w_q"], feeds(model))[0])


def test_negative_scales_mirror_what_was_rounded() -> None:
    model = trained(stats=turning(4)).model()
    result = expect(model, folded={"bn"})
    np.testing.assert_array_equal(
        np.abs(stored(result.model, "w_q_folded").astype(int)), np.abs(of_onnxruntime(model).astype(int))
    )
    assert (stored(result.model, "w_q_folded") != of_onnxruntime(model)).any()


def test_the_least_integer_cannot_be_mirrored() -> None:
    net = Net()
    weight = np.full((4, 3, 3, 3), -1.28)
    w = rounded(net, net.init(weight), scale=0.01, zero=0)
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w), 4, name="bn", stats=turning(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF017"})


def test_a_sign_flip_alone_writes_the_integers() -> None:
    model = trained(per_channel=False, stats=uniform(4)).model()
    assert "QuantizeLinear" not in ops(expect(model, folded={"bn"}).model)


def test_weights_that_two_layers_share() -> None:
    """The one that has no normalization goes on rounding for itself."""
    net = Net()
    w = rounded(net, net.init(net.draw(4, 3, 3, 3)), scale=0.05, zero=0)
    x = net.input("x", 1, 3, 5, 5)
    net.output(
        net.bn(net.conv(x, 3, 4, weight=w), 4, name="bn", stats=positive(4)), net.conv(x, 3, 4, weight=w)
    )
    result = expect(net.model(), folded={"bn"})
    assert sorted(ops(result.model)) == [
        "Conv",
        "Conv",
        "DequantizeLinear",
        "DequantizeLinear",
        "QuantizeLinear",
    ]


def test_a_gemm_whose_input_is_quantized_too() -> None:
    net = Net()
    x = quantized(net, net.input("x", 2, 6))
    w = rounded(net, net.init(net.draw(4, 6)), scale=np.full(4, 0.05), zero=0, axis=0)
    net.output(net.bn(net.node("Gemm", x, w, transB=1), 4, name="bn", stats=positive(4)))
    assert ops(expect(net.model(), folded={"bn"}).model).count("QuantizeLinear") == 1


def test_floats_that_are_no_constant() -> None:
    net = Net()
    w = rounded(net, net.input("w", 4, 3, 3, 3), scale=0.01, zero=0)
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w), 4, name="bn"))
    expect(net.model(), folded=set(), kept={"bn": "BNF012"})


def test_floats_that_the_caller_may_override() -> None:
    net = Net()
    net.input("w", 4, 3, 3, 3)
    w = rounded(net, net.init(net.draw(4, 3, 3, 3), "w"), scale=0.05, zero=0)
    net.output(net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w), 4, name="bn", stats=positive(4)))
    expect(net.model(), folded=set(), kept={"bn": "BNF022"})
    expect(net.model(), folded={"bn"}, freeze=True)


def test_half_precision_whose_quotients_round_alike_or_not() -> None:
    """0.3555 / 0.00711 is 50 in float16, and 49.998 in float32; 2.5 units are 2.4993 or 2.5."""
    for value, folded in ((0.5, True), (None, False)):
        net = Net(opset=21, elem=FLOAT16)
        scale = np.float16(0.00711)
        grid = np.arange(1, 2000).astype(np.float16) / np.float16(2048)
        apart = np.rint(grid / scale) != np.rint(grid.astype(np.float32) / np.float32(scale))
        weight = np.full((4, 3, 3, 3), value if value is not None else grid[apart][0])
        w = rounded(net, net.init(weight), scale=float(scale), zero=0)
        net.output(
            net.bn(net.conv(net.input("x", 1, 3, 5, 5), 3, 4, weight=w), 4, name="bn", stats=positive(4))
        )
        expect(
            net.model(),
            folded={"bn"} if folded else set(),
            kept={} if folded else {"bn": "BNF015"},
            values=folded,
        )


# --- the operators of onnxruntime's own domain ------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "opset"), [("int16", 13), ("uint16", 17), ("int4", 17), ("uint4", 17), ("int8", 11)]
)
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_dequantizers_of_onnxruntime_itself(kind: str, opset: int, op: str, per_channel: bool) -> None:
    """No axis means one scale there, so that a scale for each channel must name it, be it 1."""
    net = Net(opset=opset)
    x = net.input("x", 1, 4, 5, 5)
    axis = 0 if op == "Conv" else 1
    scale = np.array([0.01, 0.02, 0.03, 0.04]) if per_channel else np.array(0.01)
    attrs: dict[str, Attribute] = {"axis": axis} if per_channel else {}
    w = dequantized(
        net,
        integers(net, 4, 4, 3, 3, kind=kind),
        scale=scale,
        zero=middle(kind),
        kind=kind,
        domain="com.microsoft",
        **attrs,
    )
    net.output(net.bn(net.node(op, x, w), 4, name="bn"), shape=(None,) * 4)
    model = net.model({"com.microsoft": 1})
    result = expect(model, folded={"bn"}, runtime=False, values=False)
    (dq,) = (n for n in result.model.graph.node if n.op_type == "DequantizeLinear")
    assert dq.domain == "com.microsoft"
    assert [a.i for a in dq.attribute] == [axis]
    checked = bnfold.verify(model, result.model)
    assert checked.status == "equivalent", checked.summary


@pytest.mark.parametrize(("kind", "folds"), [("int16", True), ("int8", False)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_that_no_int32_counts(kind: str, folds: bool, bias: bool) -> None:
    """Integer kernels, which would have to count it so, multiply bytes alone."""
    net = Net(opset=21)
    x = quantized(net, net.input("x", 1, 3, 5, 5), scale=2.0**-20, kind=kind)
    w = dequantized(net, integers(net, 4, 3, 3, 3, kind=kind), scale=2.0**-20, kind=kind)
    b = dequantized(net, integers(net, 4), scale=2.0**-40, kind="int32", name="b") if bias else False
    net.output(net.bn(net.conv(x, 3, 4, weight=w, bias=b), 4, name="bn", stats=positive(4)))
    expect(net.model(), folded={"bn"} if folds else set(), kept={} if folds else {"bn": "BNF017"})
