"""Whether a folded model's error is one that the original model's own rounding allows.

Pure functions: arrays in, evidence out. Three quantities are compared, all measured against one reference,
the original evaluated in float64:

- the *original's error*: what rounding alone does to the model that the user trusts;
- the *folded model's error*: rounding, plus whatever the fold did;
- the *allowance*: how far the float64 result moves when values move by half a unit in the last place.

**In onnxruntime** (`judge`) a folded model passes when

    rms(error) <= 2 * rms(original's error) + 4 * rms(allowance) + 2 * eps * rms(reference)
    max(error) <= 4 * max(original's error) + 8 * max(allowance) + 4 * eps * max|reference|

with eps the spacing of the output's dtype relative to 1. The last term is the rounding of the result itself.
The first judgement takes no allowance. One that fails is repeated with weights and results moved, because
the original's error is no yardstick where it is small by chance: an output of one number, weights that are
powers of two, and above all float16, which onnxruntime computes in float32 on a CPU. There the original
rounds nothing but its output, while a fold must store new float16 weights.

**In float64** (`judge_real`) no runtime rounds anything, and the folded model differs by its stored weights
alone. It passes when

    rms(difference) <= 2 * rms(allowance) + 1/2 * eps * rms(reference)
    max(difference) <= 4 * max(allowance) + 1 * eps * max|reference|

where only weights were moved. This is by far the sharper test.

*Calibration.* `benchmarks/calibrate.py` measures how far correct folds stay below these limits; what it
showed, and which deliberate errors go beyond them, is in `docs/verification.md`. In onnxruntime folds that
were computed in float64 use about a quarter of the limit at most. In float64 the factor 2 is about twice what
folds need that were computed in the weights' own dtype, as other tools do it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from bnfold.verification.errors import Error, difference
from bnfold.verification.measures import closeness
from bnfold.verification.verdict import Outcome, OutputEvidence

Array = np.ndarray[Any, np.dtype[Any]]

RMS_FACTOR, MAX_FACTOR = 2.0, 4.0
RMS_ALLOWANCE, MAX_ALLOWANCE = 4.0, 8.0
RMS_ULP, MAX_ULP = 2.0, 4.0
REAL_RMS_ALLOWANCE, REAL_MAX_ALLOWANCE = 2.0, 4.0
REAL_RMS_ULP, REAL_MAX_ULP = 0.5, 1.0
# An original whose rounding error exceeds a twentieth of its signal cannot serve as a yardstick: the tests
# above would accept differences that a person sees.
ILL_CONDITIONED = 0.05
# ... unless the folded model is this many times beyond its limit: chaos is bounded by the signal itself.
HOPELESS = 10.0

RULE = (
    f"rms <= {RMS_FACTOR:g} x original + {RMS_ALLOWANCE:g} x allowance + {RMS_ULP:g} eps x signal; "
    f"max <= {MAX_FACTOR:g} x original + {MAX_ALLOWANCE:g} x allowance + {MAX_ULP:g} eps x largest"
)
REAL_RULE = (
    f"rms <= {REAL_RMS_ALLOWANCE:g} x allowance + {REAL_RMS_ULP:g} eps x signal; "
    f"max <= {REAL_MAX_ALLOWANCE:g} x allowance + {REAL_MAX_ULP:g} eps x largest"
)
BOUND_RULE = (
    f"rms <= {RMS_ALLOWANCE:g} x effect of half-ulp weights + {RMS_ULP:g} eps x signal; "
    f"max <= {MAX_ALLOWANCE:g} x effect + {MAX_ULP:g} eps x largest"
)
LAYER_RULE = "rms of each channel <= {:g} x effect of half-ulp weights since the last tensors that agree"
ANSWER_RULE = "answers to single values differ by less than 16 half ulp of what adds up to them"
EXACT = "exactly the original's values"

# Notes of comparisons in which there was nothing to compare.
NO_VALUES, NO_NUMBERS = "it has no values", "it is NaN or infinity throughout"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a comparison was made: output, feed and level."""

    output: str
    feed: str
    level: str


