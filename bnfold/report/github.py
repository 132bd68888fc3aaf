"""Workflow commands of GitHub Actions: one annotation for each model that fails.

Source: GitHub's documentation, "Workflow commands for GitHub Actions" (escaping, `stop-commands`, step
summaries of at most 1 MiB) and "Usage limits" (10 annotations of one level for a step).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from bnfold.report import markdown
from bnfold.report.wording import by_kind, headline, sentence

if TYPE_CHECKING:
    from bnfold.gate.finding import ModelJudgement, Survey

ANNOTATIONS = 10
SUMMARY_BYTES = 1 << 20
_LINES = 20  # of one annotation


def render(survey: Survey, log: str) -> str:
    """What goes to the log of the step: `log`, in which no command is obeyed, then the annotations."""
    bad = [model for model in survey.worst_first if not model.passes]
    shown = bad if len(bad) <= ANNOTATIONS else bad[: ANNOTATIONS - 1]
    # A name of a node must not become a command. Nothing can contain its own digest.
    token = hashlib.sha256(log.encode("utf-8", "surrogateescape")).hexdigest()
    lines = [f"::stop-commands::{token}", log.rstrip("\n"), f"::{token}::", *map(_annotation, shown)]
    if len(shown) < len(bad):
        lines.append(_rest(bad[len(shown) :]))
    return "\n".join(lines)


def summary(survey: Survey, used: int) -> str:
    """The step summary; `used` bytes of its file are taken already."""
    return markdown.render(survey, limit=max(SUMMARY_BYTES - used, 0))


def _annotation(model: ModelJudgement) -> str:
    if model.fault:
        return _command(model.name, "bnfold could not examine this model", model.fault)
    failing = model.having("fails")
    lines = [sentence(finding) for finding in failing[:_LINES]]
    if len(failing) > _LINES:
        lines.append(f"... and {len(failing) - _LINES} more")
    return _command(model.name, f"bnfold: {headline(model)}", "\n".join(lines))


def _rest(models: list[ModelJudgement]) -> str:
    failing = [finding for model in models for finding in model.having("fails")]
    said = f"{len(models)} more models: {by_kind(failing)}; the summary of this step lists them"
    return f"::error title={_property('bnfold: more models fail')}::{_data(said)}"


def _command(file: str, title: str, message: str) -> str:
    return f"::error file={_property(file)},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
