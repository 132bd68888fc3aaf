"""onnx's own node tests, evaluated in float64: an oracle that shares nothing with bnfold's operators."""

# ruff: noqa: ANN401 - tensors, sequences, optionals alike

from __future__ import annotations

import collections
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.verification.truth import Truth, TruthUnavailableError

# Operators with no truth, and why: random results, bits of a number, other domains, nested graphs of a kind
# that only sequences have, an image library, and one opset of one operator.
WITHOUT_TRUTH = {
    "Adagrad",
    "Adam",
    "Bernoulli",
    "BitCast",
    "Dropout",
    "FlexAttention",
    "ImageDecoder",
    "Momentum",
    "RandomUniformLike",
    "Scan",
    "SequenceMap",
}
# The stored result of these rounds a tie as float32 arithmetic happens to; float64 is on the other side.
TIES = {"test_dynamicquantizelinear", "test_dynamicquantizelinear_expanded"}


@pytest.fixture(scope="module")
def cases() -> list[Any]:
    with warnings.catch_warnings():
        # onnx's generators overflow and divide by zero on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 - it computes when imported

        found: list[Any] = collect_testcases(None)
    return found


def plain(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def agrees(got: Any, expected: Any, rtol: float) -> bool:
    if isinstance(expected, list):
        return len(got) == len(expected) and all(
            agrees(a, b, rtol) for a, b in zip(got, expected, strict=True)
        )
    if expected is None or got is None:
        return got is expected
    a, b = np.asarray(got), np.asarray(expected)
    if a.shape != b.shape or b.dtype.kind in "OUS":
        return a.shape == b.shape and bool((a.astype(str) == b.astype(str)).all())
    if b.dtype.kind in "iub":
        return a.dtype == b.dtype and bool((a == b).all())
    # Expectations were computed in the case's own dtype; several of its spacings are their rounding.
    spacing = {2: 1e-2, 1: 0.3}.get(b.dtype.itemsize, 1e-5)
    with np.errstate(invalid="ignore"):
        return bool(
            np.allclose(a.astype(float), b.astype(float), max(rtol, spacing), spacing, equal_nan=True)
        )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_case_with_a_truth_has_the_stored_result(cases: list[Any]) -> None:
    wrong, without, right = [], collections.Counter[str](), 0
    for case in cases:
        for inputs, outputs in case.data_sets:
            names = [value.name for value in case.model.graph.input]
            try:
                got = Truth(case.model).run(dict(zip(names, map(plain, inputs), strict=True)))
            except TruthUnavailableError as error:
                without[str(error).split(" ", 1)[0]] += 1
                continue
            pairs = zip(got.values(), outputs, strict=True)
            if all(agrees(a, plain(b), case.rtol) for a, b in pairs):
                right += 1
            else:
                wrong.append(case.name)
    # The expected value of test_if_opt is the only element of the sequence that the model returns.
    assert set(wrong) - TIES - {"test_if_opt"} == set()
    assert set(without) <= WITHOUT_TRUTH
    assert right > 1500
