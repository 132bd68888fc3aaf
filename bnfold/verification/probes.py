"""Values that show every weight of a layer by itself: zeros, but for one channel at places far apart."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx

Array = np.ndarray[Any, np.dtype[Any]]

# Multiplications that one layer may take; of wider ones some of the channels are asked, evenly spread.
WORK = 2e10
# Elements of what is evaluated at once.
ELEMENTS = 2**22
# Evaluations of a layer in the size that the model states.
RUNS = 64
# Places that a channel gets there, if it may be few.
PLACES = 4


@dataclass(frozen=True)
class Layer:
    """A linear operator of either model as it is used between two tensors.

    Attributes:
        reads: its data operand.
        axis: where the channels of that are.
        out: where the channels of its result are.
        group: how many groups of channels it keeps apart.
        extent: what a window spans, by spatial axis.
        before: the padding in front, by spatial axis.
        after: the padding behind.
        strides: by spatial axis.
        size: multiplications for one place.
    """

    reads: str
    axis: int
    out: int
    group: int
    extent: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    strides: tuple[int, ...]
    size: int


def layer_of(node: onnx.NodeProto, data: int, rank: int, shape: tuple[int, ...]) -> Layer:
    """How a node of one of the four linear operators is used.

    Args:
        node: the node.
        data: which of its first two operands carries data; the other one is the weight.
        rank: of the data.
        shape: of the weight.
    """
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    size, reads = math.prod(shape), node.input[data]
    if node.op_type == "MatMul":
        return Layer(reads, rank - 1 - data, -1 - data, 1, (), (), (), (), size)
    if node.op_type == "Gemm":
        return Layer(reads, 0 if given.get("transA") else 1, 1, 1, (), (), (), (), size)
    kernel = shape[2:]
    ones = (1,) * len(kernel)
    dilations = given.get("dilations", ones)
    extent = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    pads = tuple(given.get("pads", ()))
    if node.op_type == "ConvTranspose" or not pads:
        pads = (0,) * (2 * len(kernel))
    strides = ones if node.op_type == "ConvTranspose" else tuple(given.get("strides", ones))
    half = len(kernel)
    group = given.get("group", 1)
    return Layer(reads, 1, 1, group, extent, pads[:half], pads[half:], strides, size)


def _channels(layers: Sequence[Layer], feed: str) -> tuple[int, int]:
    """Where the channels of the tensor are, and how many groups of them all layers keep apart."""
    axis = next(layer.axis for layer in layers if layer.reads == feed)
    groups = {layer.group for layer in layers}
    return axis, groups.pop() if len(groups) == 1 else 1


def free(layers: Sequence[Layer], shape: tuple[int, ...], feed: str) -> Iterator[Array]:
    """Images as small as shows every weight, an image for each channel of a group.

    Along each axis there is a value for each phase of the strides, so far apart that no window sees two.
    """
    axis, group = _channels(layers, feed)
    if axis == 0:
        return
    rank = len(shape) - 2
    spans = [layer for layer in layers if len(layer.extent) == rank] if axis == 1 else []
    sides, places = [], []
    for place in range(rank):
        if not spans:
            sides.append(1)
            places.append([0])
            continue
        extent = max(layer.extent[place] for layer in spans)
        stride = max(layer.strides[place] for layer in spans)
        gap = stride * math.ceil((extent - 1) / stride) + 1
        start = max(0, *(layer.extent[place] - 1 - layer.before[place] for layer in spans))
        places.append([start + number * gap for number in range(stride)])
        tail = max(1, *(layer.extent[place] - layer.after[place] for layer in spans))
        sides.append(places[-1][-1] + tail)
    count, volume = shape[axis], math.prod(sides)
    sets = count // group
    work = max(1, volume * sum(layer.size for layer in layers))
    asked = np.unique(np.linspace(0, sets - 1, max(1, min(sets, int(WORK / work)))).astype(int))
    widest = volume * max(*(layer.size // max(1, count) for layer in layers), count)
    chunk = max(1, min(len(asked), ELEMENTS // widest))
    grid: tuple[Any, ...] = np.ix_(*places) if rank else ()
    for first in range(0, len(asked), chunk):
        part = asked[first : first + chunk]
        x = np.zeros((len(part) + 1, count, *sides))
        for image, channel in enumerate(part):
            for each in range(channel, count, sets):
                x[(image + 1, each, *grid)] = 1.0
        yield np.moveaxis(x, 1, axis)


def placed(layers: Sequence[Layer], shape: tuple[int, ...], feed: str) -> Iterator[Array]:
    """Images of the size that the model states, with a channel of each group at each place that is free.

    Windows at the border see padding, so that each channel gets a few places.
    """
    axis, group = _channels(layers, feed)
    count = shape[axis]
    sets = count // group
    extent = max(max(layer.extent, default=1) for layer in layers)
    steps = [extent if place > 1 else 1 for place in range(len(shape)) if place != axis]
    sizes = [size for place, size in enumerate(shape) if place != axis]
    spots = list(itertools.product(*map(range, (0,) * len(sizes), sizes, steps)))
    if not spots:
        return
    work = max(1, math.prod(sizes) * sum(layer.size for layer in layers))
    runs = min(math.ceil(sets / len(spots)) + PLACES - 1, RUNS, max(1, int(WORK / work)))
    for number in range(runs):
        x = np.zeros((*sizes, count))
        for index, spot in enumerate(spots):
            at: tuple[Any, ...] = (*spot, slice((number * len(spots) + number + index) % sets, None, sets))
            x[at] = 1.0
        yield np.moveaxis(x, -1, axis)
