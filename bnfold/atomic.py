"""A small file is written whole or not at all: a report, a baseline, what is kept for the next run.

Models have their own way (`bnfold.model.write`), since they may consist of two files.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Put data into a file, so that nobody ever sees half of it.

    A file that is replaced keeps its permissions; a symbolic link stays one, and what it points to is
    replaced. Pipes and terminals are written to as they are.

    Args:
        path: the file; its folder must exist.
        data: all that it shall hold.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    # Hidden, and not named like a model or a report: nobody who looks for those finds it.
    partial = path.with_name(f".bnfold-{os.urandom(8).hex()}")
    try:
        with partial.open("xb") as file:
            file.write(data)
        if path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to be told
            partial.unlink()
        raise
