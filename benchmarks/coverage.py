"""How many normalizations of real models bnfold removes, and how many other tools.

    python coverage.py --models FOLDER [--python PYTHON] [--keep FILE]

takes every .onnx file of a folder, such as `zoo.py` and `keras_zoo.py` write. bnfold runs as a user runs it,
with verification; the other tools as `drive.py` starts them. What is left is counted by `examine.py`, which
asks no tool. A model takes a minute or so; with `--keep`, outcomes are kept in a file, and a run that was
interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import HERE, TOOLS, Bench, environment, examine, python_version, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_OFF = 0.05  # a difference beyond it, relative to the RMS of the output, is no rounding of a sane model


@dataclass(frozen=True)
class Outcome:
    """What became of one model in one tool.

    Attributes:
        failure: why there is no result; empty when there is one.
        bn: BatchNormalization nodes left.
        spelled: nodes left that multiply or divide by a stored value for each channel.
        nodes: all nodes left in the main graph.
        difference: from the original's outputs, relative to their RMS; None when the result does not run.
        verdict: bnfold's own; empty for other tools.
        kept: normalizations that bnfold kept, by reason code.
    """

    failure: str = ""
    bn: int = 0
    spelled: int = 0
    nodes: int = 0
    difference: float | None = None
    verdict: str = ""
    kept: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One model: the original, and what became of it in each tool."""

    name: str
    original: Outcome
    outcomes: Mapping[str, Outcome]


class Kept:
    """Outcomes that are known, by the bytes of the model and the version of the tool.

    Args:
        path: where they are kept; None keeps them nowhere.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text("utf-8")) if path and path.exists() else {}

    def find(self, key: str) -> Outcome | None:
        """The outcome of an earlier run."""
        return Outcome(**self.known[key]) if key in self.known else None

    def add(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome at once: the next may take minutes."""
        self.known[key] = asdict(outcome)
        if self.path:
            self.path.write_text(json.dumps(self.known, indent=1), encoding="utf-8")


def run(bench: Bench, tool: str, model: Path) -> Outcome:
    """One tool on one model."""
    report: dict[str, Any] = {}
    if tool == "bnfold":
        report, failure = _bnfold(bench, model)
    elif tool:
        failure = bench.measure(tool, model).failure
    else:
        failure = _copy(bench, model)
    finding = None if failure else examine(bench, model)
    if finding is None:
        return Outcome(failure=failure or "the result cannot be read")
    summary = report.get("summary", {})
    return Outcome(
        bn=finding.bn,
        spelled=finding.spelled,
        nodes=sum(finding.nodes.values()),
        difference=finding.difference,
        verdict=summary.get("status", ""),
        kept=summary.get("kept_by_code", {}),
    )


def _bnfold(bench: Bench, model: Path) -> tuple[dict[str, Any], str]:
    """`bnfold optimize`; an inconclusive result is written too, a different one is not."""
    result = _empty(bench, model)
    command = [str(bench.python), "-P", "-m", "bnfold", "optimize", "--json", str(model), "-o", str(result)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment(), timeout=bench.limit
        )
    except subprocess.TimeoutExpired:
        return {}, f"stopped after {bench.limit:.0f} s"
    report = json.loads(done.stdout) if done.stdout else {}
    if not result.exists():
        said = report.get("verdict", {}).get("summary") or done.stderr.strip().rpartition("\n")[2]
        return report, f"failed (exit status {done.returncode}): {said[:160]}"
    return report, ""


def _copy(bench: Bench, model: Path) -> str:
    shutil.copyfile(model, _empty(bench, model))
    return ""


def _empty(bench: Bench, model: Path) -> Path:
    result: Path = bench.result(model)
    shutil.rmtree(result.parent, ignore_errors=True)
    result.parent.mkdir()
    return result


