"""The cache of compiled kernels, with a compiler that only counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnfold.errors import EnvironmentFault
from bnfold.runtime import cuda_compiler
from bnfold.runtime.cuda_compiler import Compiled, cache_folder, cache_key


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    calls: list[tuple[str, ...]] = []

    def compile_kernels(text: str, options: tuple[str, ...]) -> Compiled:
        calls.append(options)
        return Compiled(f"{len(text)} {options}".encode(), "")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cuda_compiler, "compile_kernels", compile_kernels)
    monkeypatch.setattr(cuda_compiler, "version", lambda: (13, 0))
    return calls


def test_the_second_time_nothing_is_compiled(compiled: list[tuple[str, ...]]) -> None:
    first = cuda_compiler.kernels(10, "sm_90")
    assert cuda_compiler.kernels(10, "sm_90") == first
    assert len(compiled) == 1
    assert {"--gpu-architecture=sm_90", "-DBN_DTYPE=10"} < set(compiled[0])


def test_everything_that_matters_is_in_the_key() -> None:
    keys = {
        cache_key(text, options, version)
        for text in ("a", "b")
        for options in (("--gpu-architecture=sm_80",), ("--gpu-architecture=sm_90",), ())
        for version in ((13, 0), (13, 1))
    }
    assert len(keys) == 12


def test_dtypes_and_architectures_are_kept_apart(compiled: list[tuple[str, ...]]) -> None:
    found = {cuda_compiler.kernels(code, arch) for code in (1, 10) for arch in ("sm_80", "sm_90")}
    assert len(found) == len(compiled) == 4


@pytest.mark.parametrize("damage", [b"", b"short", bytes(100)])
def test_a_damaged_file_is_compiled_anew(compiled: list[tuple[str, ...]], damage: bytes) -> None:
    good = cuda_compiler.kernels(1, "sm_90")
    (entry,) = cache_folder().iterdir()
    entry.write_bytes(damage)
    assert cuda_compiler.kernels(1, "sm_90") == good
    assert cuda_compiler.kernels(1, "sm_90") == good
    assert len(compiled) == 2


def test_a_folder_that_cannot_be_written_to_is_no_error(
    compiled: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cuda_compiler.kernels(1, "sm_90")
    cuda_compiler.kernels(1, "sm_90")
    assert len(compiled) == 2


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "bnfold"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "bnfold"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "bnfold"


_WRITE_AND_READ = """
from bnfold.runtime import cuda_compiler

entry = cuda_compiler.cache_folder() / "bn-one.cubin"
payload = bytes(range(256)) * 4000
for _ in range(50):
    cuda_compiler._keep(entry, payload)
    assert cuda_compiler._kept(entry) == payload
"""


def test_processes_do_not_see_each_other_halfway(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    running = [subprocess.Popen([sys.executable, "-c", _WRITE_AND_READ], env=environment) for _ in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert [file.name for file in (tmp_path / "bnfold").iterdir()] == ["bn-one.cubin"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(cuda_compiler, "import_module", absent)
    cuda_compiler._nvrtc.cache_clear()
    with pytest.raises(
        EnvironmentFault, match=r"CUDA packages are not complete.*pip install 'bnfold\[cuda\]'"
    ):
        cuda_compiler.version()
