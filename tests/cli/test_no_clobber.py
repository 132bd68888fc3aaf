"""What a run must never write over: the model, its weights, its own result, the links of the system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from support import command
from support.command import Outcome

from bnfold.cli import Exit
from bnfold.errors import UsageError
from bnfold.model.edits import ModelEdits
from bnfold.model.store import open_model
from bnfold.model.write import staged

Call = Callable[..., Outcome]


@pytest.mark.parametrize("how", ["plain", "dotted", "linked"])
def test_a_report_over_the_model(folder: Path, call: Call, how: str) -> None:
    command.save(command.small(), folder / "model.json")
    before = (folder / "model.json").read_bytes()
    (folder / "link.json").symlink_to("model.json")
    report = {"plain": "model.json", "dotted": f"../{folder.name}/model.json", "linked": "link.json"}[how]
    for verb in ("optimize", "inspect"):
        found = call(verb, "model.json", "--report", report)
        assert found.code == Exit.USAGE
        assert "name of its own" in found.err
    assert (folder / "model.json").read_bytes() == before
    assert not (folder / "model.folded.onnx").exists()


def test_a_report_over_the_result(folder: Path, call: Call) -> None:
    assert call("optimize", "model.onnx", "-o", "out.json", "--report", "out.json").code == Exit.USAGE
    assert not (folder / "out.json").exists()


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
def test_a_result_over_the_weights_of_the_model(folder: Path, call: Call, verify: str) -> None:
    onnx.save(
        command.small(), folder / "big.onnx", save_as_external_data=True, location="w.data", size_threshold=0
    )
    before = (folder / "w.data").read_bytes()
    found = call("optimize", "big.onnx", "-o", "w.data", verify)
    assert found.code == Exit.USAGE
    assert "keeps its weights there" in found.err
    assert (folder / "w.data").read_bytes() == before
    assert not list(folder.glob(".*bnfold-tmp*"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without these folders")
@pytest.mark.parametrize("place", ["/dev/bnfold.onnx", "/dev/fd/1", "/proc/self/fd/1", "/dev/stdout"])
def test_a_result_over_a_link_of_the_system(folder: Path, place: str) -> None:
    # Nothing is committed, so that a failure of this test does no harm.
    with (
        pytest.raises(UsageError, match="no place for a file"),
        staged(open_model(folder / "model.onnx"), ModelEdits(), Path(place)),
    ):
        pass


@pytest.mark.parametrize("verb", [["optimize", "model.onnx"], ["verify", "model.onnx", "other.onnx"]])
def test_a_seed_that_is_none(folder: Path, call: Call, verb: list[str]) -> None:
    assert call(*verb, "--seed", "-1").code == Exit.USAGE
    assert not (folder / "model.folded.onnx").exists()
