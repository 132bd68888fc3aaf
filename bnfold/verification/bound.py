"""Without a float64 truth: how far onnxruntime's own result moves when weights move by half an ulp.

Where an operator is known to nobody but the runtime, the original stands in for truth. A correct fold stores
each weight rounded once and leaves rounding of intermediate results in other places; running the original
with every weight moved by half a unit in the last place, at random, shows what both together may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from bnfold.model.store import tensors
from bnfold.verification.errors import Error, difference
from bnfold.verification.external import loaded
from bnfold.verification.judge import epsilon_of, is_float
from bnfold.verification.sensitivity import PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bnfold.verification.sessions import Array

DRAWS = 4
# A protobuf message holds at most 2 GiB; a moved copy carries its weights inside.
LARGEST = 2**30


def moved_copies(model: onnx.ModelProto, folder: Path) -> Iterator[bytes]:
    """The model with the weights of its linear operators moved by half an ulp, once for each draw.

    Yields nothing where no weight is stored in the model itself, or where they are too many to be copied.
    """
    names = {
        node.input[place]
        for node in model.graph.node
        for place in PARAMETERS.get(node.op_type, ())
        if place < len(node.input)
    }
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    if not _weights(model, names) or stored * 8 > LARGEST:
        return
    for draw in range(DRAWS):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for tensor, _ in tensors(copy):
            tensor.CopyFrom(loaded(tensor, folder))
        generator = np.random.default_rng(draw)
        for tensor in _weights(copy, names):
            tensor.CopyFrom(
                numpy_helper.from_array(_moved(numpy_helper.to_array(tensor), generator), tensor.name)
            )
        yield copy.SerializeToString()


def _weights(model: onnx.ModelProto, names: set[str]) -> list[onnx.TensorProto]:
    found = [tensor for tensor in model.graph.initializer if tensor.name in names]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in names:
            found += [attribute.t for attribute in node.attribute if attribute.name == "value"]
    return found


def _moved(values: Array, generator: np.random.Generator) -> Array:
    """Each value replaced by the neighbour that half an ulp more or less, rounded at random, leads to."""
    if not is_float(values):
        return values
    step = generator.integers(-1, 2, values.shape) * epsilon_of(values.dtype)
    return np.asarray((values.astype(np.float64) * (1.0 + step)).astype(values.dtype))


def effect(plain: Array, moved: Array) -> Error:
    """What moving the weights did to a result; nothing where it cannot be measured."""
    if not is_float(plain) or plain.shape != moved.shape:
        return Error()
    error = difference(plain.astype(np.float64), moved.astype(np.float64))
    return error if np.isfinite(error.max) else Error()
