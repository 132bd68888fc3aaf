"""Without any one of its guards the engine fails its acceptance tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from guards import GUARDS, Guard

ROOT = Path(__file__).resolve().parents[2]


# Without a guard a search may never end or eat all memory: then it is noticed, too.
MEMORY = 8 << 30
SECONDS = 300
RUN = (
    "import resource, sys, pytest; "
    f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY})); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
# Whether the oracle is right and how broken files are refused does not depend on the engine.
IGNORED = ("test_oracle.py", "test_bad_input.py")


def _acceptance(package_root: Path) -> bool:
    """Whether the acceptance tests pass against the package below `package_root`."""
    command = [
        sys.executable,
        "-c",
        RUN,
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/conformance",
        "tests/fold",
    ]
    command += [f"--ignore=tests/conformance/{name}" for name in IGNORED]
    environment = {**os.environ, "PYTHONPATH": str(package_root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=package_root, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), done.stdout.decode()
    return done.returncode == pytest.ExitCode.OK


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its tests, to be spoiled."""
    for folder in ("bnfold", "tests", "models"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_every_guard_stands_where_the_table_says(guard: Guard) -> None:
    text = (ROOT / "bnfold" / guard.file).read_text(encoding="utf-8")
    assert text.count(guard.guard) == 1


@pytest.mark.mutation
def test_the_acceptance_tests_pass_with_all_guards(copy: Path) -> None:
    assert _acceptance(copy)


@pytest.mark.mutation
@pytest.mark.parametrize("guard", GUARDS, ids=lambda g: g.name)
def test_the_acceptance_tests_notice_a_missing_guard(guard: Guard, copy: Path) -> None:
    path = copy / "bnfold" / guard.file
    path.write_text(path.read_text(encoding="utf-8").replace(guard.guard, guard.without), encoding="utf-8")
    assert not _acceptance(copy)
