"""Every operator set, with each version's own way of saying inference, and every float type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.build import BFLOAT16, DOUBLE, FLOAT, FLOAT16, NEWEST, Attribute, Net
from support.claims import expect, initializers, ops

OPSETS = range(1, NEWEST + 1)


def conv_bn(net: Net, outputs: list[str] | None = None, **attrs: Attribute) -> Net:
    y = net.conv(net.input("x", 2, 3, 5, 5), 3, 4, name="conv")
    y = net.bn(y, 4, name="bn", out=outputs, **attrs)
    net.output(y, shape=[2, 4, 3, 3])
    return net


@pytest.mark.parametrize("opset", OPSETS)
def test_inference_is_folded(opset: int) -> None:
    result = expect(conv_bn(Net(opset)).model(), folded={"bn"})
    assert ops(result.model) == ["Conv"]


@pytest.mark.parametrize("opset", OPSETS)
def test_training_is_kept(opset: int) -> None:
    if opset < 7:
        net = conv_bn(Net(opset), is_test=0)
    elif opset < 14:
        net = conv_bn(Net(opset), ["y", "m", "v", "sm", "sv"])
    else:
        net = conv_bn(Net(opset), training_mode=1)
    # onnxruntime trains with an unbiased running variance at opsets below 14, and not at all below 7.
    expect(net.model(), kept={"bn": "BNF013"}, runtime=opset >= 14)


@pytest.mark.parametrize("opset", [14, 15, NEWEST])
@pytest.mark.parametrize("count", [1, 3])
def test_training_mode_with_one_or_three_outputs(opset: int, count: int) -> None:
    net = conv_bn(Net(opset), ["y", "rm", "rv"][:count], training_mode=1)
    if count == 3:
        net.output("rm", "rv", shape=[4])
    expect(net.model(), kept={"bn": "BNF013"})


@pytest.mark.parametrize("opset", [7, 8, 9, 13])
@pytest.mark.parametrize(
    "outputs", [["y", "m", "v", "sm", "sv"], ["y", "m", "", "", ""], ["y", "", "", "", "sv"]], ids="-".join
)
def test_any_further_output_means_training_before_opset_14(opset: int, outputs: list[str]) -> None:
    expect(conv_bn(Net(opset), outputs).model(), kept={"bn": "BNF013"}, runtime=False)


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 13, 14, 15, NEWEST])
def test_empty_trailing_outputs_are_no_outputs(opset: int) -> None:
    """A trailing empty name is an output left out (IR.md). onnxruntime 1.31 crashes on it at opset 9."""
    empty = 4 if opset < 14 else 2
    expect(conv_bn(Net(opset), ["y", *[""] * empty]).model(), folded={"bn"}, runtime=False)


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_is_test_missing_means_training(opset: int) -> None:
    net = conv_bn(Net(opset))
    (attribute,) = [a for a in net.nodes[-1].attribute if a.name == "is_test"]
    net.nodes[-1].attribute.remove(attribute)
    expect(net.model(), kept={"bn": "BNF013"}, runtime=False)


@pytest.mark.parametrize("opset", [14, NEWEST])
def test_training_mode_zero_written_out(opset: int) -> None:
    expect(conv_bn(Net(opset), training_mode=0, momentum=0.1, epsilon=0.5).model(), folded={"bn"})


@pytest.mark.parametrize("opset", [1, 6, 7, 8])
def test_spatial_one_written_out(opset: int) -> None:
    expect(conv_bn(Net(opset), spatial=1, momentum=0.5).model(), folded={"bn"})


@pytest.mark.parametrize("opset", [7, 8])
def test_spatial_zero_with_a_statistic_an_activation_is_kept(opset: int) -> None:
    """With spatial=0 the parameters are [C, H, W]: no per-channel map, not even when H = W = C."""
    net = Net(opset)
    y = net.conv(net.input("x", 2, 3, 6, 6), 3, 4, name="conv")
    shape = (4, 4, 4)
    stats = {"scale": net.draw(*shape), "bias": net.draw(*shape), "mean": net.draw(*shape)}
    stats["var"] = net.draw(*shape, low=0.5, high=2.0)
    net.output(net.bn(y, 4, name="bn", stats=stats, spatial=0), shape=[2, 4, 4, 4])
    result = expect(net.model(), runtime=False)
    assert not result.folds


@pytest.mark.parametrize("opset", [1, 6, 7, 8])
def test_spatial_zero_after_gemm_is_the_same_as_one(opset: int) -> None:
    """On [N, C] there is nothing but channels; kept or folded, it must be right."""
    net = Net(opset)
    y = (
        net.node("Gemm", net.input("x", 2, 3), net.init(net.draw(3, 4)), net.init(net.draw(4)), broadcast=1)
        if (opset < 7)
        else net.node("Gemm", net.input("x", 2, 3), net.init(net.draw(3, 4)), net.init(net.draw(4)))
    )
    net.output(net.bn(y, 4, name="bn", spatial=0), shape=[2, 4])
    expect(net.model(), runtime=False)


@pytest.mark.parametrize("opset", [1, 6])
def test_consumed_inputs_do_not_disturb(opset: int) -> None:
    net = Net(opset)
    y = net.conv(net.input("x", 2, 3, 5, 5), 3, 4)
    bn: dict[str, Any] = {"consumed_inputs": [0, 0, 0, 1, 1]} if opset < 6 else {}
    relu: dict[str, Any] = {"consumed_inputs": [0]} if opset < 6 else {}
    net.output(net.node("Relu", net.bn(y, 4, name="bn", **bn), **relu), shape=[2, 4, 3, 3])
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 11, 13])
@pytest.mark.parametrize("c_shape", [(4,), (1, 4)], ids=str)
def test_gemm_of_every_opset(opset: int, c_shape: tuple[int, ...]) -> None:
    net = Net(opset)
    attrs: dict[str, Any] = {"broadcast": 1} if opset < 7 else {}
    x = net.input("x", 2, 3)
    y = net.node(
        "Gemm", x, net.init(net.draw(4, 3)), net.init(net.draw(*c_shape)), transB=1, beta=0.5, **attrs
    )
    net.output(net.bn(y, 4, name="bn"), shape=[2, 4])
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("opset", [7, 9, 11])
def test_gemm_that_must_gain_a_c(opset: int) -> None:
    """C is optional only from opset 11 on; a MatMul before that gains its bias in another form."""
    net = Net(opset)
    net.output(net.bn(net.node("MatMul", net.input("x", 2, 3), net.init(net.draw(3, 4))), 4, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_matmul_of_old_opsets_gains_a_bias_that_broadcasts(opset: int) -> None:
    """Below opset 7 an Add of [N] to [M, N] needs broadcast=1, and a Gemm does too."""
    net = Net(opset)
    net.output(
        net.bn(net.node("MatMul", net.input("x", 2, 3), net.init(net.draw(3, 4))), 4, name="bn"), shape=[2, 4]
    )
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("opset", OPSETS)
def test_conv_transpose_of_every_opset(opset: int) -> None:
    net = Net(opset)
    y = net.node("ConvTranspose", net.input("x", 2, 3, 5, 5), net.init(net.draw(3, 4, 2, 2)), strides=[2, 2])
    net.output(net.bn(y, 4, name="bn"), shape=[2, 4, 10, 10])
    expect(net.model(), folded={"bn"})


# --- types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elem", [FLOAT16, BFLOAT16, FLOAT, DOUBLE], ids=["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("producer", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
@pytest.mark.parametrize("bias", [True, False])
def test_types(elem: int, producer: str, bias: bool) -> None:
    net = Net(22, elem=elem)
    if producer in ("Conv", "ConvTranspose"):
        x = net.input("x", 2, 3, 5, 5)
        w = net.init(net.draw(*((4, 3) if producer == "Conv" else (3, 4)), 3, 3))
    else:
        x, w = net.input("x", 2, 3), net.init(net.draw(3, 4))
    b = [net.init(net.draw(4))] if bias and producer != "MatMul" else []
    y = net.node(producer, x, w, *b)
    if bias and producer == "MatMul":
        y = net.node("Add", y, net.init(net.draw(4)))
    net.output(net.bn(y, 4, name="bn"))
    result = expect(net.model(), folded={"bn"})
    assert {t.data_type for t in result.model.graph.initializer} == {elem}


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 14, 15])
@pytest.mark.parametrize("elem", [FLOAT16, DOUBLE], ids=["f16", "f64"])
def test_types_of_old_opsets(opset: int, elem: int) -> None:
    expect(conv_bn(Net(opset, elem=elem)).model(), folded={"bn"})


def mixed(opset: int, elem: int, scale_type: int, mean_type: int) -> Net:
    net = Net(opset, elem=elem)
    y = net.conv(net.input("x", 2, 3, 5, 5), 3, 4, name="conv")
    kinds = {"scale": scale_type, "bias": scale_type, "mean": mean_type, "var": mean_type}
    stats = {k: net.init(net.draw(4, low=0.3, high=1.7), elem=t) for k, t in kinds.items()}
    net.output(net.bn(y, 4, name="bn", stats=stats))
    return net


@pytest.mark.parametrize(
    ("opset", "elem", "scale_type", "mean_type"),
    [
        (14, FLOAT16, FLOAT16, FLOAT),
        (15, FLOAT16, FLOAT, FLOAT),
        (15, FLOAT16, FLOAT16, FLOAT),
        (15, FLOAT16, FLOAT, DOUBLE),
        (15, FLOAT, FLOAT, DOUBLE),
        (15, FLOAT, FLOAT16, FLOAT),
        (15, BFLOAT16, FLOAT, FLOAT),
        (22, BFLOAT16, FLOAT, FLOAT),
        (15, DOUBLE, FLOAT, FLOAT),
        (15, DOUBLE, FLOAT, FLOAT16),
        (NEWEST, FLOAT16, FLOAT, FLOAT),
    ],
)
def test_mixed_types(opset: int, elem: int, scale_type: int, mean_type: int) -> None:
    """The statistics may be wider or narrower than the data; what is stored is of the data's type."""
    result = expect(mixed(opset, elem, scale_type, mean_type).model(), folded={"bn"})
    assert {t.data_type for t in result.model.graph.initializer} == {elem}


