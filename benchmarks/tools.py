"""Time and memory of `bnfold optimize --no-verify` beside other tools that remove BatchNormalization.

    python benchmarks/tools.py [--python PYTHON] [--models small resnet50 large] [--rounds 5]

Each run is a whole process, as a user would start it: interpreter, imports, reading, folding, writing. The
tools take turns (A B C ... A B C ...), so that whatever else the machine does meets all of them, after one
run each that is not counted. Nothing runs at the same time as anything else. This script imports neither
NumPy nor ONNX: the peak memory that the kernel reports of a child is at least that of its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).parent
TOOLS = ("bnfold", "onnxsim", "onnxslim", "onnxscript", "onnxoptimizer", "onnxruntime")
FLOORS = ("copy", "copy + fsync")
MODELS = ("small", "resnet50", "large")

_DIGITS = HERE.parent / "models" / "digits.onnx"
_MEMORY_SHARE = 0.8
_MB = 1_000_000


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        seconds: wall time from start to end.
        peak: the largest resident memory it had, in bytes.
        failure: why it counts as failed; empty when it does not.
    """

    seconds: float
    peak: int
    failure: str


@dataclass(frozen=True)
class Finding:
    """What `examine.py` says about a result; see there."""

    bn: int
    spelled: int
    nodes: Mapping[str, int]
    structure: str
    bytes: int
    difference: float | None


@dataclass(frozen=True)
class Row:
    """All runs of one tool on one model.

    Attributes:
        tool: its name.
        runs: the counted runs, in the order of the rounds; empty when the tool is absent or failed.
        finding: about the result of its last run; None when there is none.
        failure: why it has no figures; empty when it has.
    """

    tool: str
    runs: tuple[Run, ...]
    finding: Finding | None
    failure: str


