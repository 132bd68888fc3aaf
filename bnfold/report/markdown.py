"""Markdown as GitHub and GitLab show it: step summaries, comments, artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnfold.report.wording import conclusion, gone_lines, headline, one_line, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bnfold.gate.finding import Finding, ModelJudgement, Standing, Survey

_DETAILS, _END = "\n<details><summary>", "\n</details>\n"
_MARKS: dict[Standing, str] = {"fails": "**fails**", "known": "known", "noted": ""}


def render(survey: Survey, *, limit: int | None = None) -> str:
    """The conclusion, a table of the models, then the findings of each, the worst first.

    Args:
        survey: what was found.
        limit: most bytes of UTF-8; what does not fit is left out from the end and counted.
    """
    return fitted([*_head(survey), *_sections(survey)], limit)


def fitted(pieces: Sequence[str], limit: int | None) -> str:
    """As many pieces as fit, and a line that says so where that is not all of them."""
    if limit is None or _size(pieces) <= limit:
        return "".join(pieces)
    told = "\n_There is more than fits here; a report file (`--report`) has all of it._\n"
    room = limit - len(told.encode())
    if any(piece.startswith(_DETAILS) for piece in pieces):
        room -= len(_END)
    if room < 0:
        return ""
    kept: list[str] = []
    for piece in pieces:
        room -= _size([piece])
        if room < 0:
            break
        kept.append(piece)
    hidden = sum(piece.startswith(_DETAILS) for piece in kept) > kept.count(_END)
    return "".join((*kept, *([_END] if hidden else []), told))


def _size(pieces: Sequence[str]) -> int:
    return sum(len(piece.encode("utf-8", "backslashreplace")) for piece in pieces)


def _head(survey: Survey) -> Iterator[str]:
    verdict = {0: "passed", 1: "failed", 5: "inconclusive"}.get(survey.exit_code, "broken")
    yield f"### bnfold: {verdict}\n\n{conclusion(survey)}\n"
    yield "\n| model | | |\n|---|---|---|\n"
    for model in survey.worst_first:
        state = "not examined" if model.fault else "passes" if model.passes else "**fails**"
        yield f"| {code(model.name)} | {state} | {plain(headline(model))} |\n"
    if survey.gone:
        yield "\nNo longer found, so that `--update-baseline` can forget it:\n\n"
        yield from (f"- {span(line)}\n" for line in gone_lines(survey))


def _sections(survey: Survey) -> Iterator[str]:
    for model in survey.worst_first:
        if model.findings:
            yield f"\n#### {span(model.name)}\n\n| | code | normalization | |\n|---|---|---|---|\n"
            yield from _rows(model)


def _rows(model: ModelJudgement) -> Iterator[str]:
    for each in model.findings:
        finding = each.finding
        cells = (_MARKS[each.standing], finding.rule, _where(finding), _what(finding))
        yield f"| {' | '.join(cells)} |\n"


def _where(finding: Finding) -> str:
    return code(place(finding)) if finding.node else ""


def _what(finding: Finding) -> str:
    return plain(f"{finding.message}. {finding.hint}." if finding.hint else f"{finding.message}.")


def details(summary: str, pieces: Iterable[str]) -> Iterator[str]:
    """Pieces that are there for who clicks on the summary."""
    yield f"{_DETAILS}{plain(summary)}</summary>\n"
    yield from pieces
    yield _END


def block(text: str) -> str:
    """A line of code by itself."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"\n{fence}sh\n{one_line(text)}\n{fence}\n"


def code(text: str) -> str:
    """A code span for a cell of a table, where a bar would end the cell."""
    return span(text).replace("|", "\\|")


def span(text: str) -> str:
    """A code span; nothing in it is markup."""
    line = one_line(text)
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _longest_run(line: str) -> int:
    """Of backticks."""
    return max((len(run) for run in re.findall("`+", line)), default=0)


def plain(text: str) -> str:
    """Text for a cell of a table, whatever names it quotes; no address in it becomes a link."""
    return re.sub(
        r"([\\`*_{}\[\]<>()#+!|~@&-]|:(?=//)|(?<=www)\.)", r"\\\1", one_line(text), flags=re.IGNORECASE
    )