def test_bn_merging_into_a_bn_of_mixed_types() -> None:
    net = Net(15, elem=FLOAT16)
    x = net.input("x", 2, 4, 3, 3)
    stats = {
        k: net.init(net.draw(4, low=0.3, high=1.7), elem=FLOAT) for k in ("scale", "bias", "mean", "var")
    }
    x = net.bn(x, 4, name="first", stats=stats)
    net.output(net.bn(x, 4, name="second"))
    expect(net.model(), kept={"first": "BNF019"})


# --- the intermediate representation ----------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("opset", [1, 6, 7, 8])
def test_ir_3_lists_every_initializer_as_an_input(opset: int, bias: bool) -> None:
    net = Net(opset, ir=3)
    y = net.conv(net.input("x", 2, 3, 5, 5), 3, 4, bias=bias)
    net.output(net.bn(y, 4, name="bn"), shape=[2, 4, 3, 3])
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("ir", range(4, 11))
def test_later_irs_do_not_list_them(ir: int) -> None:
    result = expect(conv_bn(Net(9, ir=ir)).model(), folded={"bn"})
    assert [i.name for i in result.model.graph.input] == ["x"]


def test_ir_3_matmul_gains_a_listed_bias() -> None:
    net = Net(8, ir=3)
    net.output(net.bn(net.node("MatMul", net.input("x", 2, 3), net.init(net.draw(3, 4))), 4, name="bn"))
    expect(net.model(), folded={"bn"})


