"""The operator table: one line an operator. To add one, write its file and its line (see CONTRIBUTING.md)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bnfold.fold.ops import (
    batch_normalization,
    conv,
    conv_transpose,
    elementwise,
    gemm,
    identity,
    matmul,
    reshape,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.fold.operator import Operator

TABLE: Mapping[str, Operator] = MappingProxyType({
    "Add": elementwise.OPERATOR,
    "BatchNormalization": batch_normalization.OPERATOR,
    "Conv": conv.OPERATOR,
    "ConvTranspose": conv_transpose.OPERATOR,
    "Div": elementwise.OPERATOR,
    "Dropout": identity.DROPOUT,
    "Flatten": reshape.RESHAPE,
    "Gemm": gemm.OPERATOR,
    "Identity": identity.IDENTITY,
    "MatMul": matmul.OPERATOR,
    "Mul": elementwise.OPERATOR,
    "Reshape": reshape.RESHAPE,
    "Squeeze": reshape.RESHAPE,
    "Sub": elementwise.OPERATOR,
    "Transpose": reshape.TRANSPOSE,
    "Unsqueeze": reshape.RESHAPE,
})  # fmt: skip
