"""What folded models are in runtimes other than onnxruntime: do they load there, and compute the same?

    PYTHONPATH=tests python benchmarks/runtimes.py MODEL_OR_FOLDER ... [--python PYTHON]

Each model is folded by bnfold; the original and the result then run in each runtime that PYTHON has
(`tests/support/other_runtimes.py`), and both are judged against a float64 evaluation of the original by the
rule of bnfold's own verification (`tests/support/beside.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from support.beside import Finding, outcome, pair, version
from support.other_runtimes import RUNTIMES
from tools import HERE, cpu, say

import bnfold
from bnfold.verification.truth import TruthUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from support.beside import Outcome

    Outcomes = Mapping[str, Mapping[str, Outcome]]  # by model and runtime

_REASON = 200  # characters of one


def measured(
    python: Path, models: Sequence[Path], runtimes: Sequence[str]
) -> tuple[Outcomes, dict[str, str]]:
    """Everything, and the models that were left out, with the reason."""
    found: dict[str, dict[str, Outcome]] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="bnfold-runtimes-") as folder:
        for model in models:
            folded = Path(folder, model.name)
            result = bnfold.optimize(model, output=folded, verify=False)
            if not result.folds:
                left_out[model.stem] = "bnfold folds nothing"
                continue
            try:
                given = pair(model, folded)
            except TruthUnavailableError as error:
                left_out[model.stem] = f"no float64 truth: {error}"
                continue
            found[model.stem] = {}
            for runtime in runtimes:
                found[model.stem][runtime] = outcome(python, runtime, given)
                say(f"{model.stem}: {runtime}: {cell(found[model.stem][runtime])}")
            folded.unlink()
    return found, left_out


def cell(what: Outcome) -> str:
    """An outcome in a table: the ratio of errors, where that is all."""
    ratio = "exact" if what.ratio is None else f"{what.ratio:.2f}"
    if what.finding == "agrees":
        return ratio
    return f"**differs**, {ratio}" if what.finding == "differs" else what.finding


def sums(outcomes: Outcomes, runtimes: Sequence[str]) -> Iterator[str]:
    """How many models each runtime says what of."""
    findings = get_args(Finding)
    yield f"| runtime | {' | '.join(findings)} |"
    yield f"|{'---|' * (1 + len(findings))}"
    for runtime in runtimes:
        found = Counter(row[runtime].finding for row in outcomes.values())
        yield f"| {runtime} | {' | '.join(str(found[finding]) for finding in findings)} |"


def table(outcomes: Outcomes, runtimes: Sequence[str]) -> Iterator[str]:
    """Every model in every runtime."""
    yield f"| model | {' | '.join(runtimes)} |"
    yield f"|{'---|' * (1 + len(runtimes))}"
    for name, row in outcomes.items():
        yield f"| {name} | {' | '.join(cell(row[runtime]) for runtime in runtimes)} |"


def failures(outcomes: Outcomes) -> Iterator[str]:
    """What did not run, and what the runtime said."""
    for name, row in outcomes.items():
        for runtime, what in row.items():
            for which, reason in (("original", what.original), ("folded", what.folded)):
                if reason:
                    yield f"| {name} | {runtime} | {which} | {_plain(reason)} |"


def _plain(reason: str) -> str:
    return " ".join(reason.replace("|", "/").replace("`", "'").split())[:_REASON]


def report(python: Path, models: Sequence[Path], runtimes: Sequence[str]) -> Iterator[str]:
    """The whole report, a line at a time."""
    versions = {runtime: version(python, runtime) for runtime in runtimes}
    present = [runtime for runtime in runtimes if versions[runtime]]
    outcomes, left_out = measured(python, models, present)
    yield "# Folded models in other runtimes"
    yield ""
    named = "; ".join(dict.fromkeys(versions[runtime] for runtime in present))
    yield f"bnfold {bnfold.__version__}; {named}. {cpu()}. How: `benchmarks/README.md`."
    yield ""
    yield (
        "The figures are the RMS error of the folded model divided by that of the original, in the same "
        "runtime, both against a float64 evaluation of the original. A pair *agrees* where the error of "
        "the folded model is within what bnfold's verification allows: a ratio of more than 2 only where "
        "changes of half a unit in the last place move the original's own result as far. It *differs* "
        "otherwise. *Folded alone*: the original does not run, or gives results that are far from the "
        "truth, and the folded model gives right ones. *Original alone*: it runs, and the folded model "
        "does not. *Neither*: no right results, where the network may be to blame: with random weights "
        "some multiply rounding errors."
    )
    yield ""
    yield from sums(outcomes, present)
    yield ""
    yield from table(outcomes, present)
    listed = list(failures(outcomes))
    if listed:
        yield from ("", "What does not run:", "", "| model | runtime | which | why |", "|---|---|---|---|")
        yield from listed
    if left_out:
        yield ""
        yield f"Left out: {'; '.join(f'{name} ({reason})' for name, reason in left_out.items())}."


def main() -> None:
    """Run everything, print the report and keep it."""
    parser = argparse.ArgumentParser(description="Run folded models in runtimes other than onnxruntime.")
    parser.add_argument("models", nargs="+", type=Path, help="models, or folders of them")
    parser.add_argument(
        "--python", type=Path, default=Path(sys.executable), help="the interpreter that has the runtimes"
    )
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "runtimes.md")
    arguments = parser.parse_args()
    models = [
        file
        for path in arguments.models
        for file in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])
    ]
    missing = [str(file) for file in models if not file.is_file()]
    if missing or not models:
        parser.error(f"no model: {', '.join(missing) or ', '.join(map(str, arguments.models))}")
    text = "".join(f"{line}\n" for line in report(arguments.python, models, arguments.runtimes))
    print(text, end="")
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
