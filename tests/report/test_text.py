"""What a person must find in the text; its layout is free to change."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from bnfold.fold.reasons import Code, Reason, Refusal
from bnfold.report.schema import Report, Size
from bnfold.report.text import render, render_verdict
from bnfold.verification.measures import Closeness


def text(renderable: RenderableType, width: int = 200) -> str:
    console = Console(file=StringIO(), width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def line(report: Report, start: str) -> str:
    """The rest of the line that starts so."""
    found = [each for each in text(render(report)).splitlines() if each.strip().startswith(start)]
    assert len(found) == 1, found
    return found[0].strip().removeprefix(start).strip()


def test_the_first_line_says_which_model(full: Report) -> None:
    first = text(render(full)).splitlines()[0]
    assert first == "folder/model.onnx  opset 17, IR 8, exporter 4.5"


def test_the_funnel(full: Report) -> None:
    assert line(full, "BatchNormalization") == "4 found, 2 folded, 2 kept"
    assert line(full, "folded into") == "2 Gemm, 1 Conv"
    assert line(full, "nodes") == "20 -> 15"
    assert line(full, "size") == "3.0 MiB -> 2.0 KiB"
    assert line(full, "written") == "folder/model.folded.onnx"


def test_nothing_written_is_said(full: Report) -> None:
    assert line(replace(full, output=None), "written") == "nothing"


@pytest.mark.parametrize(
    ("nbytes", "says"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 42, "4096.0 GiB"),
    ],
)
def test_sizes(full: Report, nbytes: int, says: str) -> None:
    assert line(replace(full, after=Size(1, nbytes)), "size") == f"3.0 MiB -> {says}"


def test_every_reason_has_its_code_evidence_and_hint(full: Report) -> None:
    lines = text(render(full)).splitlines()
    start = lines.index("Kept")
    assert [each.split() for each in lines[start + 1 : start + 6]] == [
        ["BNF019", "no", "linear", "neighbour", "(1)"],
        ["bn2", "it", "follows", "Relu", "'relu'"],
        ["BNF022", "overridable", "(1)"],
        ["hint:", "run", "with", "--freeze"],
        ["bn3", "[function", "f]", "the", "weight", "of", "Conv", "'c'", "may", "be", "overridden"],
    ]


def test_folds_are_listed_on_demand(full: Report) -> None:
    assert "bn1" not in text(render(full))
    everything = text(render(full, every=True))
    assert "bn0" in everything
    assert "-> Conv conv0" in everything
    assert "bn1  [body of If 'if']  -> Gemm gemm, Gemm gemm2 through flat" in everything


def many(full: Report, count: int) -> Report:
    reasons = (Reason(Code.NO_LINEAR_NEIGHBOUR, "x", "no weights"),)
    return replace(
        full, kept=tuple(Refusal(f"bn{i}", "BatchNormalization", "", reasons) for i in range(count))
    )


def test_alike_reasons_are_counted(full: Report) -> None:
    short = text(render(many(full, 500)))
    assert "(500)" in short
    assert "and 495 more" in short
    assert len(short.splitlines()) < 30
    everything = text(render(many(full, 500), every=True))
    assert all(f"bn{i} " in everything for i in range(500))


@pytest.mark.parametrize("count", [1, 5, 6])
def test_a_line_is_not_spent_on_saying_one_more(full: Report, count: int) -> None:
    assert "more" not in text(render(many(full, count)))


def test_the_verdict_and_both_errors(full: Report) -> None:
    assert full.verdict is not None
    said = text(render(full))
    assert full.verdict.summary in said
    assert "equivalent: equivalent" not in said
    for words in ("original", "folded", "allowed", "DISABLE_ALL", "ENABLE_ALL", "float64"):
        assert words in said


def test_a_failed_comparison_is_shown_before_all_others(full: Report) -> None:
    """By name, feed, both errors and what was allowed, relative to the signal."""
    assert full.verdict is not None
    row = replace(
        full.verdict.outputs[0],
        level="disable_all",
        output="logits",
        feed="zeros",
        outcome="fail",
        note="seen",
        signal_rms=2.0,
        original_rms=2e-7,
        folded_rms=1.0,
        limit_rms=6e-7,
        folded=Closeness(0.5, 6.02, 0.9, 3.0, 1234.0, 5000.0, 0.25),
    )
    verdict = replace(
        full.verdict, status="different", summary="different: logits", outputs=(*full.verdict.outputs, row)
    )
    lines = text(render_verdict(verdict)).splitlines()
    assert lines[0] == "different: logits"
    assert lines[2].split() == [
        "DISABLE_ALL",
        "1.0e-07",
        "5.0e-01",
        "3.0e-07",
        "6",
        "1.2e+03",
        "0.25",
        "logits,",
        "zeros,",
        "seen",
    ]


def test_the_worst_comes_first(full: Report) -> None:
    assert full.verdict is not None
    base = replace(full.verdict.outputs[0], outcome="fail", signal_rms=1.0, limit_rms=1e-6, folded_max=None)
    rows = tuple(replace(base, folded_rms=error, note=f"seen {error}") for error in (2e-6, 5.0, 1e-3))
    lines = text(render_verdict(replace(full.verdict, outputs=rows))).splitlines()
    assert [each.split()[-1] for each in lines[2:5]] == ["5.0", "0.001", "2e-06"]


def test_no_difference_is_called_exact(full: Report) -> None:
    assert full.verdict is not None
    same = Closeness(0.0, None, 1.0, 0.0, 0.0, 0.0, None)
    row = replace(full.verdict.outputs[0], folded_rms=0.0, folded=same)
    said = text(render_verdict(replace(full.verdict, outputs=(row,)))).splitlines()
    assert "exact" in said[2].split()
    assert "top-1" not in said[1]


def test_a_signal_of_zero_gives_absolute_errors(full: Report) -> None:
    assert full.verdict is not None
    row = replace(full.verdict.outputs[0], signal_rms=0.0, original_rms=0.0, folded_rms=1e-9, outcome="fail")
    assert "1.0e-09 absolute" in text(render_verdict(replace(full.verdict, outputs=(row,))))


def test_notes_and_times(full: Report) -> None:
    said = text(render(full))
    assert "note: a note of the run" in said
    assert said.splitlines()[-1] == "2.88 s (read 0.25, plan 0.50, write 0.12, verify 2.00)"


def test_a_model_in_memory(bare: Report) -> None:
    said = text(render(bare))
    assert said.startswith("model in memory  opset 17, IR 8\n")
    assert "0 found, 0 folded, 0 kept" in said
    assert "Kept" not in said


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_it_fits(full: Report, width: int) -> None:
    for every in (False, True):
        assert max(map(len, text(render(many(full, 50), every=every), width).splitlines())) <= width
