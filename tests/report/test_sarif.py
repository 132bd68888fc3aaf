"""SARIF that code scanning takes: valid against the published schema, stable, complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import jsonschema
import pytest
from support import gate

from bnfold.fold.reasons import Code
from bnfold.gate.finding import Judged, Kind, ModelJudgement, Survey
from bnfold.report import sarif
from bnfold.report.formats import REPORTS
from bnfold.report.rules import RULES

if TYPE_CHECKING:
    from bnfold.report.schema import Report

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas" / "sarif-2.1.0-rtm.5.json").read_text("utf-8"))


def run(text: str) -> dict[str, Any]:
    """The one run of a valid log."""
    log = json.loads(text)
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    (only,) = log["runs"]
    assert isinstance(only, dict)
    return only


def test_the_schema_can_say_no() -> None:
    log = json.loads(sarif.render(gate.survey()))
    log["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft4Validator(SCHEMA).validate(log)


def test_every_finding_is_a_result() -> None:
    results = run(sarif.render(gate.survey()))["results"]
    assert [(r["ruleId"], r["level"]) for r in results] == [
        ("BNF002", "error"),
        ("BNF020", "error"),
        ("BNF001", "error"),
        ("BNF001", "note"),
        ("BNF019", "note"),
        ("BNF001", "note"),
    ]
    known = [r for r in results if "suppressions" in r]
    assert [r["baselineState"] for r in known] == ["unchanged"] * 2


def test_a_result_says_where() -> None:
    result = run(sarif.render(gate.survey()))["results"][2]
    (place,) = result["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {
            "uri": "a/folder%2C%20with%3A%20100%25%20odd/model.onnx",
            "uriBaseId": "%SRCROOT%",
        },
        "region": {"startLine": 1},
    }
    (logical,) = place["logicalLocations"]
    assert logical["name"] == gate.ODD
    assert logical["fullyQualifiedName"] == f"main graph > node 3 then_branch > {gate.ODD}"


def test_rules() -> None:
    """One for every code that there is, each with help; results point to them."""
    made = run(sarif.render(gate.survey()))
    rules = made["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted({*Code, "BNF001", "BNF002", "BNF030", "BNF031", "BNF032"})
    assert len({rule["name"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["name"].isalpha()
        assert rule["help"]["text"].endswith(".")
        assert rule["help"]["markdown"].endswith(".")
        assert "`" not in rule["help"]["text"]
    for result in made["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


def fingerprints(survey: Survey) -> list[str]:
    results = run(sarif.render(survey))["results"]
    assert all(len(set(r["partialFingerprints"].values())) == 1 for r in results)
    return [r["partialFingerprints"]["primaryLocationLineHash"] for r in results]


def one(name: str, *findings: Judged) -> Survey:
    return Survey("1", (), (ModelJudgement(name, 1, findings, ""),))


def test_fingerprints_name_the_model_and_the_normalization() -> None:
    """And nothing else: not the finding, not the version, not the other models."""
    before = fingerprints(one("m", Judged(gate.finding(), "fails")))
    assert before == ["e02c8792655a31cc8840dbc321119c79:1"]  # printf 'm\0\0bn' | sha256sum
    assert fingerprints(one("m", Judged(gate.finding(Kind.KEPT), "noted"))) == before
    assert fingerprints(one("n", Judged(gate.finding(), "fails"))) != before
    assert fingerprints(one("m", Judged(gate.finding(node="bn2"), "fails"))) != before
    assert fingerprints(one("m", Judged(gate.finding(scope="s"), "fails"))) != before


def test_fingerprints_are_unique() -> None:
    """Also where two normalizations have one name."""
    found = fingerprints(one("m", *[Judged(gate.finding(), "fails")] * 3))
    assert len(set(found)) == 3
    assert len({each.split(":")[0] for each in found}) == 1


def test_a_model_that_was_not_looked_at() -> None:
    made = run(sarif.render(gate.survey()))
    (invocation,) = made["invocations"]
    assert invocation["executionSuccessful"] is False
    (note,) = invocation["toolExecutionNotifications"]
    assert "no permission" in note["message"]["text"]
    fine = run(sarif.render(one("m")))
    assert fine["invocations"][0]["executionSuccessful"] is True


@pytest.mark.parametrize("name", ["/data/a b.onnx", "a/ü模.onnx", "b/\udcff.onnx", "a/#1?.onnx"])
def test_paths_are_uris(name: str) -> None:
    made = run(sarif.render(one(name, Judged(gate.finding(), "fails"))))
    artifact = made["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact["uri"].isascii()
    path = artifact["uri"].removeprefix("file://")
    assert unquote_to_bytes(path) == name.encode("utf-8", "surrogateescape")
    assert ("uriBaseId" in artifact) == (not name.startswith("/"))


def test_the_report_of_one_model(full: Report) -> None:
    """What stays is noted; what was folded is no finding any more."""
    results = run(REPORTS[".sarif"](full))["results"]
    assert [(r["ruleId"], r["level"]) for r in results] == [("BNF019", "note"), ("BNF022", "note")]


def test_the_report_of_an_inspection(full: Report) -> None:
    results = run(REPORTS[".sarif"](replace(full, after=None, output=None)))["results"]
    assert [r["ruleId"] for r in results] == ["BNF001", "BNF001", "BNF019", "BNF022"]


def test_rules_are_in_order() -> None:
    assert list(RULES) == sorted(RULES)
