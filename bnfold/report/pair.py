"""The verdict on two models, with what it takes to repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.verification.verdict import Verdict


@dataclass(frozen=True)
class PairReport:
    """What `bnfold verify` found.

    Attributes:
        original: the model that is right by definition, as the caller named it.
        folded: the other one.
        verdict: whether they compute the same.
        options: what was asked for, as plain values.
        environment: versions of Python, of the platform and of the packages that bnfold uses.
        version: the bnfold that judged.
    """

    original: str
    folded: str
    verdict: Verdict
    options: Mapping[str, Any]
    environment: Mapping[str, str]
    version: str
