"""Which feeds a pair of models gets: the user's, or seeded ones in sizes that the original accepts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.verification.feeds import (
    Feed,
    InputSpec,
    Kind,
    NoFeedError,
    Sizes,
    candidate_sizes,
    fed_inputs,
    input_specs,
    make_feed,
    other_sizes,
)
from bnfold.verification.inputs import Wishes, read
from bnfold.verification.sessions import PROVIDERS, Failure, Ran, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from bnfold.verification.case import Case
    from bnfold.verification.feeds import Array
    from bnfold.verification.inputs import Range


def choose_feeds(case: Case, wishes: Wishes) -> tuple[tuple[Feed, ...], tuple[str, ...]]:
    """The feeds of a case, and what there is to say about their sizes.

    Values that the user gives are used as they are; inputs that a feed leaves out get seeded ones.

    Raises:
        NoFeedError: no feed can be made, or none that the original accepts.
        UsageError: what the user gives does not fit the model.
        EnvironmentFault: the provider that was asked for does not run.
    """
    proto = case.original.proto
    given = read(wishes, proto)
    if not given:
        specs = _wanted(input_specs(proto), wishes, {})
        kinds: tuple[Kind, ...] = ("normal", "uniform", "zeros", "large") if specs else ("normal",)
        chosen, other, findings = _sizes(case, specs, {})
        sizes = {"uniform": other}
        return tuple(make_feed(specs, sizes.get(kind, chosen), kind, case.seed) for kind in kinds), findings
    feeds: list[Feed] = []
    for feed in given:
        specs = _wanted(input_specs(proto, feed.values), wishes, _bound(proto, feed))
        if not specs:
            feeds.append(feed)
            continue
        chosen, _, _ = _sizes(case, specs, feed.values)
        made = make_feed(specs, chosen, "normal", case.seed)
        feeds.append(Feed(f"{feed.name}, others {made.name}", {**feed.values, **made.values}))
    return tuple(feeds), ()


def _bound(model: onnx.ModelProto, feed: Feed) -> dict[str, int]:
    """Sizes of named dimensions that the values of a feed settle."""
    bound: dict[str, int] = {}
    for value in fed_inputs(model):
        if value.name not in feed.values:
            continue
        for dim, size in zip(value.type.tensor_type.shape.dim, feed.values[value.name].shape, strict=False):
            if dim.dim_param and bound.setdefault(dim.dim_param, size) != size:
                raise UsageError(
                    f"{feed.name}: dimension {dim.dim_param!r} is both {bound[dim.dim_param]} and {size}"
                )
    return bound


def _wanted(specs: tuple[InputSpec, ...], wishes: Wishes, bound: Mapping[str, int]) -> tuple[InputSpec, ...]:
    """The inputs to be made with the shapes and ranges that the user wants; `bound` are known sizes."""
    sizes = dict(bound)
    for spec in specs:
        if spec.name in wishes.shapes:
            _bind(spec, wishes.shapes[spec.name], sizes)
    wanted = []
    for spec in specs:
        shape = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape)
        wanted.append(replace(spec, shape=shape, limits=_limits(spec, wishes)))
    return tuple(wanted)


def _limits(spec: InputSpec, wishes: Wishes) -> Range | None:
    """The range that the user wants for an input; one for all inputs never leads an index astray."""
    own = wishes.ranges.get(spec.name)
    if own is not None:
        if spec.dtype == np.bool_:
            raise UsageError(f"input {spec.name!r} is bool and has no range")
        _check_limits(spec, own)
        return own
    common = wishes.ranges.get("")
    if common is None or spec.dtype == np.bool_:
        return None
    if spec.dtype.kind not in "iu":
        _check_limits(spec, common)
        return common
    low, high = max(common[0], spec.low), min(common[1], spec.high - 1)
    return (low, high) if math.ceil(low) <= math.floor(high) else None


def _check_limits(spec: InputSpec, limits: Range) -> None:
    low, high = limits
    if spec.dtype.kind in "iu":
        held = np.iinfo(spec.dtype)
        if math.ceil(low) > math.floor(high) or low < held.min or high > held.max:
            raise UsageError(f"range {low:g},{high:g} holds no {spec.dtype} for input {spec.name!r}")
    elif max(-low, high) > float(ml_dtypes.finfo(spec.dtype).max):  # type: ignore[no-untyped-call]  # untyped
        raise UsageError(f"range {low:g},{high:g} goes beyond {spec.dtype}, the type of input {spec.name!r}")


def _bind(spec: InputSpec, shape: tuple[int, ...], sizes: dict[str, int]) -> None:
    said = "x".join(map(str, shape))
    wanted = "x".join(map(str, spec.shape))
    if len(shape) != len(spec.shape):
        raise UsageError(f"input {spec.name!r} has shape {wanted}, not {said}")
    for dim, size in zip(spec.shape, shape, strict=True):
        if isinstance(dim, int):
            if dim != size:
                raise UsageError(f"input {spec.name!r} has shape {wanted}, not {said}")
        elif sizes.setdefault(dim, size) != size:
            already = f"dimension {dim!r} is {sizes[dim]} already"
            raise UsageError(f"shape {said} of input {spec.name!r}: {already}")


def _sizes(
    case: Case, specs: Sequence[InputSpec], given: Mapping[str, Array]
) -> tuple[Sizes, Sizes, tuple[str, ...]]:
    """Two choices of sizes that the original accepts, and what there is to say about them.

    Raises:
        NoFeedError: the original runs at none of the sizes tried.
        EnvironmentFault: the provider that was asked for does not run.
    """
    candidates = candidate_sizes(specs)
    if not candidates[0].by_symbol:
        return candidates[0], candidates[0], ()
    case.say("looking for input sizes that the original accepts")
    chosen, failure = first_accepted(case, specs, candidates, given)
    if chosen is None and failure is not None:
        check_provider(case.provider, failure)
    if chosen is None and failure is not None and failure.stage != "run":
        # No size is to blame where the model does not even load; float64 may still evaluate it.
        chosen = candidates[0]
        return chosen, next(iter(other_sizes(specs, chosen)), chosen), ()
    if chosen is None:
        reason = failure.reason if failure else "none is small enough"
        raise NoFeedError(
            f"the original runs at none of {len(candidates)} input sizes tried; pass inputs ({reason})"
        )
    other, failure = first_accepted(case, specs, other_sizes(specs, chosen), given)
    if other is None:
        reason = f" (others: {failure.reason})" if failure else ""
        return chosen, chosen, (f"only one input size was found that runs: {chosen}{reason}",)
    kept = [name for name, size in chosen.by_symbol.items() if other.by_symbol[name] == size]
    findings = [f"sizes of dynamic dimensions: {chosen}; {other}"]
    if kept:
        findings.append(f"tested at one size only: {', '.join(kept)}")
    return chosen, other, tuple(findings)


def check_provider(provider: str, failure: Failure) -> None:
    """Tell a machine that lacks a provider from a model that does not run.

    Raises:
        EnvironmentFault: onnxruntime fell back to the CPU, or nothing loads on a provider that is no CPU.
    """
    if failure.stage == "fallback":
        raise EnvironmentFault(f"{failure.reason}; `bnfold doctor` shows what runs here")
    if failure.stage == "load" and provider != "cpu":
        raise EnvironmentFault(f"the model does not load on {PROVIDERS[provider]}: {failure.reason}")


def first_accepted(
    case: Case,
    specs: Sequence[InputSpec],
    candidates: Sequence[Sizes],
    given: Mapping[str, Array],
) -> tuple[Sizes | None, Failure | None]:
    """The first of the candidates that the original runs at, or why the last of them failed."""
    runs = [
        Run(
            "disable_all",
            str(sizes),
            {**given, **make_feed(specs, sizes, "normal", case.seed).values},
            group="sizes",
        )
        for sizes in candidates
    ]
    outcomes = case.run(case.original, runs)
    failure = None
    for sizes in candidates:
        outcome = outcomes.get(("disable_all", str(sizes)))
        if isinstance(outcome, Ran):
            return sizes, None
        failure = outcome or failure
    return None, failure
