"""What both models are fed: for each batch size, values in sizes that model A accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.verification.feeding import check_provider, first_accepted
from bnfold.verification.feeding import choose_feeds as feeds_of
from bnfold.verification.feeds import NoFeedError, candidate_sizes, input_specs, make_feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.verification.case import Case
    from bnfold.verification.feeds import Feed, InputSpec
    from bnfold.verification.inputs import Wishes


def choose_feeds(case: Case, batches: Sequence[int]) -> tuple[Feed, ...]:
    """A feed for each batch size; without any, one in the size that the model states, or 1.

    Raises:
        UsageError: the model has another batch size, or inputs that cannot be made up.
        EnvironmentFault: it runs at none of the sizes tried, or not on the provider asked for.
    """
    try:
        specs = input_specs(case.original.proto)
    except NoFeedError as error:
        raise UsageError(f"model A cannot be run: {error}") from error
    return tuple(
        _feed(case, specs if batch is None else _with_batch(specs, batch)) for batch in batches or (None,)
    )


def wished_feeds(case: Case, wishes: Wishes) -> tuple[Feed, ...]:
    """Of the feeds that the user wants the first of each size: others take the same time.

    Raises:
        UsageError: they do not fit model A, or leave inputs that cannot be made up.
        EnvironmentFault: it does not run on the provider asked for.
    """
    try:
        feeds, _ = feeds_of(case, wishes)
    except NoFeedError as error:
        raise UsageError(f"model A cannot be run: {error}") from error
    texts = sorted({name for feed in feeds for name, array in feed.values.items() if array.dtype == object})
    if texts:
        raise UsageError(f"input {texts[0]!r} holds strings; a model that reads them cannot be measured")
    if not (wishes.files or wishes.arrays):
        return feeds[:1]
    firsts: dict[object, Feed] = {}
    for feed in feeds:
        firsts.setdefault(tuple((name, array.shape) for name, array in feed.values.items()), feed)
    return tuple(firsts.values())


def batch_of(feed: Feed) -> int | None:
    """The size of the first axis of its inputs; None where they have none in common."""
    sizes = {array.shape[0] for array in feed.values.values() if array.ndim > 1}
    return int(sizes.pop()) if len(sizes) == 1 else None


def _with_batch(specs: Sequence[InputSpec], batch: int) -> tuple[InputSpec, ...]:
    """The inputs with this size along the first axis, and wherever else its symbol stands."""
    symbols = set()
    for spec in specs:
        if len(spec.shape) > 1:
            first = spec.shape[0]
            if isinstance(first, str):
                symbols.add(first)
            elif first != batch:
                raise UsageError(
                    f"batch {batch}: the first axis of input {spec.name!r} is {first}; export it as dynamic, "
                    "or leave the batch size to the model"
                )
    return tuple(
        replace(spec, shape=tuple(batch if dim in symbols else dim for dim in spec.shape)) for spec in specs
    )


def _feed(case: Case, specs: Sequence[InputSpec]) -> Feed:
    candidates = candidate_sizes(specs)
    chosen = candidates[0]
    if chosen.by_symbol:
        case.say("looking for input sizes that the model accepts")
        accepted, failure = first_accepted(case, specs, candidates, {})
        if accepted is None and failure is not None:
            check_provider(case.provider, failure)
            if failure.stage == "run":
                raise EnvironmentFault(f"onnxruntime cannot run model A: {failure.reason}")
        # No size is to blame where the model does not even load; another level may still run it.
        chosen = accepted or chosen
    return make_feed(specs, chosen, "normal", case.seed)
