"""Which kernels of `kernels/bn.cu` run, on how many blocks, with which arguments.

Pure: numbers in, frozen values out; nothing here touches a device. What decides in which order values are
summed follows from shapes, alignment and the device's limits alone, so a call gives the same bits each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from bnfold.errors import UsageError
from bnfold.runtime.arguments import BFLOAT16

if TYPE_CHECKING:
    import numpy.typing as npt

    from bnfold.runtime.arguments import Layout

# ONNX TensorProto.DataType, as bn.cu knows the storage types.
DTYPE_CODES: dict[np.dtype[np.generic], int] = {
    np.dtype(np.float32): 1,
    np.dtype(np.float16): 10,
    np.dtype(np.float64): 11,
    BFLOAT16: 16,
}

# The same constants as in bn.cu.
VECTOR_BYTES = 16
DEPTH = 4
COLUMN = 16
PAIRS = 8
WARP = 32
MAX_THREADS = 256
COLUMN_THREADS = 128
MOMENTS_BYTES = 24
SLOPES_BYTES = 16

_FINALIZE_THREADS = 128
# A partial sum is merged by one warp per channel: 32 a lane.
_MAX_SPLITS = 1024
# Fewer blocks than this leave a large GPU waiting, so work is cut finer; more only cost reductions.
_ENOUGH_BLOCKS = 512
_MAX_CLUSTER = 8
# Quotients by `_magic` are exact below 2**31; a block reaches a little beyond what it works on.
_INDEX_LIMIT = 2**30


@dataclass(frozen=True, slots=True)
class Scratch:
    """An address within the workspace of a plan: so many bytes from its start."""

    offset: int

    def at(self, workspace: int) -> int:
        """The address, once the workspace has one."""
        return workspace + self.offset


Argument: TypeAlias = int | float | Scratch


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: its name in bn.cu.
        blocks: blocks in the grid, a multiple of `cluster`.
        threads: threads in a block, a multiple of 32.
        arguments: 64-bit integers and addresses as int, float64 as float.
        shared_bytes: dynamic shared memory of a block.
        cluster: blocks in a cluster.
    """

    kernel: str
    blocks: int
    threads: int
    arguments: tuple[Argument, ...]
    shared_bytes: int = 0
    cluster: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Launches in order, and the bytes of workspace that they share."""

    launches: tuple[Launch, ...]
    workspace_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What of a device decides a plan.

    Attributes:
        multiprocessors: how many it has.
        shared_bytes: the most dynamic shared memory that a block may ask for.
        clusters: whether it has thread block clusters (compute capability 9.0).
    """

    multiprocessors: int
    shared_bytes: int
    clusters: bool


@dataclass(frozen=True, slots=True)
class Vector:
    """A device array of shape `[C]`: its address and its dtype."""

    address: int
    dtype: np.dtype[np.generic]

    @property
    def code(self) -> int:
        """The dtype as bn.cu knows it."""
        return DTYPE_CODES[self.dtype]


