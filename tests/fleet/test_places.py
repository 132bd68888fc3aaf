"""Which models are meant, and where their results go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.fleet.places import places


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `models` with models at two levels, and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.onnx",
        "b.ONNX",
        "sub/c.onnx",
        "sub/deep/a.onnx",
        "sub/notes.txt",
        ".hidden.onnx",
        ".git/d.onnx",
    ):
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def found(*wanted: str | Path, out: str = "out") -> list[tuple[str, str]]:
    return [(p.source.as_posix(), p.output.as_posix()) for p in places(wanted, Path(out))]


def test_a_file_keeps_its_name(folder: Path) -> None:
    assert found("models/sub/c.onnx", "models/a.onnx") == [
        ("models/sub/c.onnx", "out/c.onnx"),
        ("models/a.onnx", "out/a.onnx"),
    ]
    assert found(folder / "models" / "a.onnx") == [((folder / "models" / "a.onnx").as_posix(), "out/a.onnx")]


@pytest.mark.usefixtures("folder")
def test_a_file_of_any_name_is_meant_when_it_is_named() -> None:
    assert found("models/sub/notes.txt", "models/.hidden.onnx") == [
        ("models/sub/notes.txt", "out/notes.txt"),
        ("models/.hidden.onnx", "out/.hidden.onnx"),
    ]


@pytest.mark.usefixtures("folder")
def test_a_missing_file_stops_no_other() -> None:
    assert [source for source, _ in found("missing.onnx", "models/a.onnx")] == [
        "missing.onnx",
        "models/a.onnx",
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("wanted", ["models", "models/", "./models"])
def test_a_folder_means_what_is_below_it(wanted: str) -> None:
    assert found(wanted) == [
        ("models/a.onnx", "out/a.onnx"),
        ("models/b.ONNX", "out/b.ONNX"),
        ("models/sub/c.onnx", "out/sub/c.onnx"),
        ("models/sub/deep/a.onnx", "out/sub/deep/a.onnx"),
    ]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("models/*.onnx", [("models/a.onnx", "out/a.onnx")]),
        ("models/sub/*/a.onnx", [("models/sub/deep/a.onnx", "out/deep/a.onnx")]),
        (
            "models/**/*.onnx",
            [
                ("models/a.onnx", "out/a.onnx"),
                ("models/sub/c.onnx", "out/sub/c.onnx"),
                ("models/sub/deep/a.onnx", "out/sub/deep/a.onnx"),
            ],
        ),
        ("*/a.on[mn]x", [("models/a.onnx", "out/models/a.onnx")]),
    ],
)
def test_a_glob_keeps_the_way_behind_its_first_wildcard(glob: str, expected: list[tuple[str, str]]) -> None:
    assert found(glob) == expected


def test_a_file_whose_name_looks_like_a_glob_is_a_file(folder: Path) -> None:
    (folder / "a[1].onnx").write_bytes(b"")
    assert found("a[1].onnx") == [("a[1].onnx", "out/a[1].onnx")]


@pytest.mark.parametrize("wanted", ["empty", "models/*.pt", "nowhere/*.onnx"])
def test_what_names_no_model_is_refused(folder: Path, wanted: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.onnx file"):
        found("models/a.onnx", wanted)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("wanted", ["models", "models/**/*.onnx"])
def test_results_of_an_earlier_run_are_no_models(wanted: str) -> None:
    before = found(wanted, out="models/out")
    for _, output in before:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).write_bytes(b"")
    assert found(wanted, out="models/out") == before
    assert len(before) >= 3


@pytest.mark.usefixtures("folder")
def test_twice_the_same_is_once() -> None:
    assert found("models", "models/a.onnx", "models/*.onnx") == found("models")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "wanted",
    [
        ("models/a.onnx", "models/sub/deep/a.onnx"),
        ("models/sub/deep", "models"),
        ("models/*.onnx", "models/sub/deep"),
    ],
    ids=" ".join,
)
def test_results_that_would_meet_are_refused(wanted: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="would both go there"):
        found(*wanted)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "wanted", [("models/a.onnx",), ("models",), ("models/sub/deep/a.onnx", "models/a.onnx")], ids=" ".join
)
def test_a_result_never_replaces_a_model(wanted: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"would (replace the model|both go there)"):
        found(*wanted, out="models")


def test_not_even_behind_a_link(folder: Path) -> None:
    (folder / "link").symlink_to("models")
    with pytest.raises(UsageError, match="would replace the model"):
        found("models/a.onnx", out="link")


def test_a_folder_in_the_place_of_a_result(folder: Path) -> None:
    (folder / "out" / "a.onnx").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a folder"):
        found("models/a.onnx")


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is made up."""
    (tmp_path / "models" / "closed").mkdir(parents=True)
    (tmp_path / "models" / "a.onnx").touch()
    real = os.scandir

    def refuse(path: Path | str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EnvironmentFault, match=r"closed cannot be read: Permission denied"):
        places([tmp_path / "models"], tmp_path / "out")
