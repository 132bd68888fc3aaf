"""What an operator can offer to a fold, as plain values.

An operator is an entry of the table in `bnfold.fold.ops` and a file of pure functions. It looks at one
node and answers; it never walks the graph, never changes it and never chooses a name. That is the
engine's part (`bnfold.fold.search`, `bnfold.fold.draft`).

An affine map travels against the data flow or along it:

- backward: output 0 of the node must become `affine(output)`.
- forward: input `position` of the node no longer gets `affine(x)` but `x`; the node must make up for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bnfold.fold.affine import Affine
    from bnfold.fold.changes import Change
    from bnfold.fold.draft import Draft
    from bnfold.fold.reasons import Reason
    from bnfold.model.view import Node


@dataclass(frozen=True)
class Absorbed:
    """The affine ends here: with these changes the node computes what was asked for."""

    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Carried:
    """The affine passes through: all of these edges must take theirs, and the changes hold too.

    Attributes:
        edges: backward, pairs of an input position and the map for it; forward, of an output position.
        changes: what happens to the node itself.
    """

    edges: tuple[tuple[int, Affine], ...]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The affine can pass in several ways; the first that succeeds is taken."""

    options: tuple[Carried, ...]


@dataclass(frozen=True)
class Refused:
    """It cannot be done exactly: every reason, the gravest first."""

    reasons: tuple[Reason, ...]


Outcome = Absorbed | Carried | Choice | Refused


@dataclass(frozen=True)
class Operator:
    """One row of the operator table.

    Attributes:
        summary: what it does with a map, as the README's table says it.
        backward: given that output 0 must become `affine(output)`: swallow it, pass it on, or say why not.
        forward: the same, given that an input comes without its `affine`.
        backward_of: as `backward`, for any output by its position, where there are several.
        join: as `forward`, given that several inputs come without theirs.
        linear: whether it has weights of its own, so that a BatchNormalization beside it is expected to fold.
        ignores_attributes: whether its backward rule holds whatever its attributes say, so that in a local
            function they may be left to the caller.
    """

    summary: str = field(kw_only=True)
    backward: Callable[[Node, Affine, Draft], Outcome] | None = None
    forward: Callable[[Node, int, Affine, Draft], Outcome] | None = None
    backward_of: Callable[[Node, int, Affine, Draft], Outcome] | None = None
    join: Callable[[Node, Mapping[int, Affine], Draft], Outcome] | None = None
    linear: bool = False
    ignores_attributes: bool = False