@dataclass(frozen=True, slots=True)
class Tensor:
    """The shape that x, y, dy and dx share.

    Attributes:
        outer: product of the axes before the channels.
        channels: C.
        inner: product of the axes after the channels.
        dtype: storage type.
    """

    outer: int
    channels: int
    inner: int
    dtype: npt.DTypeLike

    @classmethod
    def of(cls, layout: Layout, dtype: np.dtype[np.generic]) -> Tensor:
        """See a tensor as the kernels do: a single channel is one long row.

        Raises:
            UsageError: 2**30 values or more before, along or after the channel axis, or as many vectors.
        """
        single = layout.channels == 1
        outer = 1 if single else layout.outer
        inner = layout.count if single else layout.inner
        tensor = cls(outer, layout.channels, inner, dtype)
        # A row at an odd address touches the most vectors.
        slots = 0 if tensor.channels_last else tensor.slots(dtype.itemsize)
        if max(outer, inner, layout.channels, slots) >= _INDEX_LIMIT:
            raise UsageError(
                f"x as [outer, channels, inner] is {layout.shape}; the CUDA backend takes fewer than 2**30 "
                "along each of the three, and of vectors in a channel: split the batch"
            )
        return tensor

    @property
    def lanes(self) -> int:
        """Values in a 16-byte vector."""
        return VECTOR_BYTES // np.dtype(self.dtype).itemsize

    @property
    def size(self) -> int:
        """How many values it holds."""
        return self.outer * self.channels * self.inner

    @property
    def count(self) -> int:
        """How many values a channel holds."""
        return self.outer * self.inner

    @property
    def channels_last(self) -> bool:
        """Whether the values of a channel form a column."""
        return self.inner == 1 and self.channels > 1

    def shift(self, address: int) -> int:
        """How many values lie between the 16-byte boundary at or below an address and the address."""
        return address % VECTOR_BYTES // np.dtype(self.dtype).itemsize

    def row_slots(self, address: int) -> int:
        """The most 16-byte vectors that a row of the tensor at `address` can touch."""
        whole = self.shift(address) == 0 and self.inner % self.lanes == 0
        return self.inner // self.lanes if whole else (self.inner + self.lanes - 2) // self.lanes + 1

    def slots(self, address: int) -> int:
        """How many vectors a channel is divided into."""
        return self.outer * self.row_slots(address)

    def rows(self, address: int) -> tuple[int, ...]:
        """What the kernels that walk rows are told of the tensor."""
        slots = self.row_slots(address)
        return (self.outer, self.channels, self.inner, slots, _magic(slots))

    def vector_columns(self, *addresses: int) -> bool:
        """Whether channels-last vectors keep to their channels in tensors at these addresses."""
        aligned = all(address % VECTOR_BYTES == 0 for address in addresses)
        return self.channels_last and self.channels % self.lanes == 0 and aligned


@dataclass(frozen=True, slots=True)
class _Tiling:
    """How threads lie on columns: `tiles` blocks side by side, each `width` groups by `height` rows."""

    tiles: int
    width: int
    height: int
    threads: int


def infer(tensor: Tensor, *, x: int, y: int, parameters: tuple[Vector, ...], epsilon: float) -> Plan:
    """Plan `y = (x - mean)/sqrt(var + epsilon)*scale + bias`.

    Args:
        tensor: shape of x and y.
        x: address read.
        y: address written.
        parameters: scale, bias, mean, var.
        epsilon: added to the variance.
    """
    scale, bias, mean, var = parameters
    if tensor.size == 0:
        return Plan(())
    tail = (scale.address, bias.address, scale.code, mean.address, var.address, mean.code, epsilon)
    return Plan((_map(tensor, "infer", (x, y), tail),))


def train(
    tensor: Tensor,
    limits: Limits,
    *,
    x: int,
    y: int,
    parameters: tuple[Vector, ...],
    record: tuple[int, ...],
    epsilon: float,
    momentum: float,
    unbiased: bool,
) -> Plan:
    """Plan normalization by the statistics of the batch, and the moving averages.

    Args:
        tensor: shape of x and y; not empty.
        limits: of the device.
        x: address read.
        y: address written.
        parameters: scale, bias, running mean, running variance.
        record: addresses to write mean and variance (float64) and the new running ones (their own dtype) to.
        epsilon: added to the variance.
        momentum: weight of the old running statistics.
        unbiased: whether the running variance divides by N - 1.
    """
    scale, bias, mean, var = parameters
    given = (scale.address, bias.address, scale.code, mean.address, var.address, mean.code)
    correction = tensor.count / (tensor.count - 1) if unbiased else 1.0
    factors = (epsilon, momentum, correction)
    blocks = _fused_cluster(tensor, limits, x, tensors=1)
    if blocks:
        arguments = (x, y, *tensor.rows(x), *given, *record, *factors)
        return Plan((_fused(tensor, "train_fused", arguments, x=x, cluster=blocks, tensors=1),))
    statistics, splits = _reduce(tensor, "statistics", (x,), (), MOMENTS_BYTES)
    affine = Scratch(_aligned(tensor.channels * splits * MOMENTS_BYTES))
    merge: tuple[Argument, ...] = (Scratch(0), tensor.channels, splits, *given, *record, affine, *factors)
    return Plan(
        (
            statistics,
            _per_channel(tensor, "finalize_forward", merge),
            _map(tensor, "normalize", (x, y), (affine,)),
        ),
        affine.offset + tensor.channels * _affine_bytes(tensor.dtype),
    )


