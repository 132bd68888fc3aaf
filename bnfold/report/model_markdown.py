"""The report of one model in Markdown, for a comment or a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnfold.report.markdown import code, plain, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.report.schema import Report


def render(report: Report) -> str:
    """What went, what stays and why, and the verdict."""
    return "".join(_parts(report))


def _parts(report: Report) -> Iterator[str]:
    yield f"### {span(report.source or 'model in memory')}\n\n"
    yield f"{report.found} BatchNormalization: {len(report.folds)} folded, {len(report.kept)} kept"
    if report.output is not None:
        yield f"; written to {span(report.output)}"
    yield ".\n"
    if report.verdict is not None:
        status = report.verdict.status
        said = report.verdict.summary.removeprefix(status).removeprefix(": ")
        yield f"\n**{status}**: {plain(said)}\n"
    if report.folds:
        yield "\n| folded | into |\n|---|---|\n"
        for fold in report.folds:
            into = ", ".join(f"{op} {code(name)}" for op, name in zip(fold.into_op, fold.into, strict=True))
            yield f"| {_place(fold.node, fold.scope)} | {into} |\n"
    if report.kept:
        yield "\n| kept | code | why | what helps |\n|---|---|---|---|\n"
        for refusal in report.kept:
            reason = refusal.reason
            place = _place(refusal.node, refusal.scope)
            yield f"| {place} | {refusal.code.value} | {plain(reason.evidence)} | {plain(reason.hint)} |\n"
    yield from (f"\n{plain(note)}\n" for note in report.notes)


def _place(node: str, scope: str) -> str:
    return f"{code(node)} in {code(scope)}" if scope else code(node)
