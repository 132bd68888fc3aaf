"""Where results go, and that nothing else is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from support import command
from support.claims import batch_norms
from support.command import Outcome

from bnfold.cli import Exit

Call = Callable[..., Outcome]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def kept(path: Path) -> list[str]:
    return [node.name for node in batch_norms(onnx.load(str(path)))]


def test_the_default_output_is_beside_the_model(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Beside the model, not in the current folder."""
    before = contents(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    found = command.run("optimize", folder / "model.onnx", "--no-verify", cwd=elsewhere)
    assert found.returncode == Exit.DONE, found.stderr
    assert list(elsewhere.iterdir()) == []
    after = contents(folder)
    assert after.keys() - before.keys() == {"model.folded.onnx"}
    assert {name: after[name] for name in before} == before
    assert kept(folder / "model.folded.onnx") == ["head"]


def test_the_output_can_be_chosen(folder: Path, call: Call) -> None:
    (folder / "out").mkdir()
    assert call("optimize", "model.onnx", "--no-verify", "-o", "out/small.onnx").code == Exit.DONE
    assert kept(folder / "out" / "small.onnx") == ["head"]
    assert not (folder / "model.folded.onnx").exists()


def test_in_place_replaces_the_model(folder: Path, call: Call) -> None:
    before = contents(folder)
    assert call("optimize", "model.onnx", "--no-verify", "--in-place").code == Exit.DONE
    after = contents(folder)
    assert after.keys() == before.keys()
    assert kept(folder / "model.onnx") == ["head"]
    assert after["other.onnx"] == before["other.onnx"]


@pytest.mark.parametrize(
    "spelling", ["model.onnx", "./model.onnx", "../here/model.onnx", "absolute", "symlink", "hardlink"]
)
def test_the_model_is_never_its_own_output(folder: Path, call: Call, spelling: str) -> None:
    here = folder / "here"
    here.mkdir()
    shutil.copy(folder / "model.onnx", here)
    os.chdir(here)  # `call` goes back
    output = {"absolute": str(here / "model.onnx"), "symlink": "link.onnx", "hardlink": "hard.onnx"}.get(
        spelling, spelling
    )
    if spelling == "symlink":
        Path("link.onnx").symlink_to("model.onnx")
    if spelling == "hardlink":
        Path("hard.onnx").hardlink_to("model.onnx")
    before = contents(here)
    found = call("optimize", "model.onnx", "-o", output)
    assert found.code == Exit.USAGE
    assert "--in-place" in found.error
    assert contents(here) == before


@pytest.mark.parametrize(
    "where", [(), ("-o", "out.onnx"), ("--in-place",)], ids=["default", "output", "in_place"]
)
def test_a_dry_run_writes_nothing(folder: Path, call: Call, where: tuple[str, ...]) -> None:
    before = contents(folder)
    found = call("optimize", "model.onnx", "--dry-run", *where)
    assert found.code == Exit.DONE
    assert "1 folded" in found.out
    assert "equivalent" in found.out
    assert "written             nothing" in found.out
    assert contents(folder) == before


def test_inspect_and_verify_write_nothing(folder: Path, call: Call) -> None:
    before = contents(folder)
    call("inspect", "model.onnx")
    call("verify", "model.onnx", "other.onnx")
    assert contents(folder) == before


def test_an_older_result_is_replaced(folder: Path, call: Call) -> None:
    (folder / "model.folded.onnx").write_bytes(b"an older result")
    assert call("optimize", "model.onnx", "--no-verify").code == Exit.DONE
    assert kept(folder / "model.folded.onnx") == ["head"]


def test_an_older_result_survives_a_failure(folder: Path, call: Call) -> None:
    (folder / "model.folded.onnx").write_bytes(b"an older result")
    (folder / "model.onnx").write_bytes(b"broken")
    assert call("optimize", "model.onnx").code == Exit.MODEL
    assert (folder / "model.folded.onnx").read_bytes() == b"an older result"


@pytest.mark.parametrize(
    "name",
    [
        "mit Leerzeichen.onnx",
        "модель-模型-é.onnx",
        "quote'\".onnx",
        "-dash.onnx",
        "new\nline.onnx",
        "no_suffix",
        ".onnx",
        "a.b.c.onnx",
    ],
)
def test_odd_names(folder: Path, call: Call, name: str) -> None:
    (folder / "model.onnx").rename(folder / name)
    found = call("optimize", "--", name)
    assert found.code == Exit.DONE, found.err
    assert kept(folder / f"{Path(name).stem}.folded.onnx") == ["head"]


def test_a_name_that_is_no_text(folder: Path) -> None:
    """Linux allows any bytes."""
    name = b"model-\xff.onnx"
    os.rename(folder / "model.onnx", os.fsencode(folder) + b"/" + name)  # noqa: PTH104 - a Path is text
    found = command.run("optimize", name, "--no-verify", "--json", "--report", "r.json", cwd=folder)
    assert found.returncode == Exit.DONE, found.stderr
    assert os.path.exists(os.fsencode(folder) + b"/model-\xff.folded.onnx")  # noqa: PTH110 - likewise
    assert (folder / "r.json").read_text(encoding="utf-8")


def test_a_long_path(folder: Path, call: Call) -> None:
    deep = folder.joinpath(*["d" * 100] * 10)
    deep.mkdir(parents=True)
    shutil.move(folder / "model.onnx", deep)
    assert call("optimize", deep / "model.onnx").code == Exit.DONE
    assert kept(deep / "model.folded.onnx") == ["head"]


@pytest.mark.parametrize("length", [240, 255])
def test_a_name_with_no_room_for_another(folder: Path, call: Call, length: int) -> None:
    name = "m" * (length - 5) + ".onnx"
    (folder / "model.onnx").rename(folder / name)
    found = call("optimize", name)
    assert found.code == Exit.FAULT
    assert "name too long" in found.error
    assert sorted(contents(folder)) == [name, "other.onnx"]


def test_a_path_that_no_system_takes(call: Call) -> None:
    assert call("inspect", "x" * 300 + ".onnx").code == Exit.MODEL
    assert call("inspect", "x/" * 5000 + "m.onnx").code == Exit.MODEL


# --- which normalizations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "folded"),
    [
        ((), {0, 1, 2}),
        (("--include", "*.1/*"), {1}),
        (("--include", "*.1/*", "--include", "/block.2/*"), {1, 2}),
        (("--exclude", "*.1/*"), {0, 2}),
        (("--include", "*.[12]/*", "--exclude", "*.2/*"), {1}),
        (("--include", "nothing"), set()),
    ],
    ids=lambda o: " ".join(o) if isinstance(o, tuple) else None,
)
def test_include_and_exclude(folder: Path, call: Call, options: tuple[str, ...], folded: set[int]) -> None:
    command.save(command.many(3, "folded"), folder / "many.onnx")
    found = call("optimize", "many.onnx", *options, "--no-verify")
    assert found.code == Exit.DONE
    assert ("BNF024" in found.out) == (folded != {0, 1, 2})
    left = {f"/block.{i}/BatchNormalization" for i in range(3)} - {
        f"/block.{i}/BatchNormalization" for i in folded
    }
    assert set(kept(folder / "many.folded.onnx")) == left