def epsilon_of(dtype: np.dtype[Any]) -> float:
    """Spacing of a floating-point dtype relative to 1."""
    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]  # untyped in ml_dtypes


def is_float(array: Array) -> bool:
    """Whether an array is floating point, ml_dtypes' types included."""
    return array.dtype.kind in "fc" or array.dtype.name.startswith(("bfloat", "float"))


def parts(array: Array) -> Array:
    """Complex numbers as pairs of reals, `[..., 2]`; any other array as it is."""
    return np.stack([array.real, array.imag], axis=-1) if array.dtype.kind == "c" else array


def judge(
    place: Place, reference: Array, original: Array, folded: Array, *, allowance: Error | None = None
) -> OutputEvidence:
    """Judge one output.

    Args:
        place: what is compared; goes into the evidence as it is.
        reference: float64 truth.
        original: the original's result.
        folded: the folded model's result.
        allowance: effect of half-ulp changes of the weights, where it was measured.

    Returns:
        The evidence; its outcome says whether the folded result is acceptable.
    """
    if original.shape != folded.shape or original.dtype != folded.dtype:
        note = f"{original.dtype}{list(original.shape)} became {folded.dtype}{list(folded.shape)}"
        return _evidence(place, outcome="fail", rule="same shape and dtype", note=note)
    if not is_float(original):
        return judge_exact(place, original, folded)
    if reference.shape != original.shape:
        note = f"truth has shape {list(reference.shape)}, onnxruntime's result {list(original.shape)}"
        return _evidence(place, outcome="ill-conditioned", rule="same shape", note=note)
    reference, original, folded = (parts(array) for array in (reference, original, folded))
    info = ml_dtypes.finfo(original.dtype)  # type: ignore[no-untyped-call]  # untyped in ml_dtypes
    eps, tiny, largest = float(info.eps), float(info.smallest_normal), float(info.max)
    wide = [np.asarray(array, dtype=np.float64) for array in (reference, original, folded)]
    kinds = [_kinds(array) for array in wide]
    finite = (kinds[0] == 0) & (kinds[1] == 0) & (kinds[2] == 0)
    truth, first, second = (array[finite] for array in wide)
    own, error = Error.of(first - truth), Error.of(second - truth)
    signal = Error.of(truth)
    extra = allowance or Error()
    limit = Error(
        RMS_FACTOR * own.rms + RMS_ALLOWANCE * extra.rms + RMS_ULP * eps * signal.rms,
        MAX_FACTOR * own.max + MAX_ALLOWANCE * extra.max + MAX_ULP * eps * signal.max,
    )
    created, note = _non_finite(kinds, wide[0], largest, limit.max)
    # With most of truth beyond the dtype's range little is left to compare.
    drowned = 2 * np.count_nonzero((kinds[0] == 0) & (kinds[1] != 0)) > original.size
    ill = bool(drowned) or own.rms > ILL_CONDITIONED * signal.rms
    outcome = "fail" if created else _outcome(error, limit, ill=ill)
    row = _evidence(
        place, outcome=outcome, rule=RULE, note=note, signal=signal, own=own, error=error, limit=limit
    )
    close = [closeness(wide[0], array, eps, tiny) for array in wide[1:]]
    return _of_values(replace(row, original=close[0], folded=close[1]), wide[1])


def _outcome(error: Error, limit: Error, *, ill: bool) -> Outcome:
    """Where rounding drowns the signal nothing can be said, except of an error beyond any rounding."""
    excess = max(error.rms - limit.rms, error.max - limit.max)
    if ill and error.rms <= HOPELESS * limit.rms and error.max <= HOPELESS * limit.max:
        return "ill-conditioned"
    return "pass" if excess <= 0 else "fail"


def judge_real(place: Place, reference: Array, folded: Array, allowance: Error, eps: float) -> OutputEvidence:
    """Judge the folded model in float64, where nothing but its stored weights distinguishes it.

    Args:
        place: what is compared.
        reference: the original in float64.
        folded: the folded model in float64.
        allowance: effect of half-ulp changes of the original's weights.
        eps: spacing of the model's dtype relative to 1.
    """
    if not is_float(reference):
        return judge_exact(place, reference, folded)
    reference, folded = parts(reference), parts(folded)
    signal = Error.of(reference[np.isfinite(reference)])
    row = judge_moved(place, difference(reference, folded), signal, allowance, eps)
    return _of_values(replace(row, folded=closeness(reference, folded, eps)), reference)