def backward(
    tensor: Tensor,
    limits: Limits,
    *,
    dy: int,
    x: int,
    dx: int,
    scale: Vector,
    statistics: tuple[Vector, Vector],
    record: tuple[int, int],
    epsilon: float,
    training: bool,
) -> Plan:
    """Plan the gradients.

    Args:
        tensor: shape of dy, x and dx.
        limits: of the device.
        dy: address read.
        x: address read.
        dx: address written.
        scale: gamma.
        statistics: mean and variance.
        record: addresses to write dscale and dbias to, in the dtype of scale.
        epsilon: that of the forward direction.
        training: whether the statistics are those of x.
    """
    mean, var = statistics
    given = (scale.address, scale.code, mean.address, var.address, mean.code)
    blocks = _fused_cluster(tensor, limits, x, tensors=2) if training else 0
    if blocks:
        arguments = (dy, x, dx, *tensor.rows(x), *given, *record, epsilon)
        return Plan((_fused(tensor, "backward_fused", arguments, x=x, cluster=blocks, tensors=2),))
    sums, splits = _reduce(tensor, "slopes", (dy, x), (mean.address, mean.code), SLOPES_BYTES)
    affine = Scratch(_aligned(tensor.channels * splits * SLOPES_BYTES))
    count = tensor.count if training else 0
    merge = (Scratch(0), tensor.channels, splits, count, *given, *record, affine, epsilon)
    if training:
        last = _map(tensor, "differentiate", (dy, x, dx), (affine,))
    else:
        last = _map(tensor, "normalize", (dy, dx), (affine,))
    elementwise = (last,) if tensor.size else ()
    return Plan(
        (sums, _per_channel(tensor, "finalize_backward", merge), *elementwise),
        affine.offset + tensor.channels * _affine_bytes(tensor.dtype),
    )


