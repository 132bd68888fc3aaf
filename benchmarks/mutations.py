"""Which check finds one wrong weight, in any layer of a real model, and how far a correct fold is from that.

    PYTHONPATH=tests python benchmarks/mutations.py [--layers 12] [--seed 0] MODEL.onnx ...

Every model is folded by bnfold. In each linear layer of the result (`--layers`: so many, evenly spread) two
weights are made a thousandth too large, one at a time: the largest, and one drawn at random, however small. A
row of the table says of a model

- *stored*: how many of these weights `bnfold optimize` holds against their exact value before it writes (half
  an ulp; the others are copied byte for byte), so that it would never write the wrong one;
- *outputs*: how many `bnfold verify` finds because an output moves beyond rounding in float64;
- *tensors*: how many it finds in a tensor inside, from the operands of the original;
- *weights*: how many it finds by asking the layer for its weights one by one;
- *verify*: of any of the three, so what it calls different;
- *right*, *wrong*: what the worst answer of a layer uses of its limit, in the correct fold (50 / 99 / 100 %),
  and in those that are wrong (0 / 1 / 50 %); beyond 1 it is called different.

What was not found is listed below, with the size of the weight relative to the RMS of its layer; the last row
is all models together.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

import bnfold
from bnfold.verification import responses
from bnfold.verification.errors import difference
from bnfold.verification.feeds import candidate_sizes, input_specs, make_feed
from bnfold.verification.judge import is_float
from bnfold.verification.real import Reals
from bnfold.verification.slices import LINEAR

if TYPE_CHECKING:
    from collections.abc import Sequence

THOUSANDTH = 1.001
CHECKS = ("stored", "outputs", "tensors", "weights", "verify")


@dataclass
class Row:
    """One model."""

    tried: int = 0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    right: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, other: Row) -> None:
        """Count another model in."""
        self.tried += other.tried
        for check in CHECKS:
            self.found[check] += other.found[check]
        self.right += other.right
        self.wrong += other.wrong

    def line(self, name: str, seconds: float) -> str:
        """The row."""
        counts = " | ".join(str(self.found[check]) for check in CHECKS)
        right, wrong = quantiles(self.right, (0.5, 0.99, 1.0)), quantiles(self.wrong, (0.0, 0.01, 0.5))
        return f"| {name} | {self.tried} | {counts} | {right} | {wrong} | {seconds:.0f} |"


def quantiles(values: Sequence[float], at: Sequence[float]) -> str:
    """Some quantiles, in short."""
    return " / ".join(f"{np.quantile(values, each):.2g}" for each in at) if values else "-"


def linear_weights(model: onnx.ModelProto) -> list[str]:
    """Names of the stored weights of linear operators."""
    stored = {tensor.name for tensor in model.graph.initializer}
    names = (n.input[1] for n in model.graph.node if n.op_type in LINEAR and n.input[1] in stored)
    return list(dict.fromkeys(names))


def changed(model: onnx.ModelProto, name: str, place: tuple[Any, ...]) -> tuple[onnx.ModelProto, float]:
    """A copy with one weight a thousandth too large, and the size of it relative to the RMS of all."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensor = next(tensor for tensor in copy.graph.initializer if tensor.name == name)
    values: Any = numpy_helper.to_array(tensor).copy()
    size = float(abs(values[place]) / np.sqrt(np.mean(np.square(values.astype(np.float64)))))
    values[place] *= values.dtype.type(THOUSANDTH)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return copy, size


