"""How the command line starts and ends: every error becomes one line and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from bnfold.cli.exits import Exit
from bnfold.errors import NO_SPACE, BnfoldError


def main() -> NoReturn:
    """Run the command line; every error becomes one line on stderr and an exit code."""
    # Reading a model makes many objects and no garbage; looking for some again and again takes a tenth of
    # a short run.
    gc.set_threshold(100_000, 20, 20)
    _open_streams()
    ending = _Ending()
    try:
        # Ctrl-C may come while it is imported, too.
        from bnfold.cli.program import app  # noqa: PLC0415  # slow

        app()
    except BnfoldError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        ending.fail()
    except SystemExit as leaving:
        if leaving.code == Exit.INTERRUPTED:  # what typer makes of Ctrl-C, without a word
            ending.fail()
        raise
    except MemoryError:
        _fail("out of memory", Exit.FAULT)
    except ModuleNotFoundError as error:
        if os.environ.get("BNFOLD_TRACEBACK"):
            raise
        _fail(f"{error}: this installation is incomplete; `bnfold doctor` shows more", Exit.FAULT)
    except Exception as error:  # the last line of defence: a user never sees a traceback
        if os.environ.get("BNFOLD_TRACEBACK"):
            raise
        _fail(f"{_unexpected(error)}; BNFOLD_TRACEBACK=1 shows where", Exit.FAULT)
    finally:
        ending.release()
    sys.exit(Exit.DONE)


class _Ending:
    """Who asks to be ended, or hangs up, is obeyed as after Ctrl-C: all is tidied up first."""

    def __init__(self) -> None:
        self._asked = False
        known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        here = threading.current_thread() is threading.main_thread()  # Python's rule
        # What somebody else has a use for is left alone: nohup has SIGHUP ignored.
        self._signals = [number for number in known if here and signal.getsignal(number) is signal.SIG_DFL]
        for number in self._signals:
            signal.signal(number, self._leave)

    def _leave(self, *_: object) -> NoReturn:
        self._asked = True
        for number in self._signals:
            signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        raise KeyboardInterrupt

    def release(self) -> None:
        """Leave the signals as they were."""
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)

    def fail(self) -> NoReturn:
        """Say what happened, and leave."""
        if self._asked:
            _fail("ended from outside", Exit.TERMINATED)
        _fail("interrupted", Exit.INTERRUPTED)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in NO_SPACE and error.filename is None:
        from tempfile import gettempdir  # noqa: PLC0415  # for this message alone

        folder = gettempdir()
        return (
            f"no space is left for temporary files in {folder}; free some, or let TMPDIR name another folder"
        )
    if isinstance(error, OSError) and error.filename is not None:
        # No bug, as a rule: a name too long for the disk, a folder that may not be searched.
        return f"{error.filename!r} cannot be used: {error.strerror}"
    what = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    return f"internal error, please report it ({what})"


def _open_streams() -> None:
    """Python has none where the caller closed it (`bnfold ... >&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # to the end


def _fail(message: str, code: int) -> NoReturn:
    message = " ".join(message.split())
    if not message.isprintable():
        from bnfold.report.wording import one_line  # noqa: PLC0415  # the name of a node may not talk to a terminal

        message = one_line(message)
    # The exit code must be true even where nobody can be told why.
    with suppress(OSError):
        print(f"bnfold: {message}", file=sys.stderr)  # noqa: T201  # the plainest way out
    sys.exit(code)
