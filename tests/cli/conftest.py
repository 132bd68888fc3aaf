"""A folder with models in it, and the command line in this process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from support import command
from support.command import Outcome

from bnfold import cli

if TYPE_CHECKING:
    from pathlib import Path

Call = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds `model.onnx` and `other.onnx`."""
    command.save(command.small(), tmp_path / "model.onnx")
    command.save(command.other(), tmp_path / "other.onnx")
    return tmp_path


@pytest.fixture
def hangups() -> Iterator[None]:
    """SIGHUP as a terminal has it; whoever runs the tests may ignore it (nohup), which children inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """`call("optimize", "model.onnx")` in `folder`: in this process, so that it starts fast."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr("sys.argv", ["bnfold", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        out, err = capfd.readouterr()
        code = leaving.value.code
        assert code is None or isinstance(code, int)
        return Outcome(int(code or 0), out, err)

    return run
