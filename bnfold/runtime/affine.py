"""Batch normalization at inference, as the per-channel affine map that it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import UsageError
from bnfold.runtime.arguments import Layout, check_epsilon, check_host, check_per_channel, check_same_dtype
from bnfold.runtime.conventions import ConventionName, convention_named

if TYPE_CHECKING:
    import numpy.typing as npt

    from bnfold.runtime.results import Float64Array


@dataclass(frozen=True, slots=True, eq=False)
class ChannelAffine:
    """The map `y = scale*x + shift`, one pair per channel.

    Attributes:
        scale: float64, shape `[C]`.
        shift: float64, shape `[C]`.
    """

    scale: Float64Array
    shift: Float64Array


def affine_of(
    scale: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    mean: npt.NDArray[Any],
    var: npt.NDArray[Any],
    *,
    epsilon: float | None = None,
    convention: ConventionName = "onnx",
) -> ChannelAffine:
    """Write inference with fixed statistics as `scale/sqrt(var + epsilon)` and what is left of the bias.

    This is what a linear layer in front of the normalization absorbs: `W[c] *= a.scale[c]` and
    `b = a.scale*b + a.shift`.

    Args:
        scale: gamma, shape `[C]`.
        bias: beta, shape `[C]`, dtype of `scale`.
        mean: population mean, shape `[C]`.
        var: population variance, shape `[C]`, dtype of `mean`.
        epsilon: added to the variance; None is the convention's default.
        convention: whose defaults hold.

    Raises:
        UsageError: shapes that differ, a dtype that is no float, an epsilon that is not finite.
    """
    check_host({"scale": scale, "bias": bias, "mean": mean, "var": var})
    if scale.ndim != 1:
        raise UsageError(f"scale has shape {scale.shape}; expected one axis of channels")
    layout = Layout(outer=1, channels=scale.size, inner=1)
    check_per_channel({"bias": bias.shape, "mean": mean.shape, "var": var.shape}, layout)
    check_same_dtype("scale", scale.dtype, "bias", bias.dtype)
    check_same_dtype("mean", mean.dtype, "var", var.dtype)
    added = check_epsilon(convention_named(convention).epsilon if epsilon is None else epsilon)
    with np.errstate(all="ignore"):
        gain = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + added)
        return ChannelAffine(gain, bias.astype(np.float64) - mean.astype(np.float64) * gain)
