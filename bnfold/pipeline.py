"""The public verbs, each a few lines of: open, plan, edit, write, verify, report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from bnfold.collector import paused
from bnfold.environment import environment
from bnfold.errors import EnvironmentFault, ModelError, UsageError, VerdictError
from bnfold.fold.calls import Planned, explanations, plan_through_calls
from bnfold.fold.emit import emit
from bnfold.fold.options import Options, Rejected
from bnfold.fold.patterns import patterns
from bnfold.model.census import calls
from bnfold.model.edits import ModelEdits
from bnfold.model.store import ModelFile, open_model
from bnfold.model.store import tensors as tensors_of
from bnfold.model.validate import validate
from bnfold.model.write import staged, to_bytes
from bnfold.provenance import Provenance, config_sha256
from bnfold.remote import elsewhere
from bnfold.report.metrics import metrics
from bnfold.report.schema import Report, Seconds, Size
from bnfold.source import Model, Source, model_of
from bnfold.urls import is_url
from bnfold.verification.options import BUDGET, Provider, TruthMode, Verification
from bnfold.verification.verdict import FoldEvidence, Status, Verdict
from bnfold.version import __version__

if TYPE_CHECKING:
    import numpy as np

    from bnfold.benchmarking.result import Benchmark, Level
    from bnfold.fold.folded import Fold
    from bnfold.fold.reasons import Refusal
    from bnfold.fold.trace import Explanation
    from bnfold.fold.weight import Stored
    from bnfold.verification.inputs import Inputs, Ranges, Wishes

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What `optimize` or `inspect` found and made.

    Attributes:
        report: everything as data.
        content: the resulting model, serialized; None when it was written to `report.output` (or, for
            `inspect`, never made).
    """

    report: Report
    content: bytes | None

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The normalizations that went."""
        return self.report.folds

    @property
    def kept(self) -> tuple[Refusal, ...]:
        """The normalizations that stay, each with its reasons."""
        return self.report.kept

    @property
    def verdict(self) -> Verdict | None:
        """Whether the result computes the same as the original."""
        return self.report.verdict

    @property
    def model(self) -> onnx.ModelProto:
        """The resulting model.

        Raises:
            UsageError: there is none, because nothing was to be written.
        """
        if self.content is not None:
            model: onnx.ModelProto = onnx.ModelProto.FromString(self.content)
            return model
        if self.report.output is None:
            raise UsageError("there is no resulting model: it was only inspected")
        if is_url(self.report.output):
            raise UsageError(f"the resulting model is at {self.report.output}; fetch it from there")
        return onnx.load(self.report.output)

    def save(self, path: str | Path) -> None:
        """Write the resulting model to `path`, atomically.

        Raises:
            UsageError: there is no resulting model.
            EnvironmentFault: it cannot be written.
        """
        source = self.content if self.content is not None else self.report.output
        if source is None:
            raise UsageError("there is no resulting model: it was only inspected")
        if is_url(source):
            raise UsageError(f"the resulting model is at {source!r}; fetch it from there")
        with staged(open_model(source), ModelEdits(), Path(path)) as stage:
            stage.commit()

    def metrics(self) -> dict[str, float]:
        """The report as flat, finite numbers, for `mlflow.log_metrics`; see `bnfold.report.metrics`."""
        return metrics(self.report)

    def raise_for_status(self) -> None:
        """Fail unless the result was shown to be equivalent.

        Raises:
            VerdictError: the results differ (`exit_code` 1), or nothing can be said (5).
        """
        verdict = self.verdict
        if verdict is None or verdict.status != "equivalent":
            summary = "nothing was verified" if verdict is None else verdict.summary
            raise VerdictError(
                summary, exit_code=1 if verdict is not None and verdict.status == "different" else 5
            )


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
    report = _decide(model_of(model), options, _silent).report
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
    with _naming(given):
        opened, _ = _open(given)
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
    job = _Job(given, None if dry_run else target, verify, bench, provenance, how, tell)
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
    result = _blaming(result, names) if names else result
    return _blaming_sums(result, sums) if sums else result


def _asked(options: Options) -> dict[str, Any]:
    """What was asked of the plan."""
    return {
        "freeze": options.freeze,
        "include": list(options.include),
        "exclude": list(options.exclude),
        "merge": options.merge,
    }


def _blaming(result: Result, names: Sequence[str]) -> Result:
    """The result with the names of the folds that make, or would have made, a difference."""
    verdict = result.verdict
    if verdict is None:
        return result
    if verdict.status == "different":
        finding = f"the first fold that makes a difference is that of {names[-1]!r}; --keep-going drops it"
    else:
        finding = f"dropped, because with them results differ: {', '.join(names)}"
    verdict = replace(verdict, guilty=tuple(names), findings=(finding, *verdict.findings))
    return replace(result, report=replace(result.report, verdict=verdict))


def _blaming_sums(result: Result, names: Sequence[str]) -> Result:
    """The result with the names of the sums of branches that make, or would have made, a difference."""
    verdict = result.verdict
    if verdict is None:
        return result
    told = ", ".join(names)
    if verdict.status == "different":
        finding = (
            f"it is the joining of parallel branches that makes a difference ({told}); --no-merge leaves them"
        )
    else:
        finding = f"no branches were joined, because with that results differ: {told}"
    verdict = replace(verdict, guilty=(*verdict.guilty, *names), findings=(finding, *verdict.findings))
    return replace(result, report=replace(result.report, verdict=verdict))


class _NoTimeError(Exception):
    """The time budget is spent before the guilty fold is found."""


@dataclass(frozen=True)
class _Job:
    """One call of `optimize`, but for the options of the plan, which a failed verification may change."""

    model: Model
    target: Path | None
    verified: bool
    measured: bool
    provenance: bool
    how: Verification
    tell: Progress

    def run(self, options: Options) -> Result:
        """Fold, verify and write."""
        decision = _decide(self.model, options, self.tell)
        edits, written = decision.edits
        if self.provenance and edits.graphs:
            edits = replace(edits, metadata=_provenance(decision.report, options).entries())
        check = _Check(self.verified, self.measured, self.model, edits, written, self.how, self.tell)
        self.tell("writing")
        if self.target is None:
            return _in_memory(decision.report, decision.opened, edits, check)
        return _on_disk(decision.report, decision.opened, edits, self.target, check)

    def guilty_sums(self, result: Result, options: Options) -> tuple[str, ...]:
        """Sums whose branches were joined, where results differ with that and agree without."""
        verdict, merged = result.verdict, result.report.merged
        if verdict is None or verdict.status != "different" or not merged:
            return ()
        self.tell("looking for what makes the difference (without joining branches)")
        trial = replace(self, target=None, measured=False, how=replace(self.how, per_fold=False))
        tried = trial.run(replace(options, merge=False)).verdict
        return () if tried is None or tried.status == "different" else tuple(merged)

    def guilty(self, result: Result, options: Options) -> Rejected | None:
        """The first fold that makes the results differ; None where they do not, or none was found in time."""
        from bnfold.verification.blame import first_guilty  # noqa: PLC0415  # for those who need it

        verdict, folds = result.verdict, result.folds
        if verdict is None or verdict.status != "different" or not folds:
            return None
        evidence = verdict.summary.removeprefix("different: ")
        trial = replace(self, target=None, measured=False, how=replace(self.how, per_fold=False))

        deadline = time.monotonic() + self.how.budget

        def differs(count: int) -> bool:
            if time.monotonic() > deadline:
                raise _NoTimeError
            self.tell(f"looking for the fold that makes the difference (with {count} of {len(folds)})")
            left_out = tuple(Rejected(fold.node, fold.scope, evidence) for fold in folds[count:])
            tried = trial.run(replace(options, rejected=(*options.rejected, *left_out))).verdict
            return tried is not None and tried.status == "different"

        try:
            index = first_guilty(len(folds), differs)
        except _NoTimeError:
            return None
        return None if index is None else Rejected(folds[index].node, folds[index].scope, evidence)


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
        with _naming(model):
            opened, _ = _open(model)
            digests.append(opened.sha256())
    how = Verification(inputs, ranges, seed, truth, provider, budget=budget)
    verdict = judge(_path_or_bytes(models[0]), _path_or_bytes(models[1]), how, progress=progress)
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
        with _naming(model):
            _open(model)
    return race(
        _path_or_bytes(models[0]),
        _path_or_bytes(models[1]),
        levels=levels,
        batches=batches,
        inputs=inputs,
        threads=threads,
        provider=provider,
        seconds=seconds,
        seed=seed,
        progress=progress,
    )


@dataclass(frozen=True)
class _Check:
    """What is to be found out about a result, and what that takes.

    Attributes:
        verify: whether the caller wants a verdict.
        bench: whether the caller wants a benchmark.
    """

    verify: bool
    bench: bool
    source: Model
    edits: ModelEdits
    written: tuple[tuple[str, Stored], ...]
    how: Verification
    tell: Progress

    def complete(self, report: Report, result: Path | bytes) -> Report:
        """The report with a verdict on `result`, and a benchmark unless it is wrong."""
        started = time.perf_counter()
        with ThreadPoolExecutor(1) as background:
            digest = background.submit(open_model(result).sha256)
            verdict = self._verdict(result, report.folds)
        verified = time.perf_counter()
        seconds = replace(report.seconds, verify=verified - started)
        report = replace(report, verdict=verdict, seconds=seconds, result_sha256=digest.result())
        if not self.bench or verdict.status == "different":
            return report
        report = self._measured(report, result)
        return replace(report, seconds=replace(report.seconds, bench=time.perf_counter() - verified))

    def _measured(self, report: Report, result: Path | bytes) -> Report:
        if not report.folds and not report.merged:
            return replace(report, notes=(*report.notes, "speed was not measured: nothing was folded"))
        try:
            measured = benchmark(
                self.source, result, provider=self.how.provider, seed=self.how.seed, progress=self.tell
            )
        except (EnvironmentFault, UsageError) as error:
            # The result is as good as without.
            return replace(report, notes=(*report.notes, f"speed was not measured: {error}"))
        # Where the result lies for now is nobody's business.
        return replace(report, benchmark=replace(measured, b=replace(measured.b, source=None)))

    def _verdict(self, result: Path | bytes, folds: tuple[Fold, ...]) -> Verdict:
        if not self.verify:
            return self._without_running("not verified", "verification was switched off")
        if not self.edits.graphs:
            return self._without_running(
                "equivalent", "nothing was changed: both are the same, byte for byte"
            )

        from bnfold.verification.pair import verify as judge  # noqa: PLC0415  # a fold without verification does without

        self.tell("verifying the weights")
        self._check_algebra(open_model(result))
        self.tell("verifying the results")
        verdict = judge(_path_or_bytes(self.source), result, self.how, inside=False, progress=self.tell)
        return replace(verdict, per_fold=self._per_fold(folds, result)) if self.how.per_fold else verdict

    def _per_fold(self, folds: tuple[Fold, ...], result: Path | bytes) -> tuple[FoldEvidence, ...]:
        from bnfold.verification.sites import per_fold  # noqa: PLC0415  # as above

        return per_fold(_path_or_bytes(self.source), result, folds, self.how, progress=self.tell)

    def _without_running(self, status: Status, summary: str) -> Verdict:
        return Verdict(status, summary, (), (), (), "", self.how.seed, 0.0)

    def _check_algebra(self, result: ModelFile) -> None:
        from bnfold.verification.algebra import check_algebra  # noqa: PLC0415  # as above

        stored: dict[str, list[onnx.TensorProto]] = {}
        for tensor, _ in tensors_of(result.proto):
            stored.setdefault(tensor.name, []).append(tensor)
        for name, weight in self.written:
            finding = None
            # Sibling graphs may use one name for different tensors; one of them is the one that was written.
            for tensor in stored[name]:
                flat = result.array(tensor).reshape(-1)
                findings = (check_algebra(exact, part) for exact, part in _aligned(weight, flat))
                finding = next((f for f in findings if f is not None), None)
                if finding is None:
                    break
            else:
                raise EnvironmentFault(f"bnfold wrote a wrong weight, which is a bug: {name!r}: {finding}")


def _aligned(
    weight: Stored, flat: np.ndarray[Any, Any]
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    start = 0
    for exact in weight.exact_blocks():
        yield exact.reshape(-1), flat[start : start + exact.size]
        start += exact.size


@contextmanager
def _naming(model: Model) -> Iterator[None]:
    """Errors in a model name the file they are in."""
    try:
        yield
    except ModelError as error:
        if not isinstance(model, (str, Path)) or str(model) in str(error):
            raise
        raise ModelError(f"{model}: {error}") from error


def _silent(_stage: str) -> None:
    """Progress that nobody wants to see."""


@dataclass(frozen=True)
class _Decision:
    """A model that was read and planned.

    Attributes:
        opened: the model, with calls of local functions inlined where that is part of the decision.
        edits: what is to change, and the weights that are to be written.
        report: what is known before anything is written.
    """

    opened: ModelFile
    edits: tuple[ModelEdits, tuple[tuple[str, Stored], ...]]
    report: Report


def _decide(model: Model, options: Options, tell: Progress) -> _Decision:
    # The digest takes about as long as the plan, and another core.
    with _naming(model), ThreadPoolExecutor(1) as background:
        tell("reading")
        opened, seconds = _open(model)
        digest = background.submit(opened.sha256)
        tell("planning")
        started = time.perf_counter()
        with paused():
            planned = plan_through_calls(opened, options)
            edits = emit(planned.plan)
        seconds = replace(seconds, plan=time.perf_counter() - started)
        return _Decision(planned.model, edits, _report(model, opened, planned, digest.result(), seconds))


def _open(model: Model) -> tuple[ModelFile, Seconds]:
    started = time.perf_counter()
    opened = open_model(model)
    validate(opened)
    return opened, Seconds(read=time.perf_counter() - started)


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
    if isinstance(model, (str, Path)) and target.exists() and Path(model).exists() and target.samefile(model):
        raise UsageError(f"{target} is the model itself; to replace it ask for in-place (--in-place)")
    return target


def _in_memory(report: Report, opened: ModelFile, edits: ModelEdits, check: _Check) -> Result:
    if opened.external:
        # The result of a model with external data needs a folder to be complete; verify it in a passing one.
        with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
            report = _on_disk(report, opened, edits, Path(folder) / "model.onnx", check).report
        return Result(replace(report, output=None), to_bytes(opened, edits))
    started = time.perf_counter()
    content = to_bytes(opened, edits)
    report = replace(report, seconds=replace(report.seconds, write=time.perf_counter() - started))
    report = replace(report, after=_size(open_model(content)))
    return Result(check.complete(report, content), content)


def _on_disk(report: Report, opened: ModelFile, edits: ModelEdits, target: Path, check: _Check) -> Result:
    started = time.perf_counter()
    with staged(opened, edits, target) as stage:
        report = replace(report, seconds=replace(report.seconds, write=time.perf_counter() - started))
        report = replace(report, after=_size(open_model(stage.path)))
        report = check.complete(report, stage.path)
        if report.verdict is None or report.verdict.status != "different":
            stage.commit()
            report = replace(report, output=str(target))
    return Result(report, None)


def _report(model: Model, opened: ModelFile, planned: Planned, digest: str, seconds: Seconds) -> Report:
    proto, decided = opened.proto, planned.plan
    frozen = tuple(f"{name!r}, which callers could override, is a constant now" for name in decided.frozen)
    return Report(
        version=__version__,
        source=str(model) if isinstance(model, (str, Path)) else None,
        output=None,
        source_sha256=digest,
        opset=decided.draft.view.graphs[0].opset,
        ir_version=proto.ir_version,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        folds=decided.folds,
        kept=decided.kept,
        merged=decided.merged,
        frozen=decided.frozen,
        before=_size(opened),
        after=None,
        verdict=None,
        notes=(*frozen, *planned.notes),
        seconds=seconds,
        environment=environment(),
        patterns=patterns(decided),
    )


def _provenance(report: Report, options: Options) -> Provenance:
    return Provenance(report.version, report.source_sha256, config_sha256(options), len(report.folds))


def _size(model: ModelFile) -> Size:
    return Size(sum(1 for _ in calls(model.proto)), model.size_bytes)


def _path_or_bytes(model: Model) -> Path | bytes:
    if isinstance(model, onnx.ModelProto):
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized
    return Path(model) if isinstance(model, str) else model
