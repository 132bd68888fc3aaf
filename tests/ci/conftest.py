"""The five models in a repository of their own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from support import gate

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main")
    found = subprocess.run(
        ["git", *who, *arguments],  # noqa: S607 - wherever it is
        capture_output=True,
        check=True,
        cwd=folder,
        text=True,
    )
    return found.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Committed: clean, foldable, one normalization kept by a reason, broken, quantized."""
    folder = gate.repository(tmp_path / "a repository")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "models")
    return folder