def judge_moved(place: Place, error: Error, signal: Error, allowance: Error, eps: float) -> OutputEvidence:
    """Judge a difference that was measured already; arguments as in `judge_real`."""
    limit = Error(
        REAL_RMS_ALLOWANCE * allowance.rms + REAL_RMS_ULP * eps * signal.rms,
        REAL_MAX_ALLOWANCE * allowance.max + REAL_MAX_ULP * eps * signal.max,
    )
    note = "" if np.isfinite(error.max) else "shapes or non-finite values differ"
    ill = allowance.rms > ILL_CONDITIONED * signal.rms
    outcome = "fail" if note else _outcome(error, limit, ill=ill)
    return _evidence(
        place,
        outcome=outcome,
        rule=REAL_RULE,
        note=note,
        signal=signal,
        own=allowance,
        error=error,
        limit=limit,
    )


def judge_bound(place: Place, original: Array, folded: Array, effect: Error) -> OutputEvidence:
    """Judge without truth: the folded result against the original's.

    Args:
        place: what is compared.
        original: the original's result.
        folded: the folded model's result.
        effect: how far the original's result moves when its weights move by half an ulp (`bound`).
    """
    if not is_float(original) or original.shape != folded.shape or original.dtype != folded.dtype:
        return judge_exact(place, original, folded)
    original, folded = parts(original), parts(folded)
    # The original is its own reference: it has no error, and only the effect is left as a yardstick.
    row = judge(place, original.astype(np.float64), original, folded, allowance=effect)
    outcome = row.outcome
    if row.limit_rms is not None and row.folded_rms is not None and row.signal_rms is not None:
        limit, error = (
            Error(row.limit_rms, row.limit_max or 0.0),
            Error(row.folded_rms, row.folded_max or 0.0),
        )
        if not row.note.startswith("the folded model has"):
            outcome = _outcome(error, limit, ill=effect.rms > ILL_CONDITIONED * row.signal_rms)
    row = replace(
        row,
        against="original",
        rule=BOUND_RULE,
        original_rms=effect.rms,
        original_max=effect.max,
        ratio=None,
        outcome=outcome,
        original=None,
    )
    return _of_values(row, original)


def failure(place: Place, note: str, rule: str = "both models run") -> OutputEvidence:
    """Evidence of a difference that has no numbers."""
    return _evidence(place, outcome="fail", rule=rule, note=note)


def unlike(place: Place, signal: float, error: float, effect: float, factor: float) -> OutputEvidence:
    """Evidence of a tensor inside the model that no rounding of the weights of its layer explains (`layers`).

    Args:
        place: the tensor.
        signal: RMS of its worst channel.
        error: RMS of the difference there.
        effect: what half-ulp changes of the weights do there.
        factor: how many times that is allowed.
    """
    row = _evidence(
        place,
        outcome="fail",
        rule=LAYER_RULE.format(factor),
        note="with the operands of the original; the outputs do not show it beyond rounding",
        signal=Error(signal, signal),
        own=Error(effect, effect),
        error=Error(error, error),
        limit=Error(factor * effect, factor * effect),
    )
    return replace(row, original_max=None, folded_max=None, limit_max=None)


def answered(place: Place, exact: float, got: float, limit: float, what: str) -> OutputEvidence:
    """Evidence of a weight that is not what it must be (`responses`).

    Args:
        place: the tensor that shows it.
        exact: what the original answers there to a single value.
        got: what the folded model answers.
        limit: by how much that may differ.
        what: where the weight is.
    """
    row = _evidence(
        place,
        outcome="fail",
        rule=ANSWER_RULE,
        note=f"{what} is off by {abs(got - exact) / abs(exact) if exact else float('inf'):.2g} of itself",
        signal=Error(abs(exact), abs(exact)),
        own=Error(),
        error=Error(abs(got - exact), abs(got - exact)),
        limit=Error(limit, limit),
    )
    return replace(row, original_rms=None, original_max=None, folded_max=None, limit_max=None)


