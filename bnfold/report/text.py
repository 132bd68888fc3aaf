"""The report for a person at a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.fold.plan import Fold
    from bnfold.fold.reasons import Refusal
    from bnfold.report.schema import Report
    from bnfold.verify.verdict import OutputEvidence, Verdict

_STYLES = {"equivalent": "bold green", "different": "bold red"}
_KIB = 1024
_ROWS = 20


def render(report: Report, *, every_fold: bool = False) -> RenderableType:
    """The whole report; `every_fold` lists each normalization instead of counting them."""
    parts: list[RenderableType] = [_headline(report), _funnel(report)]
    if every_fold and report.folds:
        parts.append(_folds(report.folds))
    if report.kept:
        parts.append(_kept(report.kept))
    if report.verdict is not None:
        parts.extend(_verdict(report.verdict))
    parts.extend(Text(f"note: {note}") for note in report.notes)
    parts.append(_times(report))
    return Group(*parts)


def render_verdict(verdict: Verdict) -> RenderableType:
    """A verdict by itself."""
    return Group(*_verdict(verdict))


def _headline(report: Report) -> Text:
    name = report.source or "model in memory"
    line = Text.assemble((name, "bold"), f"  opset {report.opset}, IR {report.ir_version}")
    if report.producer:
        line.append(f", {report.producer}")
    return line


def _funnel(report: Report) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "BatchNormalization", f"{report.found} found, {len(report.folds)} folded, {len(report.kept)} kept"
    )
    into = Counter(fold.into_op for fold in report.folds)
    if into:
        table.add_row("folded into", ", ".join(f"{count} {op}" for op, count in into.most_common()))
    if report.after is not None:
        before, after = report.before, report.after
        table.add_row("nodes", f"{before.nodes} → {after.nodes}")
        table.add_row("size", f"{_bytes(before.nbytes)} → {_bytes(after.nbytes)}")
    if report.output is not None:
        table.add_row("written", report.output)
    return table


def _folds(folds: tuple[Fold, ...]) -> Table:
    table = Table(title="Folded", title_justify="left", box=None, pad_edge=False)
    for column in ("normalization", "into", "through"):
        table.add_column(column, overflow="fold")
    for fold in folds:
        table.add_row(_place(fold.node, fold.scope), f"{fold.into_op} {fold.into}", " → ".join(fold.through))
    return table


def _kept(kept: tuple[Refusal, ...]) -> Table:
    table = Table(title="Kept", title_justify="left", box=None, pad_edge=False)
    table.add_column("code", no_wrap=True)
    table.add_column("normalization", overflow="fold")
    table.add_column("reason", overflow="fold", ratio=1)
    for refusal in kept[:_ROWS]:
        reason = refusal.reason
        text = Text(reason.evidence)
        if reason.hint:
            text.append(f"\n→ {reason.hint}", style="dim")
        table.add_row(refusal.code.value, _place(refusal.node, refusal.scope), text)
    if len(kept) > _ROWS:
        table.add_row("", f"... and {len(kept) - _ROWS} more", "--report FILE.json has them all")
    return table


def _verdict(verdict: Verdict) -> list[RenderableType]:
    parts: list[RenderableType] = [
        Text.assemble((verdict.status, _STYLES.get(verdict.status, "bold yellow")), f": {verdict.summary}")
    ]
    worst = _worst(verdict.outputs)
    if worst:
        table = Table(box=None, pad_edge=False)
        for column in ("output", "level"):
            table.add_column(column, overflow="fold")
        for column in ("rms error, original", "folded", "max error, original", "folded"):
            table.add_column(column, justify="right")
        for each in worst:
            numbers = (each.original_rms, each.folded_rms, each.original_max, each.folded_max)
            table.add_row(each.output, each.level, *("-" if n is None else f"{n:.2e}" for n in numbers))
        parts.append(table)
    parts.extend(Text(f"note: {finding}") for finding in verdict.findings)
    return parts


def _worst(outputs: tuple[OutputEvidence, ...]) -> list[OutputEvidence]:
    """For each output and level the feed with the largest ratio of errors."""
    worst: dict[tuple[str, str], OutputEvidence] = {}
    for each in outputs:
        key = (each.output, each.level)
        if key not in worst or (each.ratio or 0.0) > (worst[key].ratio or 0.0):
            worst[key] = each
    return list(worst.values())[:_ROWS]


def _times(report: Report) -> Text:
    spent = report.seconds
    stages = {"read": spent.read, "plan": spent.plan, "write": spent.write, "verify": spent.verify}
    total = sum(stages.values())
    detail = ", ".join(f"{name} {value:.2f}" for name, value in stages.items() if value)
    return Text(f"{total:.2f} s ({detail})", style="dim")


def _place(node: str, scope: str) -> str:
    return f"{node}  [{scope}]" if scope else node


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < _KIB:
            return f"{size:.4g} {unit}"
        size /= _KIB
    return f"{size:.4g} GiB"
