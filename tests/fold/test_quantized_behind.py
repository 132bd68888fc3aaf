"""Integers behind a DequantizeLinear stay integers, whatever stands between it and the layer."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from support.build import Net
from support.claims import ops

import bnfold


@pytest.mark.parametrize("opset", [13, 21])  # from 19 on, onnx could evaluate it
@pytest.mark.parametrize("op", ["Transpose", "Neg", "Identity"])
def test_no_float_weight_takes_the_place_of_integers(opset: int, op: str) -> None:
    net = Net(opset)
    x = net.input("x", 2, 6)
    integers = net.init(np.random.default_rng(0).integers(-100, 100, (6, 6)), elem=TensorProto.INT8)
    weight = net.node("DequantizeLinear", integers, net.init(0.02))
    weight = net.node(op, weight)
    net.output(net.node("Relu", net.bn(net.node("Gemm", x, weight), 6, name="bn")))
    result = bnfold.optimize(net.model(), verify=False)
    assert [str(kept.code) for kept in result.kept] == ["BNF015"]
    assert result.model is not None
    assert "DequantizeLinear" in ops(result.model)
    stored = {tensor.data_type for tensor in result.model.graph.initializer if list(tensor.dims) == [6, 6]}
    assert stored == {TensorProto.INT8}
