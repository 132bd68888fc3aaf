"""Models at URLs on the command line: `memory://` of fsspec, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support import command
from support.command import Outcome

from bnfold.cli import Exit

Call = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def memory() -> Iterator[Any]:
    """`memory://`, with `model.onnx` in it."""
    system = fsspec.filesystem("memory")
    system.pipe_file("/model.onnx", command.small().SerializeToString())
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_optimize(call: Call, memory: Any) -> None:  # noqa: ANN401  # a filesystem
    found = call("optimize", "memory://model.onnx", "-o", "memory://a//b/small.onnx", "--json")
    assert found.code == Exit.DONE, found.err
    said = json.loads(found.out)["model"]
    assert (said["source"], said["output"]) == ("memory://model.onnx", "memory://a//b/small.onnx")
    assert b"BatchNormalization" in memory.cat_file("/a//b/small.onnx")
    assert sorted(p.name for p in Path().iterdir()) == ["model.onnx", "other.onnx"]


def test_inspect_and_verify(folder: Path, call: Call) -> None:
    assert "1 folded" in call("inspect", "memory://model.onnx").out
    assert call("verify", "memory://model.onnx", "model.onnx").code == Exit.DONE
    assert call("verify", (folder / "model.onnx").as_uri(), "other.onnx").code == Exit.FINDING


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("optimize", "memory://model.onnx"), Exit.USAGE, "say where the result goes"),
        (("optimize", "memory://model.onnx", "--in-place"), Exit.USAGE, "in place"),
        (("optimize", "memory://model.onnx", "--out-dir", "out"), Exit.USAGE, "one at a time"),
        (
            ("optimize", "model.onnx", "-o", "https://u:secret@h/m.onnx"),
            Exit.USAGE,
            "no result can be written",
        ),
        (("inspect", "memory://missing.onnx"), Exit.MODEL, "memory://missing.onnx cannot be opened"),
        (("inspect", "nothing://u:secret@h/m.onnx"), Exit.USAGE, "nothing://***h/m.onnx"),
        (("inspect", "https://u:secret@127.0.0.1:1/m.onnx?sig=secret"), Exit.FAULT, "127.0.0.1"),
    ],
    ids=str,
)
def test_what_goes_wrong_is_one_line(call: Call, arguments: tuple[str, ...], code: Exit, says: str) -> None:
    found = call(*arguments)
    assert found.code == code
    assert says in found.error
    assert "secret" not in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "model.onnx", "--report", "{}r.json"),
        ("optimize", "model.onnx", "--report", "{}r.json"),
        ("verify", "model.onnx", "other.onnx", "--report", "{}r.json"),
        ("bench", "model.onnx", "other.onnx", "--report", "{}r.json"),
        ("check", "model.onnx", "--report", "{}r.json"),
        ("check", "model.onnx", "--baseline", "{}b.json"),
        ("check", "model.onnx", "--update-baseline", "--baseline", "{}b.json"),
        ("check", "{}m.onnx"),
        ("optimize", "model.onnx", "--out-dir", "{}out"),
        ("optimize", "{}*.onnx", "--out-dir", "out"),
        ("optimize", "model.onnx", "-o", "{}m.onnx"),
        ("optimize", "model.onnx", "--dry-run", "--input", "x={}x.npz"),
        ("optimize", "model.onnx", "--dry-run", "--input", "{}x.npz?sig=secret"),
        ("verify", "model.onnx", "other.onnx", "--input", "x={}x.npz?sig=secret"),
        ("bench", "model.onnx", "other.onnx", "--input", "x={}x.npz"),
    ],
    ids=" ".join,
)
def test_places_that_are_no_urls(call: Call, arguments: tuple[str, ...]) -> None:
    before = sorted(Path().rglob("*"))
    found = call(*(text.format("https://me:secret@h/") for text in arguments))
    assert found.code == Exit.USAGE
    assert found.error.count("\n") <= 1
    assert "https://***h/" in found.err
    assert "secret" not in found.err + found.out
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("key", ["baseline", "feeds"])
def test_urls_in_the_settings(call: Call, key: str) -> None:
    url = "https://me:secret@h/x.npz"
    said = f'baseline = "{url}"' if key == "baseline" else f'[feeds]\n"*.onnx" = ["x={url}"]'
    Path("bnfold.toml").write_text(said)
    found = call("check" if key == "baseline" else "optimize", "model.onnx")
    assert found.code == Exit.USAGE
    assert "https://***h/" in found.err
    assert "secret" not in found.err + found.out


def test_bench(call: Call, scratch: Path) -> None:
    arguments = ("--json", "--level", "all", "--seconds", "0.01")
    found = call("bench", "memory://model.onnx", "other.onnx", *arguments)
    assert found.code == Exit.DONE, found.err
    said = json.loads(found.out)
    assert (said["a"]["source"], said["b"]["source"]) == ("memory://model.onnx", "other.onnx")
    assert str(scratch) not in found.out
    found = call("bench", "https://u:secret@127.0.0.1:1/m.onnx?sig=secret", "memory://model.onnx")
    assert found.code == Exit.FAULT
    assert "secret" not in found.err


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where bnfold keeps what it has fetched."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder
