"""What batch normalization means: inference, training, gradients, statistics.

This package is an implementation of its own. It reads no graph, knows nothing of folding, and needs
NumPy alone (and CUDA where it is to compute on a GPU). Names and defaults are ONNX's; `convention` reads
them as PyTorch or Keras do (the table is in `bnfold.runtime.conventions`).

    t = runtime.train(x, scale, bias, running_mean, running_var)         # mini-batch statistics
    g = runtime.backward(dy, x, scale, mean=t.mean, var=t.var)           # gradients
    y = runtime.infer(x, scale, bias, t.running_mean, t.running_var)     # population statistics
    a = runtime.affine_of(scale, bias, t.running_mean, t.running_var)    # y = a.scale*x + a.shift
    p = runtime.recalibrate(batches)                                     # exact population statistics

**Shapes.** x has one axis or more. `axis` is the channel axis: 1, or -1 for channels-last. A one-dimensional
x of size N is N values of one channel (ONNX BatchNormalization-15). Parameters and statistics are `[C]`.

**Dtypes.** float16, bfloat16, float32 and float64; x and y, scale and bias, mean and var may be three
different ones (ONNX's T, T1 and T2). The NumPy backend computes everything in float64 and rounds once.

**Edges.** `infer` takes an empty batch; `train` refuses one, since it has no mean. One value per channel has
variance 0, so y is the bias. Non-finite values follow IEEE 754, quietly, and stay in their channel.
`var + epsilon <= 0` gives the NaN or infinity that the formula gives.
"""

from __future__ import annotations

from typing import Any, cast

from bnfold.runtime.affine import ChannelAffine, affine_of
from bnfold.runtime.arguments import check_epsilon, check_momentum
from bnfold.runtime.backends import Backend, backend_for, load
from bnfold.runtime.conventions import CONVENTIONS, Convention, ConventionName, convention_named
from bnfold.runtime.recalibration import Recalibration, recalibrate
from bnfold.runtime.results import AnyArray, ArrayT, BackendName, Gradients, Training

__all__ = [
    "CONVENTIONS",
    "Backend",
    "BackendName",
    "ChannelAffine",
    "Convention",
    "ConventionName",
    "Gradients",
    "Recalibration",
    "Training",
    "affine_of",
    "backend_for",
    "backward",
    "infer",
    "recalibrate",
    "train",
]


def infer(
    x: ArrayT,
    scale: AnyArray,
    bias: AnyArray,
    mean: AnyArray,
    var: AnyArray,
    *,
    epsilon: float | None = None,
    axis: int = 1,
    backend: Backend = "auto",
    convention: ConventionName = "onnx",
) -> ArrayT:
    """Normalize with given statistics: `y = (x - mean)/sqrt(var + epsilon)*scale + bias`.

    No value depends on another value of x: a batch of one gives the bits of that row in a larger batch.

    Args:
        x: activations, at least one axis.
        scale: gamma, shape `[C]`.
        bias: beta, shape `[C]`, dtype of `scale`.
        mean: population mean, shape `[C]`.
        var: population variance, shape `[C]`, dtype of `mean`.
        epsilon: added to the variance; None is the convention's default, 1e-5 in ONNX.
        axis: the channel axis, 1 or -1.
        backend: who computes; `backend_for` says whom `"auto"` takes.
        convention: whose default of epsilon holds.

    Returns:
        y, with the shape and dtype of x.

    Raises:
        UsageError: an argument that does not fit; the message names it.
        EnvironmentFault: the CUDA backend cannot run here.
    """
    run = load(backend_for(backend, x, scale, bias, mean, var)).infer
    added = _epsilon(epsilon, convention_named(convention))
    return cast("ArrayT", run(x, scale, bias, mean, var, epsilon=added, axis=axis))


def train(
    x: ArrayT,
    scale: AnyArray,
    bias: AnyArray,
    running_mean: AnyArray,
    running_var: AnyArray,
    *,
    epsilon: float | None = None,
    momentum: float | None = None,
    axis: int = 1,
    backend: Backend = "auto",
    convention: ConventionName = "onnx",
) -> Training[ArrayT]:
    """Normalize with the statistics of the mini-batch, and move the running ones towards them.

    Mean and biased variance are taken per channel over all other axes; then, in ONNX's convention,
    `running = momentum*running + (1 - momentum)*batch`. The arguments are not changed.

    Args:
        x: activations, at least one axis and one value per channel.
        scale: gamma, shape `[C]`.
        bias: beta, shape `[C]`, dtype of `scale`.
        running_mean: shape `[C]`.
        running_var: shape `[C]`, dtype of `running_mean`.
        epsilon: added to the variance; None is the convention's default, 1e-5 in ONNX.
        momentum: in the convention's meaning; None is its default, 0.9 in ONNX.
        axis: the channel axis, 1 or -1.
        backend: who computes; the result names it.
        convention: what `momentum` weighs, and whether the running variance is unbiased.

    Raises:
        UsageError: an argument that does not fit; the message names it.
        EnvironmentFault: the CUDA backend cannot run here.
    """
    run = load(backend_for(backend, x, scale, bias, running_mean, running_var)).train
    meaning = convention_named(convention)
    weight = check_momentum(meaning.momentum if momentum is None else momentum)
    result: Training[Any] = run(
        x,
        scale,
        bias,
        running_mean,
        running_var,
        epsilon=_epsilon(epsilon, meaning),
        momentum=meaning.onnx_momentum(weight),
        axis=axis,
        unbiased=meaning.unbiased,
    )
    return result


def backward(
    dy: ArrayT,
    x: ArrayT,
    scale: AnyArray,
    *,
    mean: AnyArray,
    var: AnyArray,
    epsilon: float | None = None,
    axis: int = 1,
    training: bool = True,
    backend: Backend = "auto",
    convention: ConventionName = "onnx",
) -> Gradients[ArrayT]:
    """Carry the gradient of a loss through `train` or `infer`.

    Args:
        dy: derivative of the loss by y; shape and dtype of x.
        x: what the forward direction read.
        scale: gamma, shape `[C]`.
        mean: what normalized x: `Training.mean`, or the population mean; shape `[C]`.
        var: `Training.var` (biased), or the population variance; dtype of `mean`.
        epsilon: that of the forward direction; None is the convention's default, 1e-5 in ONNX.
        axis: the channel axis, 1 or -1.
        training: whether mean and var are those of x, and so depend on it; else they are constants.
        backend: who computes; the result names it.
        convention: whose default of epsilon holds.

    Raises:
        UsageError: an argument that does not fit; the message names it.
        EnvironmentFault: the CUDA backend cannot run here.
    """
    run = load(backend_for(backend, dy, x, scale, mean, var)).backward
    added = _epsilon(epsilon, convention_named(convention))
    result: Gradients[Any] = run(
        dy, x, scale, mean=mean, var=var, epsilon=added, axis=axis, training=training
    )
    return result


def _epsilon(epsilon: float | None, meaning: Convention) -> float:
    return check_epsilon(meaning.epsilon if epsilon is None else epsilon)
