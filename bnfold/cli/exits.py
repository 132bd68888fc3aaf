"""Exit codes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes; the full table is in the README."""

    DONE = 0
    FINDING = 1
    USAGE = 2
    MODEL = 3
    FAULT = 4
    INCONCLUSIVE = 5
    INTERRUPTED = 130
    TERMINATED = 143
