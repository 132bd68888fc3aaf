"""What is said of a pair, from what the two models gave in a runtime; no runtime is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import beside

from bnfold.verification.errors import Error
from bnfold.verification.feeds import Feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    Given = np.ndarray[Any, np.dtype[Any]] | str

TRUTH = np.linspace(-1.0, 1.0, 12).reshape(1, 12)
EXACT = TRUTH.astype(np.float32)
ROUNDED = EXACT * np.float32(1 + 1e-6)
WRONG = EXACT * np.float32(1.001)
GARBAGE = np.full((1, 12), 1e20, np.float32)
NO_NUMBERS = np.full((1, 12), np.nan, np.float32)


@pytest.mark.parametrize(
    ("original", "folded", "finding"),
    [
        (ROUNDED, ROUNDED, "agrees"),
        (EXACT, EXACT, "agrees"),
        (ROUNDED, ROUNDED[np.newaxis], "agrees"),  # one leading axis more: a runtime without batches
        (ROUNDED, ROUNDED[0], "agrees"),
        (ROUNDED, WRONG, "differs"),
        (ROUNDED, GARBAGE, "differs"),
        (ROUNDED, NO_NUMBERS, "differs"),
        (ROUNDED, ROUNDED.reshape(3, 4), "differs"),
        (ROUNDED, "cannot be read", "original alone"),
        (GARBAGE, "cannot be read", "original alone"),
        ("cannot be read", ROUNDED, "folded alone"),
        ("cannot be read", GARBAGE, "neither"),
        ("cannot be read", NO_NUMBERS, "neither"),
        ("cannot be read", "cannot be read", "neither"),
        (GARBAGE, ROUNDED, "folded alone"),
        (ROUNDED.reshape(3, 4), ROUNDED, "folded alone"),
        (GARBAGE, GARBAGE, "neither"),
    ],
)
def test_findings(monkeypatch: pytest.MonkeyPatch, original: Given, folded: Given, finding: str) -> None:
    results = {"a.onnx": original, "b.onnx": folded}

    def run(_python: Path, _runtime: str, model: Path, _given: beside.Pair) -> Sequence[Given] | str:
        result = results[model.name]
        return result if isinstance(result, str) else [result]

    monkeypatch.setattr(beside, "run", run)
    given = beside.Pair(Path("a.onnx"), Path("b.onnx"), Feed("normal", {}), {"y": TRUTH}, {"y": Error()})
    outcome = beside.outcome(Path("python"), "runtime", given)
    assert outcome.finding == finding
