"""Batch normalization on a GPU beside torch's, with and without cuDNN, and beside a plain copy.

    python benchmarks/gpu_bn.py [--quick] [-o benchmarks/results]

Every figure is the median of CUDA event times of a replayed graph. The graph goes once over enough copies of
the tensors that none is found in the L2 cache, and keeps all its results apart. The competitors take turns.
`floor` is the time of a device copy of x in the same turns, times the passes over the tensor that an
operation needs, over two. Writes `gpu_bn-NAME.md` and `.json`, NAME being the GPU's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import re
import statistics
import sys
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnfold import runtime
from bnfold.runtime import cuda, cuda_compiler, cuda_plan
from bnfold.runtime.arguments import BFLOAT16, Layout
from bnfold.runtime.cuda_device import gpu
from bnfold.runtime.cuda_plan import Tensor, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    # One call on the i-th copy of the tensors; what it returns is kept until all have run.
    Call = Callable[[int], object]

torch: Any = import_module("torch") if find_spec("torch") else None

# Channels, height and width of the normalized tensors of a ResNet-50.
SHAPES = ((64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7))
BATCHES = (32, 256)
DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
    "float32": np.dtype(np.float32),
}
ORDERS = ("NCHW", "NHWC")
OPERATIONS = ("inference", "training", "backward")
SAMPLES = 25
EPSILON = 1e-5
# Share of the device's memory that one case may take.
MEMORY_SHARE = 0.4

# What the project set out for, over the cases that fill the GPU.
GOALS = """\
- inference: at least 92 % of the copy bandwidth
- training, two passes: at least 85 % of its floor
- training, fused, NCHW: at least 1.25x the faster of torch and cuDNN
- backward, fused, NCHW: at least 1.3x the faster of torch and cuDNN
"""


@dataclass(frozen=True)
class Case:
    """One tensor and one operation on it."""

    operation: str
    order: str
    dtype: str
    batch: int
    channels: int
    side: int

    @property
    def values(self) -> int:
        """Values in a tensor."""
        return self.batch * self.channels * self.side**2

    @property
    def nbytes(self) -> int:
        """Bytes of a tensor."""
        return self.values * DTYPES[self.dtype].itemsize

    @property
    def layout(self) -> Layout:
        """How its channels lie in memory."""
        if self.order == "NCHW":
            return Layout(self.batch, self.channels, self.side**2)
        return Layout(self.batch * self.side**2, self.channels, 1)


@dataclass(frozen=True)
class Figure:
    """What was measured for a case: microseconds."""

    case: Case
    kernels: str
    passes: int
    copy: float
    bnfold: float
    torch: float
    cudnn: float | None
    spread: float

    @property
    def floor(self) -> float:
        """The time that the memory traffic alone takes."""
        return self.copy * self.passes / 2

    @property
    def of_floor(self) -> float:
        """Share of the floor that bnfold reaches."""
        return self.floor / self.bnfold

    @property
    def bandwidth(self) -> float:
        """GB/s of the traffic that the operation needs."""
        return self.case.nbytes * self.passes / self.bnfold / 1e3

    @property
    def speedup(self) -> float:
        """Times as fast as the faster of the others."""
        return min(self.torch, self.cudnn or math.inf) / self.bnfold


def plan_of(case: Case) -> tuple[str, int]:
    """Which kernels bnfold takes, and how many passes over the tensor they make."""
    tensor = Tensor.of(case.layout, DTYPES[case.dtype])
    vectors = tuple(Vector(4096, np.dtype(np.float32)) for _ in range(4))
    limits = gpu(0).limits
    if case.operation == "inference":
        return "elementwise", 2
    if case.operation == "training":
        plan = cuda_plan.train(
            tensor, limits, x=0, y=0, parameters=vectors, record=(0, 0, 0, 0),
            epsilon=EPSILON, momentum=0.9, unbiased=False,
        )  # fmt: skip
    else:
        plan = cuda_plan.backward(
            tensor, limits, dy=0, x=0, dx=0, scale=vectors[0], statistics=(vectors[1], vectors[2]),
            record=(0, 0), epsilon=EPSILON, training=True,
        )  # fmt: skip
    fused = len(plan.launches) == 1
    name = f"fused, cluster of {plan.launches[0].cluster}" if fused else "two passes"
    if case.operation == "training":
        return name, 2 if fused else 3
    return name, 3 if fused else 5


class Bench:
    """The tensors of a case, several times over, and the calls of each competitor."""

    def __init__(self, case: Case, copies: int) -> None:
        self.case = case
        order = torch.contiguous_format if case.order == "NCHW" else torch.channels_last
        shape = (case.batch, case.channels, case.side, case.side)
        make = partial(torch.randn, device="cuda", dtype=getattr(torch, case.dtype))
        self.x = [(make(shape) + 1).contiguous(memory_format=order) for _ in range(copies)]
        self.scale, self.bias, self.mean = (torch.randn(case.channels, device="cuda") for _ in range(3))
        self.var = torch.rand(case.channels, device="cuda") + 0.5
        if case.operation == "backward":
            self.dy = [make(shape).contiguous(memory_format=order) for _ in range(copies)]
            self.saved = [self._statistics(x) for x in self.x]
            # What cuDNN keeps from the forward direction.
            self.kept = [self._cudnn_forward(x)[1:] for x in self.x]

    def calls(self) -> dict[str, Call]:
        """What each competitor does with the i-th tensors."""
        normalize = torch.nn.functional.batch_norm
        given = (self.mean, self.var, self.scale, self.bias)
        if self.case.operation == "backward":
            return {
                "copy": lambda i: torch.empty_like(self.x[i]).copy_(self.x[i]),
                "bnfold": lambda i: runtime.backward(
                    self.dy[i], self.x[i], self.scale, mean=self.saved[i][2], var=self.saved[i][3]
                ),
                "torch": self._torch_backward,
                "cudnn": self._cudnn_backward,
            }
        training = self.case.operation == "training"

        def theirs(i: int, *, cudnn: bool) -> object:
            with torch.backends.cudnn.flags(enabled=cudnn):
                return normalize(self.x[i], *given, training=training)

        def ours(i: int) -> object:
            own = runtime.train if training else runtime.infer
            return own(self.x[i], self.scale, self.bias, self.mean, self.var)

        return {
            "copy": lambda i: torch.empty_like(self.x[i]).copy_(self.x[i]),
            "bnfold": ours,
            "torch": partial(theirs, cudnn=False),
            "cudnn": partial(theirs, cudnn=True),
        }

    def check(self) -> None:
        """Refuse to time what is wrong: compare with torch in float64."""
        room = {"float16": 2**-9, "bfloat16": 2**-6, "float32": 2**-18}[self.case.dtype]
        calls = self.calls()
        if self.case.operation == "backward":
            ours: Any = calls["bnfold"](0)
            x = self.x[0].double().requires_grad_()
            y = torch.nn.functional.batch_norm(
                x, None, None, self.scale.double(), None, training=True, eps=EPSILON
            )
            (expected,) = torch.autograd.grad(y, x, self.dy[0].double())
            torch.testing.assert_close(ours.dx.double(), expected, rtol=room, atol=4 * room)
            return
        ours = calls["bnfold"](0)
        training = self.case.operation == "training"
        given = (v.double() for v in (self.mean, self.var, self.scale, self.bias))
        expected = torch.nn.functional.batch_norm(self.x[0].double(), *given, training=training, eps=EPSILON)
        actual = ours.y if training else ours
        torch.testing.assert_close(actual.double(), expected, rtol=room, atol=4 * room)

    @staticmethod
    def _statistics(x: Any) -> tuple[Any, Any, Any, Any]:  # noqa: ANN401 - a tensor
        """Mean and inverse deviation as torch keeps them; mean and variance as bnfold does."""
        wide = x.double()
        mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3), correction=0)
        return mean.float(), torch.rsqrt(var + EPSILON).float(), mean, var

    def _cudnn_forward(self, x: Any) -> Any:  # noqa: ANN401 - tensors
        return torch.ops.aten.cudnn_batch_norm(x, self.scale, self.bias, None, None, True, 0.1, EPSILON)

    def _torch_backward(self, i: int) -> object:
        mean, inverse, _, _ = self.saved[i]
        return torch.ops.aten.native_batch_norm_backward(
            self.dy[i], self.x[i], self.scale, None, None, mean, inverse, True, EPSILON, [True] * 3
        )

    def _cudnn_backward(self, i: int) -> object:
        mean, inverse, reserve = self.kept[i]
        return torch.ops.aten.cudnn_batch_norm_backward(
            self.x[i], self.dy[i], self.scale, None, None, mean, inverse, EPSILON, reserve
        )


class Replay:
    """A call on every copy of the tensors, captured as one graph."""

    def __init__(self, call: Call, copies: int) -> None:
        call(0)  # compile, load, choose algorithms
        torch.cuda.synchronize()
        self.copies = copies
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = [call(i) for i in range(copies)]
        self.time()

    def time(self) -> float:
        """Microseconds of one call."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3 / self.copies


