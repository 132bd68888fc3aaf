from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

DTYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.float64))

# One to five dimensions, both layouts; one, odd and many values per channel.
LAYOUTS: tuple[tuple[tuple[int, ...], int], ...] = (
    ((7,), 1),
    ((7,), -1),
    ((5, 3), 1),
    ((5, 3), -1),
    ((4, 3, 7), 1),
    ((4, 7, 3), -1),
    ((2, 3, 4, 5), 1),
    ((2, 4, 5, 3), -1),
    ((2, 4, 5, 3), 3),
    ((2, 3, 2, 3, 4), 1),
    ((2, 2, 3, 4, 3), -1),
    ((1, 6, 1, 1), 1),
)


@pytest.fixture(params=LAYOUTS, ids=lambda p: f"{'x'.join(map(str, p[0]))}@{p[1]}")
def layout(request: pytest.FixtureRequest) -> tuple[tuple[int, ...], int]:
    chosen: tuple[tuple[int, ...], int] = request.param
    return chosen


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    chosen: np.dtype[Any] = request.param
    return chosen
