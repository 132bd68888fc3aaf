"""Which check finds one wrong weight, in any layer of a real model.

    PYTHONPATH=tests python benchmarks/mutations.py [--layers 12] [--seed 0] MODEL.onnx ...

Every model is folded by bnfold. In each linear layer of the result (`--layers`: so many, evenly spread) two
weights are made a thousandth too large, one at a time: the largest, and one drawn at random, however small. A
row of the table says of a model

- *stored*: how many of these weights `bnfold optimize` holds against their exact value before it writes (half
  an ulp; the others are copied byte for byte), so that it would never write the wrong one;
- *outputs*: how many `bnfold verify` finds because an output moves beyond rounding in float64;
- *tensors*: how many it finds in a tensor inside, from the operands of the original;
- *either*: of the two, so what `verify` calls different;
- *ratio*: quantiles of the correct fold's error inside, in effects of half-ulp weights; 16 is the limit.

What was not found is listed below, with the size of the weight relative to the RMS of its layer.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import bnfold
from bnfold.verification import layers
from bnfold.verification.errors import difference
from bnfold.verification.feeds import candidate_sizes, input_specs, make_feed
from bnfold.verification.judge import is_float
from bnfold.verification.real import Reals

LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
KINDS = ("largest", "random")
THOUSANDTH = 1.001


@dataclass
class Count:
    """What was found of one kind of weight in one model."""

    stored: int = 0
    outputs: int = 0
    tensors: int = 0
    answers: int = 0
    either: int = 0
    tried: int = 0


@dataclass
class Row:
    """One model."""

    counts: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    ratios: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


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


def examined(path: Path, count: int, rng: np.random.Generator) -> Row:
    """Every mutation of a model."""
    original, folded = onnx.load(path), bnfold.optimize(path, verify=False).model
    folders = (path.parent, path.parent)
    specs = input_specs(original)
    feed = make_feed(specs, candidate_sizes(specs)[0], "normal", 0)
    row = Row()
    plain = layers.excess

    def listened(look: layers.Look, effect: Any, epsilon: float) -> float:  # noqa: ANN401 - as it is declared
        value = plain(look, effect, epsilon)
        row.ratios.append(value)
        return value

    layers.excess = listened
    reals = Reals(original, folded, folders)
    alarms = reals.layers(feed) + reals.answers(feed)[0]
    layers.excess = plain
    if alarms:
        row.missed.append(f"the correct fold is called wrong at {alarms[0].output}")
    right = reals.evidence(feed)
    limits = {each.output: each for each in right.rows}
    before = {tensor.name: tensor.raw_data for tensor in original.graph.initializer}
    tensors = {tensor.name: tensor for tensor in folded.graph.initializer}
    names = linear_weights(folded)
    chosen = names if count >= len(names) else [names[i * len(names) // count] for i in range(count)]
    for name in chosen:
        values = numpy_helper.to_array(tensors[name])
        for kind, each in row.counts.items():
            flat = int(np.abs(values).argmax()) if kind == "largest" else int(rng.integers(values.size))
            copy, size = changed(folded, name, np.unravel_index(flat, values.shape))
            mutant = Reals(original, copy, folders)
            moved = mutant.folded(feed)
            out = False
            for output, value in right.truth.items():
                limit = limits[output]
                if is_float(value) and limit.limit_rms is not None and limit.limit_max is not None:
                    error = difference(value, moved[output])
                    out |= error.rms > limit.limit_rms or error.max > limit.limit_max
            inside = bool(mutant.layers(feed))
            answer = bool(mutant.answers(feed)[0])
            each.tried += 1
            each.stored += before.get(name) != tensors[name].raw_data
            each.outputs += out
            each.tensors += inside
            each.answers += answer
            each.either += out or inside or answer
            if not (out or inside or answer):
                row.missed.append(f"{kind} weight of {name} {list(values.shape)}, {size:.2g} of the RMS")
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
    print(
        "| model | weights | tried | stored | outputs | tensors | answers | either "
        "| ratio 50 / 99 / 100 % | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    missed: list[str] = []
    for path in options.models:
        started = time.process_time()
        row = examined(path, options.layers, np.random.default_rng(options.seed))
        inside = [ratio for ratio in row.ratios if ratio <= layers.FACTOR] or [0.0]
        spread = " / ".join(f"{np.quantile(inside, at):.2g}" for at in (0.5, 0.99, 1.0))
        for kind, each in row.counts.items():
            print(
                f"| {path.stem} | {kind} | {each.tried} | {each.stored} | {each.outputs} | {each.tensors} "
                f"| {each.answers} | {each.either} | {spread} | {time.process_time() - started:.0f} |",
                flush=True,
            )
        missed += [f"{path.stem}: {text}" for text in row.missed]
    print("\n" + ("\n".join(missed) if missed else "Every one was found."))


if __name__ == "__main__":
    main()