def judge_exact(place: Place, original: Array, folded: Array) -> OutputEvidence:
    """Judge integers, bools and strings: they must be the same."""
    if original.shape != folded.shape or original.dtype != folded.dtype:
        note = f"{original.dtype}{list(original.shape)} became {folded.dtype}{list(folded.shape)}"
        return _evidence(place, outcome="fail", rule="same shape and dtype", note=note)
    wrong = int(np.count_nonzero(original != folded))
    note = f"{wrong} of {original.size} values differ" if wrong else ""
    return _of_values(_evidence(place, outcome="fail" if wrong else "pass", rule=EXACT, note=note), original)


def _of_values(row: OutputEvidence, values: Array) -> OutputEvidence:
    """The evidence, but that it passes for want of values is none."""
    if row.outcome != "pass":
        return row
    if not values.size:
        return replace(row, outcome="ill-conditioned", note=NO_VALUES)
    if is_float(values) and not np.isfinite(values.astype(np.float64)).any():
        return replace(row, outcome="ill-conditioned", note=NO_NUMBERS)
    return row


def _kinds(array: Array) -> Array:
    """0 finite, 1 nan, 2 +inf, 3 -inf."""
    kinds = np.where(np.isnan(array), 1, 0)
    kinds = np.where(np.isposinf(array), 2, kinds)
    return np.asarray(np.where(np.isneginf(array), 3, kinds))


def _non_finite(kinds: list[Array], truth: Array, largest: float, limit: float) -> tuple[bool, str]:
    """Whether the fold created or hid a non-finite value without truth's consent, and what to say of it."""
    reference, original, folded = kinds
    differs = original != folded
    if not differs.any():
        count = int(np.count_nonzero(original))
        return False, f"{count} non-finite values, the same in both" if count else ""
    # At the edge of the dtype's range, rounding decides between a number and infinity.
    near = np.where(reference == 0, truth, np.nan)
    up, down = near + limit >= largest, near - limit <= -largest
    edge = np.where(folded == 2, up, np.where(folded == 3, down, (folded == 0) & (up | down)))  # noqa: PLR2004 - kinds
    # Where the original overflows in between and truth does not, it is garbage; which kind is chance.
    garbage = (reference == 0) & (original != 0) & (folded != 0)
    consent = (folded == reference) | edge | garbage
    if not (differs & ~consent).any():
        count = int(np.count_nonzero(differs))
        kept = int(np.count_nonzero(differs & (folded != 0)))
        note = f"the original overflows at {count - kept} values where the folded model does not"
        return False, f"{note}; {kept} overflow in both, each in its way" if kept else note
    guilty = differs & ~consent
    created = int(np.count_nonzero(guilty & (folded != 0)))
    hidden = int(np.count_nonzero(guilty & (folded == 0)))
    said = [f"{created} non-finite values that the original has not"] if created else []
    said += [f"{hidden} finite values where the original and truth have none"] if hidden else []
    return True, "the folded model has " + " and ".join(said)


def _evidence(
    place: Place,
    *,
    outcome: Outcome,
    rule: str,
    note: str,
    signal: Error | None = None,
    own: Error | None = None,
    error: Error | None = None,
    limit: Error | None = None,
) -> OutputEvidence:
    ratio = None
    if own is not None and error is not None and own.rms > 0:
        ratio = _number(error.rms / own.rms)
    return OutputEvidence(
        output=place.output,
        feed=place.feed,
        level=place.level,
        against="truth",
        signal_rms=_number(signal.rms) if signal else None,
        original_rms=_number(own.rms) if own else None,
        original_max=_number(own.max) if own else None,
        folded_rms=_number(error.rms) if error else None,
        folded_max=_number(error.max) if error else None,
        ratio=ratio,
        limit_rms=_number(limit.rms) if limit else None,
        limit_max=_number(limit.max) if limit else None,
        rule=rule,
        outcome=outcome,
        note=note,
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
