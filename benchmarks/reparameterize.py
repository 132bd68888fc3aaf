"""bnfold's result beside what an architecture's own reparameterization makes of the same weights.

    python reparameterize.py --models FOLDER [--python PYTHON] [--seconds 60]

takes the pairs that `zoo.py --reparameterized` writes: FOLDER/NAME.onnx, folded by bnfold, and
FOLDER/reparameterized/NAME.onnx, exported after timm's `reparameterize_model`. Both are counted, and timed
side by side by `bnfold bench` under onnxruntime's full optimization on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import HERE, Bench, cpu, environment, examine, python_version, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LIMIT = 600  # seconds for one run
_VERSIONS = ("bnfold", "onnxruntime")
_COUNTED = ("Conv", "Gemm", "MatMul", "Add", "BatchNormalization")


def compare(bench: Bench, folded_from: Path, own: Path, seconds: float) -> str:
    """One row of the table."""
    say(f"{own.stem}: folding")
    failure = bench.measure("bnfold", folded_from).failure
    finding = None if failure else examine(bench, folded_from)
    if finding is None:
        return f"| {own.stem} | {failure or 'the result cannot be read'} |" + " |" * (len(_COUNTED) + 3)
    result = bench.result(folded_from)
    theirs = _examined(bench, folded_from, own)
    say(f"{own.stem}: timing")
    command = ["-m", "bnfold", "bench", str(own), str(result), "--level", "all", "--json"]
    told = subprocess.run(
        [str(bench.python), "-P", *command, "--seconds", str(seconds)],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    cells = [own.stem, *(_pair(finding.nodes, theirs, op) for op in _COUNTED)]
    cells += [f"{sum(finding.nodes.values())} / {sum(theirs.values())}", *_speed(json.loads(told.stdout))]
    return f"| {' | '.join(cells)} |"


def _examined(bench: Bench, original: Path, model: Path) -> Mapping[str, int]:
    nodes: Mapping[str, int] = json.loads(bench.ask("examine.py", str(original), str(model)).stdout)["nodes"]
    return nodes


def _pair(mine: Mapping[str, int], theirs: Mapping[str, int], op: str) -> str:
    return f"{Counter(mine)[op]} / {Counter(theirs)[op]}"


def _speed(told: Mapping[str, Any]) -> tuple[str, str, str]:
    """Time of theirs over bnfold's with its interval, theirs over theirs, and what follows."""
    (level,) = told["levels"]
    comparison = level["steady"][0]["comparison"]
    speedup, noise = comparison["speedup"], comparison["noise"]
    if speedup is None:
        return "", "", comparison["finding"]
    return (
        f"{speedup['value']:.3f} ({speedup['low']:.3f} to {speedup['high']:.3f})",
        f"{noise['low']:.3f} to {noise['high']:.3f}",
        comparison["finding"],
    )


def report(bench: Bench, folder: Path, owns: Sequence[Path], seconds: float) -> Iterator[str]:
    """The whole report, a line at a time."""
    yield "# Merged branches beside the architectures' own reparameterization"
    yield ""
    versions = (f"{tool} {bench.ask('drive.py', '--version', tool).stdout.strip()}" for tool in _VERSIONS)
    yield (
        f"{', '.join(versions)}; Python {python_version(bench)}; {cpu()}, {os.cpu_count()} cores. "
        "How: `benchmarks/README.md`."
    )
    yield ""
    yield (
        "Nodes: bnfold's result / timm's `reparameterize_model`, exported in the same way. Speed: time of "
        "timm's / time of bnfold's, median with 95 % interval, onnxruntime's full optimization, one thread; "
        "above 1 bnfold's is faster. Noise: the same for timm's against itself."
    )
    yield ""
    yield f"| model | {' | '.join(_COUNTED)} | all nodes | speed | noise | bnfold's is |"
    yield "|---|" + "---|" * (len(_COUNTED) + 4)
    for own in owns:
        yield compare(bench, folder / own.name, own, seconds)


def main() -> None:
    """Count and time, print the report and keep it."""
    parser = argparse.ArgumentParser(description="Compare bnfold with timm's reparameterize_model.")
    parser.add_argument("--models", type=Path, required=True, help="the folder that zoo.py wrote to")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="an interpreter that has bnfold's packages"
    )
    parser.add_argument("--seconds", type=float, default=60, help="to measure each pair for, about")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "reparameterize.md")
    arguments = parser.parse_args()
    owns = sorted((arguments.models / "reparameterized").glob("*.onnx"))
    if not owns:
        parser.error(f"no .onnx file in {arguments.models / 'reparameterized'}")
    with tempfile.TemporaryDirectory(prefix="bnfold-reparameterize-") as folder:
        bench = Bench(arguments.python, _LIMIT, 1, Path(folder))
        text = "\n".join(report(bench, arguments.models, owns, arguments.seconds)) + "\n"
    print(text, end="")
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
