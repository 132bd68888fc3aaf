"""Markdown, read back by a parser: names stay names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from support import gate

from bnfold.gate.finding import Gone, Survey
from bnfold.report import markdown
from bnfold.report.formats import BENCHMARKS, REPORTS

if TYPE_CHECKING:
    from markdown_it.token import Token

    from bnfold.benchmarking.result import Benchmark
    from bnfold.report.schema import Report


def tokens(text: str) -> list[Token]:
    """As GitHub reads it, tables and raw HTML included."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def cells(text: str) -> list[list[str]]:
    """The rows of all tables, headers left out, each cell as a reader sees it."""
    rows: list[list[str]] = []
    body = False
    for token in tokens(text):
        body = {"tbody_open": True, "tbody_close": False}.get(token.type, body)
        if token.type == "tr_open" and body:
            rows.append([])
        if token.type == "inline" and body:
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


def test_every_model_and_every_finding() -> None:
    rows = cells(markdown.render(gate.survey()))
    assert rows[:5] == [
        ["c/locked.onnx", "not examined", "c/locked.onnx may not be read: no permission"],
        ["b/invalid.onnx", "fails", "invalid"],
        [
            "a/folder, with: 100% odd/model.onnx",
            "fails",
            "4 BatchNormalization, 1 with broken statistics, bnfold optimize folds 2, 1 must stay (1 known)",
        ],
        ["a/clean.onnx", "passes", "no BatchNormalization"],
        ["b/known.onnx", "passes", "1 BatchNormalization, bnfold optimize folds 1 (1 known)"],
    ]
    assert [(row[0], row[1]) for row in rows[5:]] == [
        ("fails", "BNF002"),
        ("fails", "BNF020"),
        ("fails", "BNF001"),
        ("known", "BNF001"),
        ("", "BNF019"),
        ("known", "BNF001"),
    ]


def test_what_is_gone_is_counted() -> None:
    gone = tuple(Gone(f"m{i % 2}.onnx", "BNF001", f"bn{i}", "") for i in range(12))
    made = markdown.render(Survey("1", (), (), gone))
    assert [line for line in made.splitlines() if line.startswith("- ")] == [
        "- `m0.onnx: BNF001 bn0, bn2, bn4, and 3 more`",
        "- `m1.onnx: BNF001 bn1, bn3, bn5, and 3 more`",
    ]


def test_names_are_no_markup() -> None:
    made = markdown.render(gate.survey())
    (row,) = (row for row in cells(made) if "then_branch" in "".join(row))
    assert row[2] == r"""a|b`c\n::error::x,%<b>&"]]>\x1b[31m\x00é模:😀  [main graph > node 3 then_branch]"""
    inline = [child for token in tokens(made) for child in token.children or ()]
    assert not [child for child in inline if child.type in {"html_inline", "link_open", "image"}]
    assert not [token for token in tokens(made) if token.type == "html_block"]


def test_code_spans() -> None:
    for text in ("a", "`", "``", "a`", "`a", "a``b`c", "a|b", " a ", "*x*", "<b>"):
        (row,) = cells(f"| h |\n|---|\n| {markdown.code(text)} |\n")
        assert row == [text] or row == [text.strip()]
        (heading,) = (t for t in tokens(f"# {markdown.span(text)}\n") if t.type == "inline")
        assert "".join(child.content for child in heading.children or ()).strip() == text.strip()


def test_what_does_not_fit_is_cut_between_rows() -> None:
    whole = markdown.render(gate.survey())
    told = "_There is more than fits here; a report file (`--report`) has all of it._\n"
    for limit in range(0, len(whole.encode()), 7):
        made = markdown.render(gate.survey(), limit=limit)
        assert len(made.encode()) <= limit
        if made:
            assert made.endswith(told)
            assert whole.startswith(made.removesuffix("\n" + told))


def test_the_report_of_one_model(full: Report) -> None:
    made = REPORTS[".md"](full)
    said = "4 BatchNormalization: 2 folded, 2 kept; 20 -> 15 nodes, 3.0 MiB -> 2.0 KiB; written to "
    assert f"{said}`folder/model.folded.onnx`.\n" in made
    rows = cells(made)
    levels = {"onnxruntime ENABLE_ALL", "onnxruntime DISABLE_ALL", "float64"}
    assert {row[0] for row in rows[:3]} == levels
    assert rows[3] == ["bn2", "BNF019", "it follows Relu 'relu'", ""]
    assert rows[5] == ["bn0", "Conv conv0"]
    assert rows[6] == ["bn1 in body of If 'if'", "Gemm gemm, Gemm gemm2"]
    assert re.search(r"^\*\*equivalent\*\*: ", made, flags=re.MULTILINE)
    assert "a note of the run" in made


