"""`check --format json` is a contract: within a version of the schema, keys and types stay."""

from __future__ import annotations

import json
from typing import Any

from support import gate

from bnfold.report import survey

# Keys may be added, here and in the code; to change or remove one is version 2.
FINDING = dict.fromkeys(("rule", "kind", "standing", "node", "op", "scope", "message", "hint"), "str")
GOLDEN = {
    "schema": "str",
    "bnfold": "str",
    "fail_on": ["str"],
    "exit_code": "int",
    "summary": {
        "models": "int",
        "failing": "int",
        "not_examined": "int",
        "excluded": "int",
        "normalizations": "int",
        "findings": dict.fromkeys(
            ("invalid", "mismatch", "nonfinite", "foldable", "slower", "inconclusive", "kept"), "int"
        ),
        "failing_findings": "int",
        "known_findings": "int",
        "gone": "int",
    },
    "models": [
        {
            "model": "str",
            "passes": "bool",
            "normalizations": "int",
            "fault": "NoneType",
            "findings": [FINDING],
        }
    ],
    "gone": [{"model": "str", "rule": "str", "node": "str", "scope": "str"}],
}


def structure(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {key: structure(each) for key, each in value.items()}
    if isinstance(value, list):
        return [structure(value[0])] if value else []
    return type(value).__name__


def test_the_structure() -> None:
    data = json.loads(survey.render(gate.survey()))
    data["models"] = data["models"][1:]  # the first has no findings
    assert structure(data) == GOLDEN
    assert list(data) == list(GOLDEN)


def test_the_numbers() -> None:
    data = survey.to_dict(gate.survey())
    assert data["schema"] == "bnfold.check/1"
    assert data["exit_code"] == 4
    assert data["summary"] == {
        "models": 5,
        "failing": 3,
        "not_examined": 1,
        "excluded": 2,
        "normalizations": 5,
        "findings": {
            "invalid": 1,
            "mismatch": 0,
            "nonfinite": 1,
            "foldable": 3,
            "slower": 0,
            "inconclusive": 0,
            "kept": 1,
        },
        "failing_findings": 3,
        "known_findings": 2,
        "gone": 1,
    }
    assert data["models"][4]["fault"] == "c/locked.onnx may not be read: no permission"


def test_names_come_back() -> None:
    data = json.loads(survey.render(gate.survey()))
    assert data["models"][1]["findings"][1]["node"] == gate.ODD
