"""What the oracle raises where it cannot judge."""

from __future__ import annotations


class Unsupported(NotImplementedError):
    """The oracle does not know this operator, or no bound is known for it."""
