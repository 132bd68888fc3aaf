"""Numerical proof that two models compute the same function.

    verdict = verify(Path("model.onnx"), Path("model.folded.onnx"))
    verdict.status, verdict.summary, verdict.outputs, verdict.findings

Three parties: the truth (the original in float64, evaluated independently), and both models in onnxruntime.
"""

from __future__ import annotations

from bnfold.verification.algebra import AlgebraFinding, check_algebra
from bnfold.verification.feeds import Feed
from bnfold.verification.pair import verify
from bnfold.verification.verdict import OutputEvidence, Verdict

__all__ = ["AlgebraFinding", "Feed", "OutputEvidence", "Verdict", "check_algebra", "verify"]
