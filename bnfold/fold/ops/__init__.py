"""The operator table: one line an operator. To add one, write its file and its line (see CONTRIBUTING.md)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bnfold.fold.ops import (
    activation,
    batch_normalization,
    cast,
    concat,
    conv,
    conv_transpose,
    elementwise,
    gemm,
    identity,
    matmul,
    normalization,
    pad,
    pooling,
    resample,
    reshape,
    select,
    several,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.fold.operator import Operator

TABLE: Mapping[str, Operator] = MappingProxyType({
    "Add": elementwise.OPERATOR,
    "AveragePool": pooling.AVERAGE_POOL,
    "BatchNormalization": batch_normalization.OPERATOR,
    "Cast": cast.OPERATOR,
    "Clip": activation.CLIP,
    "Concat": concat.CONCAT,
    "Conv": conv.OPERATOR,
    "ConvTranspose": conv_transpose.OPERATOR,
    "DepthToSpace": resample.DEPTH_TO_SPACE,
    "Div": elementwise.OPERATOR,
    "Dropout": identity.DROPOUT,
    "Expand": resample.EXPAND,
    "Flatten": reshape.RESHAPE,
    "Gather": select.GATHER,
    "Gemm": gemm.OPERATOR,
    "GlobalAveragePool": pooling.AVERAGE_POOL,
    "GlobalMaxPool": pooling.MAX_POOL,
    "GroupNormalization": normalization.PER_CHANNEL,
    "Identity": identity.IDENTITY,
    "InstanceNormalization": normalization.PER_CHANNEL,
    "LayerNormalization": normalization.LAYER,
    "LeakyRelu": activation.RECTIFIER,
    "MatMul": matmul.OPERATOR,
    "Max": several.EXTREME,
    "MaxPool": pooling.MAX_POOL,
    "Mean": several.SUM,
    "Min": several.EXTREME,
    "Mul": elementwise.OPERATOR,
    "Neg": elementwise.OPERATOR,
    "PRelu": activation.PRELU,
    "Pad": pad.OPERATOR,
    "ReduceMax": pooling.REDUCE_EXTREME,
    "ReduceMean": pooling.REDUCE_MEAN,
    "ReduceMin": pooling.REDUCE_EXTREME,
    "ReduceSum": pooling.REDUCE_SUM,
    "Relu": activation.RECTIFIER,
    "Reshape": reshape.RESHAPE,
    "Resize": resample.RESIZE,
    "Slice": select.SLICE,
    "SpaceToDepth": resample.SPACE_TO_DEPTH,
    "Split": concat.SPLIT,
    "Squeeze": reshape.RESHAPE,
    "Sub": elementwise.OPERATOR,
    "Sum": several.SUM,
    "Tile": resample.TILE,
    "Transpose": reshape.TRANSPOSE,
    "Unsqueeze": reshape.RESHAPE,
    "Upsample": resample.RESIZE,
})  # fmt: skip
