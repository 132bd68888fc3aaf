"""Every stable code that a report can hold: what it means, and what helps.

The tables of the README say the same, and a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.fold.reasons import Code


@dataclass(frozen=True)
class Rule:
    """One stable code.

    Attributes:
        code: `BNF` and three digits; never changes its meaning.
        name: for programs, in Pascal case.
        meaning: one clause without a full stop.
        remedy: what helps, one clause without a full stop; empty where nothing does.
    """

    code: str
    name: str
    meaning: str
    remedy: str = ""


def _why(code: Code, meaning: str, remedy: str = "") -> Rule:
    return Rule(code.value, code.name.title().replace("_", ""), meaning, remedy)


# Of a whole model, or of a normalization that need not be there.
FINDINGS = (
    Rule("BNF001", "Foldable", "a normalization is left that can be folded", "`bnfold optimize`"),
    Rule("BNF002", "Invalid", "the model cannot be read or is invalid", "export it again"),
    Rule(
        "BNF031",
        "IllConditioned",
        "nothing can be said: the model's own rounding error is too large, or it cannot be evaluated",
        "give it inputs like those it will see",
    ),
    Rule("BNF032", "Slower", "the folded model runs slower", "leave the model as it is"),
)

# Why a normalization stays.
REASONS = (
    _why(Code.SEVERAL_CONSUMERS, "another node reads the tensor between"),
    _why(Code.GRAPH_OUTPUT, "the tensor between is an output of the graph"),
    _why(
        Code.NOT_CONSTANT,
        "weights or statistics are computed when the model runs",
        "export with constant folding",
    ),
    _why(Code.TRAINING_MODE, "it is in training mode", "export in evaluation mode"),
    _why(Code.ZERO_PADDING, "zero padding would see the shift"),
    _why(Code.QUANTIZER, "a quantizer stands between", "fold the float model before quantizing"),
    _why(Code.MIXED_DTYPES, "a weight is of a type that takes no fold"),
    _why(Code.DTYPE_RANGE, "a folded weight would leave the range of its type", "use a wider type"),
    _why(Code.SIGN, "an activation bends: a negative scale, or a shift, cannot pass"),
    _why(Code.NO_LINEAR_NEIGHBOUR, "no operator with weights stands before or behind it"),
    _why(
        Code.NON_FINITE,
        "NaN or infinity in weights or statistics",
        "repair the statistics and export again",
    ),
    _why(Code.VARIANCE, "variance + epsilon is not positive", "repair the statistics and export again"),
    _why(Code.OVERRIDABLE, "the caller may override a weight or statistic", "`--freeze`, if no caller does"),
    _why(Code.CHANNEL_AXIS, "the channel axis cannot be followed", "export with known shapes"),
    _why(Code.EXCLUDED, "`--include` or `--exclude` says so"),
    _why(Code.MORE_WORK, "the fold would leave the model more to do: more nodes, or more element operations"),
    _why(
        Code.CANCELLATION,
        "the mean dwarfs the standard deviation, and would go behind the weights",
        "put the normalization behind the layer",
    ),
    _why(
        Code.NAME_CLASH,
        "a nested graph has another tensor of the same name",
        "give every tensor a name of its own",
    ),
    _why(
        Code.RESULTS_DIFFER,
        "verification found that results differ; `--keep-going` leaves the fold out",
        "please report it",
    ),
)

RULES = {rule.code: rule for rule in sorted((*FINDINGS, *REASONS), key=lambda rule: rule.code)}
