"""Numerical proof that two models compute the same function.

    from bnfold.verification.pair import verify

    verdict = verify(Path("model.onnx"), Path("model.folded.onnx"))
    verdict.status, verdict.summary, verdict.outputs, verdict.findings

Three parties: the truth (the original in float64, evaluated independently), and both models in onnxruntime.
Nothing is imported here, so that a fold that is not verified does not wait for it.
"""
