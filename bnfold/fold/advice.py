"""What another option would fold: the reason of a normalization that stays says so, where it was tried."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from bnfold.fold.options import Options
from bnfold.fold.plan import overridable
from bnfold.fold.reasons import Code, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bnfold.fold.folded import Fold
    from bnfold.fold.plan import Plan
    from bnfold.fold.reasons import Refusal
    from bnfold.model.edits import Scope
    from bnfold.model.view import Node

_Found = TypeVar("_Found")
_NAMED = 4  # initializers named in a reason; enough to find them
_LET = "change --include or --exclude to fold it"
# Reasons that freezing does not take away.
_TOLD = frozenset({Code.EXCLUDED, Code.RESULTS_DIFFER})


def advised(made: Plan, options: Options | None, again: Callable[[Options], Plan]) -> Plan:
    """The same plan, in which hints name the options that would fold what stays.

    A model that has nothing to freeze, and options that hold nothing back, cost nothing.

    Args:
        made: the plan.
        options: what it was made with.
        again: makes one for the same model with other options.
    """
    options = options or Options()
    for advise in (_without_patterns, _merged, _frozen):
        better = {
            id(refusal): other for refusal, other in advise(made, options, again) if refusal is not other
        }
        if better:
            made = replace(
                made,
                kept=tuple(better.get(id(refusal), refusal) for refusal in made.kept),
                stays={node: better.get(id(refusal), refusal) for node, refusal in made.stays.items()},
            )
    return made


def _without_patterns(
    made: Plan, options: Options, again: Callable[[Options], Plan]
) -> Iterator[tuple[Refusal, Refusal]]:
    """What was excluded: where it would go, or why it would stay all the same."""
    if not any(refusal.code is Code.EXCLUDED for refusal in made.kept):
        return
    trial = again(replace(options, include=(), exclude=()))
    goes, stays = _by_place(trial.goes), _by_place(trial.stays)
    for node, refusal in made.stays.items():
        fold, other = goes.get(_place(node)), stays.get(_place(node))
        if fold is not None and refusal.code is Code.EXCLUDED:
            (reason,) = refusal.reasons
            evidence = f"{reason.evidence}; it would fold into {_into(fold)}"
            yield refusal, replace(refusal, reasons=(replace(reason, evidence=evidence, hint=_LET),))
        elif fold is not None:
            yield refusal, _hinting(refusal, "it folds where --include and --exclude leave its neighbours in")
        elif other is not None and refusal.code is Code.EXCLUDED:
            yield refusal, replace(refusal, reasons=(*refusal.reasons, *other.reasons))


def _merged(
    made: Plan, options: Options, again: Callable[[Options], Plan]
) -> Iterator[tuple[Refusal, Refusal]]:
    """What would go if branches were merged."""
    if options.merge or not made.kept:
        return
    goes = _by_place(again(replace(options, merge=True)).goes)
    for node, refusal in made.stays.items():
        fold = goes.get(_place(node))
        if fold is not None:
            yield refusal, _hinting(refusal, "leave out --no-merge: then it becomes part of a Conv beside it")


def _frozen(
    made: Plan, options: Options, again: Callable[[Options], Plan]
) -> Iterator[tuple[Refusal, Refusal]]:
    """What would go if no initializer could be replaced."""
    unexplained = any(refusal.code not in _TOLD for refusal in made.kept)
    if options.freeze or not unexplained or not overridable(made.draft.view):
        return
    trial = again(replace(options, freeze=True))
    goes = {_place(node): node for node in trial.goes}
    stays = _by_place(trial.stays)
    for node, refusal in made.stays.items():
        there, other = goes.get(_place(node)), stays.get(_place(node))
        if refusal.code is Code.OVERRIDABLE:
            if other is not None:
                hint = f"--freeze alone does not fold it: {other.code}, {other.reasons[0].evidence}"
                yield refusal, _hinting(refusal, hint)
            continue
        if there is None or refusal.code in _TOLD:
            continue
        told = tuple(reason for reason in refusal.reasons if reason.code is Code.OVERRIDABLE)
        others = tuple(reason for reason in refusal.reasons if reason.code is not Code.OVERRIDABLE)
        yield refusal, replace(refusal, reasons=(*(told or (_replaceable(there, trial),)), *others))


def _replaceable(node: Node, trial: Plan) -> Reason:
    """That a caller may replace what nodes on the way read; where none of them does, what others do."""
    read = {name for passed in (node, *trial.ways[node]) for name in passed.proto.input}
    near = [name for name in trial.frozen if name in read] or list(trial.frozen)
    shown = ", ".join([*map(repr, near[:_NAMED]), *["..."] * (len(near) > _NAMED)])
    return Reason(
        Code.OVERRIDABLE,
        near[0],
        f"a fold would need initializers that a caller may replace, being graph inputs too: {shown}",
        "run with --freeze if no caller replaces them",
    )


def _hinting(refusal: Refusal, hint: str) -> Refusal:
    first, *rest = refusal.reasons
    return replace(refusal, reasons=(replace(first, hint=hint), *rest))


def _into(fold: Fold) -> str:
    return ", ".join(f"{op} {name!r}" for op, name in zip(fold.into_op, fold.into, strict=True))


def _by_place(found: Mapping[Node, _Found]) -> dict[tuple[Scope, int], _Found]:
    return {_place(node): each for node, each in found.items()}


def _place(node: Node) -> tuple[Scope, int]:
    return node.graph.scope, node.index
