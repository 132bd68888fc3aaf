"""The public verbs, each a few lines of: open, plan, edit, write, verify, report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.collector import paused
from bnfold.errors import UsageError
from bnfold.fold.calls import explanations
from bnfold.fold.options import Options
from bnfold.job import Job, blaming, blaming_sums, decide
from bnfold.remote import elsewhere
from bnfold.result import Result
from bnfold.source import Model, Source, model_of, naming, path_or_bytes, valid
from bnfold.verification.options import BUDGET, Provider, TruthMode, Verification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnfold.benchmarking.result import Benchmark, Level
    from bnfold.checking import Progress
    from bnfold.fold.trace import Explanation
    from bnfold.verification.inputs import Inputs, Ranges, Wishes
    from bnfold.verification.verdict import Verdict


@elsewhere
def inspect(
    model: Source,
    *,
    freeze: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    merge: bool = True,
) -> Result:
    """Say of every normalization where it would go or why it stays; writes nothing.

    Args:
        model: a path, serialized bytes, a ModelProto, or a torch.onnx.ONNXProgram; it is not changed.
        freeze: take initializers that the caller could override for constants.
        include: name patterns (shell style); when there are any, only matching normalizations fold.
        exclude: name patterns; matching normalizations stay.
        merge: join parallel linear branches that are summed into one Conv.

    Raises:
        ModelError: the model cannot be read or is not valid.
    """
    options = Options(freeze, tuple(include), tuple(exclude), merge)
    report = decide(model_of(model), options, _silent).report
    return Result(replace(report, options=_asked(options)), None)


@elsewhere
def explain(
    model: Source,
    name: str,
    *,
    freeze: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    merge: bool = True,
) -> tuple[Explanation, ...]:
    """What was tried for each normalization of one name; the options are those of `inspect`.

    Args:
        model: a path, serialized bytes, a ModelProto, or a torch.onnx.ONNXProgram; it is not changed.
        name: of the node, of its output, or of the node in the local function that it stands in.
        freeze: take initializers that the caller could override for constants.
        include: name patterns (shell style); when there are any, only matching normalizations fold.
        exclude: name patterns; matching normalizations stay.
        merge: join parallel linear branches that are summed into one Conv.

    Raises:
        UsageError: no normalization has that name.
        ModelError: the model cannot be read or is not valid.
    """
    options = Options(freeze, tuple(include), tuple(exclude), merge)
    given = model_of(model)
    with naming(given):
        opened = valid(given)
        with paused():
            return explanations(opened, options, name)


@elsewhere
def optimize(
    model: Source,
    *,
    output: str | Path | None = None,
    in_place: bool = False,
    verify: bool = True,
    bench: bool = False,
    dry_run: bool = False,
    freeze: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    merge: bool = True,
    provenance: bool = True,
    inputs: Inputs | Wishes = None,
    ranges: Ranges = None,
    seed: int = 0,
    truth: TruthMode = "auto",
    provider: Provider = "cpu",
    budget: float = BUDGET,
    per_fold: bool = False,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Fold every normalization that can be folded exactly, and prove that nothing else changed.

    Args:
        model: a path, serialized bytes, a ModelProto, or a torch.onnx.ONNXProgram; it is not changed.
        output: where to write the result; without it the result stays in memory.
        in_place: replace the model file itself.
        verify: compare original and result numerically before anything is written.
        bench: also measure how fast both run, at each optimization level of onnxruntime; takes a minute.
        dry_run: do everything but write.
        freeze: turn initializers that the caller could override into constants first.
        include: name patterns (shell style); when there are any, only matching normalizations fold.
        exclude: name patterns; matching normalizations stay.
        merge: join parallel linear branches that are summed into one Conv.
        provenance: have a model that was changed say where it comes from (`bnfold.provenance`).
        inputs: what the verification feeds; as in `verify`.
        ranges: of the feeds that are made; as in `verify`.
        seed: of the feeds of the verification.
        truth: how it is judged; as in `verify`.
        provider: what runs both models; as in `verify`.
        budget: seconds that the verification may take; as in `verify`.
        per_fold: have the verdict say of each fold by itself how exact it is.
        keep_going: where the results differ, drop the fold that is guilty (BNF030) and verify again.
        progress: told the name of each stage as it begins.

    Returns:
        The result. When the verdict is "different" nothing has been written, and the verdict names the first
        fold that makes the difference.

    Raises:
        ModelError: the model cannot be read or is not valid.
        UsageError: the arguments contradict each other.
        EnvironmentFault: the result cannot be written, or verification cannot run.
    """
    tell = progress or _silent
    given = model_of(model)
    target = _target(given, output, in_place=in_place)
    options = Options(freeze, tuple(include), tuple(exclude), merge)
    how = Verification(inputs, ranges, seed, truth, provider, per_fold, budget)
    job = Job(given, None if dry_run else target, verify, bench, provenance, how, tell)
    result, guilty = job.run(options), None
    while (guilty := job.guilty(result, options)) is not None and keep_going:
        options = replace(options, rejected=(*options.rejected, guilty))
        result = job.run(options)
    names = [each.node for each in options.rejected] + ([guilty.node] if guilty is not None else [])
    sums = () if guilty is not None else job.guilty_sums(result, options)
    asked = {**_asked(options), "provenance": provenance, "bench": bench, "verify": verify}
    asked |= {**how.asked(), "keep_going": keep_going} if verify else {}
    if sums and keep_going:
        result = job.run(replace(options, merge=False))
    result = replace(result, report=replace(result.report, options=asked))
    result = blaming(result, names) if names else result
    return blaming_sums(result, sums) if sums else result


