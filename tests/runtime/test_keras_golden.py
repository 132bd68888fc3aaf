"""Keras' own numbers, stored by golden/make_keras.py (Keras 3.15.1, computed by its PyTorch backend)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bnfold import runtime

GOLDEN = Path(__file__).parent / "golden" / "keras.npz"
# A handful of float32 roundings of values up to about 5.
CLOSE = 16 * float(np.finfo(np.float32).eps)


def test_the_defaults_of_keras() -> None:
    with np.load(GOLDEN) as file:
        a = dict(file)
    arguments = (a["x"], a["scale"], a["bias"], a["mean"], a["var"])
    y = runtime.infer(*arguments, convention="keras", axis=-1, backend="numpy")
    np.testing.assert_allclose(y, a["infer_y"], rtol=0, atol=CLOSE)
    step = runtime.train(*arguments, convention="keras", axis=-1, backend="numpy")
    np.testing.assert_allclose(step.y, a["train_y"], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(step.running_mean, a["running_mean"], rtol=0, atol=CLOSE)
    np.testing.assert_allclose(step.running_var, a["running_var"], rtol=0, atol=CLOSE)
    # The numbers can tell: epsilon 1e-5 or a variance over N - 1 would be seen.
    onnx = runtime.train(*arguments, momentum=0.99, axis=-1, backend="numpy")
    assert np.abs(onnx.y - a["train_y"]).max() > 4 * CLOSE
    unbiased = step.running_var + 0.01 * step.var / 19  # 20 values a channel
    assert np.abs(unbiased - a["running_var"]).max() > 4 * CLOSE