def measure(case: Case) -> Figure | None:
    """Time all competitors on a case, in turns; None where it does not fit the memory."""
    properties = torch.cuda.get_device_properties(0)
    # Twice the cache, for what a call reads alone; and enough calls that a launch gap does not show.
    copies = max(2, math.ceil(2 * properties.L2_cache_size / case.nbytes))
    copies = max(copies, min(16, math.ceil(2**28 / case.nbytes)))
    tensors = 8 if case.operation == "backward" else 6
    if copies * tensors * case.nbytes > MEMORY_SHARE * properties.total_memory:
        return None
    bench = Bench(case, copies)
    with torch.no_grad():
        replays: dict[str, Replay] = {}
        for name, call in bench.calls().items():
            try:
                replays[name] = Replay(call, copies)
            except RuntimeError as error:
                if name != "cudnn":
                    raise
                print(f"cudnn left out of {case}: {str(error).splitlines()[0]}")
        times: dict[str, list[float]] = {name: [] for name in replays}
        for turn in range(SAMPLES):
            names = list(replays)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                times[name].append(replays[name].time())
    bench.check()
    median = {name: statistics.median(series) for name, series in times.items()}
    low, _, high = statistics.quantiles(times["bnfold"], n=4)
    kernels, passes = plan_of(case)
    return Figure(
        case, kernels, passes, median["copy"], median["bnfold"], median["torch"], median.get("cudnn"),
        spread=(high - low) / median["bnfold"],
    )  # fmt: skip


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(figures: Sequence[Figure]) -> str:
    """The figures as Markdown."""
    heads = ("operation", "order", "dtype", "tensor", "kernels")
    measures = ("bnfold µs", "GB/s", "of the floor", "torch µs", "cuDNN µs", "against the faster")
    lines = [row(*heads, *measures), row(*["---"] * len(heads), *["---:"] * len(measures))]
    for f in figures:
        c = f.case
        shape = f"{c.batch}x{c.channels}x{c.side}x{c.side}"
        cudnn = "-" if f.cudnn is None else f"{f.cudnn:.1f}"
        own = (f"{f.bnfold:.1f}", f"{f.bandwidth:.0f}", f"{f.of_floor:.0%}")
        others = (f"{f.torch:.1f}", cudnn, f"{f.speedup:.2f}x")
        lines.append(row(c.operation, c.order, c.dtype, shape, f.kernels, *own, *others))
    return "\n".join(lines)


