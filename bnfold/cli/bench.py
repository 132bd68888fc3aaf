"""`bnfold bench`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bnfold.cli.options import Inputs, Json, ReportsOfTwo, Seed
from bnfold.cli.output import check_reports, print_data, print_text, write_report
from bnfold.errors import UsageError
from bnfold.urls import located

if TYPE_CHECKING:
    from bnfold.benchmarking.result import Level

_LEVELS: dict[str, Level] = {"disable": "disable_all", "basic": "enable_basic", "all": "enable_all"}


class Device(StrEnum):
    """Values of `--provider`."""

    cpu = "cpu"
    cuda = "cuda"


def bench(
    a: Annotated[
        str,
        typer.Argument(help="The model to compare with: the original.", metavar="A", show_default=False),
    ],
    b: Annotated[
        str,
        typer.Argument(help="The other one: what was made of it.", metavar="B", show_default=False),
    ],
    *,
    level: Annotated[
        str, typer.Option(help="Of onnxruntime's optimizations, separated by commas.", metavar="LEVELS")
    ] = ",".join(_LEVELS),
    batch: Annotated[
        str | None,
        typer.Option(
            help="Batch sizes, separated by commas; the model's own, or 1, by default.",
            metavar="SIZES",
            show_default=False,
        ),
    ] = None,
    inputs: Inputs = None,
    threads: Annotated[int, typer.Option(help="Of onnxruntime within an operator.", metavar="N", min=1)] = 1,
    provider: Annotated[
        Device, typer.Option(help="What runs both models; it is an error where it cannot.")
    ] = Device.cpu,
    seconds: Annotated[float, typer.Option(help="How long it may take, about.", metavar="S")] = 60.0,
    seed: Seed = 0,
    report: ReportsOfTwo = None,
    json: Json = False,
) -> None:
    """Measure how fast two models run in onnxruntime.

    Their runs alternate, and A runs against itself too, so that the noise of the machine shows. B is called
    faster or slower only where a 95 % interval and that noise allow it.
    """
    levels, batches = _levels(level), _batches(batch)

    from bnfold.report.formats import BENCHMARKS  # noqa: PLC0415  # slow

    check_reports(report, located(a), located(b), formats=BENCHMARKS)

    from bnfold import pipeline  # noqa: PLC0415  # slow
    from bnfold.progress import progress  # noqa: PLC0415  # slow
    from bnfold.verification.inputs import parse  # noqa: PLC0415  # slow

    with progress() as tell:
        result = pipeline.benchmark(
            located(a),
            located(b),
            levels=levels,
            batches=batches,
            inputs=parse(inputs) if inputs else None,
            threads=threads,
            provider=provider.value,
            seconds=seconds,
            seed=seed,
            progress=tell,
        )
    for path in report or ():
        write_report(path, BENCHMARKS[path.suffix](result))
    if json:
        print_data(result.to_json())
        return
    from bnfold.report.benchmark import render_benchmark  # noqa: PLC0415  # slow

    print_text(render_benchmark(result))


def _levels(text: str) -> tuple[Level, ...]:
    names = [name.strip().lower() for name in text.split(",")]
    unknown = [name for name in names if name not in _LEVELS]
    if unknown:
        raise UsageError(f"--level {text}: {unknown[0]!r} is none of {', '.join(_LEVELS)}")
    return tuple(_LEVELS[name] for name in names)


def _batches(text: str | None) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.split(",")] if text is not None else []
    if any(not (size.isascii() and size.isdigit() and int(size)) for size in sizes):
        raise UsageError(f"--batch {text}: sizes are positive numbers, separated by commas")
    return tuple(int(size) for size in sizes)
