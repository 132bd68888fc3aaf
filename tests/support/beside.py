"""A model and what bnfold makes of it, beside each other in a runtime, judged against a float64 truth."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from support import other_runtimes

from bnfold.verification.errors import Error
from bnfold.verification.feeds import candidate_sizes, input_specs, make_feed
from bnfold.verification.judge import ILL_CONDITIONED, Place, judge
from bnfold.verification.real import Reals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnfold.verification.feeds import Feed

Array = np.ndarray[Any, np.dtype[Any]]

# Where a pair neither agrees nor differs, "folded alone" says that the original gives no result, or one far
# from the truth, and the folded model a sound one; "original alone", that it runs and the other does not.
Finding = Literal["agrees", "differs", "folded alone", "original alone", "neither"]

LIMIT = 300.0  # seconds for one model in one runtime


@dataclass(frozen=True)
class Pair:
    """Two models that should compute the same, and what that is.

    Attributes:
        original: the file of the one.
        folded: the file of the other.
        feed: what both are fed.
        truth: the original's outputs in float64, by name, in order.
        allowances: how far rounding moves each output, by name.
    """

    original: Path
    folded: Path
    feed: Feed
    truth: Mapping[str, Array]
    allowances: Mapping[str, Error]


@dataclass(frozen=True)
class Outcome:
    """What became of a pair in a runtime.

    Attributes:
        finding: what is to be said of it.
        ratio: RMS error of the folded model divided by the original's, where it is largest of all outputs;
            None where one of them gave no result.
        original: why the original gave no result; empty where it gave one.
        folded: the same of the folded model.
    """

    finding: Finding
    ratio: float | None = None
    original: str = ""
    folded: str = ""


def pair(original: Path, folded: Path) -> Pair:
    """Evaluate the original in float64 for normal values.

    Raises:
        TruthUnavailableError: an operator cannot be evaluated.
    """
    models = onnx.load(original), onnx.load(folded)
    specs = input_specs(models[0])
    feed = make_feed(specs, candidate_sizes(specs)[0], "normal", seed=0)
    reals = Reals(*models, (original.parent, folded.parent))
    return Pair(original, folded, feed, reals.truth(feed), reals.runtime_allowances(feed))


def outcome(python: Path, runtime: str, given: Pair) -> Outcome:
    """Run both models in a runtime that `python` has, and judge by the rule of bnfold's verification."""
    first, second = (run(python, runtime, model, given) for model in (given.original, given.folded))
    if isinstance(second, str):
        if isinstance(first, str):
            return Outcome("neither", original=first, folded=second)
        return Outcome("original alone", folded=second)
    truths = given.truth.values()
    sound = all(_sound(values, truth) for values, truth in zip(second, truths, strict=True))
    instead: Finding = "folded alone" if sound else "neither"
    if isinstance(first, str):
        return Outcome(instead, original=first)
    if any(_shaped(own, truth).shape != truth.shape for own, truth in zip(first, truths, strict=True)):
        return Outcome(instead, original="its results are of other shapes")
    rows = [
        judge(
            Place(name, given.feed.name, runtime),
            truth,
            _shaped(own, truth),
            _shaped(other, truth),
            allowance=given.allowances[name],
        )
        for (name, truth), own, other in zip(given.truth.items(), first, second, strict=True)
    ]
    outcomes = {row.outcome for row in rows}
    ratio = max((row.ratio for row in rows if row.ratio is not None), default=None)
    if "fail" in outcomes:
        return Outcome("differs", ratio)
    return Outcome(instead if "ill-conditioned" in outcomes else "agrees", ratio)


def run(python: Path, runtime: str, model: Path, given: Pair) -> Sequence[Array] | str:
    """The outputs of a model in a runtime, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        feeds, results = Path(folder, "feeds.npz"), Path(folder, "results.npz")
        np.savez(feeds, **given.feed.values)  # type: ignore[arg-type]  # NumPy types allow_pickle among them
        files = [str(path) for path in (model, feeds, results)]
        try:
            done = _started(python, runtime, *files, *given.truth)
        except subprocess.TimeoutExpired:
            return f"stopped after {LIMIT:.0f} s"
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            status = "crashed" if done.returncode < 0 else "failed"
            return said[-1] if said and done.returncode > 0 else f"{status} ({done.returncode})"
        with np.load(results) as opened:
            return [opened[f"arr_{index}"] for index in range(len(opened.files))]


def version(python: Path, runtime: str) -> str:
    """The packages of a runtime that `python` has, with their versions; empty where one is not installed."""
    return _started(python, runtime).stdout.strip()


def _started(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-P", str(Path(other_runtimes.__file__)), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT
    )


def _sound(values: Array, truth: Array) -> bool:
    """Whether values are the truth, but for rounding that leaves most of it."""
    shaped = _shaped(values, truth)
    if shaped.shape != truth.shape or not np.isfinite(shaped).all():
        return False
    return Error.of(shaped - truth).rms <= ILL_CONDITIONED * Error.of(truth).rms


def _shaped(values: Array, truth: Array) -> Array:
    """Runtimes that have no batches return more, or fewer, leading axes of length 1."""
    same = [np.trim_zeros(np.array(array.shape) - 1, "f").tolist() for array in (values, truth)]
    return values.reshape(truth.shape) if same[0] == same[1] else values
