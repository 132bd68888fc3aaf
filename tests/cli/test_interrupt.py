"""Ctrl-C or SIGTERM at any moment: exit 130 or 143, one line, nothing left behind: no file, no process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import command

from bnfold.cli import Exit

Call = Callable[..., command.Outcome]

INTERRUPTED = (Exit.INTERRUPTED, "", "bnfold: interrupted\n")
ENDED = (Exit.TERMINATED, "", "bnfold: ended from outside\n")
SIGNALS = [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, ENDED), (signal.SIGHUP, ENDED)]


def moment(function: str, *, after: bool = False) -> tuple[str, ...]:
    """The command line, interrupted when it first calls this function of `os` with a file of ours."""
    call = "result = real(*args, **kwargs)"
    kill = "if not told: told.append(1); os.kill(os.getpid(), signal.SIGINT)"
    first, second = (call, kill) if after else (kill, call)
    return command.prepared(
        f"import os, signal\nreal = os.{function}\ntold = []\n"
        "def hooked(*args, **kwargs):\n"
        f"    {first}\n    {second}\n    return result\nos.{function} = hooked\n"
    )


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bnfold takes for the folder of temporary files."""
    return tmp_path_factory.mktemp("scratch")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_while_writing(folder: Path, scratch: Path, function: str) -> None:
    (folder / "model.folded.onnx").write_bytes(b"an older result")
    found = command.run(
        "optimize",
        "model.onnx",
        "--no-verify",
        cwd=folder,
        program=moment(function),
        env={"TMPDIR": str(scratch)},
    )
    assert (found.returncode, found.stdout, found.stderr) == INTERRUPTED
    assert sorted(p.name for p in folder.iterdir()) == ["model.folded.onnx", "model.onnx", "other.onnx"]
    assert (folder / "model.folded.onnx").read_bytes() == b"an older result"
    assert list(scratch.iterdir()) == []


def test_just_after_the_result_took_its_place(folder: Path) -> None:
    """It is whole then, and stays."""
    found = command.run(
        "optimize", "model.onnx", "--no-verify", cwd=folder, program=moment("replace", after=True)
    )
    assert (found.returncode, found.stdout, found.stderr) == INTERRUPTED
    assert sorted(p.name for p in folder.iterdir()) == ["model.folded.onnx", "model.onnx", "other.onnx"]
    assert command.run("verify", "model.onnx", "model.folded.onnx", cwd=folder).returncode == Exit.DONE


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize(("number", "ending"), SIGNALS)
@pytest.mark.parametrize("verb", ["optimize", "verify", "bench"])
def test_while_onnxruntime_runs(
    folder: Path, scratch: Path, verb: str, number: signal.Signals, ending: tuple[int, str, str]
) -> None:
    arguments = ["model.onnx"] if verb == "optimize" else ["model.onnx", "other.onnx"]
    with command.start(verb, *arguments, cwd=folder, TMPDIR=str(scratch)) as process:
        command.wait_for(lambda: command.left_running(scratch), process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == ending
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "other.onnx"]
    # A worker that was just being started ends by itself when it finds its parent gone.
    command.wait_for(lambda: not command.left_running(scratch), process, 10)
    # onnxruntime leaves a session number of its own in any folder for temporary files.
    assert [p.name for p in scratch.iterdir() if p.name != ".ses"] == []


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.usefixtures("hangups")
def test_nohup_is_respected(folder: Path, scratch: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with command.start("optimize", "model.onnx", cwd=folder, TMPDIR=str(scratch)) as process:
        command.wait_for(lambda: command.left_running(scratch), process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == Exit.DONE
    assert (folder / "model.folded.onnx").exists()


def test_the_command_line_in_a_thread_leaves_signals_alone(call: Call) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call, "inspect", "model.onnx").result().code == Exit.DONE
    assert call("inspect", "model.onnx").code == Exit.DONE
    assert signal.getsignal(signal.SIGTERM) is before


def test_while_a_lock_of_python_is_taken(folder: Path) -> None:
    """Python polls a process under a lock, which an interrupt just behind it leaves taken for ever."""
    polling = command.prepared(
        "import os, signal, subprocess, threading\n"
        "told = []\n"
        "class Lock:\n"
        "    def __init__(self):\n"
        "        self.real = threading.Lock()\n"
        "    def acquire(self, *arguments):\n"
        "        taken = self.real.acquire(*arguments)\n"
        "        if arguments == (False,) and not told:\n"
        "            told.append(1)\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return taken\n"
        "    def release(self): self.real.release()\n"
        "    def __enter__(self): return self.real.__enter__()\n"
        "    def __exit__(self, *error): return self.real.__exit__(*error)\n"
        "real = subprocess.Popen.__init__\n"
        "def hooked(self, *args, **kwargs):\n"
        "    real(self, *args, **kwargs)\n"
        "    self._waitpid_lock = Lock()\n"
        "subprocess.Popen.__init__ = hooked\n"
    )
    found = command.run("optimize", "model.onnx", cwd=folder, program=polling)
    assert found.returncode in {Exit.DONE, Exit.INTERRUPTED}


def test_while_it_starts(folder: Path) -> None:
    """Typer and the commands take a tenth of a second to import."""
    interrupting = command.prepared(
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    found = command.run("optimize", "model.onnx", cwd=folder, program=interrupting)
    assert (found.returncode, found.stdout, found.stderr) == INTERRUPTED
