"""Files, globs and folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bnfold.errors import EnvironmentFault, UsageError
from bnfold.gate.targets import expand, root_of

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "a.onnx",
    "B.ONNX",
    "readme.md",
    "deep/c.onnx",
    "deep/er/d.onnx",
    "deep/weights.pb",
    ".hidden/e.onnx",
    "deep/.f.onnx",
    "empty/readme.md",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(tree: Path, *wanted: str, exclude: tuple[str, ...] = (), base: Path | None = None) -> list[str]:
    found = expand(wanted, base=base or tree, root=tree, exclude=exclude)
    assert all(target.path.is_absolute() for target in found.chosen)
    return [target.name for target in found.chosen]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["."], ["B.ONNX", "a.onnx", "deep/c.onnx", "deep/er/d.onnx"]),
        (["deep"], ["deep/c.onnx", "deep/er/d.onnx"]),
        (["deep/"], ["deep/c.onnx", "deep/er/d.onnx"]),
        (["a.onnx"], ["a.onnx"]),
        (["readme.md"], ["readme.md"]),
        (["*.onnx"], ["a.onnx"]),
        (["*"], ["B.ONNX", "a.onnx"]),
        (["**/*.onnx"], ["a.onnx", "deep/c.onnx", "deep/er/d.onnx"]),
        (["deep/*.pb"], ["deep/weights.pb"]),
        (["**"], ["B.ONNX", "a.onnx", "deep/c.onnx", "deep/er/d.onnx"]),
        ([".hidden"], [".hidden/e.onnx"]),
        (["deep", "a.onnx", "./a.onnx", "deep/../a.onnx"], ["a.onnx", "deep/c.onnx", "deep/er/d.onnx"]),
    ],
    ids=" ".join,
)
def test_what_is_meant(tree: Path, wanted: list[str], found: list[str]) -> None:
    assert names(tree, *wanted) == found


def test_absolute_ones(tree: Path) -> None:
    assert names(tree, str(tree / "deep" / "c.onnx"), str(tree / "*.onnx")) == ["a.onnx", "deep/c.onnx"]


def test_names_do_not_depend_on_the_current_folder(tree: Path) -> None:
    assert names(tree, "c.onnx", "../a.onnx", base=tree / "deep") == ["a.onnx", "deep/c.onnx"]


def test_what_lies_elsewhere_has_its_whole_path(tree: Path) -> None:
    (target,) = expand(["../a.onnx"], base=tree / "deep", root=tree / "deep").chosen
    assert target.name == (tree / "a.onnx").as_posix()


@pytest.mark.parametrize(
    "wanted", ["none.onnx", "none", "*.pb", "empty", "none/*.onnx", "", "deep/*/*/*.onnx"]
)
def test_what_means_nothing_is_an_error(tree: Path, wanted: str) -> None:
    """Beside what means something, too."""
    if wanted == "":
        assert names(tree, "") == names(tree, ".")
        return
    with pytest.raises(UsageError, match="^" + wanted.replace("*", r"\*")):
        expand(["a.onnx", wanted], base=tree, root=tree)


def test_a_file_whose_name_is_a_glob(tree: Path) -> None:
    (tree / "[x]*.onnx").touch()
    assert names(tree, "[x]*.onnx") == ["[x]*.onnx"]


def test_excluded_models_are_counted(tree: Path) -> None:
    found = expand(["."], base=tree, root=tree, exclude=("deep/*", "*.ONNX"))
    assert ([target.name for target in found.chosen], found.excluded) == (["a.onnx"], 3)
    assert expand(["a.onnx"], base=tree, root=tree, exclude=("a.*",)).chosen == ()


def test_links(tree: Path) -> None:
    """One to a file is a name of its own; one to a folder around it is no endless way."""
    (tree / "link.onnx").symlink_to("a.onnx")
    (tree / "deep" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "dead.onnx").symlink_to("nowhere")
    assert names(tree, "*.onnx") == ["a.onnx", "link.onnx"]
    assert names(tree, "deep") == ["deep/c.onnx", "deep/er/d.onnx"]
    assert names(tree, "dead.onnx") == ["dead.onnx"]
    assert names(tree, "deep/loop/a.onnx") == ["a.onnx"]


def test_a_folder_that_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is made up."""
    real = os.scandir

    def refuse(path: Path | str) -> object:
        if str(path).endswith("er"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(EnvironmentFault, match=r"deep/er cannot be read: Permission denied"):
        names(tree, ".")


def test_a_name_that_is_no_text(tree: Path) -> None:
    (tree / os.fsdecode(b"\xff.onnx")).touch()
    assert os.fsdecode(b"\xff.onnx") in names(tree, ".")


def test_the_root_is_that_of_the_repository(tree: Path) -> None:
    assert root_of(tree / "deep" / "er") == tree / "deep" / "er"
    (tree / ".git").touch()  # of a worktree or a submodule it is a file
    assert root_of(tree / "deep" / "er") == tree


@pytest.mark.parametrize("url", ["s3://bucket/models/", "https://me:hunter2@host/*.onnx?sig=hunter2"])
def test_a_url_is_refused_as_one_without_its_secrets(tree: Path, url: str) -> None:
    with pytest.raises(UsageError, match="URLs cannot be checked") as caught:
        expand([url], base=tree, root=tree)
    assert "hunter2" not in str(caught.value)