class Remembered:
    """Asks no layer twice that is the same in two models, and keeps what the answers use of their limit."""

    def __init__(self) -> None:
        self._module: Any = responses
        self._compared, self._excess = self._module._compared, self._module._excess  # noqa: SLF001 - measured here
        self._known: dict[tuple[bytes, bytes, str], Any] = {}
        self._last = 0.0
        self.worst: list[float] = []

    def __enter__(self) -> Remembered:  # noqa: PYI034 - nothing derives from it
        self._module._compared, self._module._excess = self.compared, self.excess  # noqa: SLF001 - as above
        return self

    def __exit__(self, *_: object) -> None:
        self._module._compared, self._module._excess = self._compared, self._excess  # noqa: SLF001 - as above

    def compared(self, parts: Any, before: Any, cut: Any, feed: str, shapes: Any) -> Any:  # noqa: ANN401 - as there
        """As `responses._compared`."""
        first, second = (
            hashlib.sha256(part.model.SerializeToString(deterministic=True)).digest()
            for part in (before, cut)
        )
        if (first, second, feed) not in self._known:
            found = self._compared(parts, before, cut, feed, shapes)
            self._known[first, second, feed] = found
            if found is not None:
                self.worst.append(self._last)
        return self._known[first, second, feed]

    def excess(self, *arguments: Any) -> Any:  # noqa: ANN401 - as there
        """As `responses._excess`."""
        result = self._excess(*arguments)
        self._last = float(result.max(initial=0.0))
        return result


def examined(path: Path, count: int, rng: np.random.Generator) -> Row:
    """Every mutation of a model."""
    original, folded = onnx.load(path), bnfold.optimize(path, verify=False).model
    folders = (path.parent, path.parent)
    specs = input_specs(original)
    feed = make_feed(specs, candidate_sizes(specs)[0], "normal", 0)
    row = Row()
    with Remembered() as memory:
        reals = Reals(original, folded, folders)
        right = reals.evidence(feed)
        drowned = any(each.outcome == "ill-conditioned" for each in right.rows)
        alarms = (*reals.answers(feed)[0], *(() if drowned else reals.layers(feed)))
        alarms += tuple(each for each in right.rows if each.outcome == "fail")
        row.missed += [f"the correct fold is called wrong at {each.output}" for each in alarms]
        row.missed += [f"nothing is known of {name}" for name in reals.answers(feed)[1]]
        row.right, memory.worst = memory.worst, []
        limits = {each.output: each for each in right.rows}
        before = {tensor.name: tensor.raw_data for tensor in original.graph.initializer}
        tensors = {tensor.name: tensor for tensor in folded.graph.initializer}
        names = linear_weights(folded)
        chosen = names if count >= len(names) else [names[i * len(names) // count] for i in range(count)]
        for name in chosen:
            values = numpy_helper.to_array(tensors[name])
            for flat in (int(np.abs(values).argmax()), int(rng.integers(values.size))):
                copy, size = changed(folded, name, np.unravel_index(flat, values.shape))
                mutant = Reals(original, copy, folders)
                moved = mutant.folded(feed)
                outputs = False
                for output, value in right.truth.items():
                    limit = limits[output]
                    if is_float(value) and limit.limit_rms is not None and limit.limit_max is not None:
                        error = difference(value, moved[output])
                        outputs |= error.rms > limit.limit_rms or error.max > limit.limit_max
                inside = not drowned and bool(mutant.layers(feed))
                weights = bool(mutant.answers(feed)[0])
                found = outputs or inside or weights
                row.tried += 1
                stored = before.get(name) != tensors[name].raw_data
                for check, seen in zip(CHECKS, (stored, outputs, inside, weights, found), strict=True):
                    row.found[check] += bool(seen)
                if not found:
                    row.missed.append(f"a weight of {name} {list(values.shape)}, {size:.2g} of the RMS")
        row.wrong = memory.worst
    return row


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Which check finds one wrong weight.")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument(
        "--layers", type=int, default=10**9, help="layers of each model to change (default all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights that are drawn (default 0)")
    options = parser.parse_args()
    print(f"| model | tried | {' | '.join(CHECKS)} | right | wrong | seconds |")
    print("|---" * (len(CHECKS) + 5) + "|", flush=True)
    total, missed, began = Row(), [], time.process_time()
    for path in options.models:
        started = time.process_time()
        row = examined(path, options.layers, np.random.default_rng(options.seed))
        print(row.line(path.stem, time.process_time() - started), flush=True)
        missed += [f"{path.stem}: {text}" for text in row.missed]
        total.add(row)
    print(total.line(f"{len(options.models)} models", time.process_time() - began))
    print("\n" + ("\n".join(missed) if missed else "Every one was found."))


if __name__ == "__main__":
    main()