def measure(bench: Bench, model: Path, versions: Mapping[str, str], kept: Kept) -> Row:
    """All tools on one model, those whose outcome is known left out."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
    outcomes = {}
    for tool in ("", *TOOLS):
        if tool and tool not in versions:
            continue
        source = _source() if tool == "bnfold" else ""  # its version does not change with every change
        key = " ".join(filter(None, (model.stem, digest, tool, versions.get(tool, ""), source)))
        outcome = kept.find(key)
        if outcome is None:
            say(f"{model.stem}: {tool or 'the original'}")
            place = bench.folder / "model"
            place.mkdir(exist_ok=True)
            alone = place / model.name  # beside its own data alone
            shutil.copyfile(model, alone)
            outcome = run(bench, tool, alone)
            alone.unlink()
            kept.add(key, outcome)
        outcomes[tool] = outcome
    return Row(model.stem, outcomes.pop(""), outcomes)


@cache
def _source() -> str:
    digest = hashlib.sha256()
    for file in sorted((HERE.parent / "bnfold").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def table(rows: Sequence[Row], tools: Sequence[str]) -> Iterator[str]:
    """What each tool leaves, model by model."""
    yield f"| model | original | verdict | bnfold's reasons | {' | '.join(tools)} |"
    yield "|---|" + "---|" * (3 + len(tools))
    for row in rows:
        own = row.outcomes["bnfold"]
        reasons = ", ".join(f"{code} {count}" for code, count in own.kept.items())
        cells = (_cell(row.outcomes[tool]) for tool in tools)
        head = (row.name, _left(row.original), own.verdict or own.failure, reasons)
        yield f"| {' | '.join((*head, *cells))} |"


def _cell(outcome: Outcome) -> str:
    if outcome.failure:
        return "no result"
    return f"{_left(outcome)} off" if _off(outcome) else _left(outcome)


def _left(outcome: Outcome) -> str:
    return f"{outcome.bn} + {outcome.spelled}" if outcome.spelled else str(outcome.bn)


def _off(outcome: Outcome) -> bool:
    return outcome.difference is None or not outcome.difference <= _OFF


def sums(rows: Sequence[Row], tools: Sequence[str]) -> Iterator[str]:
    """What each tool leaves in all, by the form of the export: the last part of the model's name."""
    forms = sorted({_form(row) for row in rows})
    named = (f"{form}, {sum(_form(row) == form for row in rows)} models" for form in forms)
    yield f"| | {' | '.join(named)} | fewer than bnfold | off | no result |"
    yield "|---|" + "---|" * (3 + len(forms))
    yield f"| original | {' | '.join(_sum(rows, form, '') for form in forms)} | | | |"
    for tool in tools:
        found = {row.name: row.outcomes[tool] for row in rows}
        done = {name: outcome for name, outcome in found.items() if not outcome.failure}
        bnfold = {row.name: row.outcomes["bnfold"] for row in rows}
        lists = (
            [name for name, outcome in done.items() if outcome.bn < bnfold[name].bn],
            [name for name, outcome in done.items() if _off(outcome)],
            [name for name, outcome in found.items() if outcome.failure],
        )
        cells = [*(_sum(rows, form, tool) for form in forms), *(", ".join(names) for names in lists)]
        yield f"| {tool} | {' | '.join(cells)} |"


def _form(row: Row) -> str:
    return row.name.rpartition("_")[2]


def _sum(rows: Sequence[Row], form: str, tool: str) -> str:
    """Of a model without a result everything is left."""
    bn = spelled = 0
    for row in rows:
        if _form(row) == form:
            outcome = row.outcomes[tool] if tool else row.original
            left = row.original if outcome.failure else outcome
            bn, spelled = bn + left.bn, spelled + left.spelled
    return _left(Outcome(bn=bn, spelled=spelled))


def report(bench: Bench, models: Sequence[Path], kept: Kept) -> Iterator[str]:
    """The whole report, a line at a time."""
    asked = {tool: bench.ask("drive.py", "--version", tool) for tool in TOOLS}
    versions = {tool: answer.stdout.strip() for tool, answer in asked.items() if not answer.returncode}
    tools = [tool for tool in TOOLS if tool in versions]
    rows = [measure(bench, model, versions, kept) for model in models]
    own = [row.outcomes["bnfold"] for row in rows]
    yield "# Normalizations left in real models"
    yield ""
    named = ", ".join(f"{tool} {version}" for tool, version in versions.items())
    yield f"{named}; Python {python_version(bench)}. How: `benchmarks/README.md`."
    yield ""
    yield (
        "The figures are the BatchNormalization nodes left and, behind a plus sign, the nodes left that "
        "multiply or divide by a stored value for each channel, as a spelled-out normalization does and a "
        "layer scale too. A result is *off* when it does not run, or an output differs by more than "
        f"{_OFF:g} of the RMS for one random input: it is wrong, or the original's own rounding errors are "
        "as large there, and bnfold is off too. "
        "Reasons are bnfold's, of all normalizations that it found and kept, spelled-out ones too."
    )
    yield ""
    good = sum(outcome.verdict == "equivalent" for outcome in own)
    yield f"{len(rows)} models, {good} of them equivalent by bnfold's verification."
    yield ""
    yield from sums(rows, tools)
    yield ""
    yield from table(rows, tools)


def main() -> None:
    """Count, print the report and keep it."""
    parser = argparse.ArgumentParser(
        description="Count what tools leave of the normalizations of real models."
    )
    parser.add_argument("--models", type=Path, required=True, help="a folder of .onnx files")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the interpreter that has the tools"
    )
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a tool is stopped")
    parser.add_argument("--keep", type=Path, help="a JSON file of what is known already")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "coverage.md")
    arguments = parser.parse_args()
    models = sorted(arguments.models.glob("*.onnx"))
    if not models:
        parser.error(f"no .onnx file in {arguments.models}")
    with tempfile.TemporaryDirectory(prefix="bnfold-coverage-") as folder:
        bench = Bench(arguments.python, arguments.limit, 1, Path(folder))
        text = "\n".join(report(bench, models, Kept(arguments.keep))) + "\n"
    print(text, end="")
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
