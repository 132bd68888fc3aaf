"""The settings of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bnfold.config import Config, load
from bnfold.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

FULL = """
models = ["models", "more/*.onnx"]
exclude-models = ["models/old/*"]
fail-on = ["foldable", "nonfinite"]
require-all = true
baseline = "ci/baseline.json"
include = ["a/*"]
exclude = []
"""


@pytest.mark.parametrize("where", ["pyproject.toml", "bnfold.toml"])
def test_every_key(tmp_path: Path, where: str) -> None:
    header = "[tool.bnfold]\n" if where == "pyproject.toml" else ""
    (tmp_path / where).write_text(header + FULL)
    assert load(tmp_path) == Config(
        folder=tmp_path,
        models=("models", "more/*.onnx"),
        exclude_models=("models/old/*",),
        fail_on=("foldable", "nonfinite"),
        require_all=True,
        baseline="ci/baseline.json",
        include=("a/*",),
        exclude=(),
    )


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert load(tmp_path) == Config()


def test_the_nearest_file_that_speaks_of_bnfold(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.bnfold]\nbaseline = 'outer'\n")
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n[tool.ruff]\n")
    assert (load(inner).baseline, load(inner).folder) == ("outer", tmp_path)
    (tmp_path / "a" / "bnfold.toml").write_text("")
    assert load(inner) == Config(folder=tmp_path / "a")


def test_its_own_file_goes_first(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.bnfold]\nbaseline = 'shared'\n")
    (tmp_path / "bnfold.toml").write_text("baseline = 'own'\n")
    assert load(tmp_path).baseline == "own"


def test_another_repository_has_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").write_text("baseline = 'outer'\n")
    inner = tmp_path / "repository"
    (inner / ".git").mkdir(parents=True)
    assert load(inner) == Config()


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("fail_on", "fail-on"),
        ("failon", "fail-on"),
        ("base-line", "baseline"),
        ("modles", "models"),
        ("exclude_models", "exclude-models"),
        ("x", ""),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, key: str, nearest: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.bnfold]\n{key} = 1\n")
    with pytest.raises(UsageError, match=f"unknown key '{key}'; did you mean '{nearest}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "must"),
    [
        ("models = 'models'", "models must be a list of strings, and is 'models'"),
        ("models = [1]", "models must be a list of strings"),
        ("fail-on = 'foldable'", "fail-on must be a list of strings"),
        ("require-all = 1", "require-all must be true or false, and is 1"),
        ("baseline = ['b']", "baseline must be a string"),
        ("baseline = ''", "baseline must be a string"),
        ("include.a = 1", "include must be a list of strings"),
    ],
)
def test_wrong_types_are_one_line(tmp_path: Path, line: str, must: str) -> None:
    (tmp_path / "bnfold.toml").write_text(line)
    with pytest.raises(UsageError) as error:
        load(tmp_path)
    assert f"bnfold.toml: {must}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a = ", "no valid TOML"),
        (b"\xff\xfe", "no valid TOML"),
        (b"[tool]\nbnfold = 3", "must be a table"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        load(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)


def test_a_file_by_windows_editors(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").write_bytes(b"\xef\xbb\xbfbaseline = 'b'\r\n")
    assert load(tmp_path).baseline == "b"


# --- feeds --------------------------------------------------------------------------------------------------


def test_feeds_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").write_text(
        "provider = 'cuda'\n[feeds]\n"
        '"models/a*.onnx" = ["x=data/x.npy", "y=2x3", "data/all.npz", "z=/abs/z.npy"]\n"*" = ["b=1x1"]\n'
    )
    settled = load(tmp_path)
    assert settled.provider == "cuda"
    assert settled.feeds.of(tmp_path / "models" / "a1.onnx") == (
        f"x={tmp_path}/data/x.npy",
        "y=2x3",
        f"{tmp_path}/data/all.npz",
        "z=/abs/z.npy",
    )
    assert settled.feeds.of(tmp_path / "b.onnx") == ("b=1x1",)
    assert settled.feeds.of(tmp_path.parent / "elsewhere.onnx") == ("b=1x1",)


def test_a_file_with_an_equals_sign_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "seed=1.npz").touch()
    (tmp_path / "bnfold.toml").write_text('[feeds]\n"*" = ["seed=1.npz"]\n')
    assert load(tmp_path).feeds.of(tmp_path / "m.onnx") == (f"{tmp_path}/seed=1.npz",)


def test_without_feeds_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "bnfold.toml").write_text('[feeds]\n"a.onnx" = ["x=1"]\n')
    assert load(tmp_path).feeds.of(tmp_path / "b.onnx") == ()
    assert Config().feeds.of(tmp_path / "b.onnx") == ()


@pytest.mark.parametrize(
    ("line", "must"),
    [
        ("provider = 'gpu'", "provider must be one of cpu, cuda, tensorrt, and is 'gpu'"),
        ("provider = 1", "provider must be one of"),
        ("feeds = ['x']", "feeds must be a table"),
        ("feeds.a = 'x'", "feeds.'a' must be a list of strings"),
    ],
)
def test_feeds_and_providers_that_make_no_sense(tmp_path: Path, line: str, must: str) -> None:
    (tmp_path / "bnfold.toml").write_text(line)
    with pytest.raises(UsageError, match=must):
        load(tmp_path)
