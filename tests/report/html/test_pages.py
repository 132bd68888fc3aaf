"""Pages, read back by a parser: everything of a report is there, and names stay names."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import pytest
from support import page

from bnfold.benchmarking.comparison import Comparison, Finding, Ratio
from bnfold.fleet.outcome import Outcome
from bnfold.fold.drawing import Box, Drawing
from bnfold.fold.folded import Fold
from bnfold.fold.obstructions import Obstruction
from bnfold.fold.patterns import Pattern
from bnfold.fold.reasons import Code, Reason, Refusal
from bnfold.report import html
from bnfold.report.pair import PairReport
from bnfold.report.wording import one_line
from bnfold.result import Result
from bnfold.verification.verdict import FoldEvidence, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.benchmarking.result import Benchmark
    from bnfold.report.schema import Report

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '"\'` onload=alert(1) x="',
    "{{ 7 * 7 }}{% raw %}",
    "-->]]>&lt;&amp;",
    "a\u202eb\u2066c\x00d\x1b[31me\r\nf\ud800",
    "模型/ノード:😀 العقدة",
    "x" * 10_240,
    "javascript:alert(1)",
    " ",
)


def everything(full: Report, benchmark: Benchmark) -> Report:
    """Each section of the page."""
    assert full.verdict is not None
    folds = (
        FoldEvidence("bn0", "", ("conv0",), "t", "the original", 1.0, 1e-7, 2e-7, 1e-7, 140.0, 3.0, "", 3e-8),
        FoldEvidence("bn9", "", ("conv0",), "t", "the original", 1.0, 1e-7, 2e-7, 1e-7, 140.0, 3.0, "", 3e-8),
        FoldEvidence(
            "bn1", "body of If 'if'", ("gemm",), "", "", None, None, None, None, None, None, "inside"
        ),
    )
    # `bnfold verify` says what it judged; here the report itself does.
    verdict = replace(full.verdict, original_sha256="", folded_sha256="")
    verdict = replace(verdict, per_fold=folds, guilty=("guilty",), findings=("found it",))
    return replace(full, verdict=verdict, benchmark=benchmark)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401  # plain data of any kind
    """Every value of plain data, with the keys on the way to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, path)
    else:
        yield path, value


def visible(made: str) -> str:
    """What a reader sees: no style, no script."""
    tree = page.read(made)
    return "\n".join(each.text for tag in ("header", "main", "footer") for each in tree.all(tag))


def test_every_text_of_a_report_is_there(full: Report, benchmark: Benchmark) -> None:
    report = everything(full, benchmark)
    said = visible(html.render(report))
    unsaid = {"schema", "role", "blocking", "direction", "against"}
    for path, value in leaves(report.to_dict()):
        if not isinstance(value, str) or unsaid & set(path):
            continue
        # The summary repeats the status before what the page says after it, and levels are in capitals.
        wanted = value.removeprefix("equivalent: ").upper()
        assert wanted in said.upper(), (path, value)


def test_every_number_of_a_report_is_there(full: Report, benchmark: Benchmark) -> None:
    tree = page.read(html.render(everything(full, benchmark)))
    cells = {each.attributes.get("data-value", "") for each in tree.all("td")}
    assert full.verdict is not None
    for row in full.verdict.outputs:
        assert {str(row.original_rms), str(row.folded_rms), str(row.limit_rms), str(row.folded_max)} <= cells
        assert row.folded is not None
        assert {str(row.folded.cosine), str(row.folded.ulp_p50), str(row.folded.ulp_p99)} <= cells
    for number in ("4", "2", "20", "15", "3.0 MiB", "2.0 KiB", "1.250", "1.200", "1.300", "0.990", "1.020"):
        assert number in tree.text


def test_the_verdict_leads(full: Report) -> None:
    assert full.verdict is not None
    for status in get_args(Status):
        verdict = replace(full.verdict, status=status, summary=f"{status}: for a reason")
        tree = page.read(html.render(replace(full, verdict=verdict)))
        (headline,) = tree.all("div", role="status")
        assert [each.text for each in headline.all("strong")] == [status.capitalize()]
        assert "for a reason" in headline.text
        assert status not in headline.all("p")[0].text


