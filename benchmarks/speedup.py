"""How fast models run in onnxruntime once a tool has removed BatchNormalization from them.

    python benchmarks/speedup.py MODEL_OR_FOLDER ... [--python PYTHON] [--levels all] [--seconds 60]

Each tool makes a result of each model, once; `bnfold bench` then measures the original and that result side
by side. A model with external data has it in one file, `NAME.onnx.data` beside `NAME.onnx`. The report is
written anew after each model, so that one which is interrupted has what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import HERE, TOOLS, Bench, Finding, cpu, environment, examine, python_version, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MB = 1_000_000


@dataclass(frozen=True)
class Row:
    """One tool on one model.

    Attributes:
        tool: its name.
        finding: about its result; None where there is none.
        speed: what `bnfold bench --json` says of the original and the result; None where it says nothing.
        same: the tool whose result was measured instead, because this one has the same structure.
        failure: why something is missing; empty where nothing is.
    """

    tool: str
    finding: Finding | None
    speed: Mapping[str, Any] | None
    failure: str
    same: str = ""


@dataclass(frozen=True)
class Section:
    """One model: its name, and what became of it in each tool."""

    name: str
    rows: tuple[Row, ...]


def row(bench: Bench, tool: str, model: Path, options: Sequence[str], known: Sequence[Row]) -> Row:
    """Let a tool make its result, and measure that, unless a known one has the same structure."""
    say(f"{model.stem}: {tool}")
    failure = bench.measure(tool, model).failure
    finding = None if failure else examine(bench, model)
    if finding is None:
        return Row(tool, None, None, failure or "the result cannot be read")
    for other in known:
        if other.finding is not None and other.finding.structure == finding.structure and not other.same:
            return Row(tool, finding, other.speed, other.failure, same=other.tool)
    command = [str(bench.python), "-P", "-m", "bnfold", "bench", str(model), str(bench.result(model))]
    measured = subprocess.run(
        [*command, "--json", *options], capture_output=True, text=True, check=False, env=environment()
    )
    if measured.returncode:
        said = measured.stderr.strip().splitlines()
        return Row(tool, finding, None, said[-1][:120] if said else f"exit status {measured.returncode}")
    return Row(tool, finding, json.loads(measured.stdout), "")


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The figures of one model as a Markdown table."""
    speeds = [each.speed for each in rows if each.speed is not None]
    levels = [level["level"] for level in speeds[0]["levels"]] if speeds else []
    headings = [f"{level.upper()}, {what}" for level in levels for what in ("run", "load")]
    yield f"| tool | BN left | result, MB | difference | {' | '.join([*headings, ''])}".rstrip()
    yield f"|{'---|' * (4 + len(headings))}"
    for each in rows:
        if each.finding is None:
            yield f"| {each.tool} | {each.failure} |{' |' * (2 + len(headings))}"
            continue
        shown = "does not run" if each.finding.difference is None else f"{each.finding.difference:.1e}"
        facts = f"| {each.tool} | {each.finding.bn} | {each.finding.bytes / _MB:.1f} | {shown} |"
        if each.speed is None:
            yield f"{facts} {each.failure} |{' |' * (len(headings) - 1)}"
            continue
        if each.same:
            yield f"{facts} as {each.same} |{' |' * (len(headings) - 1)}"
            continue
        cells = [
            level["failure"] or comparison(timing)
            for level in each.speed["levels"]
            for timing in (level["steady"][0] if level["steady"] else None, level["load"])
        ]
        yield f"{facts} {' | '.join(cells)} |"


def comparison(timing: Any) -> str:  # noqa: ANN401  # a part of JSON
    """The ratio and its interval, in bold where it says that one is faster."""
    found = timing["comparison"]
    if found["speedup"] is None:
        return str(found["finding"])
    ratio = f"{found['speedup']['value']:.2f} [{found['speedup']['low']:.2f}, {found['speedup']['high']:.2f}]"
    return f"**{ratio}**" if found["finding"] in {"faster", "slower"} else f"{ratio} {found['finding']}"


def original(rows: Sequence[Row]) -> str:
    """What there is to say of the model that the tools were given, by the first benchmark of it."""
    speed = next((each.speed for each in rows if each.speed is not None), None)
    if speed is None:
        return "Nothing was measured."
    facts = speed["a"]
    macs = "unknown" if facts["macs"] is None else f"{facts['macs'] / 1e6:.3g} million"
    at_levels = "; ".join(
        f"{level['level'].upper()} {level['steady'][0]['a']['p50'] * 1e3:.3g} ms, "
        f"BN left {'unknown' if level['a']['bn_left'] is None else level['a']['bn_left']}"
        for level in speed["levels"]
        if level["steady"]
    )
    return f"Original: {facts['bn']} BatchNormalization, {macs} MACs. In onnxruntime: {at_levels}."


