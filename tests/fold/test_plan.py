"""What the plan decides beyond single operators."""

from __future__ import annotations

import numpy as np
import pytest
from support.build import Net
from support.claims import expect


@pytest.mark.parametrize(("ratio", "folds"), [(60.0, True), (70.0, False)])
def test_a_mean_that_dwarfs_the_deviation_is_not_moved_behind_the_weights(ratio: float, folds: bool) -> None:
    """float32 has 24 digits; a quarter of them is a factor of 64."""
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    stats = {"mean": np.array([0.0, 2.0 * ratio, 0.0]), "var": np.full(3, 4.0), "scale": np.ones(3)}
    net.output(net.conv(net.bn(x, 3, name="bn", stats=stats), 3, 4), shape=[1, 4, 4, 4])
    if folds:
        expect(net.model(), folded={"bn"})
    else:
        expect(net.model(), kept={"bn": "BNF026"})


def test_the_same_mean_behind_the_weights_is_no_obstacle() -> None:
    net = Net(17)
    x = net.input("x", 1, 3, 6, 6)
    stats = {"mean": np.full(4, 1000.0), "var": np.ones(4), "scale": np.ones(4)}
    net.output(net.bn(net.conv(x, 3, 4), 4, name="bn", stats=stats), shape=[1, 4, 4, 4])
    expect(net.model(), folded={"bn"})