def test_the_funnel_adds_up(full: Report) -> None:
    tree = page.read(html.render(full))
    bars = [each for each in tree.all("div") if each.attributes.get("class") == "bar"]
    counts = [int(bar.all("b")[0].text) for bar in bars]
    assert counts == [4, 2, 1, 1]
    widths = [bar.all("rect")[1].attributes["width"] for bar in bars]
    assert widths == ["100.0%", "50.0%", "25.0%", "25.0%"]


def test_kept_come_with_reasons_and_hints(full: Report) -> None:
    tree = page.read(html.render(full))
    (table,) = tree.all("table", id="items")
    rows = [row for row in table.all("tr") if "data-outcome" in row.attributes]
    assert [row.attributes["data-outcome"] for row in rows] == ["kept", "kept", "folded", "folded"]
    assert "BNF022" in rows[1].text
    assert "run with --freeze" in rows[1].text
    assert "Gemm gemm" in rows[3].text
    assert "through flat" in rows[3].text


def test_around_what_stays_is_drawn(full: Report) -> None:
    """One picture of each, below its reason, with what stands in the way marked for everybody."""
    tree = page.read(html.render(full))
    drawn = [each for each in tree.all("svg") if each.attributes.get("aria-label", "").startswith("around")]
    assert len(drawn) == 2
    for each, name in zip(drawn, ("bn2", "bn3"), strict=True):
        assert "Relu (in the way) to BatchNormalization" in each.attributes["aria-label"]
        (barring,) = [g for g in each.all("g") if "obstacle" in g.attributes["class"]]
        assert barring.all("title")[0].text == "relu"
        figure = each.parent
        assert figure is not None
        assert name in figure.all("figcaption")[0].text


def test_nothing_found_is_a_page_too(bare: Report) -> None:
    tree = page.read(html.render(bare))
    assert "The model has none." in tree.text
    assert tree.all("table") == []


def test_an_inspected_model_claims_nothing(full: Report) -> None:
    inspected = replace(full, after=None, verdict=None, output=None, result_sha256=None)
    tree = page.read(html.render(inspected))
    assert "Inspected" in tree.text
    assert "Equivalent" not in tree.text
    assert "2 can be folded, 2 kept" in tree.text


@pytest.mark.parametrize("finding", get_args(Finding))
def test_no_more_is_claimed_than_was_found(benchmark: Benchmark, finding: Finding) -> None:
    known = finding != "too few"
    ratio = Ratio(1.25, 1.2, 1.3) if known else None
    comparison = Comparison(ratio, ratio, finding, 12, (1.2,))
    level = benchmark.levels[0]
    assert level.load is not None
    level = replace(
        level,
        load=replace(level.load, comparison=comparison),
        steady=tuple(replace(timing, comparison=comparison) for timing in level.steady),
    )
    body = page.read(html.render_benchmark(replace(benchmark, levels=(level,)))).all("body")[0]
    (headline,) = body.all("div", role="status")
    assert finding in headline.text.lower()
    claims = {each.text for each in body.all("span") if each.attributes.get("class", "").startswith("state")}
    assert claims == {finding}
    assert ("1.200" in body.text) == known


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_no_markup(full: Report, benchmark: Benchmark, name: str) -> None:
    fold = Fold(name, name, name, (name,), (name,), (name,), "forward")
    refusal = Refusal(
        name, name, name, (Reason(Code.SIGN, name, name, name), Reason(Code.VARIANCE, name, name))
    )
    box = Drawing((Box(name, name, "weights"), Box(name, name, "normalization")), ((0, 1),))
    report = everything(full, benchmark)
    assert report.verdict is not None
    outputs = tuple(
        replace(row, output=name, feed=name, note=name, rule=name) for row in report.verdict.outputs
    )
    alone = tuple(replace(each, node=name, scope=name, note=name) for each in report.verdict.per_fold)
    verdict = replace(
        report.verdict, summary=name, findings=(name,), feeds=(name,), guilty=(name,), outputs=outputs,
        per_fold=alone,
    )  # fmt: skip
    level = replace(benchmark.levels[0], failure=name)
    worked = replace(level, failure="", steady=tuple(replace(each, work=name) for each in level.steady))
    facts = replace(benchmark.a, source=name)
    speed = replace(benchmark, a=facts, levels=(worked, level), findings=(name,))
    report = replace(
        report, source=name, output=name, producer=name, folds=(fold,), kept=(refusal,), merged=(name,),
        frozen=(name,), notes=(name,), verdict=verdict, benchmark=speed, options={"include": [name]},
        patterns=(Pattern((0,), "forward", box, box, 1),), obstructions=(Obstruction((0,), box, (0,), 1, 1),),
    )  # fmt: skip
    pair = PairReport(name, name, verdict, {"inputs": [name]}, {"python": name}, "1")
    outcome = Outcome(name, name, Result(report, None))
    pages = (html.render(report), html.render_pair(pair), html.render_benchmark(speed))
    for made in (*pages, html.render_several([outcome])):
        harmless(made)
        assert one_line(name) in page.read(made).text
        made.encode()


