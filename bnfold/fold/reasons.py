"""Why a BatchNormalization stays: stable codes, and one value that carries the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Stable reason codes; they never change their meaning between versions."""

    SEVERAL_CONSUMERS = "BNF010"
    GRAPH_OUTPUT = "BNF011"
    NOT_CONSTANT = "BNF012"
    TRAINING_MODE = "BNF013"
    ZERO_PADDING = "BNF014"
    QUANTIZER = "BNF015"
    MIXED_DTYPES = "BNF016"
    DTYPE_RANGE = "BNF017"
    SIGN = "BNF018"
    NO_LINEAR_NEIGHBOUR = "BNF019"
    NON_FINITE = "BNF020"
    VARIANCE = "BNF021"
    OVERRIDABLE = "BNF022"
    CHANNEL_AXIS = "BNF023"
    EXCLUDED = "BNF024"
    MORE_WORK = "BNF025"
    CANCELLATION = "BNF026"
    NAME_CLASH = "BNF027"
    RESULTS_DIFFER = "BNF030"


@dataclass(frozen=True)
class Reason:
    """What one operator or check says against a fold.

    Attributes:
        code: the stable reason code.
        blocking: the node or tensor that stands in the way, as the model names it.
        evidence: the fact that was found, in one sentence without a full stop.
        hint: what the user can do about it; empty when nothing helps.
    """

    code: Code
    blocking: str
    evidence: str
    hint: str = ""


@dataclass(frozen=True)
class Refusal:
    """A BatchNormalization that stays, and the true reason.

    Attributes:
        node: name of the BatchNormalization, or of its output when the node has no name.
        op: its operator: `BatchNormalization`, or the chain that spells one out (`Sub+Mul+Add`).
        scope: the graph it stands in (`""` for the main graph).
        reasons: what stands in the way, the gravest first; never empty.
    """

    node: str
    op: str
    scope: str
    reasons: tuple[Reason, ...]

    @property
    def reason(self) -> Reason:
        """The gravest reason."""
        return self.reasons[0]

    @property
    def code(self) -> Code:
        """The stable reason code."""
        return self.reason.code
