"""Batch normalization on an NVIDIA GPU: the kernels of `kernels/bn.cu`.

NumPy arrays are copied to the first GPU and back. Device arrays (torch, cupy, and whatever offers DLPack or
`__cuda_array_interface__`) are read where they are, on the caller's current stream, and results are arrays of
the same library, in the memory order of x.

x of 32 bits or fewer is computed in float32, with statistics merged in float64; float64 in float64. The same
call on the same device gives the same bits each time. In float32 the values of a channel must lie within 3e18
of each other: farther apart, the variance becomes infinite or NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.runtime import cuda_plan
from bnfold.runtime.arguments import check_per_channel, check_same_dtype, check_trainable
from bnfold.runtime.cuda_arrays import Exchange, Operand, exchange_for, memory_layout, same_order
from bnfold.runtime.cuda_device import packages
from bnfold.runtime.results import Gradients, Training

if TYPE_CHECKING:
    from bnfold.runtime.arguments import Layout
    from bnfold.runtime.cuda_plan import Plan

_FLOAT64 = np.dtype(np.float64)
_BYTE = np.dtype(np.uint8)


def available() -> str | None:
    """Say why this backend cannot run here, in one line, or None when it can."""
    try:
        packages()
    except EnvironmentFault as fault:
        return str(fault)
    return None


def infer(x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, epsilon: float, axis: int) -> Any:  # noqa: ANN401 - arrays of any library
    """See `bnfold.runtime.infer`."""
    with exchange_for(x) as arrays:
        source, layout, parameters = _read(
            arrays, x, axis, {"scale": scale, "bias": bias, "mean": mean, "var": var}
        )
        target = arrays.like(source)
        plan = cuda_plan.infer(
            cuda_plan.Tensor.of(layout, source.dtype),
            x=source.address,
            y=target.address,
            parameters=tuple(p.vector for p in parameters),
            epsilon=epsilon,
        )
        _run(arrays, plan, source.dtype)
        (y,) = arrays.results(target)
        return y


def train(
    x: Any,  # noqa: ANN401 - arrays of any library
    scale: Any,  # noqa: ANN401
    bias: Any,  # noqa: ANN401
    running_mean: Any,  # noqa: ANN401
    running_var: Any,  # noqa: ANN401
    *,
    epsilon: float,
    momentum: float,
    axis: int,
    unbiased: bool,
) -> Training[Any]:
    """See `bnfold.runtime.train`; `unbiased` makes the running variance that of N - 1."""
    given = {"scale": scale, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    with exchange_for(x) as arrays:
        source, layout, parameters = _read(arrays, x, axis, given)
        check_trainable(layout, unbiased=unbiased)
        target = arrays.like(source)
        dtypes = (_FLOAT64, _FLOAT64, parameters[2].dtype, parameters[3].dtype)
        record = tuple(arrays.take((layout.channels,), dtype) for dtype in dtypes)
        plan = cuda_plan.train(
            cuda_plan.Tensor.of(layout, source.dtype),
            arrays.gpu.limits,
            x=source.address,
            y=target.address,
            parameters=tuple(p.vector for p in parameters),
            record=tuple(r.address for r in record),
            epsilon=epsilon,
            momentum=momentum,
            unbiased=unbiased,
        )
        _run(arrays, plan, source.dtype)
        y, batch_mean, batch_var, new_mean, new_var = arrays.results(target, *record)
        return Training(y, batch_mean, batch_var, new_mean, new_var, backend="cuda")


def backward(
    dy: Any,  # noqa: ANN401 - arrays of any library
    x: Any,  # noqa: ANN401
    scale: Any,  # noqa: ANN401
    *,
    mean: Any,  # noqa: ANN401
    var: Any,  # noqa: ANN401
    epsilon: float,
    axis: int,
    training: bool,
) -> Gradients[Any]:
    """See `bnfold.runtime.backward`."""
    with exchange_for(x) as arrays:
        source, layout, parameters = _read(arrays, x, axis, {"scale": scale, "mean": mean, "var": var})
        slope = arrays.read("dy", dy)
        if slope.shape != source.shape:
            raise UsageError(f"dy has shape {slope.shape} and x has {source.shape}; they must agree")
        check_same_dtype("dy", slope.dtype, "x", source.dtype)
        if not same_order(slope, source):
            raise UsageError(
                f"dy has strides {slope.strides} and x has {source.strides}: pass both in one memory order"
            )
        if training:
            check_trainable(layout, unbiased=False)
        target = arrays.like(source)
        scale_, mean_, var_ = parameters
        record = tuple(arrays.take((layout.channels,), scale_.dtype) for _ in range(2))
        plan = cuda_plan.backward(
            cuda_plan.Tensor.of(layout, source.dtype),
            arrays.gpu.limits,
            dy=slope.address,
            x=source.address,
            dx=target.address,
            scale=scale_.vector,
            statistics=(mean_.vector, var_.vector),
            record=(record[0].address, record[1].address),
            epsilon=epsilon,
            training=training,
        )
        _run(arrays, plan, source.dtype)
        dx, dscale, dbias = arrays.results(target, *record)
        return Gradients(dx, dscale, dbias, backend="cuda")


def _read(
    arrays: Exchange,
    x: Any,  # noqa: ANN401 - arrays of any library
    axis: int,
    given: dict[str, Any],
) -> tuple[Operand, Layout, list[Operand]]:
    """See the arguments of a call, and refuse those that do not fit each other."""
    source = arrays.read("x", x)
    layout = memory_layout(source, axis)
    parameters = {name: arrays.read(name, array) for name, array in given.items()}
    check_per_channel({name: operand.shape for name, operand in parameters.items()}, layout)
    for name, operand in parameters.items():
        if operand.strides != (1,) and layout.channels > 1:
            raise UsageError(f"{name} has stride {operand.strides[0]}: pass a contiguous copy")
    for first, second in (("scale", "bias"), ("mean", "var"), ("running_mean", "running_var")):
        if first in parameters and second in parameters:
            check_same_dtype(first, parameters[first].dtype, second, parameters[second].dtype)
    return source, layout, list(parameters.values())


def _run(arrays: Exchange, plan: Plan, dtype: np.dtype[Any]) -> None:
    workspace = arrays.take((plan.workspace_bytes,), _BYTE) if plan.workspace_bytes else None
    arrays.gpu.run(plan, dtype, workspace.address if workspace else 0, arrays.stream)
