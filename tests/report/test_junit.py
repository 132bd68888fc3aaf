"""JUnit XML, read by a parser of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import junitparser
from support import gate

from bnfold.gate.finding import Judged, ModelJudgement, Survey
from bnfold.report import junit
from bnfold.report.formats import REPORTS
from bnfold.verification.verdict import Verdict

if TYPE_CHECKING:
    from bnfold.report.schema import Report


def suite(text: str) -> junitparser.TestSuite:
    """The one suite; what its head counts is what it holds."""
    read = junitparser.JUnitXml.fromstring(text.encode())
    assert isinstance(read, junitparser.JUnitXml)
    (only,) = read
    assert isinstance(only, junitparser.TestSuite)
    head = (only.tests, only.failures, only.errors, only.skipped)
    assert (read.tests, read.failures, read.errors, read.skipped) == head
    results = [type(result) for case in only for result in case.result]
    kinds = (junitparser.Failure, junitparser.Error, junitparser.Skipped)
    assert head == (len(list(only)), *(results.count(kind) for kind in kinds))
    return only


def test_a_model_is_a_test() -> None:
    cases = list(suite(junit.render(gate.survey())))
    assert [(case.name, [type(r).__name__ for r in case.result]) for case in cases] == [
        ("a/clean.onnx", []),
        ("a/folder, with: 100% odd/model.onnx", ["Failure"]),
        ("b/invalid.onnx", ["Failure"]),
        ("b/known.onnx", []),
        ("c/locked.onnx", ["Error"]),
    ]


def test_a_failure_lists_what_fails() -> None:
    case = list(suite(junit.render(gate.survey())))[1]
    (failure,) = case.result
    assert failure.type == "BNF020"
    assert failure.message == (
        "4 BatchNormalization, 1 with broken statistics, bnfold optimize folds 2, 1 must stay (1 known)"
    )
    lines = failure.text.splitlines()
    assert [line.split()[0] for line in lines] == ["BNF020", "BNF001"]
    assert r"\n::error::x" in lines[1]
    assert [line.split()[0] for line in case.system_out.splitlines()] == ["BNF001", "BNF019"]


def test_names_that_xml_cannot_hold() -> None:
    name = "".join(map(chr, [*range(0x300), 0xD800, 0xDCFF, 0xFFFE, 0xFFFF, 0x10FFFF]))
    odd = ModelJudgement(name, 1, (Judged(gate.finding(node=name), "fails"),), "")
    fault = ModelJudgement(name, 0, (), name)
    cases = list(suite(junit.render(Survey("1", (), (odd, fault)))))
    assert len(cases) == 2
    assert r"\x00" in (cases[0].name or "")


def test_the_report_of_one_model(full: Report) -> None:
    (case,) = suite(REPORTS[".xml"](full))
    assert (case.name, case.result) == ("folder/model.onnx", [])
    assert "BNF019" in case.system_out
    differs = Verdict("different", "output y differs", (), (), (), "", 0, 0.0)
    (case,) = suite(REPORTS[".xml"](replace(full, verdict=differs)))
    assert [r.type for r in case.result] == ["BNF030"]
