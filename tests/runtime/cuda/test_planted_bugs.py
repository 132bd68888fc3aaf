"""The harness must catch what it is there for: bugs are planted in the kernels, one at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.emulated_gpu import KERNEL_SOURCE, EmulatedGpu, LaunchError, Mode, build
from support.gpu_cases import check_everything

DTYPE = np.dtype(np.float16)
SHAPES = ((3, 5, 49), (1, 2, 1030), (1, 1, 4001), (50, 24, 1), (40, 130, 1), (5, 6, 2))


@dataclass(frozen=True)
class Bug:
    """What to replace in bn.cu, and what the harness must answer.

    Attributes:
        old: text that occurs once in the kernels.
        new: what takes its place.
        caught: a pattern of the message.
        mode: the build that must notice.
    """

    old: str
    new: str
    caught: str
    mode: Mode = "watched"


DIVERGENT_BARRIER = Bug(
    "  if (lane_index == 0) scratch[warp] = own;\n  __syncthreads();",
    "  if (lane_index == 0) {\n    scratch[warp] = own;\n    __syncthreads();\n  }",
    "divergent barrier",
    mode="plain",
)
DROPPED_BARRIER = Bug(
    "  if (lane_index == 0) scratch[warp] = own;\n  __syncthreads();",
    "  if (lane_index == 0) scratch[warp] = own;",
    "race|nothing has written",
)
OUT_OF_BOUNDS_READ = Bug(
    "return span.first >= 0 && span.first + LANES <= size;",
    "return span.first >= 0 && span.first < size;",
    "out of bounds: read",
)

BUGS = {
    "read before the tensor": Bug(
        "return span.first >= 0 && span.first + LANES <= size;",
        "return span.first + LANES <= size;",
        "access outside of every buffer|out of bounds",
    ),
    "write into a neighbour's row": Bug(
        "if (span.low == 0 && span.high == LANES && misalignment(data) == shift) {",
        "if (span.low == 0 && misalignment(data) == shift) {",
        "race: write|out of bounds: write|off by",
    ),
    "misaligned load": Bug(
        "bool wide = misalignment(data) == shift;",
        "bool wide = true;",
        "misaligned access of 16 bytes",
    ),
    "misaligned store": Bug(
        "span.high == LANES && misalignment(data) == shift) {",
        "span.high == LANES) {",
        "misaligned access of 16 bytes",
    ),
    "neighbours not masked": Bug(
        "return mask == all ? moments<N, true>(value, mask) : moments<N, false>(value, mask);",
        "return moments<N, true>(value, mask);",
        "off by",
    ),
    "no barrier between rounds of merge_rows": Bug(
        "scratch[i * stride + at.row * at.width + at.group]);\n    }\n    __syncthreads();",
        "scratch[i * stride + at.row * at.width + at.group]);\n    }",
        "race",
    ),
    "no barrier before merge_rows reads": Bug(
        "= own[i];\n    }\n    __syncthreads();",
        "= own[i];\n    }",
        "race|nothing has written",
    ),
    "no barrier after the table of maps": Bug(
        "source((channel + row) % channels);\n  __syncthreads();",
        "source((channel + row) % channels);",
        "race|nothing has written",
    ),
    "no barrier after the table of columns": Bug(
        "= source(first + i);\n  }\n  __syncthreads();",
        "= source(first + i);\n  }",
        "race|nothing has written",
    ),
    "a warp that stops early": Bug(
        "const Moments batch = merge_partial(partial, channel, splits);",
        "if (threadIdx.x % WARP == 5) return;\n"
        "  const Moments batch = merge_partial(partial, channel, splits);",
        "divergent barrier",
    ),
    "a warp's place that nobody filled": Bug(
        "own = lane_index < blockDim.x / WARP ? scratch[lane_index] : Sums{};",
        "own = scratch[lane_index];",
        "nothing has written|out of bounds",
    ),
    "no cluster barrier before the others are read": Bug(
        "if (threadIdx.x == 0) shared = own;\n  cluster_barrier();",
        "if (threadIdx.x == 0) shared = own;\n  __syncthreads();",
        "race|nothing has written",
    ),
    "a block that ends while others read it": Bug(
        "momentum, correction);\n  }\n  cluster_barrier();",
        "momentum, correction);\n  }\n  __syncthreads();",
        "has ended|divergent barrier",
    ),
    "every block of a cluster writes the statistics": Bug(
        "{mean, var, new_mean, new_var}, cluster_rank() == 0, epsilon,",
        "{mean, var, new_mean, new_var}, true, epsilon,",
        "race: write",
    ),
    "output not written": Bug(
        "if (i >= span.low && i < span.high) data[span.first + i] = value[i];",
        "if (i > span.low && i < span.high) data[span.first + i] = value[i];",
        "a value was not written",
    ),
    "write to an input": Bug(
        "reinterpret_cast<uint4*>(out + row * at.channels + at.first)",
        "reinterpret_cast<uint4*>(const_cast<Stored*>(x) + row * at.channels + at.first)",
        "write to an input",
    ),
    "sums of squares about the wrong mean": Bug(
        "a.m2 + b.m2 + delta * delta * (a.count * weight)",
        "a.m2 + b.m2",
        "off by",
    ),
}


def planted(bug: Bug, folder: Path) -> EmulatedGpu:
    source = KERNEL_SOURCE.read_text()
    assert source.count(bug.old) == 1, "the kernels have changed: plant the bug anew"
    return EmulatedGpu(build(folder, DTYPE, bug.mode, source=source.replace(bug.old, bug.new)))


def sweep(gpu: EmulatedGpu) -> None:
    for shape in SHAPES:
        check_everything(gpu, shape, DTYPE, orders=("forward", "random"))


def test_the_kernels_themselves_pass_every_watch(tmp_path: Path) -> None:
    sweep(EmulatedGpu(build(tmp_path, DTYPE, "watched")))


@pytest.mark.parametrize(
    "bug",
    [DIVERGENT_BARRIER, DROPPED_BARRIER, OUT_OF_BOUNDS_READ],
    ids=["divergent barrier", "dropped barrier", "out-of-bounds read"],
)
def test_a_planted_bug_is_caught(bug: Bug, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=bug.caught):
        sweep(planted(bug, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_every_planted_bug_is_caught(name: str, tmp_path: Path) -> None:
    with pytest.raises((LaunchError, AssertionError), match=BUGS[name].caught):
        sweep(planted(BUGS[name], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_watched_in_many_random_orders(seed: int, tmp_path: Path) -> None:
    gpu = EmulatedGpu(build(tmp_path, DTYPE, "watched"), seed=seed + 100)
    for shape in SHAPES:
        check_everything(gpu, shape, DTYPE, orders=("random",), shifts=[(x, x) for x in range(8)])


SANITIZED = """
import sys
import numpy as np
from support.emulated_gpu import EmulatedGpu
from support.gpu_cases import check_everything
gpu = EmulatedGpu({library!r})
for shape in {shapes}:
    check_everything(gpu, shape, np.dtype({dtype!r}), orders=("reverse",), shifts=((0, 0), (1, 0)))
print("clean")
"""


def sanitized(library: Path) -> subprocess.CompletedProcess[str]:
    """Run the sweep in a process that has AddressSanitizer's runtime from its start."""
    runtime = subprocess.run(
        (str(shutil.which("g++")), "-print-file-name=libasan.so"), capture_output=True, text=True, check=True
    ).stdout.strip()
    tests = Path(__file__).parents[2]
    script = SANITIZED.format(shapes=SHAPES, library=str(library), dtype=DTYPE.name)
    return subprocess.run(
        (sys.executable, "-c", script),
        env=os.environ
        | {
            "LD_PRELOAD": runtime,
            # Python itself leaks by design; fibers have stacks of their own.
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent))),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_address_sanitizer_finds_nothing(tmp_path: Path) -> None:
    done = sanitized(build(tmp_path, DTYPE, "address"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "clean\n"
    assert not done.stderr


def test_address_sanitizer_finds_the_read_out_of_bounds(tmp_path: Path) -> None:
    bug = OUT_OF_BOUNDS_READ
    source = KERNEL_SOURCE.read_text().replace(bug.old, bug.new)
    done = sanitized(build(tmp_path, DTYPE, "address", source=source))
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "load_vector" in done.stderr
