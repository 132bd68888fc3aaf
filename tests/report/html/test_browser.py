"""Reports in a real browser: what only a browser can tell."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support import browser

from bnfold.fleet.outcome import Outcome
from bnfold.report import html
from bnfold.report.pair import PairReport
from bnfold.result import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from support.browser import Browser

    from bnfold.benchmarking.result import Benchmark
    from bnfold.report.schema import Report

pytestmark = pytest.mark.browser

PAGES = ("model", "inspected", "different", "benchmark", "pair", "several", "hostile")

# The contrast of each text with what lies behind it (WCAG 2.2), where it is too low: what text, how low.
FAINT = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const box = each.tagName === "g" && each.querySelector("rect");
      if (box) return getComputedStyle(box).fill;
      const colour = getComputedStyle(each).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*:not(script):not(title)")) {
    const said = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!said || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const a = luminance(element instanceof SVGElement ? style.fill : style.color);
    const b = luminance(behind(element));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push([said.slice(0, 40), contrast]);
  }
  return found;
})()
"""
# Elements that reach beyond the right edge, but for those that scroll by themselves.
TOO_WIDE = """
[...document.body.querySelectorAll("*")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width && box.right > innerWidth + 0.5 && !each.closest(".scroll");
}).map((each) => each.outerHTML.slice(0, 120))
"""
ROWS = """[...document.querySelectorAll("#items tbody tr")].filter((row) => !row.hidden)
  .map((row) => row.cells[0].textContent.trim())"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def pages(full: Report, benchmark: Benchmark, tmp_path: Path) -> Mapping[str, Path]:
    """A file for each of `PAGES`."""
    assert full.verdict is not None
    verdict = replace(full.verdict, original_sha256="a" * 64, folded_sha256="b" * 64)
    long = "<b>/" + "模x" * 5000
    refusals = tuple(replace(each, node=long, scope=long) for each in full.kept)
    folds = tuple(replace(each, node=long, into=(long,) * len(each.into), op=long) for each in full.folds)
    everything = replace(full, benchmark=benchmark)
    made = {
        "model": html.render(everything),
        "inspected": html.render(replace(full, after=None, verdict=None)),
        "different": html.render(replace(full, verdict=replace(full.verdict, status="different"))),
        "benchmark": html.render_benchmark(benchmark),
        "pair": html.render_pair(PairReport("one.onnx", long, verdict, {"seed": 1}, {"python": "3"}, "1")),
        "several": html.render_several([Outcome("a.onnx", "b.onnx", Result(full, None))] * 3),
        "hostile": html.render(replace(everything, source=long, folds=folds, kept=refusals, notes=(long,))),
    }
    assert tuple(made) == PAGES
    for name, page in made.items():
        (tmp_path / f"{name}.html").write_bytes(page.encode("utf-8", "backslashreplace"))
    return {name: tmp_path / f"{name}.html" for name in made}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_shows(tab: Browser, pages: Mapping[str, Path], name: str, width: int, scheme: str) -> None:
    """Nothing on the console, nothing fetched, nothing to be scrolled for sideways, nothing faint."""
    tab.open(pages[name], width=width, scheme=scheme)
    tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert tab.run(TOO_WIDE) == []
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.run(FAINT) == []
    assert tab.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(17, 21, 26)"
    )
    assert tab.complaints == []
    assert tab.requests == []


def test_the_policy_holds(tab: Browser, pages: Mapping[str, Path]) -> None:
    """Even a script that got into the page would neither run nor reach the network."""
    tab.open(pages["model"])
    tab.run(
        "const image = '<img src=http://127.0.0.1:9/x onerror=\"window.hit=1\">';"
        "document.body.insertAdjacentHTML('beforeend', image);"
        "const script = document.createElement('script');"
        "script.textContent = 'window.hit = 2'; document.body.append(script)"
    )
    assert tab.run("new Promise((done) => setTimeout(() => done(window.hit ?? 0), 200))") == 0
    assert len([each for each in tab.complaints if "Content Security Policy" in each]) >= 2


def test_sorting(tab: Browser, pages: Mapping[str, Path]) -> None:
    tab.open(pages["model"])
    assert [row.split()[0] for row in tab.run(ROWS)] == ["bn2", "bn3in", "bn0", "bn1Sub+Mul+Addin"]
    tab.run("document.querySelector('#items th button').click()")
    assert [row[:3] for row in tab.run(ROWS)] == ["bn0", "bn1", "bn2", "bn3"]
    tab.run("document.querySelector('#items th button').click()")
    assert [row[:3] for row in tab.run(ROWS)] == ["bn3", "bn2", "bn1", "bn0"]
    states = (
        "[...document.querySelectorAll('#items th[aria-sort]')].map((th) => th.getAttribute('aria-sort'))"
    )
    assert tab.run(states) == ["descending", "none", "none"]


def test_numbers_sort_as_numbers(tab: Browser, pages: Mapping[str, Path]) -> None:
    tab.open(pages["model"])
    table = "document.querySelector('#verification table')"
    column = f"[...{table}.tHead.rows[0].cells].findIndex((each) => each.textContent === 'folded RMS')"
    tab.run(f"{table}.tHead.rows[0].cells[{column}].querySelector('button').click()")
    values = tab.run(f"[...{table}.tBodies[0].rows].map((row) => Number(row.cells[{column}].dataset.value))")
    assert values == sorted(values)
    assert len(set(values)) > 1


def test_sorting_by_keyboard(tab: Browser, pages: Mapping[str, Path]) -> None:
    tab.open(pages["model"])
    tab.run("document.querySelector('.controls select').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.closest('th')?.textContent") == "normalization"
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Enter", "\r")
    assert [row[:3] for row in tab.run(ROWS)] == ["bn0", "bn1", "bn2", "bn3"]


def test_filtering(tab: Browser, pages: Mapping[str, Path]) -> None:
    tab.open(pages["model"])
    count = "document.querySelector('.controls output').textContent"
    assert tab.run(count) == "4 of 4 shown"
    search, choose = ".controls input", ".controls select"
    give(tab, search, "GEMM bn1", "input")
    assert [row[:3] for row in tab.run(ROWS)] == ["bn1"]
    assert tab.run(count) == "1 of 4 shown"
    give(tab, search, "", "input")
    give(tab, choose, "kept", "change")
    assert [row[:3] for row in tab.run(ROWS)] == ["bn2", "bn3"]


def give(tab: Browser, control: str, value: str, event: str) -> None:
    """A value to a control, as a user does."""
    found = f"document.querySelector({control!r})"
    tab.run(f"{found}.value = {value!r}; {found}.dispatchEvent(new Event({event!r}))")


def test_without_scripts_all_is_there(tab: Browser, pages: Mapping[str, Path]) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(pages["model"])
        assert len(tab.run(ROWS)) == 4
        assert tab.run("getComputedStyle(document.querySelector('.controls')).display") == "none"
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(tab: Browser, pages: Mapping[str, Path]) -> None:
    """On few sheets, in black on white, with what is folded away, and unfolded only for that."""
    tab.open(pages["model"], scheme="dark")
    made = tab.pdf()
    assert made.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", made)) <= 8
    assert tab.run("document.querySelectorAll('details[open]').length") == 0
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_motion_is_the_readers_choice(tab: Browser, pages: Mapping[str, Path]) -> None:
    tab.open(pages["model"])
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert tab.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
