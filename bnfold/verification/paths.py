"""Paths for libraries that take UTF-8 alone; on Linux a file name may be any bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def is_utf8(path: Path) -> bool:
    """Whether a path can be written in UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def utf8_link(folder: Path, link: Path) -> Path:
    """The folder itself, or `link`, made to point to it, where its own name is no UTF-8."""
    if is_utf8(folder):
        return folder
    link.symlink_to(folder.resolve(), target_is_directory=True)
    return link