def summary(figures: Sequence[Figure]) -> str:
    """Median and worst of each operation, order and kind of kernel."""
    groups: dict[tuple[str, str, str], list[Figure]] = {}
    for f in figures:
        kind = f.kernels.partition(",")[0]
        groups.setdefault((f.case.operation, f.case.order, kind), []).append(f)
    heads = ("operation", "order", "kernels")
    measures = ("cases", "of the floor: median", "lowest", "against the faster: median", "lowest")
    lines = [row(*heads, *measures), row(*["---"] * len(heads), *["---:"] * len(measures))]
    for key, members in groups.items():
        shares = [f.of_floor for f in members]
        speedups = [f.speedup for f in members]
        floors = (f"{statistics.median(shares):.0%}", f"{min(shares):.0%}")
        faster = (f"{statistics.median(speedups):.2f}x", f"{min(speedups):.2f}x")
        lines.append(row(*key, len(members), *floors, *faster))
    return "\n".join(lines)


def report(figures: Sequence[Figure], folder: Path) -> None:
    """Write both files and print the summary."""
    name = torch.cuda.get_device_name(0)
    largest = max(figures, key=lambda f: f.case.nbytes)
    versions = {
        "GPU": name,
        "copy of the largest tensor": f"{2 * largest.case.nbytes / largest.copy / 1e3:.0f} GB/s",
        "torch": torch.__version__,
        "cuDNN": str(torch.backends.cudnn.version()),
        "NVRTC": ".".join(map(str, cuda_compiler.version())),
        "Python": platform.python_version(),
    }
    facts = "\n".join(f"- {key}: {value}" for key, value in versions.items())
    text = (
        f"# Batch normalization on {name}\n\n{facts}\n\nMade by `benchmarks/gpu_bn.py`, which says how.\n\n"
        f"Goals:\n\n{GOALS}\n{summary(figures)}\n\n{table(figures)}\n"
    )
    stem = folder / f"gpu_bn-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}"
    folder.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    stem.with_suffix(".json").write_text(
        json.dumps({"versions": versions, "figures": [asdict(f) for f in figures]}, indent=1),
        encoding="utf-8",
    )
    print(f"{facts}\n\n{summary(figures)}\n\nwritten: {stem}.md, .json")


def missing() -> str | None:
    """What this machine lacks to measure anything; None where nothing."""
    if torch is None:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    return cuda.available()


def main() -> None:
    """Measure every case and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, one batch, two dtypes")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    if lack := missing():
        sys.exit(f"nothing can be measured: {lack}")
    shapes = SHAPES[1::4] if chosen.quick else SHAPES
    batches = BATCHES[:1] if chosen.quick else BATCHES
    dtypes = ("float16", "float32") if chosen.quick else tuple(DTYPES)
    figures = []
    for operation, order, dtype, batch, (channels, side) in itertools.product(
        OPERATIONS, ORDERS, dtypes, batches, shapes
    ):
        case = Case(operation, order, dtype, batch, channels, side)
        figure = measure(case)
        torch.cuda.empty_cache()
        if figure is None:
            print(f"left out, too large for this GPU: {case}")
            continue
        figures.append(figure)
        print(
            f"{operation:9} {order} {dtype:8} {batch:3}x{channels}x{side}x{side}: {figure.bnfold:8.1f} us, "
            f"{figure.of_floor:4.0%} of the floor, {figure.speedup:.2f}x, spread {figure.spread:.1%}",
            flush=True,
        )
    report(figures, chosen.output)


if __name__ == "__main__":
    main()
