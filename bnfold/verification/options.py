"""How a pair of models is to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bnfold.verification.inputs import Inputs, Ranges, Wishes

TruthMode = Literal["auto", "full", "bound"]
Provider = Literal["cpu", "cuda", "tensorrt"]

BUDGET = 600.0  # seconds


@dataclass(frozen=True)
class Verification:
    """What a user may ask of a verification.

    Attributes:
        inputs: what `bnfold.verification.inputs.understand` takes, or understood already; None for seeded
            feeds.
        ranges: smallest and largest value of the feeds that are made, for all inputs or by name.
        seed: of the feeds that are made.
        truth: "auto" evaluates the original in float64 and says so where it cannot; "full" treats that as
            "not verified"; "bound" does without.
        provider: what runs both models in onnxruntime; a silent fall back to the CPU is an error.
        per_fold: look at each fold by itself, too; `optimize` alone knows them.
        budget: seconds that it may take. Feeds that it leaves out are named; where not even one is judged in
            float64, the rounding bound has to do.
    """

    inputs: Inputs | Wishes = None
    ranges: Ranges = None
    seed: int = 0
    truth: TruthMode = "auto"
    provider: Provider = "cpu"
    per_fold: bool = False
    budget: float = BUDGET

    def asked(self) -> dict[str, Any]:
        """All of it as plain values; arrays are only described."""
        from bnfold.verification.inputs import Wishes, told, understand  # noqa: PLC0415  # they import NumPy and onnx

        wishes = self.inputs if isinstance(self.inputs, Wishes) else understand(self.inputs, self.ranges)
        inputs, ranges = told(wishes)
        return {
            "inputs": inputs,
            "ranges": ranges,
            "seed": self.seed,
            "truth": self.truth,
            "provider": self.provider,
            "budget": self.budget,
            "per_fold": self.per_fold,
        }
