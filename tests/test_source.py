"""What may be passed as a model, from where it may be called, and what becomes of results."""

from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from support import command

import bnfold
from bnfold.errors import ModelError, UsageError
from bnfold.report.metrics import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx


class Program:
    """Stands for a `torch.onnx.ONNXProgram`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model_proto = model


class TooLarge:
    @property
    def model_proto(self) -> onnx.ModelProto:
        raise ValueError("Failed to serialize proto\nand more")


class PathLike:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return command.save(command.small(), tmp_path / "model.onnx")


FORMS: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "path": Path,
    "pathlike": PathLike,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(bytearray(path.read_bytes())),
    "proto": lambda _path: command.small(),
    "program": lambda _path: Program(command.small()),
}


def content(model: Any) -> object:  # noqa: ANN401 - any form
    """What must stay the same."""
    if isinstance(model, Program):
        model = model.model_proto
    if hasattr(model, "SerializeToString"):
        return model.SerializeToString(deterministic=True)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model)
    return Path(model).read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_folds(path: Path, form: str) -> None:
    """The same result as from the file, and what was passed is as it was."""
    expected = bnfold.optimize(path, verify=False, provenance=False)
    model = FORMS[form](path)
    before = content(model)
    result = bnfold.optimize(model, verify=False, provenance=False)
    assert result.model == expected.model
    assert len(bnfold.inspect(model).folds) == 1
    assert content(model) == before


@pytest.mark.parametrize("form", ["pathlike", "memoryview", "program"])
def test_every_form_is_verified_and_measured(path: Path, form: str) -> None:
    model = FORMS[form](path)
    before = content(model)
    assert bnfold.verify(model, model).status == "equivalent"
    assert bnfold.benchmark(model, model, levels=["enable_all"], seconds=0.01).a.bn == 2
    assert content(model) == before


@pytest.mark.parametrize("form", ["str", "path", "pathlike"])
def test_a_file_of_any_form_is_replaced_in_place(path: Path, form: str) -> None:
    result = bnfold.optimize(FORMS[form](path), in_place=True)
    assert result.report.source == str(path)
    assert len(bnfold.inspect(path).report.folds) == 0


@pytest.mark.parametrize("model", [None, 3, ["model.onnx"], object(), open])
@pytest.mark.parametrize("verb", ["optimize", "inspect", "verify", "benchmark"])
def test_what_is_no_model_is_refused(model: Any, verb: str) -> None:  # noqa: ANN401 - anything
    models = (model, model) if verb in {"verify", "benchmark"} else (model,)
    with pytest.raises(UsageError, match=f"a model is a path, .*not {type(model).__name__}$"):
        getattr(bnfold, verb)(*models)


@pytest.mark.parametrize("verb", ["optimize", "inspect", "verify", "benchmark"])
def test_a_url_in_a_path_is_refused_without_its_password(verb: str) -> None:
    model = Path("https://me:hunter2@h/model.onnx")
    models = (model, model) if verb in {"verify", "benchmark"} else (model,)
    with pytest.raises(UsageError, match="a URL is given as a str") as refused:
        getattr(bnfold, verb)(*models)
    assert "hunter2" not in str(refused.value)


def test_a_program_that_is_too_large() -> None:
    with pytest.raises(ModelError, match=r"TooLarge gives no model \(Failed to serialize proto\); save it"):
        bnfold.inspect(TooLarge())


def test_threads_give_what_one_gives(path: Path) -> None:
    """On the same model and on different ones; the collector of garbage is on again behind them."""
    other = command.folding("another").model()
    alone = [bnfold.optimize(model, verify=False).content for model in (path, other)]
    models = [path, other] * 12
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda model: bnfold.optimize(model, verify=False).content, models))
    assert found == alone * 12
    assert gc.isenabled()


def test_verification_in_threads(path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: bnfold.optimize(path), range(3)))
    assert [result.verdict and result.verdict.status for result in found] == ["equivalent"] * 3
    assert len({result.content for result in found}) == 1


def test_within_a_running_loop(path: Path) -> None:
    """As in a notebook: right in the loop, and in a thread of it."""

    async def cell() -> list[bnfold.Result]:
        return [bnfold.optimize(path), await asyncio.to_thread(bnfold.optimize, path)]

    here, there = asyncio.run(cell())
    assert here.content == there.content
    here.raise_for_status()


def test_results_travel(path: Path) -> None:
    result = bnfold.optimize(path)
    verdict = bnfold.verify(path, path)
    speed = bnfold.benchmark(path, path, levels=["enable_all"], seconds=0.01)
    for each in (result, verdict, speed):
        assert pickle.loads(pickle.dumps(each)) == each  # noqa: S301 - its own
        assert copy.deepcopy(each) == each
        assert copy.copy(each) == each


@pytest.mark.parametrize(
    ("options", "before"),
    [
        (("-O",), ""),
        (("-W", "error"), "sys.stdout = sys.stderr = sys.stdin = None"),
        (("-OO",), "os.close(0)"),
    ],
)
def test_interpreters_of_all_kinds(path: Path, options: tuple[str, ...], before: str) -> None:
    """A script without a guard runs once, optimized, strict, without streams."""
    code = (
        f"import os, sys\n{before}\nimport bnfold\n"
        "result = bnfold.optimize('model.onnx', output='out.onnx')\nresult.raise_for_status()\n"
        "with open('ran', 'a') as file: file.write('once ')\n"
    )
    (path.parent / "script.py").write_text(code)
    found = command.run(cwd=path.parent, program=(sys.executable, *options, "script.py"))
    assert found.returncode == 0, found.stderr
    assert (path.parent / "ran").read_text() == "once "


def test_it_may_be_called_from_any_thread(path: Path) -> None:
    found: list[bnfold.Result] = []
    thread = threading.Thread(target=lambda: found.append(bnfold.optimize(path)))
    thread.start()
    thread.join()
    found[0].raise_for_status()


# --- metrics ------------------------------------------------------------------------------------------------


def test_metrics_are_flat_finite_floats(path: Path) -> None:
    result = bnfold.optimize(path)
    numbers = result.metrics()
    assert all(type(number) is float and math.isfinite(number) for number in numbers.values())
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzBNF0123456789_/") for name in numbers)
    assert all(str(PurePosixPath(name)) == name for name in numbers)
    assert {name: numbers[name] for name in ("found", "folded", "kept", "kept/BNF019", "equivalent")} == {
        "found": 2, "folded": 1, "kept": 1, "kept/BNF019": 1, "equivalent": 1,
    }  # fmt: skip
    assert (numbers["nodes_before"], numbers["nodes_after"]) == (4, 3)
    assert numbers["bytes_before"] == path.stat().st_size
    assert numbers["error_ratio"] > 0


def test_what_is_unknown_has_no_metric(path: Path) -> None:
    inspected = bnfold.inspect(path).metrics()
    assert not {"equivalent", "error_ratio", "nodes_after", "bytes_after"} & inspected.keys()
    assert "equivalent" not in bnfold.optimize(path, verify=False).metrics()


def test_the_speed_is_among_them(path: Path) -> None:
    report = bnfold.inspect(path).report
    speed = bnfold.benchmark(path, path, levels=["enable_all"], batches=[1, 2], seconds=0.01)
    numbers = metrics(replace(report, benchmark=speed))
    (level,) = speed.levels
    assert numbers["p50_before/enable_all"] == level.steady[0].a.p50
    assert numbers["p50_after/enable_all/1"] == level.steady[1].b.p50
    assert "speedup/enable_all" not in numbers  # one block allows no statement
