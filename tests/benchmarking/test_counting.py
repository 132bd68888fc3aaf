"""MACs and normalizations, against numbers worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort  # noqa: TID251 - its optimizer makes what is to be counted
import pytest
from onnx import TensorProto, helper
from support.build import Net

from bnfold.benchmarking.counting import count_bn, count_macs
from bnfold.model.store import open_model

if TYPE_CHECKING:
    from pathlib import Path


def conv() -> Net:
    """2 x 8 outputs of 4 x 4, each of 3 channels of 3 x 3."""
    net = Net()
    net.output(net.conv(net.input("x", 2, 3, 6, 6), 3, 8))
    return net


def strided() -> Net:
    """8 outputs of 3 x 3 (stride 2, padded), in 4 groups of 2 channels, 3 x 3."""
    net = Net()
    x = net.input("x", 1, 8, 6, 6)
    net.output(net.conv(x, 8, 8, group=4, strides=[2, 2], pads=[1, 1, 1, 1]))
    return net


def transposed() -> Net:
    """Each of 4 x 5 x 5 inputs goes to 6 / 2 channels of 2 x 2."""
    net = Net()
    x = net.input("x", 1, 4, 5, 5)
    net.output(net.node("ConvTranspose", x, net.init(net.draw(4, 3, 2, 2)), group=2, strides=[2, 2]))
    return net


def gemm() -> Net:
    """[7, 3] transposed gives [3, 7]; times [7, 5]."""
    net = Net()
    net.output(net.node("Gemm", net.input("x", 7, 3), net.init(net.draw(7, 5)), transA=1))
    return net


def matmul() -> Net:
    """2 x 6 products of [4, 3] and [3, 5]."""
    net = Net()
    net.output(net.node("MatMul", net.input("x", 2, 6, 4, 3), net.init(net.draw(3, 5))))
    return net


def vectors() -> Net:
    net = Net()
    net.output(net.node("MatMul", net.input("x", 9), net.init(net.draw(9))))
    return net


def nothing() -> Net:
    net = Net()
    net.output(net.bn(net.input("x", 1, 4, 5, 5), 4))
    return net


def several() -> Net:
    """4 x 4 x 4 of 2 x 1 x 1, then 4 x 2 x 2 of 4 x 3 x 3."""
    net = Net()
    x = net.conv(net.input("x", 1, 2, 4, 4), 2, 4, (1, 1))
    net.output(net.conv(net.node("Relu", x), 4, 4))
    return net


@pytest.mark.parametrize(
    ("net", "macs"),
    [
        (conv(), 2 * 8 * 4 * 4 * 3 * 9),
        (strided(), 8 * 3 * 3 * 2 * 9),
        (transposed(), 4 * 5 * 5 * 3 * 4),
        (gemm(), 3 * 5 * 7),
        (matmul(), 12 * 4 * 5 * 3),
        (vectors(), 9),
        (nothing(), 0),
        (several(), 4 * 16 * 2 + 4 * 4 * 36),
    ],
    ids=["conv", "strided", "transposed", "gemm", "matmul", "vectors", "nothing", "several"],
)
def test_macs(net: Net, macs: int) -> None:
    assert count_macs(open_model(net.model()), {}) == macs


def dynamic() -> onnx.ModelProto:
    net = Net()
    net.output(net.conv(net.input("x", "N", 3, "H", "W"), 3, 8), shape=["N", 8, None, None])
    return net.model()


def test_sizes_of_the_feed_decide() -> None:
    model = open_model(dynamic())
    assert count_macs(model, {"x": (1, 3, 6, 6)}) == 8 * 16 * 27
    assert count_macs(model, {"x": (5, 3, 10, 6)}) == 5 * 8 * 8 * 4 * 27
    assert count_macs(model, {}) is None


def test_stale_declarations_do_not() -> None:
    """Exported for a batch of one, with a batch of any size."""
    model = dynamic()
    model.graph.value_info.append(
        helper.make_tensor_value_info(model.graph.node[0].output[0], 1, [1, 8, 4, 4])
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(model.graph.node[0].output[0], 1, [1, 8, 4, 4]))
    assert count_macs(open_model(model), {"x": (5, 3, 6, 6)}) == 5 * 8 * 16 * 27


def test_beyond_an_unknown_operator_nothing_is_known() -> None:
    net = Net()
    x = net.node("Mystery", net.input("x", 1, 3, 6, 6), domain="vendor")
    net.output(net.conv(x, 3, 8), shape=[1, 8, 4, 4])
    assert count_macs(open_model(net.model({"vendor": 1})), {"x": (1, 3, 6, 6)}) is None


def body(name: str) -> onnx.GraphProto:
    inner = Net(prefix=name)
    inner.output(inner.bn(inner.conv("x", 3, 4, name=f"{name}_conv"), 4), shape=None)
    return inner.graph(name)


def branching() -> onnx.ModelProto:
    net = Net()
    net.input("x", 1, 3, 6, 6)
    condition = net.input("c", elem=TensorProto.BOOL)
    net.output(net.node("If", condition, then_branch=body("yes"), else_branch=body("no")), shape=[1, 4, 4, 4])
    return net.model()


def test_what_may_run_or_not_is_not_counted_as_work() -> None:
    assert count_macs(open_model(branching()), {}) is None


def test_normalizations_in_nested_graphs_and_functions_are_counted() -> None:
    model = branching()
    assert count_bn(model) == 2
    node = helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"])
    function = helper.make_function(
        "local", "f", ["a", "s", "b", "m", "v"], ["y"], [node], [helper.make_opsetid("", 17)]
    )
    model.functions.append(function)
    assert count_bn(model) == 3


def test_operators_of_that_name_from_elsewhere_are_not() -> None:
    net = Net()
    x = net.node("BatchNormalization", net.input("x", 1, 3, 6, 6), domain="vendor")
    net.output(x, shape=[1, 3, 6, 6])
    assert count_bn(net.model({"vendor": 1})) == 0


def test_a_normalization_on_blocked_channels_is_one_that_is_left(tmp_path: Path) -> None:
    """onnxruntime's own doing: behind a Relu, the normalization cannot go into the Conv."""
    net = Net()
    x = net.node("Relu", net.conv(net.input("x", 1, 16, 12, 12), 16, 16))
    x = net.conv(net.node("Relu", net.bn(x, 16)), 16, 16, group=16)
    net.output(net.conv(x, 16, 16))
    onnx.save(net.model(), tmp_path / "m.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(tmp_path / "m.onnx", options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    blocked = {node.op_type for node in optimized.graph.node if node.domain == "com.microsoft.nchwc"}
    if not blocked:
        pytest.skip("this processor takes no blocked channels")
    assert "BatchNormalization" not in {node.op_type for node in optimized.graph.node}
    assert count_bn(optimized) == 1
