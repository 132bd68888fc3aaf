"""How far correct folds stay below the limits of verification, and which deliberate errors go beyond them.

    PYTHONPATH=tests python benchmarks/calibrate.py [--networks 200] [--mutations 0] [MODEL.onnx ...]

Random networks (`tests/support/convnets.py`) are folded by code that shares nothing with bnfold: in float64
and rounded once, and in the weights' own dtype, as other tools do. Given models are folded by bnfold. Every
pair is verified, and for each kind and level the table shows quantiles (50 / 90 / 99 / 100 %) of

- *ratio*: RMS error of the folded model by the yardstick: the original's error, in float64 the allowance;
- *of the limit*: the larger of what was used of both limits, RMS and largest error; above 1 a fold fails.

With `--mutations N`, in N layers of each folded model, evenly spread, (a) the largest weight and (b) all
weights of a layer are changed by a thousandth; the table says how many of these were called different.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper
from support.convnets import build, fold, random_net

import bnfold
from bnfold.verification.pair import verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnfold.verification.verdict import OutputEvidence, Verdict

QUANTILES = (0.5, 0.9, 0.99, 1.0)
LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass
class Seen:
    """What was measured of one kind of pair."""

    status: Counter[str] = field(default_factory=Counter)
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    used: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, verdict: Verdict) -> None:
        """Count a verdict, and the rows that say something."""
        self.status[verdict.status] += 1
        for row in verdict.outputs:
            if row.outcome == "ill-conditioned" or row.output.startswith("operand of"):
                continue
            if row.ratio is not None:
                self.ratios[row.level].append(row.ratio)
            share = _share(row)
            if share is not None:
                self.used[row.level].append(share)


def _share(row: OutputEvidence) -> float | None:
    pairs = ((row.folded_rms, row.limit_rms), (row.folded_max, row.limit_max))
    return max((value / limit for value, limit in pairs if value is not None and limit), default=None)


def quantiles(values: Sequence[float]) -> str:
    """50 / 90 / 99 / 100 %."""
    if not values:
        return "-"
    return " / ".join(f"{np.quantile(values, at):.2g}" for at in QUANTILES)


def random_pairs(count: int, seen: dict[str, Seen]) -> None:
    """Random networks and two correct folds of each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        net = random_net(rng)
        model = build(net)
        for own in (False, True):
            verdict = verify(model.SerializeToString(), fold(model, own_dtype=own).SerializeToString())
            kind = f"random {np.dtype(net.dtype).name}, folded in {'its own type' if own else 'float64'}"
            seen[kind].add(verdict)
            if verdict.status != "equivalent":
                print(f"{net}: {verdict.summary}", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{count}", end="", file=sys.stderr, flush=True)


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of the stored weights of linear operators."""
    stored = {tensor.name for tensor in model.graph.initializer}
    names = (n.input[1] for n in model.graph.node if n.op_type in LINEAR and n.input[1] in stored)
    return list(dict.fromkeys(names))


def mutations(model: onnx.ModelProto, count: int) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Copies with a deliberate error: what was changed, where, and the model."""
    names = layers(model)
    chosen = names if count >= len(names) else [names[i * len(names) // count] for i in range(count)]
    for name in chosen:
        for kind in ("one weight", "a layer"):
            copy = onnx.ModelProto()
            copy.CopyFrom(model)
            tensor = next(t for t in copy.graph.initializer if t.name == name)
            values: Any = numpy_helper.to_array(tensor).copy()
            place = np.unravel_index(np.abs(values).argmax(), values.shape) if kind == "one weight" else ...
            values[place] *= values.dtype.type(1.001)
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            yield kind, name, copy


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How the limits of verification are calibrated.")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--networks", type=int, default=200, help="random networks (default 200)")
    parser.add_argument("--mutations", type=int, default=0, help="layers of each model to change (default 0)")
    options = parser.parse_args()
    seen: dict[str, Seen] = defaultdict(Seen)
    caught: dict[str, Counter[str]] = defaultdict(Counter)
    random_pairs(options.networks, seen)
    for path in options.models:
        started = time.perf_counter()
        folded = bnfold.optimize(path, verify=False)
        original, result = path.read_bytes(), folded.model
        verdict = verify(original, result.SerializeToString())
        seen[path.stem].add(verdict)
        spent = time.perf_counter() - started
        print(f"{path.name}: {len(folded.folds)} folded, {spent:.0f} s; {verdict.summary}", flush=True)
        for kind, name, copy in mutations(result, options.mutations) if options.mutations else ():
            status = verify(original, copy.SerializeToString()).status
            caught[path.stem][f"{kind}: {status}"] += 1
            if status != "different":
                print(f"  not caught: {kind} of {name}: {status}", flush=True)
    print(f"\n| pairs | level | verdicts | ratio {QUANTILES} | of the limit |\n|---|---|---|---|---|")
    for kind, each in seen.items():
        told = ", ".join(f"{count} {status}" for status, count in each.status.items())
        for level in ("float64", "disable_all", "enable_all"):
            print(
                f"| {kind} | {level} | {told} | {quantiles(each.ratios[level])} "
                f"| {quantiles(each.used[level])} |"
            )
    for model, counts in caught.items():
        print(f"{model}: " + ", ".join(f"{count} x {what}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
