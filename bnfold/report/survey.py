"""What the gate found as data: `--format json`, a contract like the report of one model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bnfold.gate.finding import Kind

if TYPE_CHECKING:
    from bnfold.gate.finding import Finding, Judged, ModelJudgement, Survey

SCHEMA = "bnfold.check/1"


def render(survey: Survey) -> str:
    """Strict JSON, keys in the order of the schema, and nothing that differs from run to run."""
    return json.dumps(to_dict(survey), indent=2, ensure_ascii=False)


def to_dict(survey: Survey) -> dict[str, Any]:
    """Plain data; keys are only ever added within one version of the schema."""
    findings = [each.finding for model in survey.models for each in model.findings]
    return {
        "schema": SCHEMA,
        "bnfold": survey.version,
        "fail_on": [kind.value for kind in survey.fail_on],
        "exit_code": survey.exit_code,
        "summary": {
            "models": len(survey.models),
            "failing": sum(not model.passes for model in survey.models),
            "not_examined": sum(bool(model.fault) for model in survey.models),
            "excluded": survey.excluded,
            "normalizations": sum(model.found for model in survey.models),
            "findings": {kind.value: sum(f.kind is kind for f in findings) for kind in Kind},
            "failing_findings": len(survey.failing),
            "known_findings": sum(len(model.having("known")) for model in survey.models),
            "gone": len(survey.gone),
        },
        "models": [_model(model) for model in survey.models],
        "gone": [
            {"model": each.model, "rule": each.rule, "node": each.node, "scope": each.scope}
            for each in survey.gone
        ],
    }


def _model(model: ModelJudgement) -> dict[str, Any]:
    return {
        "model": model.name,
        "passes": model.passes,
        "normalizations": model.found,
        "fault": model.fault or None,
        "findings": [_finding(each) for each in model.findings],
    }


def _finding(judged: Judged) -> dict[str, str]:
    finding: Finding = judged.finding
    return {
        "rule": finding.rule,
        "kind": finding.kind.value,
        "standing": judged.standing,
        "node": finding.node,
        "op": finding.op,
        "scope": finding.scope,
        "message": finding.message,
        "hint": finding.hint,
    }
