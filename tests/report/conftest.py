"""Reports with something in every place, made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import command

from bnfold.benchmarking.comparison import Comparison, Ratio
from bnfold.benchmarking.result import Benchmark, Facts, Latency, LevelResult, Machine, Runtime, Timing
from bnfold.fold.drawing import Box, Drawing
from bnfold.fold.folded import Fold
from bnfold.fold.obstructions import Obstruction
from bnfold.fold.patterns import Pattern
from bnfold.fold.reasons import Code, Reason, Refusal
from bnfold.pipeline import verify
from bnfold.report.schema import Report, Seconds, Size


@pytest.fixture(scope="session")
def full() -> Report:
    """Two folds, two normalizations kept, a verdict."""
    overridable = Reason(
        Code.OVERRIDABLE, "w", "the weight of Conv 'c' may be overridden", "run with --freeze"
    )
    behind = Reason(Code.NO_LINEAR_NEIGHBOUR, "relu", "it follows Relu 'relu'")
    model = command.small().SerializeToString()
    return Report(
        version="1.2.3",
        source="folder/model.onnx",
        output="folder/model.folded.onnx",
        source_sha256="0" * 64,
        opset=17,
        ir_version=8,
        producer="exporter 4.5",
        folds=(
            Fold("bn0", "BatchNormalization", "", ("conv0",), ("Conv",), ()),
            Fold(
                "bn1",
                "Sub+Mul+Add",
                "body of If 'if'",
                ("gemm", "gemm2"),
                ("Gemm", "Gemm"),
                ("flat",),
                "forward",
            ),
        ),
        kept=(
            Refusal("bn2", "BatchNormalization", "", (behind,)),
            Refusal("bn3", "BatchNormalization", "function f", (overridable, behind)),
        ),
        merged=("sum",),
        frozen=("frozen_weight",),
        before=Size(nodes=20, nbytes=3 << 20),
        after=Size(nodes=15, nbytes=2000),
        verdict=verify(model, model),
        notes=("a note of the run",),
        seconds=Seconds(0.25, 0.5, 0.125, 2.0),
        result_sha256="1" * 64,
        options={"freeze": False, "include": [], "exclude": ["head*"], "merge": True, "seed": 3},
        environment={"python": "3.99", "onnx": "9.9"},
        patterns=(_pattern(0, "conv0", "bn0"), _pattern(1, "gemm", "bn1")),
        obstructions=(_obstruction(0, "relu", "bn2"), _obstruction(1, "relu", "bn3")),
    )


def _pattern(index: int, layer: str, normalization: str) -> Pattern:
    before = Drawing(
        (Box("Conv", layer, "weights"), Box("BatchNormalization", normalization, "normalization")), ((0, 1),)
    )
    return Pattern((index,), "backward", before, Drawing((Box("Conv", layer, "weights"),), ()), 0)


def _obstruction(index: int, before: str, normalization: str) -> Obstruction:
    boxes = (Box("Relu", before, "between"), Box("BatchNormalization", normalization, "kept"))
    return Obstruction((index,), Drawing(boxes, ((0, 1),)), (0,), 0, 0)


@pytest.fixture
def bare(full: Report) -> Report:
    """Nothing found, nothing made."""
    return replace(
        full,
        source=None,
        output=None,
        producer="",
        folds=(),
        kept=(),
        merged=(),
        frozen=(),
        after=None,
        verdict=None,
        notes=(),
        result_sha256=None,
        options={},
        patterns=(),
        obstructions=(),
    )


@pytest.fixture
def benchmark() -> Benchmark:
    """One level that was measured, one that was measured too briefly, one that failed."""
    ratios = tuple(1.2 + i / 110 for i in range(12))
    clear = Comparison(Ratio(1.25, 1.2, 1.3), Ratio(1.0, 0.99, 1.02), "faster", 12, ratios)
    brief = Comparison(None, None, "too few", 3, (1.1, 1.2, 0.9))
    latency = Latency(3000, 0.0125, 0.02, 0.03, 0.01, 0.012, 0.013)
    single = Latency(3, 2.5, None, None)
    facts = Facts("folder/model.onnx", "0" * 64, 3 << 20, 430, 53, 4_089_184_256)
    nothing = Runtime(None, None, None)
    return Benchmark(
        version="1.2.3",
        a=facts,
        b=replace(facts, source=None, nodes=377, bn=0, macs=None),
        threads=2,
        seed=0,
        seconds=60.2,
        machine=Machine("A Processor", 8, "Linux 6", "1.31.1", "CPUExecutionProvider"),
        levels=(
            LevelResult(
                "disable_all",
                "",
                Runtime(53, 430, 300 << 20),
                Runtime(0, 377, None),
                Timing("load", None, latency, latency, replace(clear, finding="too noisy")),
                (Timing("x 8x3x224x224", 8, latency, replace(latency, p50=0.01), clear),),
            ),
            LevelResult(
                "enable_basic", "", nothing, nothing, None, (Timing("x 3", None, single, single, brief),)
            ),
            LevelResult(
                "enable_all", "model B: onnxruntime's process died of SIGSEGV", nothing, nothing, None, ()
            ),
        ),
        findings=("a note",),
    )
