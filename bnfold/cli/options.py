"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bnfold.cli.place import local

# Not typer's business whether they can be read: what is wrong with a model has its own exit code.
Model = Annotated[
    str, typer.Argument(help="The ONNX model, a file or a URL.", metavar="MODEL", show_default=False)
]
Models = Annotated[
    list[str],
    typer.Argument(
        help="The ONNX model, a file or a URL; or several: files, folders, globs.",
        metavar="MODEL...",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the report as JSON on stdout and nothing else there.")
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        help="Fold only normalizations whose name matches; repeatable.", metavar="GLOB", show_default=False
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        help="Leave normalizations whose name matches; repeatable.", metavar="GLOB", show_default=False
    ),
]
Freeze = Annotated[
    bool, typer.Option("--freeze", help="First turn initializers that callers could override into constants.")
]
Merge = Annotated[
    bool,
    typer.Option("--merge/--no-merge", help="Join parallel linear branches that are summed into one Conv."),
]


def _reports(suffixes: str) -> Any:  # noqa: ANN401  # what typer.Option returns
    return typer.Option(
        "--report",
        parser=local("--report"),
        help=f"Also write a report here: {suffixes}; repeatable.",
        metavar="FILE",
        show_default=False,
    )


# As in the tables of bnfold.report.formats, whose import would take time.
Reports = Annotated[list[Path] | None, _reports(".html, .json, .md, .sarif, or .xml (JUnit)")]
ReportsOfTwo = Annotated[list[Path] | None, _reports(".html, .json, or .md")]
ReportsOfGate = Annotated[list[Path] | None, _reports(".json, .md, .sarif, or .xml (JUnit)")]
Seed = Annotated[int, typer.Option(help="Seed of the random feeds.", metavar="N", min=0)]


class Truth(StrEnum):
    """Values of `--truth`."""

    auto = "auto"
    full = "full"
    bound = "bound"


class Provider(StrEnum):
    """Values of `--provider`."""

    cpu = "cpu"
    cuda = "cuda"
    tensorrt = "tensorrt"


Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="What to feed: values (.npz, .npy, .pb, a folder, a pattern) or a shape, as in x=2x3x224x224; "
        "seeded values by default. Repeatable.",
        metavar="[NAME=]FILE|NAME=SHAPE",
        show_default=False,
    ),
]
Ranges = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        help="Smallest and largest of the seeded values, as in x=0,255; repeatable.",
        metavar="[NAME=]LOW,HIGH",
        show_default=False,
    ),
]
TruthChoice = Annotated[
    Truth,
    typer.Option(
        "--truth",
        help="auto: float64, where it cannot be evaluated a rounding bound; full: float64 or not verified; "
        "bound: the bound alone.",
    ),
]
ProviderChoice = Annotated[
    Provider | None,
    typer.Option(
        "--provider",
        help="What runs both models; it is an error where it cannot.  [default: cpu]",
        show_default=False,
    ),
]
Budget = Annotated[
    float, typer.Option("--budget", help="Seconds that the verification may take.", metavar="SECONDS")
]
DEFAULT_BUDGET = 600.0  # as in bnfold.verification.options, whose import would take time