def test_freeze(folder: Path, call: Call) -> None:
    model = command.small()
    weight = model.graph.initializer[0]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
    )
    command.save(model, folder / "model.onnx")
    overridable = call("optimize", "model.onnx", "--no-verify")
    assert "BNF022" in overridable.out
    assert "--freeze" in overridable.out
    frozen = call("optimize", "model.onnx", "--freeze")
    assert frozen.code == Exit.DONE
    assert f"{weight.name!r}, which callers could override, is a constant now" in frozen.out
    assert kept(folder / "model.folded.onnx") == ["head"]


# --- two at once --------------------------------------------------------------------------------------------

WAITING = """
import os, time
from pathlib import Path
real = os.replace
def replace(*args):
    Path("waiting").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return real(*args)
os.replace = replace
"""


def test_two_runs_on_one_output(folder: Path) -> None:
    """The second is told; the first does not notice."""
    with command.start(
        "optimize", "model.onnx", "--no-verify", cwd=folder, program=command.prepared(WAITING)
    ) as first:
        while not (folder / "waiting").exists():
            assert first.poll() is None
        second = command.run("optimize", "model.onnx", "--no-verify", cwd=folder)
        (folder / "go").touch()
        out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (Exit.DONE, "")
    assert "1 folded" in out
    assert second.returncode == Exit.FAULT
    assert "another run of bnfold" in Outcome(4, second.stdout, second.stderr).error
    assert sorted(contents(folder)) == ["go", "model.folded.onnx", "model.onnx", "other.onnx", "waiting"]
    assert kept(folder / "model.folded.onnx") == ["head"]
