"""Which feeds a pair of models gets: the user's, or seeded ones in sizes that the original accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.verification.feeds import (
    Feed,
    InputSpec,
    Kind,
    NoFeedError,
    Sizes,
    candidate_sizes,
    input_specs,
    make_feed,
    other_sizes,
    user_feeds,
)
from bnfold.verification.sessions import Array, Failure, Ran, Run, run_model

if TYPE_CHECKING:
    from bnfold.verification.case import Case

Given = Mapping[str, Array] | Sequence[Mapping[str, Array] | Feed] | None


def choose_feeds(case: Case, given: Given) -> tuple[tuple[Feed, ...], tuple[str, ...]]:
    """The feeds of a case, and what there is to say about their sizes.

    Raises:
        NoFeedError: no feed can be made, or none that the original accepts.
        UsageError: the user's feeds do not fit the model.
    """
    if given is not None:
        feeds = user_feeds(given, case.original.proto)
        if not feeds:
            raise UsageError("feeds is empty; pass at least one")
        return feeds, ()
    specs = input_specs(case.original.proto)
    chosen, other, findings = _sizes(case, specs)
    kinds: list[tuple[Kind, Sizes]] = [
        ("normal", chosen),
        ("uniform", other),
        ("zeros", chosen),
        ("large", chosen),
    ]
    if not specs:
        kinds = kinds[:1]
    return tuple(make_feed(specs, sizes, kind, case.seed) for kind, sizes in kinds), findings


def _sizes(case: Case, specs: Sequence[InputSpec]) -> tuple[Sizes, Sizes, tuple[str, ...]]:
    """Two choices of sizes that the original accepts, and what there is to say about them.

    Raises:
        NoFeedError: the original runs at none of the sizes tried.
        EnvironmentFault: onnxruntime fell back from the provider that was asked for.
    """
    candidates = candidate_sizes(specs)
    if not candidates[0].by_symbol:
        return candidates[0], candidates[0], ()
    case.say("looking for input sizes that the original accepts")
    chosen, failure = _first_accepted(case, specs, candidates)
    if chosen is None and failure is not None and failure.stage == "fallback":
        raise EnvironmentFault(failure.reason)
    if chosen is None and failure is not None and failure.stage != "run":
        # No size is to blame where the model does not even load; float64 may still evaluate it.
        chosen = candidates[0]
        return chosen, next(iter(other_sizes(specs, chosen)), chosen), ()
    if chosen is None:
        reason = failure.reason if failure else "none is small enough"
        raise NoFeedError(
            f"the original runs at none of {len(candidates)} input sizes tried; pass inputs ({reason})"
        )
    other, failure = _first_accepted(case, specs, other_sizes(specs, chosen))
    if other is None:
        reason = f" (others: {failure.reason})" if failure else ""
        return chosen, chosen, (f"only one input size was found that runs: {chosen}{reason}",)
    kept = [name for name, size in chosen.by_symbol.items() if other.by_symbol[name] == size]
    findings = [f"sizes of dynamic dimensions: {chosen}; {other}"]
    if kept:
        findings.append(f"tested at one size only: {', '.join(kept)}")
    return chosen, other, tuple(findings)


def _first_accepted(
    case: Case, specs: Sequence[InputSpec], candidates: Sequence[Sizes]
) -> tuple[Sizes | None, Failure | None]:
    """The first of the candidates that the original runs at, or why the last of them failed."""
    runs = [
        Run("disable_all", str(sizes), make_feed(specs, sizes, "normal", case.seed).values, group="sizes")
        for sizes in candidates
    ]
    outcomes = run_model(case.original.path, runs, provider=case.provider, timeout=case.timeout)
    failure = None
    for sizes in candidates:
        outcome = outcomes.get(("disable_all", str(sizes)))
        if isinstance(outcome, Ran):
            return sizes, None
        failure = outcome or failure
    return None, failure
