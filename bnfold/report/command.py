"""The command line that would make a report once more."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from bnfold.report.wording import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnfold.benchmarking.result import Benchmark
    from bnfold.report.schema import Report

_DEFAULTS: Mapping[str, Any] = {
    "seed": 0,
    "truth": "auto",
    "provider": "cpu",
    "budget": 600.0,
    "level": "disable,basic,all",
    "batch": "",
    "threads": 1,
    "seconds": 60.0,
}
_NAMES = {"inputs": "input", "ranges": "range"}
_LEVELS = {"disable_all": "disable", "enable_basic": "basic", "enable_all": "all"}


def of_report(report: Report) -> str:
    """`bnfold optimize` or `bnfold inspect` with its options; empty where no command line could say it."""
    if report.source is None or any("(array)" in given for given in report.options.get("inputs", ())):
        return ""
    words = ["bnfold", "optimize" if report.after is not None else "inspect", report.source]
    if report.after is not None:
        words += _target(report)
    return _joined([*words, *_options(report.options)])


def of_pair(original: str, folded: str, options: Mapping[str, Any]) -> str:
    """`bnfold verify` with its options."""
    return _joined(["bnfold", "verify", original, folded, *_options(options)])


def of_benchmark(benchmark: Benchmark) -> str:
    """`bnfold bench` with its options; empty where no command line could say it."""
    asked = dict(benchmark.options)
    sources = (benchmark.a.source, benchmark.b.source)
    if not asked or None in sources or any("(array)" in given for given in asked["inputs"]):
        return ""
    asked["level"] = ",".join(_LEVELS[level] for level in asked.pop("levels"))
    asked["batch"] = ",".join(map(str, asked.pop("batches")))
    return _joined(["bnfold", "bench", *filter(None, sources), *_options(asked)])


def _target(report: Report) -> list[str]:
    if report.output is None:
        return ["--dry-run"]
    return ["--in-place"] if report.output == report.source else ["-o", report.output]


def _options(options: Mapping[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        name = _NAMES.get(key, key).replace("_", "-")
        if isinstance(value, list):
            for each in value:
                yield from (f"--{name}", str(each))
        elif isinstance(value, bool):
            yield from _switch(name, value)
        elif value != _DEFAULTS[key]:
            yield from (f"--{name}", f"{value:g}" if isinstance(value, float) else str(value))


def _switch(name: str, value: bool) -> Iterator[str]:
    if name in {"merge", "provenance", "verify"}:
        if not value:
            yield f"--no-{name}"
    elif value:
        yield f"--{name}"


def _joined(words: list[str]) -> str:
    return " ".join(shlex.quote(one_line(word)) for word in words)
