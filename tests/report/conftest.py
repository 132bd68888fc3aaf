"""Reports with something in every place, made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import command

from bnfold.fold.folded import Fold
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
    )


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
    )
