"""Findings in words: one line for each, the same in every rendering."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from bnfold.gate.finding import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnfold.gate.finding import Finding, ModelJudgement, Survey

# Controls, marks of direction and width, separators of lines, and what is no character at all. A list, since
# what Python takes for printable differs between its versions.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_GONE_NAMES = 3  # more than these are only counted
_COUNTED = {
    Kind.INVALID: "invalid",
    Kind.MISMATCH: "differs when folded",
    Kind.NONFINITE: "{} with broken statistics",
    Kind.FOLDABLE: "bnfold optimize folds {}",
    Kind.SLOWER: "slower when folded",
    Kind.INCONCLUSIVE: "without a verdict",
    Kind.KEPT: "{} must stay",
}


def headline(model: ModelJudgement) -> str:
    """What is to be said of a model in one clause."""
    if model.fault:
        return model.fault
    counted = Counter(each.finding.kind for each in model.findings)
    parts = [_COUNTED[kind].format(counted[kind]) for kind in Kind if counted[kind]]
    if Kind.INVALID not in counted:
        parts.insert(0, f"{model.found or 'no'} BatchNormalization")
    known = len(model.having("known"))
    return ", ".join(parts) + (f" ({known} known)" if known else "")


def place(finding: Finding) -> str:
    """Where it is in the model; empty where it is about all of it."""
    return f"{finding.node}  [{finding.scope}]" if finding.scope else finding.node


def sentence(finding: Finding) -> str:
    """A finding in one line."""
    where = f"{place(finding)}: " if finding.node else ""
    hint = f"; {finding.hint}" if finding.hint else ""
    return one_line(f"{finding.rule} {where}{finding.message}{hint}")


def one_line(text: str) -> str:
    """Text in which nothing breaks the line or talks to a terminal."""
    return _UNSEEN.sub(lambda match: ascii(match[0])[1:-1], text)


def by_kind(findings: Iterable[Finding]) -> str:
    """How many of each kind: `foldable 3, invalid 1`."""
    counted = Counter(finding.kind for finding in findings)
    return ", ".join(f"{kind.value} {counted[kind]}" for kind in Kind if counted[kind])


def conclusion(survey: Survey) -> str:
    """The whole run in one line."""
    total = len(survey.models)
    parts = [f"{total} model{'s' * (total != 1)}"]
    failing = sum(not model.passes and not model.fault for model in survey.models)
    faults = sum(bool(model.fault) for model in survey.models)
    if failing:
        parts.append(f"{failing} failing ({by_kind(survey.failing)})")
    if faults:
        parts.append(f"{faults} not examined")
    if not failing and not faults:
        parts.append("none failing")
    known = sum(len(model.having("known")) for model in survey.models)
    parts += [f"{known} known to the baseline"] * bool(known)
    parts += [f"{survey.excluded} excluded"] * bool(survey.excluded)
    return ", ".join(parts)


def gone_lines(survey: Survey) -> list[str]:
    """Entries of the baseline that are out of date: a line for each model and code."""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in survey.gone:
        groups.setdefault((each.model, each.rule), []).append(each.node)
    lines = []
    for (model, rule), nodes in groups.items():
        more = f", and {len(nodes) - _GONE_NAMES} more" if len(nodes) > _GONE_NAMES else ""
        lines.append(one_line(f"{model}: {rule} {', '.join(nodes[:_GONE_NAMES])}{more}".rstrip()))
    return lines


def shortened(text: str, letters: int) -> str:
    """A text of at most so many letters; beginning and end tell names apart, the middle goes."""
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}\u2026{text[len(text) - end :]}"


def level_name(level: str) -> str:
    """Where results come from: `OutputEvidence.level`, `LevelResult.level`."""
    return f"onnxruntime {level.upper()}" if level.startswith(("disable", "enable")) else level
