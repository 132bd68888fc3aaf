"""A small file is written whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bnfold import atomic

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, links and permissions of POSIX")


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    atomic.write(tmp_path / "new", b"data")
    assert (tmp_path / "new").read_bytes() == b"data"
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"longer than what comes")
    old.chmod(0o640)
    atomic.write(old, b"new")
    assert old.read_bytes() == b"new"
    assert old.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("target")
    atomic.write(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=atomic.write, args=(pipe, b"data"))
    writer.start()
    assert pipe.read_bytes() == b"data"
    writer.join()
    assert pipe.is_fifo()


@pytest.mark.parametrize("interrupt", [OSError("the disk is full"), KeyboardInterrupt()], ids=repr)
def test_what_goes_wrong_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: BaseException
) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"old")

    def refuse(_self: Path, _target: Path) -> Path:
        raise interrupt

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(type(interrupt)):
        atomic.write(old, b"new")
    assert old.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["old"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "none" / "new", b"data")