@dataclass(frozen=True)
class Bench:
    """How everything is run.

    Attributes:
        python: the interpreter that has the tools.
        limit: seconds after which a run is stopped.
        rounds: counted runs of each tool.
        folder: where models and results lie while they are needed.
    """

    python: Path
    limit: float
    rounds: int
    folder: Path

    def call(self, script: str, *arguments: str) -> list[str]:
        """The command that runs a script of this folder."""
        return [str(self.python), "-P", str(HERE / script), *arguments]

    def ask(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script that is not measured."""
        return subprocess.run(
            self.call(script, *arguments), capture_output=True, text=True, check=False, env=environment()
        )

    def measure(self, tool: str, model: Path) -> Run:
        """Run a tool once, into an empty folder, with nothing left to write from the run before."""
        result = self.result(model)
        shutil.rmtree(result.parent, ignore_errors=True)
        result.parent.mkdir()
        os.sync()
        with tempfile.TemporaryFile(dir=self.folder) as said:
            started = time.perf_counter()
            process = subprocess.Popen(
                self.call("drive.py", tool, str(model), str(result)),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=environment(),
                start_new_session=True,
            )
            memory = int(_MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
            stopped = threading.Event()

            def stop() -> None:
                stopped.set()
                process.kill()

            timer = threading.Timer(self.limit, stop)
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            timer.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            lines = said.read().decode(errors="replace").split("\n")
        return Run(seconds, usage.ru_maxrss * 1024, self._failure(process.returncode, stopped, lines, result))

    def result(self, model: Path) -> Path:
        """Where the tools write."""
        return self.folder / "result" / model.name

    def _failure(self, code: int, stopped: threading.Event, said: Sequence[str], result: Path) -> str:
        if stopped.is_set():
            return f"stopped after {self.limit:.0f} s"
        if code < 0:
            return f"crashed (signal {-code})"
        if code > 0:
            last = next((line.strip() for line in reversed(said) if line.strip()), "no message")
            return f"failed (exit status {code}): {last[:120]}"
        return "" if result.exists() else "exit status 0, but no result"


def compare(bench: Bench, model: Path, tools: Sequence[str]) -> tuple[Row, ...]:
    """Run the tools in turns on one model.

    A tool that is absent, or fails in the uncounted run, is not started again. One that fails later has no
    figures either: half of a series says nothing.
    """
    failures = {
        tool: "not installed" for tool in tools if bench.ask("drive.py", "--version", tool).returncode
    }
    findings: dict[str, Finding] = {}
    for tool in tools:
        if tool not in failures:
            say(f"{model.stem}: {tool}, not counted")
            failure = bench.measure(tool, model).failure
            finding = None if failure else examine(bench, model)
            if isinstance(finding, Finding):
                findings[tool] = finding
            else:
                failures[tool] = failure or "the result cannot be read"
    runs: dict[str, list[Run]] = {tool: [] for tool in tools}
    for number in range(bench.rounds):
        for tool in tools:
            if tool not in failures:
                say(f"{model.stem}: {tool}, round {number + 1} of {bench.rounds}")
                run = bench.measure(tool, model)
                runs[tool].append(run)
                if run.failure:
                    failures[tool] = run.failure
    return tuple(
        Row(tool, (), None, failures[tool])
        if tool in failures
        else Row(tool, tuple(runs[tool]), findings[tool], "")
        for tool in tools
    )


def table(rows: Sequence[Row], versions: Mapping[str, str]) -> Iterator[str]:
    """The figures as a Markdown table; `against bnfold` is the median of the quotients within each round."""
    yield (
        "| tool | version | time, s: median (least to most) | against bnfold | peak memory, MB | BN left "
        "| result, MB | difference |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    own = next((row.runs for row in rows if row.tool == "bnfold"), ())
    for row in rows:
        name = f"| {row.tool} | {versions.get(row.tool, '')} |"
        if row.finding is None:
            yield f"{name} {row.failure} | | | | | |"
            continue
        seconds = [run.seconds for run in row.runs]
        quotients = [run.seconds / base.seconds for run, base in zip(row.runs, own, strict=False)]
        shown = "does not run" if row.finding.difference is None else f"{row.finding.difference:.1e}"
        yield (
            f"{name} {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
            f" | {f'{statistics.median(quotients):.2f}' if quotients else ''}"
            f" | {max(run.peak for run in row.runs) / _MB:.0f}"
            f" | {row.finding.bn} | {row.finding.bytes / _MB:.1f} | {shown} |"
        )


def report(bench: Bench, names: Sequence[str]) -> Iterator[str]:
    """The whole report, a line at a time."""
    versions = {tool: bench.ask("drive.py", "--version", tool).stdout.strip() for tool in TOOLS}
    yield "# bnfold beside other tools"
    yield ""
    yield (
        f"{cpu()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {python_version(bench)}. {bench.rounds} rounds, whole processes in turns. "
        "Peak memory is the largest of all rounds; difference is that of the outputs, relative to their RMS. "
        "How: `benchmarks/README.md`."
    )
    for name in names:
        say(f"{name}: generating")
        model = _model(bench, name)
        tools = (*TOOLS, *(FLOORS if name == "large" else ()))
        rows = compare(bench, model, tools)
        bn = json.loads(bench.ask("examine.py", str(model), str(model)).stdout)["bn"]
        yield ""
        size = sum(file.stat().st_size for file in model.parent.iterdir())
        yield f"## {name}: {bn} BatchNormalization, {size / _MB:.1f} MB"
        yield ""
        yield from table(rows, versions)
        shutil.rmtree(model.parent)


def _model(bench: Bench, name: str) -> Path:
    folder = bench.folder / name
    folder.mkdir()
    if name == "small" and _DIGITS.exists():
        return Path(shutil.copy(_DIGITS, folder))
    made = bench.ask("models.py", name, str(folder))
    if made.returncode:
        sys.exit(f"the model {name} cannot be made:\n{made.stderr}")
    return Path(made.stdout.strip())


def examine(bench: Bench, model: Path) -> Finding | None:
    """What is to be said about the result of the last run; None when it cannot be read."""
    answer = bench.ask("examine.py", str(model), str(bench.result(model)))
    return Finding(**json.loads(answer.stdout)) if not answer.returncode else None


def environment() -> dict[str, str]:
    """This one, with the bnfold of this checkout before any that is installed."""
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def python_version(bench: Bench) -> str:
    """Of the interpreter that has the tools."""
    command = [str(bench.python), "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def say(what: str) -> None:
    """Tell on stderr how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print the report and keep it."""
    parser = argparse.ArgumentParser(description="Measure bnfold beside other tools.")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the interpreter that has the tools"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a run is stopped")
    parser.add_argument(
        "--output", type=Path, default=HERE / "results" / "tools.md", help="where the report is kept"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bnfold-bench-") as folder:
        bench = Bench(arguments.python, arguments.limit, arguments.rounds, Path(folder))
        lines = list(report(bench, arguments.models))
    text = "\n".join(lines) + "\n"
    print(text, end="")
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
