"""`bnfold check`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bnfold.cli.options import Exclude, Include, ProviderChoice, ReportsOfGate
from bnfold.cli.output import check_reports, encoded, plain_text, print_data, print_text, write_report
from bnfold.cli.place import local
from bnfold.cli.settings import first, runner, settings
from bnfold.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from bnfold.gate.finding import Survey

Format = Literal["table", "json", "github", "sarif", "junit", "markdown"]
_SUFFIXES = {"json": ".json", "sarif": ".sarif", "junit": ".xml", "markdown": ".md"}


def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Model files, globs, or folders with models in them.",
            metavar="PATH|GLOB|FOLDER...",
            show_default=False,
        ),
    ] = None,
    *,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="What makes the check fail: foldable, mismatch (verifies all models), slower (measures all "
            "models, one at a time), nonfinite, invalid, or none; with commas.  [default: foldable,invalid]",
            metavar="LIST",
            show_default=False,
        ),
    ] = None,
    require_all: Annotated[
        bool | None,
        typer.Option(
            "--require-all/--no-require-all",
            help="Fail for every normalization that is left, whatever keeps it.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            parser=local("--baseline"),
            help="Findings that are listed in this file do not fail.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Write the present findings to the baseline.")
    ] = False,
    include: Include = None,
    exclude: Exclude = None,
    exclude_models: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out models whose path matches; repeatable.", metavar="GLOB", show_default=False
        ),
    ] = None,
    provider: ProviderChoice = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", help="Models at a time.", metavar="N", min=1)] = 1,
    output_format: Annotated[Format, typer.Option("--format", help="What to print.")] = "table",
    report: ReportsOfGate = None,
) -> None:
    """Fail when models are not what they should be.

    A gate for continuous integration: says of each model which normalizations could be folded and which stay
    and why, and whether it is valid. Changes no model.
    """
    from bnfold.gate import policy, run, targets  # noqa: PLC0415  # none of these is needed for help
    from bnfold.gate.examine import Questions  # noqa: PLC0415  # as above
    from bnfold.gate.finding import Kind  # noqa: PLC0415  # as above
    from bnfold.progress import progress  # noqa: PLC0415  # as above
    from bnfold.report.formats import SURVEYS  # noqa: PLC0415  # as above

    here = Path.cwd()
    root = targets.root_of(here)
    settled = settings()
    place = settled.folder or here
    kinds = policy.parse(first(fail_on, settled.fail_on, default=policy.DEFAULT))
    if first(require_all, settled.require_all, default=False):
        kinds = policy.stricter(kinds)
    if baseline is None and settled.baseline is not None:
        baseline = place / local("baseline")(str(settled.baseline))
    wanted = paths or settled.models
    if not wanted:
        raise UsageError("nothing to check: give a model, a glob or a folder, or set models in [tool.bnfold]")
    chosen = targets.expand(
        wanted,
        base=here if paths else place,
        root=root,
        exclude=first(exclude_models, settled.exclude_models, default=()),
    )
    check_reports(report, *(target.path for target in chosen.chosen), baseline, formats=SURVEYS)
    questions = Questions(
        root,
        tuple(first(include, settled.include, default=())),
        tuple(first(exclude, settled.exclude, default=())),
        verify=Kind.MISMATCH in kinds,
        race=Kind.SLOWER in kinds,
        provider=runner(provider, settled),
        feeds=settled.feeds,
    )
    with progress() as tell:
        rules = run.Rules(kinds, baseline, update_baseline)
        # Models that work side by side slow each other down.
        survey = run.check(chosen, questions, rules, jobs=1 if questions.race else jobs, tell=tell)
    for path in report or ():
        write_report(path, SURVEYS[path.suffix](survey))
    _show(survey, output_format)
    raise typer.Exit(survey.exit_code)


def _show(survey: Survey, output_format: Format) -> None:
    if output_format in _SUFFIXES:
        from bnfold.report.formats import SURVEYS  # noqa: PLC0415  # slow

        print_data(SURVEYS[_SUFFIXES[output_format]](survey))
        return
    from bnfold.report import table  # noqa: PLC0415  # slow

    if output_format == "table":
        print_text(table.render(survey))
        return
    from bnfold.report import github  # noqa: PLC0415  # slow

    print_data(github.render(survey, plain_text(table.render(survey))))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        _summarize(survey, Path(summary))


def _summarize(survey: Survey, path: Path) -> None:
    """Add to what other commands of the same step have written."""
    from bnfold.report import github  # noqa: PLC0415  # slow

    try:
        with path.open("ab") as file:
            text = github.summary(survey, file.tell())
            file.write(encoded(text) if text else b"")
    except OSError as error:
        raise EnvironmentFault(f"the step summary {path} cannot be written: {error.strerror}") from error
