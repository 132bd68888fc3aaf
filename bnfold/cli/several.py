"""`bnfold optimize` of several models."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from bnfold.cli.output import check_reports, print_data, print_text, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bnfold.fleet.outcome import Outcome
    from bnfold.fleet.task import Options


@dataclass(frozen=True)
class Several:
    """What to do.

    Attributes:
        models: files, folders, globs.
        out_dir: where the results go.
        options: of `bnfold.optimize`, for each model.
        resume: leave results that are up to date.
    """

    models: Sequence[str | Path]
    out_dir: Path
    options: Callable[[Path], Options]
    resume: bool


def several(wanted: Several, jobs: int | None, reports: list[Path] | None, *, as_json: bool) -> NoReturn:
    """Optimize all of them, tell what came of each, and leave with the gravest exit code."""
    from bnfold.fleet.outcome import worst  # noqa: PLC0415  # slow
    from bnfold.fleet.places import places  # noqa: PLC0415  # as above
    from bnfold.fleet.run import run  # noqa: PLC0415  # as above
    from bnfold.fleet.task import Task  # noqa: PLC0415  # as above
    from bnfold.progress import bar  # noqa: PLC0415  # as above
    from bnfold.report import fleet  # noqa: PLC0415  # as above
    from bnfold.report.formats import FLEETS  # noqa: PLC0415  # as above

    chosen = places(wanted.models, wanted.out_dir)
    check_reports(
        reports, *(path for place in chosen for path in (place.source, place.output)), formats=FLEETS
    )
    tasks = [
        Task(str(place.source), str(place.output), wanted.resume, wanted.options(place.source))
        for place in chosen
    ]
    done: list[Outcome] = []
    with bar() as show:

        def tell(outcome: Outcome) -> None:
            done.append(outcome)
            show(len(done), len(tasks), outcome.source)

        show(0, len(tasks), "")
        try:
            outcomes = run(tasks, wanted.out_dir, jobs=jobs, progress=tell)
        except KeyboardInterrupt:
            with suppress(OSError):
                print(  # noqa: T201  # as the line that follows it
                    f"bnfold: {len(done)} of {len(tasks)} models are done; --resume goes on from there",
                    file=sys.stderr,
                )
            raise
    for path in reports or ():
        write_report(path, FLEETS[path.suffix](outcomes))
    if as_json:
        print_data(fleet.to_json(outcomes))
    else:
        print_text(fleet.render(outcomes))
    raise typer.Exit(worst(outcomes))
