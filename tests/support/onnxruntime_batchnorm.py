"""Run BatchNormalization nodes in onnxruntime, unoptimized: `python onnxruntime_batchnorm.py IN.npz OUT.npz`.

A program of its own because onnxruntime has crashed on this operator, and a crash must not take pytest along.
IN holds, per case, `case/x`, `case/scale`, `case/bias`, `case/mean`, `case/var`, `case/opset`, `case/epsilon`
and `case/momentum` (negative for inference); OUT holds `case/y`, and in training mode `case/mean` and
`case/var`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime  # noqa: TID251 - the oracle of these tests, not the package
from onnx import helper

INPUTS = ("x", "scale", "bias", "mean", "var")


def run(case: dict[str, Any]) -> dict[str, Any]:
    momentum, opset = float(case["momentum"]), int(case["opset"])
    training = momentum >= 0
    outputs = ["y", "mean_out", "var_out"] if training else ["y"]
    mode: dict[str, Any] = {"momentum": momentum, "training_mode": 1} if training else {}
    node = helper.make_node("BatchNormalization", INPUTS, outputs, epsilon=float(case["epsilon"]), **mode)
    types = {name: helper.np_dtype_to_tensor_dtype(case[name].dtype) for name in INPUTS}
    graph = helper.make_graph(
        [node],
        "batchnorm",
        [helper.make_tensor_value_info(name, types[name], case[name].shape) for name in INPUTS],
        [helper.make_tensor_value_info(name, types["x" if name == "y" else "var"], None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(("y", "mean", "var"), session.run(None, {n: case[n] for n in INPUTS}), strict=False))


def main(source: str, target: str) -> None:
    with np.load(source) as file:
        arrays = {key: file[key] for key in file.files}
    names = sorted({key.split("/")[0] for key in arrays})
    cases = {
        name: {key.split("/")[1]: a for key, a in arrays.items() if key.split("/")[0] == name}
        for name in names
    }
    results = {f"{name}/{key}": a for name, case in cases.items() for key, a in run(case).items()}
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
