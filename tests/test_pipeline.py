"""The public verbs as a program calls them."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper
from support import command, through
from support.claims import batch_norms

import bnfold
from bnfold.checking import Check
from bnfold.errors import ModelError, UsageError, VerdictError
from bnfold.fold.reasons import Code
from bnfold.model.write import Staged

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `model.onnx`, and the same with its weights in another file as `external.onnx`."""
    command.save(command.small(), tmp_path / "model.onnx")
    onnx.save(
        command.small(),
        str(tmp_path / "external.onnx"),
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    return tmp_path


def names(model: ModelProto) -> list[str]:
    return [node.name for node in batch_norms(model)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- optimize: where the result is --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.onnx", "external.onnx"])
@pytest.mark.parametrize("kind", ["str", "Path"])
def test_without_an_output_the_result_stays_in_memory(folder: Path, name: str, kind: str) -> None:
    before = files(folder)
    result = bnfold.optimize(str(folder / name) if kind == "str" else folder / name)
    assert names(result.model) == ["head"]
    assert result.report.output is None
    assert result.report.after is not None
    assert files(folder) == before


def test_bytes_and_protos_are_models_too(folder: Path) -> None:
    data = (folder / "model.onnx").read_bytes()
    proto = onnx.ModelProto.FromString(data)
    results = [bnfold.optimize(source, verify=False) for source in (folder / "model.onnx", data, proto)]
    assert len({result.model.SerializeToString() for result in results}) == 1
    assert proto.SerializeToString() == data


def test_the_model_of_the_caller_is_not_changed() -> None:
    """Nor does a later change to it reach the result."""
    proto = command.small()
    before = proto.SerializeToString()
    result = bnfold.optimize(proto)
    assert proto.SerializeToString() == before
    expected = result.model.SerializeToString()
    proto.graph.initializer[0].raw_data = b""
    result.model.graph.ClearField("node")
    assert result.model.SerializeToString() == expected


@pytest.mark.parametrize("name", ["model.onnx", "external.onnx"])
def test_an_output_is_written_and_can_be_read_back(folder: Path, name: str) -> None:
    result = bnfold.optimize(folder / name, output=folder / "out.onnx")
    assert result.report.output == str(folder / "out.onnx")
    assert names(onnx.load(str(folder / "out.onnx"))) == ["head"]
    assert result.model == onnx.load(str(folder / "out.onnx"))


@pytest.mark.parametrize("name", ["model.onnx", "external.onnx"])
def test_in_place(folder: Path, name: str) -> None:
    original = onnx.load(str(folder / name)).SerializeToString()
    result = bnfold.optimize(folder / name, in_place=True)
    assert result.report.output == str(folder / name)
    assert names(onnx.load(str(folder / name))) == ["head"]
    onnx.save(onnx.ModelProto.FromString(original), str(folder / "original.onnx"))
    assert bnfold.verify(folder / "original.onnx", folder / name).status == "equivalent"


@pytest.mark.parametrize("name", ["model.onnx", "external.onnx"])
def test_a_dry_run_gives_the_result_and_writes_nothing(folder: Path, name: str) -> None:
    before = files(folder)
    result = bnfold.optimize(folder / name, output=folder / "out.onnx", dry_run=True)
    assert result.report.output is None
    assert names(result.model) == ["head"]
    assert files(folder) == before


@pytest.mark.parametrize("name", ["model.onnx", "external.onnx"])
@pytest.mark.parametrize("written", [True, False])
def test_save(folder: Path, name: str, written: bool) -> None:
    result = bnfold.optimize(folder / name, output=folder / "out.onnx" if written else None, verify=False)
    (folder / "elsewhere").mkdir()
    result.save(folder / "elsewhere" / "saved.onnx")
    saved = onnx.load(str(folder / "elsewhere" / "saved.onnx"))
    assert names(saved) == ["head"]
    assert {t.name: numpy_helper.to_array(t).tobytes() for t in saved.graph.initializer} == {
        t.name: numpy_helper.to_array(t).tobytes() for t in result.model.graph.initializer
    }


# --- optimize: what may go wrong ----------------------------------------------------------------------------


def test_arguments_that_contradict(folder: Path) -> None:
    before = files(folder)
    with pytest.raises(UsageError, match="not both"):
        bnfold.optimize(folder / "model.onnx", output=folder / "out.onnx", in_place=True)
    with pytest.raises(UsageError, match="in place"):
        bnfold.optimize(command.small(), in_place=True)
    with pytest.raises(UsageError, match="is the model itself"):
        bnfold.optimize(folder / "model.onnx", output=folder / "model.onnx")
    assert files(folder) == before


def test_a_broken_model_is_named(folder: Path) -> None:
    (folder / "broken.onnx").write_bytes(b"\x08\xff")
    for verb in (bnfold.optimize, bnfold.inspect):
        with pytest.raises(ModelError, match=r"broken\.onnx"):
            verb(folder / "broken.onnx")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        bnfold.verify(folder / "model.onnx", folder / "broken.onnx")


def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every result has one wrong weight when it is verified."""
    write = Staged.write

    def wrong(self: Staged, *arguments: object) -> None:
        write(self, *arguments)  # type: ignore[arg-type] # whatever it takes
        model = onnx.load(str(self.path))
        tensor = next(t for t in model.graph.initializer if len(t.dims) > 1)
        tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) * np.float32(1.01)).tobytes()
        self.path.write_bytes(model.SerializeToString())

    monkeypatch.setattr(Staged, "write", wrong)


def test_a_wrong_result_never_takes_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the check of the weights taken out as well, the results themselves tell."""
    before = files(folder)
    spoilt(monkeypatch)
    with pytest.raises(bnfold.errors.EnvironmentFault, match="wrong weight, which is a bug"):
        bnfold.optimize(folder / "model.onnx", output=folder / "out.onnx")
    assert files(folder) == before
    monkeypatch.setattr(Check, "_check_algebra", lambda *_: None)
    result = bnfold.optimize(folder / "model.onnx", output=folder / "out.onnx")
    assert result.verdict is not None
    assert result.verdict.status == "different"
    assert result.report.output is None
    assert files(folder) == before
    with pytest.raises(VerdictError) as caught:
        result.raise_for_status()
    assert caught.value.exit_code == 1


# --- verdicts -----------------------------------------------------------------------------------------------


def test_raise_for_status(folder: Path) -> None:
    bnfold.optimize(folder / "model.onnx").raise_for_status()
    with pytest.raises(VerdictError, match="switched off") as caught:
        bnfold.optimize(folder / "model.onnx", verify=False).raise_for_status()
    assert caught.value.exit_code == 5
    with pytest.raises(VerdictError) as caught:
        bnfold.inspect(folder / "model.onnx").raise_for_status()
    assert caught.value.exit_code == 5


def test_an_unchanged_model_needs_no_run(folder: Path) -> None:
    result = bnfold.optimize(folder / "model.onnx", exclude=["*"])
    assert result.verdict is not None
    assert (result.verdict.status, result.verdict.outputs) == ("equivalent", ())
    assert result.model == onnx.load(str(folder / "model.onnx"))


def test_the_seed_is_the_feeds(folder: Path) -> None:
    first, again, other = (
        bnfold.verify(folder / "model.onnx", folder / "model.onnx", seed=s) for s in (1, 1, 2)
    )
    assert [row.signal_rms for row in first.outputs] == [row.signal_rms for row in again.outputs]
    assert [row.signal_rms for row in first.outputs] != [row.signal_rms for row in other.outputs]
    assert (first.seed, other.seed) == (1, 2)


# --- inspect, report ----------------------------------------------------------------------------------------


def test_inspect_decides_as_optimize_does(folder: Path) -> None:
    for exclude in ([], ["b*"]):
        seen = bnfold.inspect(folder / "model.onnx", exclude=exclude)
        done = bnfold.optimize(folder / "model.onnx", verify=False, exclude=exclude)
        assert (seen.folds, seen.kept) == (done.folds, done.kept)


def test_inspect_makes_no_model(folder: Path) -> None:
    result = bnfold.inspect(folder / "model.onnx")
    assert result.report.after is None
    assert result.verdict is None
    with pytest.raises(UsageError, match="inspected"):
        _ = result.model
    with pytest.raises(UsageError, match="inspected"):
        result.save(folder / "out.onnx")


def test_the_report_speaks_of_this_model(folder: Path) -> None:
    path = folder / "model.onnx"
    model = command.small()
    model.producer_name, model.producer_version = "exporter", "1.0"
    command.save(model, path)
    report = bnfold.optimize(path, output=folder / "out.onnx").report
    assert report.version == bnfold.__version__
    assert (report.source, report.output) == (str(path), str(folder / "out.onnx"))
    assert report.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (report.opset, report.ir_version, report.producer) == (17, model.ir_version, "exporter 1.0")
    assert (report.before.nodes, report.before.nbytes) == (4, path.stat().st_size)
    assert report.after is not None
    assert (report.after.nodes, report.after.nbytes) == (3, (folder / "out.onnx").stat().st_size)
    assert (report.found, len(report.folds), report.kept_by_code) == (2, 1, {"BNF019": 1})
    assert report.seconds.verify > 0


def test_external_data_counts(folder: Path) -> None:
    report = bnfold.inspect(folder / "external.onnx").report
    assert report.before.nbytes == sum((folder / name).stat().st_size for name in ("external.onnx", "w"))


def test_progress_names_the_stages(folder: Path) -> None:
    stages: list[str] = []
    bnfold.optimize(folder / "model.onnx", output=folder / "out.onnx", progress=stages.append)
    assert stages[:3] == ["reading", "planning", "writing"]
    assert any("verifying" in stage for stage in stages[3:])


# --- several at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_result_can_be_pickled(folder: Path, where: str) -> None:
    """As executors send it from one process to another."""
    output = folder / "out.onnx" if where == "file" else None
    result = bnfold.optimize(folder / "model.onnx", output=output)
    copy = pickle.loads(pickle.dumps(result))  # noqa: S301  # bytes of our own
    assert copy == result
    assert copy.report.to_json() == result.report.to_json()
    assert copy.model == result.model
    assert copy.kept[0].code is Code.NO_LINEAR_NEIGHBOUR


@pytest.mark.parametrize(
    "error",
    [ModelError("m"), UsageError("u"), VerdictError("v", exit_code=5)],
    ids=lambda e: type(e).__name__,
)
def test_an_error_can_be_pickled(error: bnfold.errors.BnfoldError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # bytes of our own
    assert (type(copy), str(copy), copy.exit_code) == (type(error), str(error), error.exit_code)


def test_threads_do_not_meet(folder: Path) -> None:
    """Eight at once, on models of their own, on one file and on one ModelProto, as one after the other."""
    models = [through.model(seed)[0] for seed in range(24)]
    alone = [bnfold.optimize(model, verify=False).model.SerializeToString() for model in models]
    shared = bnfold.optimize(models[0], verify=False).model.SerializeToString()
    with ThreadPoolExecutor(8) as pool:
        own = list(pool.map(lambda m: bnfold.optimize(m, verify=False), models))
        same = list(pool.map(lambda _: bnfold.optimize(models[0], verify=False), range(24)))
        file = list(pool.map(lambda _: bnfold.optimize(folder / "model.onnx", verify=False), range(24)))
        written = list(
            pool.map(
                lambda i: bnfold.optimize(folder / "model.onnx", output=folder / f"{i}.onnx", verify=i < 4),
                range(16),
            )
        )
    assert [r.model.SerializeToString() for r in own] == alone
    assert {r.model.SerializeToString() for r in same} == {shared}
    assert len({r.content for r in file}) == 1
    assert {(folder / f"{i}.onnx").read_bytes() for i in range(16)} == {file[0].content}
    assert all(r.verdict is not None and r.verdict.status == "equivalent" for r in written[:4])
