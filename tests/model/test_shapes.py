"""What is known of shapes before a model runs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.model.store import open_model
from bnfold.model.view import View


@pytest.mark.parametrize("opset", [9, 10, 13, 21])
@pytest.mark.parametrize("elem_type", [TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT16])
def test_quantizers_of_onnxruntime_keep_shapes(opset: int, elem_type: int) -> None:
    scale = numpy_helper.from_array(np.array(0.5, np.float32), "s")
    zero = helper.make_tensor("z", elem_type, (), [0])
    own = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **own),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **own),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], [scale, zero])
    view = View(open_model(helper.make_model(graph, opset_imports=imports, ir_version=10)))
    shape = view.shape(view.graphs[0].values["y"])
    # Before opset 10 inference knows no quantizers.
    assert shape == (("N", 3, 5) if opset > 9 else None)
