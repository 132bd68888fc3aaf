"""Which operators of the ONNX domain are evaluated by bnfold's own code; all others by onnx's reference."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bnfold.verification.truth import (
    convolution,
    elementwise,
    linear,
    normalization,
    pooling,
    quantization,
    resize,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnfold.verification.truth.call import Operator

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Add": elementwise.arithmetic(np.add),
        "AveragePool": pooling.average_pool,
        "BatchNormalization": normalization.batch_normalization,
        "Bernoulli": elementwise.random,
        "BitCast": elementwise.bits,
        "Cast": elementwise.cast,
        "CastLike": elementwise.cast_like,
        "Clip": elementwise.clip,
        "Constant": elementwise.constant,
        "ConstantOfShape": elementwise.constant_of_shape,
        "Conv": convolution.conv,
        "ConvTranspose": convolution.conv_transpose,
        "DequantizeLinear": quantization.dequantize_linear,
        "Div": elementwise.arithmetic(elementwise.divide),
        "Dropout": elementwise.dropout,
        "Erf": elementwise.erf,
        "GatherElements": elementwise.gather_elements,
        "Gemm": linear.gemm,
        "GlobalAveragePool": pooling.global_average_pool,
        "GlobalMaxPool": pooling.global_max_pool,
        "Hardmax": normalization.hardmax,
        "InstanceNormalization": normalization.instance_normalization,
        "LRN": normalization.lrn,
        "LeakyRelu": elementwise.leaky_relu,
        "LogSoftmax": normalization.log_softmax,
        "LpPool": pooling.lp_pool,
        "MatMul": linear.matmul,
        "MaxPool": pooling.max_pool,
        "Mul": elementwise.arithmetic(np.multiply),
        "Multinomial": elementwise.random,
        "PRelu": elementwise.prelu,
        "Pow": elementwise.arithmetic(elementwise.power),
        "RandomNormal": elementwise.random,
        "RandomNormalLike": elementwise.random,
        "RandomUniform": elementwise.random,
        "RandomUniformLike": elementwise.random,
        "Relu": elementwise.relu,
        "Reshape": elementwise.reshape,
        "Resize": resize.resize,
        "Sigmoid": elementwise.sigmoid,
        "Softmax": normalization.softmax,
        "Sub": elementwise.arithmetic(np.subtract),
        "Sum": elementwise.total,
        "Upsample": resize.upsample,
    }
)
