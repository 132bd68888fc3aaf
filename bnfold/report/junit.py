"""JUnit XML, as Jenkins and GitLab read it: a model is a test, which fails, errs or passes.

Source: the schema of Jenkins' xUnit plugin, and GitLab's documentation, "Unit test reports".
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from bnfold.report.wording import headline, one_line, sentence

if TYPE_CHECKING:
    from bnfold.gate.finding import ModelJudgement, Survey


def render(survey: Survey) -> str:
    """A suite with one case for every model."""
    counts = {
        "tests": str(len(survey.models)),
        "failures": str(sum(not m.fault and not m.passes for m in survey.models)),
        "errors": str(sum(bool(m.fault) for m in survey.models)),
        "skipped": "0",
    }
    suites = ET.Element("testsuites", {"name": "bnfold", **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": "bnfold", **counts})
    for model in survey.models:
        _case(suite, model)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode")


def _case(suite: ET.Element, model: ModelJudgement) -> None:
    # One line each: what `one_line` leaves, XML can hold.
    name = one_line(model.name)
    case = ET.SubElement(suite, "testcase", {"classname": "bnfold", "name": name, "file": name})
    failing = model.having("fails")
    if model.fault:
        error = ET.SubElement(case, "error", {"message": one_line(model.fault), "type": "fault"})
        error.text = one_line(model.fault)
    elif failing:
        about = {"message": one_line(headline(model)), "type": failing[0].rule}
        ET.SubElement(case, "failure", about).text = "\n".join(map(sentence, failing))
    rest = [*map(sentence, model.having("known")), *map(sentence, model.having("noted"))]
    if rest:
        ET.SubElement(case, "system-out").text = "\n".join(rest)
