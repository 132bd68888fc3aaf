"""SARIF 2.1.0, for code scanning.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, 27 March 2020; what GitHub
reads of it is in its documentation, "SARIF support for code scanning".
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bnfold.report.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.gate.finding import Finding, Judged, ModelJudgement, Standing, Survey
    from bnfold.report.rules import Rule

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: dict[Standing, str] = {"fails": "error", "known": "note", "noted": "note"}
_INDEX = {code: index for index, code in enumerate(RULES)}


def render(survey: Survey) -> str:
    """A log with one run; every finding is a result."""
    faults = [model for model in survey.models if model.fault]
    run = {
        "tool": {
            "driver": {
                "name": "bnfold",
                "version": survey.version,
                "semanticVersion": survey.version,
                "rules": [_rule(rule) for rule in RULES.values()],
            }
        },
        "automationDetails": {"id": "bnfold/"},
        "invocations": [
            {
                "executionSuccessful": not faults,
                "toolExecutionNotifications": [_notification(model) for model in faults],
            }
        ],
        "columnKind": "utf16CodeUnits",
        "results": list(_results(survey)),
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _rule(rule: Rule) -> dict[str, Any]:
    remedy = f"What helps: {rule.remedy}." if rule.remedy else "There is nothing to do about it."
    plain = remedy.replace("`", "")
    meaning = rule.meaning.replace("`", "")
    sentence = f"{meaning[0].upper()}{meaning[1:]}."
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": sentence},
        "fullDescription": {"text": f"{sentence} {plain}"},
        "help": {"text": f"{sentence} {plain}", "markdown": f"{sentence} {remedy}"},
        "defaultConfiguration": {"level": "note"},
    }


def _results(survey: Survey) -> Iterator[dict[str, Any]]:
    for model in survey.worst_first:
        seen: dict[str, int] = {}
        for each in model.findings:
            identity = fingerprint(model.name, each.finding)
            seen[identity] = seen.get(identity, 0) + 1
            yield _result(model, each, f"{identity}:{seen[identity]}")


def _result(model: ModelJudgement, judged: Judged, identity: str) -> dict[str, Any]:
    finding = judged.finding
    result = {
        "ruleId": finding.rule,
        "ruleIndex": _INDEX[finding.rule],
        "level": _LEVELS[judged.standing],
        "message": {"text": _message(finding)},
        "locations": [_location(model.name, finding)],
        # The second is the one that GitHub compares.
        "partialFingerprints": {"normalization/v1": identity, "primaryLocationLineHash": identity},
    }
    if judged.standing == "known":
        result["baselineState"] = "unchanged"
        result["suppressions"] = [{"kind": "external", "justification": "The baseline tolerates it."}]
    return result


def fingerprint(model: str, finding: Finding) -> str:
    """Names one normalization of one model, whatever is found about it, in any version of either."""
    text = f"{model}\0{finding.scope}\0{finding.node}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _message(finding: Finding) -> str:
    where = f"{finding.op} {finding.node!r}: " if finding.node else ""
    hint = f". What helps: {finding.hint}" if finding.hint else ""
    return f"{where}{finding.message}{hint}."


def _location(model: str, finding: Finding) -> dict[str, Any]:
    location: dict[str, Any] = {
        # A model has no lines; GitHub wants one.
        "physicalLocation": {"artifactLocation": _artifact(model), "region": {"startLine": 1}}
    }
    if finding.node:
        scope = f"{finding.scope} > " if finding.scope else ""
        location["logicalLocations"] = [
            {"name": finding.node, "fullyQualifiedName": f"{scope}{finding.node}", "kind": "object"}
        ]
    return location


def _artifact(model: str) -> dict[str, str]:
    path = PurePath(model)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    return {"uri": quote(os.fsencode(model)), "uriBaseId": "%SRCROOT%"}


def _notification(model: ModelJudgement) -> dict[str, Any]:
    return {
        "level": "error",
        "message": {"text": f"{model.name}: {model.fault}"},
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(model.name)}}],
    }
