"""How far correct folds stay below the limits of verification, and which deliberate errors go beyond them.

    PYTHONPATH=tests python benchmarks/calibrate.py [--networks 200] [--mutations 0] [MODEL.onnx ...]

Random networks (`tests/support/convnets.py`) are folded by code that shares nothing with bnfold: in float64
and rounded once, and in the weights' own dtype, as other tools do. Given models are folded by bnfold. Every
pair is verified, and for each kind and level the table shows quantiles (50 / 90 / 99 / 100 %) of

- *ratio*: RMS error of the folded model by the yardstick: the original's error, in float64 the allowance;
- *of the limit*: the larger of what was used of both limits, RMS and largest error, with the allowance that
  verification measures where it needs it; above 1 a fold fails;

and how many comparisons needed that allowance.

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
from bnfold.verification.case import LEVELS, case_of
from bnfold.verification.feeding import choose_feeds
from bnfold.verification.gather import judged_levels
from bnfold.verification.inputs import Wishes
from bnfold.verification.options import Verification
from bnfold.verification.pair import verify
from bnfold.verification.real import Reals
from bnfold.verification.sessions import Run, run_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnfold.verification.verdict import OutputEvidence

QUANTILES = (0.5, 0.9, 0.99, 1.0)
LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass
class Seen:
    """What was measured of one kind of pair."""

    pairs: int = 0
    failed: int = 0
    ratios: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    used: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    needed: Counter[str] = field(default_factory=Counter)

    def add(self, original: bytes, folded: bytes) -> None:
        """Compare a pair, and keep what says something."""
        rows, plain = compared(original, folded)
        self.pairs += 1
        self.failed += any(row.outcome == "fail" for row in rows)
        self.needed.update(row.level for row in plain if row.outcome == "fail")
        for row in rows:
            share = _share(row)
            if row.outcome == "ill-conditioned" or row.output.startswith("operand of") or share is None:
                continue
            self.used[row.level].append(share)
            if row.ratio is not None:
                self.ratios[row.level].append(row.ratio)


def compared(original: bytes, folded: bytes) -> tuple[list[OutputEvidence], list[OutputEvidence]]:
    """The evidence of a pair with allowances, and what onnxruntime alone says without."""
    rows: list[OutputEvidence] = []
    plain: list[OutputEvidence] = []
    with case_of(original, folded, Verification(), None) as case:
        feeds, _ = choose_feeds(case, Wishes())
        runs = [Run(level, feed.name, feed.values) for level in LEVELS for feed in feeds]
        first, second = (run_model(model.path, runs) for model in (case.original, case.folded))
        reals = Reals(case.original.proto, case.folded.proto, (case.original.folder, case.folded.folder))
        for feed in feeds:
            truth = reals.truth(feed)
            plain += judged_levels(feed, truth, first, second, allowances={})
            rows += judged_levels(feed, truth, first, second, allowances=reals.runtime_allowances(feed))
        rows += reals.evidence(feeds[0]).rows
    return rows, plain


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
            kind = f"random {np.dtype(net.dtype).name}, folded in {'its own type' if own else 'float64'}"
            seen[kind].add(model.SerializeToString(), fold(model, own_dtype=own).SerializeToString())
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
        seen["models, folded by bnfold"].add(original, result.SerializeToString())
        spent = time.perf_counter() - started
        print(f"{path.name}: {len(folded.folds)} folded, {spent:.0f} s; {verdict.summary}", flush=True)
        for kind, name, copy in mutations(result, options.mutations) if options.mutations else ():
            status = verify(original, copy.SerializeToString()).status
            caught[path.stem][f"{kind}: {status}"] += 1
            if status != "different":
                print(f"  not caught: {kind} of {name}: {status}", flush=True)
    print(
        f"\n| pairs | failed | level | ratio {QUANTILES} | of the limit | needed |\n|---|---|---|---|---|---|"
    )
    for kind, each in seen.items():
        for level in ("float64", *LEVELS):
            used = each.used[level]
            print(
                f"| {each.pairs} {kind} | {each.failed} | {level} | {quantiles(each.ratios[level])} "
                f"| {quantiles(used)} | {each.needed[level]} of {len(used)} |"
            )
    for model, counts in caught.items():
        print(f"{model}: " + ", ".join(f"{count} x {what}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