def section(bench: Bench, model: Path, tools: Sequence[str], options: Sequence[str]) -> Section:
    """Measure all tools on one model, in a folder where it is alone with its data."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    for file in (model, model.with_name(f"{model.name}.data")):
        if file.exists():
            shutil.copy(file, folder)
    rows: list[Row] = []
    for tool in tools:
        rows.append(row(bench, tool, folder / model.name, options, rows))
    shutil.rmtree(folder)
    return Section(model.stem, tuple(rows))


def overview(sections: Sequence[Section], tools: Sequence[str]) -> Iterator[str]:
    """The steady state of all models at the highest level, a tool a column."""
    speeds = [each.speed for each in sections[0].rows if each.speed is not None]
    level = speeds[0]["levels"][-1]["level"].upper() if speeds else "steady state"
    yield f"| {level} | {' | '.join(tools)} |"
    yield f"|{'---|' * (1 + len(tools))}"
    for each in sections:
        yield f"| {each.name} | {' | '.join(map(_overviewed, each.rows))} |"


def _overviewed(each: Row) -> str:
    if each.same:
        return f"as {each.same}"
    if each.speed is None:
        return each.failure
    level = each.speed["levels"][-1]
    return level["failure"] or comparison(level["steady"][0])


def report(head: str, sections: Sequence[Section], tools: Sequence[str]) -> Iterator[str]:
    """The whole report, a line at a time."""
    yield from ("# Speed in onnxruntime", "", head, "")
    yield from overview(sections, tools)
    for each in sections:
        yield from ("", f"## {each.name}", "", original(each.rows), "")
        yield from table(each.rows)


def heading(bench: Bench, tools: Sequence[str], options: Sequence[str]) -> str:
    """What was measured with what, and how to read it."""
    versions = (f"{tool} {bench.ask('drive.py', '--version', tool).stdout.strip()}" for tool in tools)
    runtime = bench.ask("drive.py", "--version", "onnxruntime").stdout.strip()
    return (
        f"{cpu()}, {os.cpu_count()} cores, {platform.system()}, Python {python_version(bench)}, onnxruntime "
        f"{runtime}. Tools: {', '.join(versions)}. Time of the original divided by that of the result, with "
        "95 % intervals: above 1 the result is faster. Bold is what may be claimed; all else is noise, or no "
        "difference. A result *as* that of another tool has the same nodes and shapes, and was not measured "
        f"again. Options: `{' '.join(options)}`. How: `benchmarks/README.md`."
    )


def _models(paths: Sequence[Path]) -> list[Path]:
    found = [file for path in paths for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    missing = [str(file) for file in found if not file.is_file()]
    if missing or not found:
        sys.exit(f"no model: {', '.join(missing) or ', '.join(map(str, paths))}")
    return found


def main() -> None:
    """Measure, print the report and keep it."""
    parser = argparse.ArgumentParser(description="Measure what removing BatchNormalization is worth.")
    parser.add_argument("models", nargs="+", type=Path, help="models, or folders of them")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the interpreter that has the tools"
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument(
        "--levels", default="disable,basic,all", help="of onnxruntime, as `bnfold bench --level`"
    )
    parser.add_argument("--seconds", type=float, default=60, help="for each model and tool")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a tool is stopped")
    parser.add_argument(
        "--output", type=Path, default=HERE / "results" / "speedup.md", help="where the report is kept"
    )
    arguments = parser.parse_args()
    models = _models(arguments.models)
    options = ["--level", arguments.levels, "--seconds", f"{arguments.seconds:g}"]
    options += ["--threads", str(arguments.threads)]
    arguments.output.parent.mkdir(exist_ok=True)
    sections: list[Section] = []
    with tempfile.TemporaryDirectory(prefix="bnfold-speedup-") as folder:
        bench = Bench(arguments.python, arguments.limit, 1, Path(folder))
        tools = [tool for tool in arguments.tools if not bench.ask("drive.py", "--version", tool).returncode]
        head = heading(bench, tools, options)
        for model in models:
            sections.append(section(bench, model, tools, options))
            text = "".join(f"{line}\n" for line in report(head, sections, tools))
            arguments.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
