"""Launch plans: what must hold for every shape, whatever the device."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bnfold.runtime import cuda_plan
from bnfold.runtime.arguments import Layout
from bnfold.runtime.cuda_plan import Limits, Plan, Scratch, Tensor, Vector

DTYPES = st.sampled_from([np.dtype(d) for d in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)])
LENGTHS = st.integers(1, 4) | st.integers(1, 3000) | st.sampled_from([12544, 3136, 784, 196, 49])
LAYOUTS = st.builds(Layout, outer=LENGTHS, channels=LENGTHS, inner=LENGTHS | st.just(1))
H100 = Limits(multiprocessors=132, shared_bytes=232448, clusters=True)
A10 = Limits(multiprocessors=72, shared_bytes=101376, clusters=False)
T4 = Limits(multiprocessors=40, shared_bytes=65536, clusters=False)
DEVICES = st.sampled_from([H100, A10, T4])
FLOAT32 = np.dtype(np.float32)


def plans(layout: Layout, dtype: np.dtype[Any], limits: Limits, address: int) -> list[Plan]:
    tensor = Tensor.of(layout, dtype)
    vectors = tuple(Vector(4096 * i, FLOAT32) for i in range(1, 5))
    return [
        cuda_plan.infer(tensor, x=address, y=0, parameters=vectors, epsilon=1e-5),
        cuda_plan.train(
            tensor, limits, x=address, y=0, parameters=vectors, record=(0, 8, 16, 24),
            epsilon=1e-5, momentum=0.9, unbiased=False,
        ),
        *(
            cuda_plan.backward(
                tensor, limits, dy=0, x=address, dx=0, scale=vectors[0], statistics=(vectors[1], vectors[2]),
                record=(0, 8), epsilon=1e-5, training=training,
            )
            for training in (True, False)
        ),
    ]  # fmt: skip


@given(LAYOUTS, DTYPES, DEVICES, st.integers(0, 7))
def test_launches_keep_to_the_limits(
    layout: Layout, dtype: np.dtype[Any], limits: Limits, shift: int
) -> None:
    address = shift % (16 // dtype.itemsize) * dtype.itemsize
    for plan in plans(layout, dtype, limits, address):
        for launch in plan.launches:
            assert 1 <= launch.blocks < 2**31
            assert launch.threads % 32 == 0
            columns = "channels_last" in launch.kernel and launch.kernel.startswith(("statistics", "slopes"))
            assert 32 <= launch.threads <= (cuda_plan.COLUMN_THREADS if columns else cuda_plan.MAX_THREADS)
            # Only the fused kernels ask for more than every device gives.
            assert launch.shared_bytes <= (limits.shared_bytes if "fused" in launch.kernel else 48 * 1024)
            assert launch.cluster in ((1, 2, 4, 8) if limits.clusters else (1,))
            assert launch.blocks % launch.cluster == 0
            scratch = [a.offset for a in launch.arguments if isinstance(a, Scratch)]
            assert all(offset < plan.workspace_bytes for offset in scratch)
            assert all(offset % 16 == 0 for offset in scratch)


@given(st.integers(1, 2**30 - 1), st.integers(0, 2**31 - 1))
def test_division_by_a_product_is_exact(divisor: int, dividend: int) -> None:
    magic = cuda_plan._magic(divisor)
    factor, shift = magic & 0xFFFFFFFF, magic >> 32
    for n in (dividend, dividend // divisor * divisor, max(dividend // divisor * divisor - 1, 0), 2**31 - 1):
        assert n * factor >> shift == n // divisor
        assert n * factor < 2**64


def test_what_a_resnet_becomes_on_an_h100() -> None:
    def kernels(layout: Layout, dtype: Any = np.float16) -> list[list[tuple[str, int]]]:  # noqa: ANN401
        found = plans(layout, np.dtype(dtype), H100, 0)
        return [[(launch.kernel, launch.cluster) for launch in plan.launches] for plan in found]

    # 56x56 at batch 32: one read. At batch 256 in float32 a channel (3.2 MB) exceeds eight blocks.
    assert kernels(Layout(32, 64, 3136))[1] == [("train_fused", 8)]
    assert kernels(Layout(256, 64, 3136), np.float32)[1] == [
        ("statistics_channels_first", 1),
        ("finalize_forward", 1),
        ("normalize", 1),
    ]
    assert kernels(Layout(32, 2048, 49))[1:3] == [[("train_fused", 1)], [("backward_fused", 1)]]
    # Channels-last: one thread, eight channels.
    assert kernels(Layout(32 * 3136, 64, 1))[0] == [("infer_channels_last", 1)]
    assert kernels(Layout(32 * 3136, 3, 1))[1][0] == ("statistics_channels_last_any", 1)


def test_one_channel_is_one_row() -> None:
    assert Tensor.of(Layout(5, 1, 7), FLOAT32) == Tensor(1, 1, 35, FLOAT32)
    assert Tensor.of(Layout(35, 1, 1), FLOAT32) == Tensor(1, 1, 35, FLOAT32)
