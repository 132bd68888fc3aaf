"""Feeds read from files."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.errors import UsageError
from bnfold.verification.feed_files import read_feeds, read_input

if TYPE_CHECKING:
    from pathlib import Path

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2])


def test_npz_holds_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "batch.npz", a=A, b=B)
    (feed,) = read_feeds(tmp_path / "batch.npz", ["a", "b"])
    assert feed.name == "batch.npz"
    assert np.array_equal(feed.values["a"], A)
    assert np.array_equal(feed.values["b"], B)


def test_npy_and_pb_hold_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", A)
    (tmp_path / "x.pb").write_bytes(numpy_helper.from_array(A).SerializeToString())
    for name in ("x.npy", "x.pb"):
        (feed,) = read_feeds(tmp_path / name, ["image"])
        assert np.array_equal(feed.values["image"], A)
        with pytest.raises(UsageError, match="has 2 inputs"):
            read_feeds(tmp_path / name, ["a", "b"])


def test_a_folder_of_test_data_sets_is_read_in_numerical_order(tmp_path: Path) -> None:
    for number in (10, 2):
        folder = tmp_path / f"test_data_set_{number}"
        folder.mkdir()
        for place, array in enumerate((A + np.float32(number), B)):
            onnx.save_tensor(numpy_helper.from_array(array), folder / f"input_{place}.pb")
    feeds = read_feeds(tmp_path, ["a", "b"])
    assert [feed.name for feed in feeds] == ["test_data_set_2", "test_data_set_10"]
    assert np.array_equal(feeds[1].values["a"], A + 10)
    assert read_feeds(tmp_path / "test_data_set_2", ["a", "b"])[0].name == "test_data_set_2"
    with pytest.raises(UsageError, match="2 input_"):
        read_feeds(tmp_path, ["a"])


def test_a_folder_of_npz_files(tmp_path: Path) -> None:
    for name in ("1.npz", "2.npz"):
        np.savez(tmp_path / name, a=A)
    assert [feed.name for feed in read_feeds(tmp_path, ["a"])] == ["1.npz", "2.npz"]


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.pb", "x.txt"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x93garbage")
    with pytest.raises(UsageError, match=name):
        read_feeds(tmp_path / name, ["a"])
    with pytest.raises(UsageError, match="no such file"):
        read_feeds(tmp_path / "absent", ["a"])


def broken(folder: Path) -> dict[str, bytes]:
    """Contents that are not what the names of their files say."""
    np.save(folder / "a.npy", A)
    np.savez(folder / "a.npz", a=A)
    np.savez(folder / "nothing.npz")
    compressed = folder / "compressed.npz"
    np.savez_compressed(compressed, a=np.random.default_rng(0).standard_normal(500))
    with zipfile.ZipFile(folder / "texts.npz", "w") as archive:
        archive.writestr("read.me", "no array")
    packed = compressed.read_bytes()
    outside = numpy_helper.from_array(A, "a")
    outside.ClearField("raw_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="/etc/hostname")
    return {
        "array.npz": (folder / "a.npy").read_bytes(),
        "archive.npy": (folder / "a.npz").read_bytes(),
        "nothing.npz": (folder / "nothing.npz").read_bytes(),
        "texts.npz": (folder / "texts.npz").read_bytes(),
        "damaged.npz": packed[:300] + b"\xff" * 8 + packed[308:],
        "outside.pb": outside.SerializeToString(),
        "type.pb": onnx.TensorProto(data_type=99, dims=[1]).SerializeToString(),
        "short.npy": (folder / "a.npy").read_bytes()[:-1],
    }


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("array.npz", "no ZIP archive"),
        ("archive.npy", "not a readable tensor"),
        ("nothing.npz", "no array is in it"),
        ("texts.npz", "'read.me' in it is no array"),
        ("damaged.npz", "not a readable .npz"),
        ("outside.pb", "in another file"),
        ("type.pb", "no element type 99"),
        ("short.npy", "not a readable tensor"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, what: str) -> None:
    path = tmp_path / "feeds" / name
    path.parent.mkdir()
    path.write_bytes(broken(tmp_path)[name])
    with pytest.raises(UsageError, match=f"{name}: .*{what}"):
        read_feeds(path, ["a"])
    with pytest.raises(UsageError, match=f"{name}: .*{what}"):
        read_input(path, "a", 0)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither"):
        read_feeds(tmp_path, ["a"])


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="not a readable"):
        read_feeds(tmp_path / "x.npy", ["a"])
