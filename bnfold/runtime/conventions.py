"""Where the frameworks mean different things by the same words.

| convention | momentum is the weight of | default momentum | default epsilon | running variance divides by |
|---|---|---|---|---|
| `"onnx"` | the old running value | 0.9 | 1e-5 | N (biased) |
| `"pytorch"` | the new mini-batch | 0.1 | 1e-5 | N - 1 (unbiased) |
| `"keras"` | the old running value | 0.99 | 1e-3 | N (biased) |

The variance that normalizes the mini-batch itself divides by N in all three. Sources: ONNX
BatchNormalization-15; torch.nn.BatchNorm2d; keras.layers.BatchNormalization (Keras 3). PyTorch's
`momentum=None`, the average over all batches so far, is `bnfold.runtime.recalibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias

from bnfold.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ConventionName: TypeAlias = Literal["onnx", "pytorch", "keras"]


@dataclass(frozen=True, slots=True)
class Convention:
    """One row of the table.

    Attributes:
        momentum: default, in the framework's own meaning.
        epsilon: default, added to the variance under the root.
        momentum_weighs: what `momentum` multiplies in the moving average; its complement weighs the other.
        unbiased: whether the running variance divides by N - 1.
    """

    momentum: float
    epsilon: float
    momentum_weighs: Literal["running", "batch"]
    unbiased: bool

    def onnx_momentum(self, momentum: float) -> float:
        """Translate a momentum of this convention into ONNX's, the weight of the old running value."""
        return momentum if self.momentum_weighs == "running" else 1.0 - momentum


CONVENTIONS: Mapping[ConventionName, Convention] = MappingProxyType(
    {
        "onnx": Convention(momentum=0.9, epsilon=1e-5, momentum_weighs="running", unbiased=False),
        "pytorch": Convention(momentum=0.1, epsilon=1e-5, momentum_weighs="batch", unbiased=True),
        "keras": Convention(momentum=0.99, epsilon=1e-3, momentum_weighs="running", unbiased=False),
    }
)


def convention_named(name: ConventionName) -> Convention:
    """Look up a convention.

    Raises:
        UsageError: an unknown name.
    """
    if name not in CONVENTIONS:
        raise UsageError(f"convention={name!r}; expected one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
