"""How fast two models run, and what onnxruntime makes of each.

    from bnfold.benchmarking.pair import benchmark

    result = benchmark(Path("model.onnx"), Path("model.folded.onnx"))
    for level in result.levels:
        for timing in level.steady:
            print(level.level, timing.comparison.speedup, timing.comparison.verdict)

Nothing is imported here, so that a fold that is not measured does not wait for it.
"""