def _map(tensor: Tensor, kernel: str, tensors: tuple[int, ...], tail: tuple[Argument, ...]) -> Launch:
    if tensor.vector_columns(*tensors):
        tiling = _tile(tensor.channels // tensor.lanes, MAX_THREADS)
        bands = _cut(tensor.outer, tiling.height * DEPTH, tiling.tiles, most_rounds=8)
        arguments = (*tensors, tensor.outer, tensor.channels, tiling.width, bands, *tail)
        table = tiling.width * tensor.lanes * _affine_bytes(tensor.dtype)
        return Launch(f"{kernel}_channels_last", tiling.tiles * bands, tiling.threads, arguments, table)
    # The kernel places its vectors by the alignment of x, the last tensor that it reads.
    reach = tensor.size + tensor.shift(tensors[-2])
    threads = min(MAX_THREADS, _warps(math.ceil(reach / (tensor.lanes * DEPTH))))
    chunk = tensor.lanes * DEPTH * threads
    # A place for the map of each row that a block can touch.
    rows = (chunk + tensor.inner - 2) // tensor.inner + 1 if tensor.inner >= tensor.lanes else 0
    arguments = (*tensors, tensor.channels, tensor.inner, _magic(tensor.inner), tensor.size, *tail)
    return Launch(kernel, math.ceil(reach / chunk), threads, arguments, rows * _affine_bytes(tensor.dtype))


def _reduce(
    tensor: Tensor, kernel: str, tensors: tuple[int, ...], tail: tuple[Argument, ...], sums_bytes: int
) -> tuple[Launch, int]:
    """Give the launch that leaves partial sums `[channels, splits]` in the workspace, and `splits`."""
    if tensor.channels_last:
        wide = tensor.vector_columns(*tensors)
        lanes = tensor.lanes if wide else 1
        tiling = _tile(tensor.channels // lanes, COLUMN_THREADS)
        depth = COLUMN if len(tensors) == 1 else PAIRS
        splits = min(_MAX_SPLITS, _cut(tensor.outer, tiling.height * depth, tiling.tiles, most_rounds=8))
        name = f"{kernel}_channels_last" if wide else f"{kernel}_channels_last_any"
        arguments = (*tensors, tensor.outer, tensor.channels, tiling.width, splits, *tail, Scratch(0))
        shared = tiling.height // 2 * tiling.width * lanes * sums_bytes
        return Launch(name, tiling.tiles * splits, tiling.threads, arguments, shared), splits
    slots = tensor.slots(tensors[-1])
    threads = min(MAX_THREADS, _warps(math.ceil(slots / DEPTH)))
    splits = min(_MAX_SPLITS, _cut(slots, threads * DEPTH, tensor.channels, most_rounds=4))
    arguments = (*tensors, *tensor.rows(tensors[-1]), splits, *tail, Scratch(0))
    name = f"{kernel}_channels_first"
    return Launch(name, tensor.channels * splits, threads, arguments, WARP * sums_bytes), splits


def _per_channel(tensor: Tensor, kernel: str, arguments: tuple[Argument, ...]) -> Launch:
    return Launch(kernel, math.ceil(tensor.channels * WARP / _FINALIZE_THREADS), _FINALIZE_THREADS, arguments)


def _fused(
    tensor: Tensor, kernel: str, arguments: tuple[Argument, ...], *, x: int, cluster: int, tensors: int
) -> Launch:
    slots = math.ceil(tensor.slots(x) / cluster)
    threads = min(MAX_THREADS, _warps(math.ceil(slots / DEPTH)))
    shared = _fused_bytes(tensor, slots, tensors)
    return Launch(kernel, tensor.channels * cluster, threads, arguments, shared, cluster)


def _fused_cluster(tensor: Tensor, limits: Limits, x: int, *, tensors: int) -> int:
    """Choose how many blocks keep a channel in their shared memory; 0 when the channel is to be read twice.

    The fewest of which two fit a multiprocessor, so that one can load while the other stores; more where that
    leaves multiprocessors idle.
    """
    if tensor.channels_last or not tensor.size:
        return 0
    slots = tensor.slots(x)
    for most in (limits.shared_bytes // 2, limits.shared_bytes):
        for cluster in (1, 2, 4, _MAX_CLUSTER) if limits.clusters else (1,):
            share = math.ceil(slots / cluster)
            fits = _fused_bytes(tensor, share, tensors) <= most
            short = share <= MAX_THREADS * DEPTH
            busy = tensor.channels * cluster >= 2 * limits.multiprocessors
            if fits and (busy or short or (limits.clusters and cluster == _MAX_CLUSTER)):
                return cluster
    return 0


def _fused_bytes(tensor: Tensor, slots: int, tensors: int) -> int:
    sums = MOMENTS_BYTES if tensors == 1 else SLOPES_BYTES
    board = _aligned((WARP + 1) * sums) + _affine_bytes(tensor.dtype)
    return board + slots * tensors * VECTOR_BYTES


def _tile(groups: int, threads: int) -> _Tiling:
    """Choose the tiles of `groups` columns that leave the fewest threads idle."""

    def tiling(tiles: int) -> _Tiling:
        width = math.ceil(groups / tiles)
        height = threads // width
        return _Tiling(math.ceil(groups / width), width, height, _warps(width * height))

    def busy(candidate: _Tiling) -> float:
        return groups * candidate.height / (candidate.tiles * candidate.threads)

    fewest = math.ceil(groups / threads)
    return max(map(tiling, range(fewest, min(groups, fewest + 7) + 1)), key=busy)


def _cut(length: int, step: int, beside: int, *, most_rounds: int) -> int:
    """Choose how many blocks share `length`: each takes `step` a round, `beside` of them side by side."""
    rounds = most_rounds
    while rounds > 1 and math.ceil(length / (step * rounds)) * beside < _ENOUGH_BLOCKS:
        rounds //= 2
    return max(1, math.ceil(length / (step * rounds)))


def _magic(divisor: int) -> int:
    """The factor and the shift by which a kernel divides: n*factor >> shift is n//divisor for n < 2**31."""
    shift = 31 + (divisor - 1).bit_length()
    return -(-(1 << shift) // divisor) | shift << 32


def _affine_bytes(dtype: npt.DTypeLike) -> int:
    return 4 * max(4, np.dtype(dtype).itemsize)


def _aligned(count: int) -> int:
    return math.ceil(count / VECTOR_BYTES) * VECTOR_BYTES


def _warps(threads: int) -> int:
    return max(1, math.ceil(threads / WARP)) * WARP
