"""Write the README's table of operators from the one that bnfold works by.

python .ci/operators.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.fold.ops import TABLE

if TYPE_CHECKING:
    from bnfold.fold.operator import Operator

README = Path(__file__).parent.parent / "README.md"
HEAD = "| operator on the way | what it does with the map |\n|---|---|\n"


def table() -> str:
    """Markdown: a row for each kind of operator, those with weights first, then whoever else takes it in."""
    rows: dict[str, list[str]] = {}
    for name, operator in sorted(TABLE.items(), key=lambda item: _rank(item[1])):
        rows.setdefault(operator.summary, []).append(name)
    return HEAD + "".join(f"| {', '.join(names)} | {summary} |\n" for summary, names in rows.items())


def _rank(operator: Operator) -> tuple[bool, bool]:
    return not operator.linear, not operator.summary.startswith("takes it in")


def written(readme: str) -> str:
    """The README with the table in the place of the one it has."""
    return re.sub(re.escape(HEAD) + r"(?:\|.*\n)*", lambda _: table(), readme)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
