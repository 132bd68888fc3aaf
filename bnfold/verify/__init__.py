"""Numerical proof that two models compute the same function.

    verdict = verify(Path("model.onnx"), Path("model.folded.onnx"))
    verdict.status, verdict.summary, verdict.outputs, verdict.findings

Three parties: the truth (the original in float64, evaluated independently), and both models in onnxruntime.
"""

from __future__ import annotations

from bnfold.verify.algebra import AlgebraFinding, check_algebra
from bnfold.verify.feeds import Feed
from bnfold.verify.pair import verify
from bnfold.verify.verdict import OutputEvidence, Verdict

__all__ = ["AlgebraFinding", "Feed", "OutputEvidence", "Verdict", "check_algebra", "verify"]
