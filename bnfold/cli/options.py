"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Not typer's business whether they can be read: what is wrong with a model has its own exit code.
Model = Annotated[
    Path, typer.Argument(help="The ONNX model.", metavar="MODEL", readable=False, show_default=False)
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
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", help="Also write the report here; repeatable.", metavar="FILE.json", show_default=False
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random feeds.", metavar="N", min=0)]