def _asked(options: Options) -> dict[str, Any]:
    """What was asked of the plan."""
    return {
        "freeze": options.freeze,
        "include": list(options.include),
        "exclude": list(options.exclude),
        "merge": options.merge,
    }


@elsewhere
def verify(
    original: Source,
    folded: Source,
    *,
    inputs: Inputs | Wishes = None,
    ranges: Ranges = None,
    seed: int = 0,
    truth: TruthMode = "auto",
    provider: Provider = "cpu",
    budget: float = BUDGET,
    progress: Progress | None = None,
) -> Verdict:
    """Whether two models compute the same function, whatever tool made the second one.

    Args:
        original: the model that is right by definition; a path, serialized bytes, a ModelProto, or a
            torch.onnx.ONNXProgram; it is not changed.
        folded: the other one, in any of these forms.
        inputs: what both are fed. By input name an array in the input's dtype, a file (.npz, .npy, .pb), a
            folder of them, or a shape (a tuple of sizes); or a sequence of mappings of arrays, one a feed; or
            a file or folder that holds all inputs. What is left out gets seeded values.
        ranges: `(low, high)`, both included, of the values that are made: for all inputs, or by name.
        seed: of the values that are made.
        truth: "auto" evaluates the original in float64, and where it cannot judges by a rounding bound;
            "full" calls that "not verified"; "bound" does without.
        provider: onnxruntime's execution provider: "cpu", "cuda" or "tensorrt".
        budget: seconds that it may take. Feeds left out for it are named in the findings; where not even one
            was judged in float64, the bound has to do.
        progress: told the name of each stage as it begins.

    Raises:
        ModelError: one of them cannot be read or is not valid.
        UsageError: inputs or ranges do not fit the model.
        EnvironmentFault: onnxruntime cannot run here, or not on that provider.
    """
    from bnfold.verification.pair import verify as judge  # noqa: PLC0415  # a fold without verification does without it

    digests = []
    models = model_of(original), model_of(folded)
    for model in models:
        with naming(model):
            opened = valid(model)
            digests.append(opened.sha256())
    how = Verification(inputs, ranges, seed, truth, provider, budget=budget)
    verdict = judge(path_or_bytes(models[0]), path_or_bytes(models[1]), how, progress=progress)
    return replace(verdict, original_sha256=digests[0], folded_sha256=digests[1])


@elsewhere
def benchmark(
    a: Source,
    b: Source,
    *,
    levels: Sequence[Level] = ("disable_all", "enable_basic", "enable_all"),
    batches: Sequence[int] = (),
    inputs: Inputs | Wishes = None,
    threads: int = 1,
    provider: str = "cpu",
    seconds: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Benchmark:
    """Measure how fast two models run in onnxruntime, side by side.

    Args:
        a: the model to compare with; a path, serialized bytes, a ModelProto, or a torch.onnx.ONNXProgram.
        b: the same for the other one.
        levels: onnxruntime's optimization levels.
        batches: batch sizes; none takes the one that the model states, or 1 where it states none.
        inputs: what both are fed instead, as in `verify`; of feeds of one size the first is timed.
        threads: of onnxruntime within an operator.
        provider: "cpu" or "cuda".
        seconds: how long it may take, about; each level is measured once in any case.
        seed: of the feeds and of the bootstrap.
        progress: told what is being measured.

    Returns:
        Ratios with 95 % intervals and what they allow to say, latencies in seconds, sizes in bytes.

    Raises:
        ModelError: a model cannot be read or is not valid.
        UsageError: the models have different inputs or outputs, or the arguments make no sense.
        EnvironmentFault: onnxruntime cannot run the models, or not on the provider asked for.
    """
    from bnfold.benchmarking.pair import benchmark as race  # noqa: PLC0415  # a fold does without

    models = model_of(a), model_of(b)
    for model in models:
        with naming(model):
            valid(model)
    found = race(
        path_or_bytes(models[0]),
        path_or_bytes(models[1]),
        levels=levels,
        batches=batches,
        inputs=inputs,
        threads=threads,
        provider=provider,
        seconds=seconds,
        seed=seed,
        progress=progress,
    )
    asked = {
        "levels": list(levels),
        "batches": list(batches),
        "inputs": Verification(inputs).asked()["inputs"],
        "threads": threads,
        "provider": provider,
        "seconds": float(seconds),
        "seed": seed,
    }
    return replace(found, options=asked)


def _silent(_stage: str) -> None:
    """Progress that nobody wants to see."""


def _target(model: Model, output: str | Path | None, *, in_place: bool) -> Path | None:
    if in_place:
        if output is not None:
            raise UsageError("give an output or ask for in-place, not both")
        if not isinstance(model, (str, Path)):
            raise UsageError("only a model file can be replaced in place")
        return Path(model)
    if output is None:
        return None
    target = Path(output)
    if isinstance(model, (str, Path)) and _are_one_file(target, Path(model)):
        raise UsageError(f"{target} is the model itself; to replace it ask for in-place (--in-place)")
    return target


def _are_one_file(target: Path, model: Path) -> bool:
    try:
        return target.samefile(model)
    except (OSError, ValueError):
        return False  # one of them is not there, or out of reach: reading or writing it says so
