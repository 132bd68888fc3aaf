"""The report for a person at a terminal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bnfold.report.benchmark import render_speed
from bnfold.report.evidence import relative, telling
from bnfold.report.units import binary_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from bnfold.fold.folded import Fold
    from bnfold.fold.reasons import Code, Refusal
    from bnfold.report.schema import Report
    from bnfold.verification.measures import Closeness
    from bnfold.verification.verdict import FoldEvidence, OutputEvidence, Verdict

_STYLES = {"equivalent": "bold green", "different": "bold red"}
_GROUP_ROWS = 5  # of each reason, unless the reader asked for everything
_FOLD_ROWS = 10
_SHOWN_SECONDS = 0.005  # less reads 0.00


def render(report: Report, *, every: bool = False) -> RenderableType:
    """The whole report; `every` lists each normalization instead of counting those that are alike."""
    parts: list[RenderableType] = [_headline(report), _funnel(report)]
    if every and report.folds:
        parts += [Text(), Text("Folded", style="bold"), _folds(report.folds)]
    if report.kept:
        parts += [Text(), Text("Kept", style="bold"), *_kept(report.kept, every=every)]
    if report.verdict is not None:
        parts += [Text(), *_verdict(report.verdict)]
    if report.benchmark is not None:
        parts += [Text(), render_speed(report.benchmark), Text()]
    parts += [Text(f"note: {note}") for note in report.notes]
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
    table = _columns()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "BatchNormalization", f"{report.found} found, {len(report.folds)} folded, {len(report.kept)} kept"
    )
    into = Counter(op for fold in report.folds for op in fold.into_op)
    if into:
        table.add_row("folded into", ", ".join(f"{count} {op}" for op, count in into.most_common()))
    if report.merged:
        table.add_row("merged", f"{len(report.merged)} sums of parallel branches")
    if report.after is not None:
        before, after = report.before, report.after
        table.add_row("nodes", f"{before.nodes} -> {after.nodes}")
        table.add_row("size", f"{binary_size(before.nbytes)} -> {binary_size(after.nbytes)}")
        table.add_row("written", report.output or Text("nothing", style="bold"))
    return table


def _folds(folds: tuple[Fold, ...]) -> RenderableType:
    table = _columns()
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for fold in folds:
        into = Text.assemble(
            ("-> ", "dim"),
            ", ".join(f"{op} {name}" for op, name in zip(fold.into_op, fold.into, strict=True)),
        )
        if fold.through:
            into.append(f" through {', '.join(fold.through)}", style="dim")
        table.add_row(_place(fold.node, fold.scope), into)
    return Padding(table, (0, 0, 0, 2))


def _kept(kept: tuple[Refusal, ...], *, every: bool) -> list[RenderableType]:
    """Those with one reason and one remedy together: nobody reads the same hint fifty times."""
    groups: dict[tuple[Code, str], list[Refusal]] = {}
    for refusal in sorted(kept, key=lambda r: r.code):
        groups.setdefault((refusal.code, refusal.reason.hint), []).append(refusal)
    parts: list[RenderableType] = []
    for (code, hint), refusals in groups.items():
        meaning = code.name.lower().replace("_", " ")
        parts.append(Text.assemble("  ", (code.value, "yellow"), f" {meaning} ({len(refusals)})"))
        if hint:
            parts.append(Padding(Text(f"hint: {hint}", style="cyan"), (0, 0, 0, 4)))
        shown = len(refusals) if every or len(refusals) <= _GROUP_ROWS + 1 else _GROUP_ROWS
        table = _columns()
        table.add_column(overflow="fold")
        table.add_column(overflow="fold", style="dim")
        for refusal in refusals[:shown]:
            table.add_row(_place(refusal.node, refusal.scope), refusal.reason.evidence)
        if shown < len(refusals):
            table.add_row(f"... and {len(refusals) - shown} more", "`bnfold inspect` lists them")
        parts.append(Padding(table, (0, 0, 0, 4)))
    return parts


def _verdict(verdict: Verdict) -> list[RenderableType]:
    said = verdict.summary.removeprefix(verdict.status).removeprefix(": ")
    parts: list[RenderableType] = [
        Text.assemble((verdict.status, _STYLES.get(verdict.status, "bold yellow")), f": {said}")
    ]
    rows = telling(verdict.outputs)
    if rows:
        parts.append(_errors(rows, several=len({row.output for row in verdict.outputs}) > 1))
    if verdict.per_fold:
        parts.append(_per_fold(verdict.per_fold))
    parts += [Text(f"note: {finding}") for finding in verdict.findings]
    return parts


def _per_fold(found: tuple[FoldEvidence, ...]) -> RenderableType:
    """The folds by themselves: the worst, and how many there are besides."""
    table = _columns(header=True)
    table.add_column("fold by fold", overflow="fold")
    for column in ("original", "error/signal", "dB", "ulp 99%"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("compared", style="dim", overflow="fold")
    measured = [each for each in found if each.tensor]
    for each in measured[:_FOLD_ROWS]:
        ratio = "exact" if each.sqnr_db is None else f"{each.sqnr_db:.0f}"
        ulps = "-" if each.ulp_p99 is None else f"{each.ulp_p99:.2g}"
        compared = f"{each.tensor} with {each.against}" + (f"; {each.note}" if each.note else "")
        error = "-" if each.relative_l2 is None else f"{each.relative_l2:.1e}"
        own = relative(each.original_rms, each.signal_rms)
        table.add_row(_place(each.node, each.scope), own, error, ratio, ulps, compared)
    if len(measured) > _FOLD_ROWS:
        table.add_row(
            f"... and {len(measured) - _FOLD_ROWS} more", "", "", "", "", "the JSON report lists them"
        )
    for why, count in Counter(each.note for each in found if not each.tensor).items():
        table.add_row(f"{count} not captured", "", "", "", "", why)
    return table


def _errors(rows: Sequence[OutputEvidence], *, several: bool) -> RenderableType:
    """Where, and the RMS errors: of the original by rounding alone, of the result, and the most it may have.

    Relative to the RMS of the output, so that 1e-7 means the same for every model. Then the result's signal
    to noise ratio, the distance that 99 of 100 values keep, and how often a classifier chooses as truth does.
    """
    table = _columns(header=True)
    table.add_column("error/signal", overflow="fold")
    for column in ("original", "folded", "allowed", "dB", "ulp 99%"):
        table.add_column(column, justify="right", no_wrap=True)
    chooses = any(row.folded is not None and row.folded.top1 is not None for row in rows)
    if chooses:
        table.add_column("top-1", justify="right", no_wrap=True)
    remarks = [_remark(row, several=several) for row in rows]
    if any(remarks):
        table.add_column(overflow="fold", style="dim")
    for row, remark in zip(rows, remarks, strict=True):
        level = row.level.upper() if row.level.endswith("_all") else row.level
        numbers = (row.original_rms, row.folded_rms, row.limit_rms)
        cells = [level, *(relative(n, row.signal_rms) for n in numbers), *_closeness(row.folded)]
        table.add_row(*cells[: 7 if chooses else 6], *([remark] if any(remarks) else []))
    return table


def _closeness(measures: Closeness | None) -> tuple[str, str, str]:
    """Signal to noise ratio, 99 % quantile of the distance, and agreement of the first choice."""
    if measures is None:
        return "-", "-", "-"
    ratio = "exact" if measures.relative_l2 == 0 else "-"
    if measures.sqnr_db is not None:
        ratio = f"{measures.sqnr_db:.0f}"
    ulps = "-" if measures.ulp_p99 is None else f"{measures.ulp_p99:.2g}"
    return ratio, ulps, "-" if measures.top1 is None else f"{measures.top1:.4g}"


def _remark(row: OutputEvidence, *, several: bool) -> str:
    """What tells this row from others, and what is odd about it."""
    doubtful = row.outcome != "pass"
    parts = [row.output] * (several or doubtful) + [row.feed] * doubtful
    parts += [row.note or row.outcome] if row.note or row.outcome == "ill-conditioned" else []
    return ", ".join(parts)


def _times(report: Report) -> Text:
    spent = report.seconds
    stages = {"read": spent.read, "plan": spent.plan, "write": spent.write, "verify": spent.verify}
    stages["bench"] = spent.bench
    detail = ", ".join(f"{name} {value:.2f}" for name, value in stages.items() if value >= _SHOWN_SECONDS)
    return Text(f"{sum(stages.values()):.2f} s" + (f" ({detail})" if detail else ""), style="dim")


def _columns(*, header: bool = False) -> Table:
    return Table(box=None, show_header=header, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def _place(node: str, scope: str) -> str:
    return f"{node}  [{scope}]" if scope else node