def harmless(made: str) -> None:
    """Two scripts' worth of our own, no handler, no address, nothing unseen."""
    tree = page.read(made)
    tags = {each.tag for each in tree.walk()}
    assert not tags & {"img", "iframe", "object", "embed", "link", "form", "base"}
    assert len(tree.all("script")) == len(tree.all("style")) == 1
    for each in tree.walk():
        for key, value in each.attributes.items():
            assert not key.startswith("on"), key
            assert key not in {"style", "src", "srcset", "action", "formaction", "background", "xlink:href"}
            assert key != "href" or value.startswith("#"), value
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", made
    )


def test_the_network_is_forbidden(full: Report) -> None:
    made = html.render(full)
    tree = page.read(made)
    (policy,) = tree.all("meta", http_equiv="Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.attributes["content"].split(";"))
    assert directives["default-src"] == "'none'"
    for name, element in (("style-src", tree.all("style")[0]), ("script-src", tree.all("script")[0])):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert directives[name] == f"'sha256-{digest}'"
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(|eval\(", made)


def test_it_can_be_used_without_seeing(full: Report, benchmark: Benchmark) -> None:
    tree = page.read(html.render(everything(full, benchmark)))
    ids = [each.attributes["id"] for each in tree.walk() if "id" in each.attributes]
    assert len(set(ids)) == len(ids)
    assert tree.all("html")[0].attributes["lang"] == "en"
    for each in tree.walk():
        wanted = each.attributes
        if each.tag == "th":
            assert wanted.get("scope") in {"col", "row"}
        if each.tag == "svg" and each.parent is not None and each.parent.tag != "svg":
            assert wanted.get("aria-hidden") == "true" or (
                wanted.get("role") == "img" and wanted["aria-label"]
            )
        if each.tag == "figure":
            assert each.all("figcaption")
        if each.tag in {"input", "select"}:
            assert each.parent is not None
            assert each.parent.tag == "label"
        for key in ("aria-labelledby", "data-table"):
            assert key not in wanted or wanted[key] in ids
        if wanted.get("href", "").startswith("#"):
            assert wanted["href"][1:] in ids
    levels = [int(each.tag[1]) for each in tree.walk() if re.fullmatch("h[1-6]", each.tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_same_report_gives_the_same_bytes(full: Report, benchmark: Benchmark) -> None:
    report = everything(full, benchmark)
    assert html.render(report) == html.render(report)


def test_a_large_model_stays_a_reasonable_page(full: Report) -> None:
    folds = tuple(replace(full.folds[0], node=f"bn{i}") for i in range(3000))
    drawing = full.patterns[0]
    pattern = replace(drawing, folds=tuple(range(3000)))
    made = html.render(replace(full, folds=folds, patterns=(pattern,)))
    assert len(made) < 2_000_000
    assert "2999" in made


def test_many_pictures_stay_a_reasonable_page(full: Report) -> None:
    kept = tuple(replace(full.kept[0], node=f"bn{i}") for i in range(300))
    folds = tuple(replace(full.folds[0], node=f"gone{i}") for i in range(300))
    obstructions = tuple(replace(full.obstructions[0], kept=(i,)) for i in range(300))
    patterns = tuple(replace(full.patterns[0], folds=(i,)) for i in range(300))
    made = html.render(replace(full, kept=kept, folds=folds, obstructions=obstructions, patterns=patterns))
    assert len(made) < 500_000
    assert made.count('<figure class="pattern"') == 80
    assert made.count("260 rarer kinds are not drawn") == 2


def test_a_pair(full: Report) -> None:
    assert full.verdict is not None
    verdict = replace(full.verdict, original_sha256="a" * 64, folded_sha256="b" * 64)
    pair = PairReport("one.onnx", "other model.onnx", verdict, {"seed": 4}, {"python": "3.99"}, "1.2.3")
    said = visible(html.render_pair(pair))
    for each in ("one.onnx", "other model.onnx", "a" * 64, "b" * 64, "3.99", "1.2.3"):
        assert each in said
    assert "bnfold verify one.onnx 'other model.onnx' --seed 4" in said


def test_a_benchmark_says_how_to_repeat_it(benchmark: Benchmark) -> None:
    asked = {
        "levels": ["disable_all", "enable_all"], "batches": [1, 8], "inputs": ["x=a b.npy"], "threads": 2,
        "provider": "cpu", "seconds": 60.0, "seed": 3,
    }  # fmt: skip
    named = replace(benchmark, b=replace(benchmark.b, source="b.onnx"), options=asked)
    wanted = (
        "bnfold bench folder/model.onnx b.onnx --input 'x=a b.npy' --threads 2 --seed 3 "
        "--level disable,all --batch 1,8"
    )
    assert [each.text for each in page.read(html.render_benchmark(named)).all("pre")] == [wanted]
    for unnamed in (benchmark, replace(named, options=asked | {"inputs": ["x=2x3 (array)"]})):
        assert page.read(html.render_benchmark(unnamed)).all("pre") == []


def test_both_models_are_plotted_at_each_fold(full: Report, benchmark: Benchmark) -> None:
    """Folds that are compared at one tensor are one row."""
    tree = page.read(html.render(everything(full, benchmark)))
    (figure,) = tree.all("figure", aria_label="Errors at each fold")
    rows = [each.attributes["aria-label"] for each in figure.all("svg", role="img")]
    assert rows == ["original 3.0e-08, folded 1.0e-07"]
    assert "bn0 and 1 more" in figure.text


def test_what_fails_is_marked(full: Report) -> None:
    """By its form, not by colour alone."""
    assert full.verdict is not None
    first, *others = full.verdict.outputs
    failing = replace(full.verdict, outputs=(replace(first, outcome="fail"), *others))
    for verdict, count in ((full.verdict, 0), (failing, 1)):
        tree = page.read(html.render(replace(full, verdict=verdict)))
        marks = tree.all("path", class_="m-failed")
        assert len(marks) == 2 * count  # one of them in the legend


def test_several(full: Report) -> None:
    from bnfold.errors import ModelError  # noqa: PLC0415 - for this test alone

    outcomes = [
        Outcome("a.onnx", "out/a.onnx", Result(full, None)),
        Outcome("b.onnx", "out/b.onnx", error=ModelError("b.onnx: broken")),
        Outcome("c.onnx", "out/c.onnx", resumed=True),
    ]
    tree = page.read(html.render_several(outcomes))
    (table,) = tree.all("table")
    rows = [each for each in table.all("tr") if "data-outcome" in each.attributes]
    assert [each.attributes["data-outcome"] for each in rows] == ["equivalent", "failed", "done before"]
    assert "b.onnx: broken" in rows[1].text
    assert [cell.text for cell in rows[0].all("td", class_="number")] == ["4", "2", "2"]
    (command,) = tree.all("pre")
    assert command.text.startswith("bnfold optimize folder/model.onnx -o folder/model.folded.onnx")
    assert "3.99" in tree.all("section")[-1].text


def test_no_verdict_without_evidence(full: Report) -> None:
    verdict = Verdict("not verified", "not verified: verification was switched off", (), (), (), "", 0, 0.0)
    tree = page.read(html.render(replace(full, verdict=verdict)))
    assert "Not verified" in tree.text
    assert "verification-title" not in {each.attributes.get("id") for each in tree.walk()}
