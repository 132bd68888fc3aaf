"""Models for the gate, and findings made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto
from support import command
from support.build import Net

from bnfold.gate.finding import Examined, Finding, Gone, Judged, Kind, ModelJudgement, Survey

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto


def clean() -> ModelProto:
    """No normalization at all."""
    net = Net()
    net.output(net.node("Sigmoid", net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv"), name="end"))
    return net.model()


def kept() -> ModelProto:
    """A normalization whose input another node reads."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv")
    net.output(net.node("Add", net.bn(y, 4, name="bn"), net.node("Sigmoid", y, name="reader"), name="sum"))
    return net.model()


def nonfinite() -> ModelProto:
    """A variance that is NaN."""
    model = command.small()
    variance = next(t for t in model.graph.initializer if t.name == model.graph.node[1].input[4])
    values = np.frombuffer(variance.raw_data, np.float32).copy()
    values[1] = np.nan
    variance.raw_data = values.tobytes()
    return model


def quantized() -> ModelProto:
    """A quantizer between the weights and the normalization, which therefore stays (BNF015)."""
    net = Net()
    y = net.conv(net.input("x", 1, 3, 6, 6), 3, 4, name="conv")
    scale, zero = net.init(np.array(0.1, np.float32)), net.init(np.array(0, np.int8), elem=TensorProto.INT8)
    y = net.node("QuantizeLinear", y, scale, zero, name="quantize")
    y = net.node("DequantizeLinear", y, scale, zero, name="dequantize")
    net.output(net.node("Sigmoid", net.bn(y, 4, name="bn"), name="end"))
    return net.model()


def repository(folder: Path) -> Path:
    """Five models: clean, foldable, one normalization kept by a reason, broken, quantized."""
    models = folder / "models"
    models.mkdir(parents=True)
    command.save(clean(), models / "clean.onnx")
    command.save(command.many(3, "folded"), models / "foldable.onnx")
    command.save(kept(), models / "kept.onnx")
    (models / "broken.onnx").write_bytes(command.small().SerializeToString()[:200])
    command.save(quantized(), models / "quantized.onnx")
    return folder


# --- made by hand -------------------------------------------------------------------------------------------

# What an exporter, or somebody with bad intentions, could put into a name.
ODD = 'a|b`c\n::error::x,%<b>&"]]>\x1b[31m\x00é模:😀'


def finding(kind: Kind = Kind.FOLDABLE, node: str = "bn", *, rule: str = "", scope: str = "") -> Finding:
    rules = {Kind.FOLDABLE: "BNF001", Kind.INVALID: "BNF002", Kind.KEPT: "BNF019", Kind.NONFINITE: "BNF020"}
    rules |= {Kind.MISMATCH: "BNF030", Kind.INCONCLUSIVE: "BNF031", Kind.SLOWER: "BNF032"}
    whole = kind in {Kind.INVALID, Kind.MISMATCH, Kind.INCONCLUSIVE, Kind.SLOWER}
    code = rule or rules[kind]
    return Finding(
        code,
        kind,
        "" if whole else node,
        "" if whole else "BatchNormalization",
        scope,
        f"what was found about {node!r}",
        "do something" if kind is Kind.KEPT else "",
    )


def examined(name: str, *findings: Finding) -> Examined:
    return Examined(name, len(findings), findings)


def survey() -> Survey:
    """Something in every place."""
    models = (
        ModelJudgement("a/clean.onnx", 0, (), ""),
        ModelJudgement(
            "a/folder, with: 100% odd/model.onnx",
            4,
            (
                Judged(finding(Kind.NONFINITE, "first"), "fails"),
                Judged(finding(Kind.FOLDABLE, ODD, scope="main graph > node 3 then_branch"), "fails"),
                Judged(finding(Kind.FOLDABLE, "third"), "known"),
                Judged(finding(Kind.KEPT, "fourth"), "noted"),
            ),
            "",
        ),
        ModelJudgement("b/invalid.onnx", 0, (Judged(finding(Kind.INVALID), "fails"),), ""),
        ModelJudgement("b/known.onnx", 1, (Judged(finding(Kind.FOLDABLE), "known"),), ""),
        ModelJudgement("c/locked.onnx", 0, (), "c/locked.onnx may not be read: no permission"),
    )
    gone = (Gone("b/known.onnx", "BNF001", "old bn", ""),)
    return Survey("1.2.3", (Kind.INVALID, Kind.NONFINITE, Kind.FOLDABLE), models, gone, excluded=2)


def failing(count: int, *, findings: int = 1) -> Survey:
    """Many models that fail."""
    models = tuple(
        ModelJudgement(
            f"models/{index:05}.onnx",
            findings,
            tuple(Judged(finding(node=f"block{n}/bn 模块"), "fails") for n in range(findings)),
            "",
        )
        for index in range(count)
    )
    return Survey("1.2.3", (Kind.FOLDABLE,), models)
