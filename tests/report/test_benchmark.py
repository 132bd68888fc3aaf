"""A benchmark at a terminal."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console, RenderableType

from bnfold.report.benchmark import render_benchmark, render_speed
from bnfold.report.text import render

if TYPE_CHECKING:
    from bnfold.benchmarking.result import Benchmark
    from bnfold.report.schema import Report


def text(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def rows(said: str, *starts: str) -> list[str]:
    return [" ".join(line.split()) for line in said.splitlines() if line.split()[: len(starts)] == [*starts]]


def test_the_whole(benchmark: Benchmark) -> None:
    said = text(render_benchmark(benchmark))
    assert rows(said, "model") == ["model folder/model.onnx in memory"]
    assert rows(said, "size") == ["size 3.0 MiB 3.0 MiB"]
    assert rows(said, "BatchNormalization") == ["BatchNormalization 53 0"]
    assert rows(said, "million") == ["million MACs 4089 unknown"]
    assert rows(said, "DISABLE_ALL") == [
        "DISABLE_ALL batch 8 faster 1.250 [1.200, 1.300] [0.990, 1.020]",
        "DISABLE_ALL load too noisy 1.250 [1.200, 1.300] [0.990, 1.020]",
        "DISABLE_ALL batch 8 12.5 20 30 10 20 30 3000",
        "DISABLE_ALL load 12.5 20 30 12.5 20 30 3000",
        "DISABLE_ALL 53 0 430 377 300.0 MiB -",
    ]
    assert rows(said, "ENABLE_BASIC") == [
        "ENABLE_BASIC x 3 too few - -",
        "ENABLE_BASIC x 3 2500 - - 2500 - - 3",
        "ENABLE_BASIC - - - - - -",
    ]
    assert "ENABLE_ALL: model B: onnxruntime's process died of SIGSEGV" in said
    assert "note: a note" in said
    assert "60 s, blocks a level: 3 or more" in said
    assert "2 threads" in said


def test_in_a_report_a_line_for_each_level(full: Report, benchmark: Benchmark) -> None:
    said = text(render(replace(full, benchmark=benchmark), every=True)).splitlines()
    start = said.index("speed")
    assert [" ".join(line.split()) for line in said[start + 1 : start + 4]] == [
        "DISABLE_ALL faster 1.250 [1.200, 1.300] 12.5 -> 10 ms, batch 8",
        "ENABLE_BASIC too few - 2500 -> 2500 ms, x 3",
        "ENABLE_ALL failed model B: onnxruntime's process died of SIGSEGV",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_fits(benchmark: Benchmark, width: int) -> None:
    for renderable in (render_benchmark(benchmark), render_speed(benchmark)):
        assert max(map(len, text(renderable, width).splitlines())) <= width


def test_in_eighty_columns_no_ratio_is_broken(benchmark: Benchmark) -> None:
    assert "1.250 [1.200, 1.300]  [0.990, 1.020]" in text(render_benchmark(benchmark), 80)