@pytest.mark.parametrize("shape", [(), (1,), (1, 4), (2, 1)])
def test_ir_3_declares_the_shape_that_a_bias_grows_to(shape: tuple[int, ...]) -> None:
    net = Net(7, ir=3)
    y = net.node("Gemm", net.input("x", 2, 3), net.init(net.draw(3, 4)), net.init(net.draw(*shape)))
    net.output(net.bn(y, 4, name="bn"), shape=[2, 4])
    expect(net.model(), folded={"bn"})


def test_the_other_spelling_of_the_default_domain() -> None:
    """`ai.onnx` and the empty string are the same operator set."""
    model = conv_bn(Net(17)).model()
    model.opset_import[0].domain = "ai.onnx"
    expect(model, folded={"bn"})


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.0, 0.5, 1e-12])
def test_epsilon(epsilon: float) -> None:
    expect(conv_bn(Net(17), epsilon=epsilon).model(), folded={"bn"})


@pytest.mark.parametrize("epsilon", [None, 1e-5])
def test_epsilon_is_a_float32(epsilon: float | None) -> None:
    """With variance 0 in a double model the scale shows which 1e-5 was meant: that of 32 bits."""
    net = Net(17, elem=DOUBLE)
    w = np.ones((4, 3, 1, 1))
    y = net.node("Conv", net.input("x", 1, 3, 2, 2), net.init(w))
    stats = {"scale": np.ones(4), "bias": np.zeros(4), "mean": np.zeros(4), "var": np.zeros(4)}
    attrs: dict[str, Any] = {} if epsilon is None else {"epsilon": epsilon}
    net.output(net.bn(y, 4, name="bn", stats=stats, **attrs))
    result = expect(net.model(), folded={"bn"})
    got = initializers(result.model)[result.model.graph.node[0].input[1]]
    np.testing.assert_allclose(got, w / np.sqrt(float(np.float32(1e-5))), rtol=4 * 2.0**-53)


@pytest.mark.parametrize(("elem", "bits"), [(BFLOAT16, 8), (FLOAT16, 11), (FLOAT, 24)])
@pytest.mark.parametrize("beyond", [2.0**-40, -(2.0**-40), 0.0])
def test_the_last_rounding_is_the_only_one(elem: int, bits: int, beyond: float) -> None:
    """Just beside a tie of the stored type: a stop at float32 would land on the tie, then on even."""
    net = Net(15, elem=elem)
    y = net.node("Conv", net.input("x", 1, 1, 2, 2), net.init(np.full((1, 1, 1, 1), 0.5)))
    scale = 1 + 2.0**-bits + beyond
    stats = {k: net.init(np.array([v]), elem=DOUBLE) for k, v in (("scale", 2 * scale), ("bias", scale))}
    stats |= {k: net.init(np.array([v]), elem=DOUBLE) for k, v in (("mean", 0.0), ("var", 1.0))}
    net.output(net.bn(y, 1, name="bn", stats=stats, epsilon=0.0))
    result = expect(net.model(), folded={"bn"})
    got = initializers(result.model)
    wanted = 1 + 2.0 ** -(bits - 1) if beyond > 0 else 1.0
    assert [got[name].item() for name in result.model.graph.node[0].input[1:]] == [wanted, wanted]