def test_a_benchmark(full: Report, benchmark: Benchmark) -> None:
    made = REPORTS[".md"](replace(full, benchmark=benchmark))
    (timing,) = (row for row in cells(made) if row[:2] == ["DISABLE_ALL", "batch 8"])
    assert timing[2:] == ["faster", "1.250", "1.200 to 1.300", "0.990 to 1.020", "12.5", "10"]
    (brief,) = (row for row in cells(made) if row[0] == "ENABLE_BASIC")
    assert brief[2:6] == ["too few", "", "", ""]
    assert "died of SIGSEGV" in made
    alone = BENCHMARKS[".md"](benchmark)
    assert alone.startswith("### `model in memory` beside `folder/model.onnx`\n")
    assert cells(alone) == [
        row for row in cells(made) if row[0] in {"DISABLE_ALL", "ENABLE_BASIC", "ENABLE_ALL"}
    ]


def test_many_folds_are_folded_away(full: Report) -> None:
    """Twenty rows are a table, more are a table for who asks for it."""
    for count, hidden in ((20, ["To repeat it"]), (21, ["To repeat it", "21 folded"])):
        folds = tuple(replace(full.folds[0], node=f"bn{i}") for i in range(count))
        made = REPORTS[".md"](replace(full, folds=folds))
        assert re.findall("<details><summary>(.*)</summary>", made) == hidden
        assert made.count("\n</details>\n") == len(hidden)
        assert len([row for row in cells(made) if row[1] == "Conv conv0"]) == count


def test_many_that_stay_are_counted_by_code(full: Report) -> None:
    made = REPORTS[".md"](replace(full, kept=(full.kept[0],) * 30 + (full.kept[1],) * 2))
    assert re.findall("<details><summary>(.*)</summary>", made)[0] == "32 kept: 30 BNF019, 2 BNF022"
    assert len([row for row in cells(made) if row[1].startswith("BNF")]) == 32


def test_how_to_repeat_it(full: Report, benchmark: Benchmark) -> None:
    made = REPORTS[".md"](replace(full, source="it's `a` ```model```.onnx"))
    (block,) = [token for token in tokens(made) if token.type == "fence"]
    assert block.content.startswith("""bnfold optimize 'it'"'"'s `a` ```model```.onnx' -o """)
    assert "sha256 of model: " + "0" * 64 in made
    assert "sha256 of result: " + "1" * 64 in made
    assert "onnx 9.9" in made
    named = replace(
        benchmark,
        b=replace(benchmark.b, source="b.onnx"),
        options={"levels": ["disable_all", "enable_basic", "enable_all"], "batches": [], "inputs": []},
    )
    (block,) = [token for token in tokens(BENCHMARKS[".md"](named)) if token.type == "fence"]
    assert block.content == "bnfold bench folder/model.onnx b.onnx\n"


def test_no_address_becomes_a_link() -> None:
    for text in ("https://host/x", "HTTP://host", "see www.host.example", "WWW.host", "a@host.example"):
        made = markdown.plain(text)
        assert not re.search(r"(?<!\\)://|www\.|(?<!\\)@", made, flags=re.IGNORECASE)
        (inline,) = (token for token in tokens(made) if token.type == "inline")
        assert "".join(child.content for child in inline.children or ()) == text


def test_it_fits_a_comment(full: Report) -> None:
    """GitHub takes 65,536 characters; what matters comes first, and the end says that it is not all."""
    folds = tuple(replace(full.folds[0], node=f"bn{'x' * 900}{i}") for i in range(900))
    made = REPORTS[".md"](replace(full, folds=folds))
    assert len(made) < 65_536
    assert made.rstrip().endswith("_There is more than fits here; a report file (`--report`) has all of it._")
    assert "BNF022" in made
    assert "**equivalent**" in made
    assert made.count("<details>") == made.count("</details>") == 2
    rows = [row for row in cells(made) if row[0].startswith("bn")]
    assert len(rows) > 100
    assert all(len(row) in {2, 4} for row in rows)


def test_the_report_of_a_bare_model(bare: Report) -> None:
    assert REPORTS[".md"](bare).startswith("### `model in memory`\n\n0 BatchNormalization")
