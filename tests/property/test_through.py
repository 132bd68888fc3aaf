"""Maps that travel: random graphs of all operators that pass one on, in both directions.

The default lane takes 150 graphs, the slow lane 2,000; any number by hand, from any seed on:

    BNFOLD_EXAMPLES=20000 BNFOLD_SEED=1000000 pytest tests/property/test_through.py -m slow

A failure names its seed; `support.through.model(seed)` gives the graph.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from support import through
from support.build import feeds
from support.claims import BN, all_nodes, expect, ops, sound

import bnfold
from bnfold.fold.ops import TABLE

QUICK, THOROUGH = 150, int(os.environ.get("BNFOLD_EXAMPLES", "2000"))
FIRST = int(os.environ.get("BNFOLD_SEED", "0"))


def holds(seed: int) -> None:
    model, dims = through.model(seed)
    given = feeds(model, **dims)
    result = expect(model, feeds=given, runtime=False)
    if "condition" in given:
        expect(model, feeds=given | {"condition": ~given["condition"]}, runtime=False)
    assert len(ops(result.model)) <= len(ops(model)), "a fold leaves no more nodes than there were"
    again = bnfold.optimize(result.model, verify=False)
    assert not again.folds, "what can be folded is folded at once"
    assert again.model.SerializeToString() == result.model.SerializeToString()


@pytest.mark.parametrize("first", range(0, QUICK, 10))
def test_random_graphs(first: int) -> None:
    for seed in range(first, first + 10):
        try:
            holds(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.slow
def test_many_random_graphs() -> None:
    for seed in range(FIRST, FIRST + THOROUGH):
        try:
            holds(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_models_are_sound() -> None:
    """The generator's own shapes are right: onnxruntime agrees with the oracle about most of the models."""
    ran = 0
    for seed in range(QUICK):
        model, dims = through.model(seed)
        ran += sound(model, feeds(model, **dims))
    assert ran > 0.5 * QUICK, "onnxruntime has no double Conv and not the newest opset, but most of the rest"


def test_the_models_reach_every_operator() -> None:
    """Each row of the table is passed or ends a way somewhere, in each direction it offers, by some seed."""
    missing = {("backward", op) for op, row in TABLE.items() if row.backward}
    missing |= {("forward", op) for op, row in TABLE.items() if row.forward}
    # A node that goes with the fold is not among those it passes.
    missing -= {("backward", op) for op in ("Mul", "Div", "Neg")}
    missing -= {("forward", op) for op in ("Add", "Sub", "Mul", "Div", "Neg")}
    folds: Counter[str] = Counter()
    for seed in range(5000):
        model, _ = through.model(seed)
        kinds = {node.name: node.op_type for node in all_nodes(model)}
        for fold in bnfold.optimize(model, verify=False, merge=False).folds:
            folds[fold.direction] += fold.op == BN
            missing -= {(fold.direction, kinds[name]) for name in (*fold.into, *fold.through)}
        if not missing and seed >= 500:
            break
    assert not missing
    assert folds["backward"] > 200
    assert folds["forward"] > 100
