"""What no output depends on stands in nobody's way, and changes nothing that others need."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.build import Net
from support.claims import ops, same_function

import bnfold


def optimized(net: Net, *, folded: set[str], channels: int = 3) -> bnfold.Result:
    """One run folds these, a second one nothing more, and the function is the same."""
    model = net.model()
    result = bnfold.optimize(model, verify=False, provenance=False)
    assert {fold.node for fold in result.folds} == folded
    assert result.model is not None
    again = bnfold.optimize(result.model, verify=False, provenance=False)
    assert not again.folds
    x = np.random.default_rng(1).normal(size=(2, channels, 6, 6)).astype(np.float32)
    same_function(model, result.model, {"x": x})
    return result


def net_of_image() -> tuple[Net, str]:
    net = Net(17)
    return net, net.input("x", 2, 3, 6, 6)


@pytest.mark.parametrize("nodes_behind", [0, 1])
def test_a_reader_that_computes_for_nobody_does_not_count(nodes_behind: int) -> None:
    net, x = net_of_image()
    y = net.bn(x, 3, name="bn")
    idle = net.node("Relu", y)
    for _ in range(nodes_behind):
        idle = net.node("Abs", idle)
    net.output(net.conv(y, 3, 4))
    optimized(net, folded={"bn"})


def test_a_reader_that_somebody_needs_counts() -> None:
    net, x = net_of_image()
    y = net.bn(x, 3, name="bn")
    net.output(net.node("Relu", y))
    net.output(net.conv(y, 3, 4))
    optimized(net, folded=set())


def test_a_normalization_for_nobody_leaves_what_others_read() -> None:
    net, x = net_of_image()
    y = net.conv(x, 3, 4)
    net.node("Relu", net.bn(y, 4, name="idle"))
    net.output(net.node("Relu", y))
    (refusal,) = optimized(net, folded=set()).kept
    assert refusal.code == "BNF010"
    assert "no output of the model depends on" in refusal.reason.evidence


def test_a_normalization_for_nobody_folds_among_its_own_kind() -> None:
    net, x = net_of_image()
    net.node("Relu", net.bn(net.conv(x, 3, 4), 4, name="idle"))
    net.output(net.node("Relu", x))
    optimized(net, folded={"idle"})


def test_a_sum_for_nobody_joins_no_branch_that_others_read() -> None:
    net, x = net_of_image()
    y = net.conv(x, 3, 4)
    net.node("Add", y, net.conv(x, 3, 4, bias=False))
    net.output(net.node("Relu", y))
    result = optimized(net, folded=set())
    assert not result.report.merged


def test_arithmetic_for_nobody_leaves_what_others_read() -> None:
    net, x = net_of_image()
    y = net.conv(x, 3, 4)
    net.node("Add", net.node("Mul", y, net.init(net.draw(4, 1, 1))), net.init(net.draw(4, 1, 1)))
    net.output(net.node("Relu", y))
    optimized(net, folded=set())


def test_a_body_that_returns_a_tensor_needs_it() -> None:
    net, x = net_of_image()
    y = net.bn(x, 3, name="bn")
    returned = [helper.make_tensor_value_info("again", TensorProto.FLOAT, None)]
    body = helper.make_graph([helper.make_node("Identity", [y], ["again"])], "body", [], returned)
    chosen = net.node("If", net.init(np.array(True)), then_branch=body, else_branch=body)
    net.output(net.node("Relu", chosen))
    net.output(net.conv(y, 3, 4))
    optimized(net, folded=set())


def test_a_sum_of_unknown_channels_that_went_into_a_layer_is_known_by_it() -> None:
    """One channel may be broadcast to an unknown number; the Conv that `Conv(x) - x` becomes has one."""
    net = Net(17)
    x = net.input("x", "N", None, None, None)
    y = net.node("Sub", net.bn(net.conv(x, 1, 1, (1, 1)), 1, name="one"), x)
    z = net.node("Add", net.conv(y, 1, 1, (1, 1)), y)
    net.output(net.bn(z, 1, name="two"))
    result = optimized(net, folded={"one", "two"}, channels=1)
    assert ops(result.model) == ["Conv", "Conv"]


def test_nodes_for_nobody_may_lack_inputs() -> None:
    net, x = net_of_image()
    net.node("RandomNormal", shape=[2, 2])
    net.node("Clip", x, "", net.init(1.0))
    y = net.bn(net.conv(x, 3, 4), 4, name="bn")
    net.output(net.node("Relu", y))
    model = net.model()
    onnx.checker.check_model(model)
    assert [fold.node for fold in bnfold.optimize(model, verify=False).folds] == ["bn"]
