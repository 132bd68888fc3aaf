"""The limits of `judge`, measured again: no correct fold fails, no effective mutation passes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from support.convnets import Net, build, changed, fold, random_net, weight

from bnfold.verification.pair import verify

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("own_dtype", [False, True])
@pytest.mark.parametrize("block", range(5))
def test_no_correct_fold_fails(block: int, own_dtype: bool) -> None:
    rng = np.random.default_rng([block, own_dtype])
    said = Counter[str]()
    for _ in range(40):
        net = random_net(rng)
        model = build(net)
        folded = fold(model, own_dtype=own_dtype)
        verdict = verify(model.SerializeToString(), folded.SerializeToString())
        assert verdict.status != "different", (net, verdict.summary)
        said[verdict.status] += 1
    # Fifty layers without a nonlinearity can leave float16's range, where there is nothing to compare.
    assert said["equivalent"] >= 38


@pytest.mark.parametrize("layers", [1, 2, 5, 10, 20])
def test_the_largest_weight_of_any_layer_off_by_a_thousandth_is_found(layers: int) -> None:
    # Without ReLU every channel reaches the output, so nothing can hide a change.
    model = build(Net(layers=layers, channels=8, relu=False, seed=layers))
    folded = fold(model)
    for layer in range(layers):
        values = weight(folded, f"w{layer}_folded")
        values[np.unravel_index(np.abs(values).argmax(), values.shape)] *= np.float32(1.001)
        other = changed(folded, f"w{layer}_folded", values)
        verdict = verify(model.SerializeToString(), other.SerializeToString())
        assert verdict.status == "different", (layer, verdict.summary)
