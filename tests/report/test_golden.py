"""Every rendering of what the gate found, byte for byte: whoever changes one sees here what changes.

`python tests/report/test_golden.py` writes the files anew; read the difference before you commit it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import gate

from bnfold.cli.output import encoded, plain_text
from bnfold.report import github, junit, markdown, sarif, survey, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GOLDEN = Path(__file__).parent / "golden"


def _sarif() -> str:
    """Without the rules, of which there will be more."""
    log = json.loads(sarif.render(gate.survey()))
    log["runs"][0]["tool"]["driver"]["rules"] = []
    for result in log["runs"][0]["results"]:
        del result["ruleIndex"]
    return json.dumps(log, indent=2, ensure_ascii=False)


MADE: Mapping[str, Callable[[], str]] = {
    "survey.json": lambda: survey.render(gate.survey()),
    "survey.sarif": _sarif,
    "survey.xml": lambda: junit.render(gate.survey()),
    "survey.md": lambda: markdown.render(gate.survey()),
    "github.txt": lambda: github.render(gate.survey(), "the log\n"),
    "table.txt": lambda: plain_text(table.render(gate.survey())),
}


@pytest.mark.parametrize("name", MADE)
def test_renderings(name: str) -> None:
    assert encoded(MADE[name]()) == (GOLDEN / name).read_bytes()


def test_nothing_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(MADE)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each, make in MADE.items():
        (GOLDEN / each).write_bytes(encoded(make()))
