"""The exceptions bnfold raises, and the exit code that each becomes on the command line.

    BnfoldError
    ├── UsageError        2  an argument or a setting that makes no sense
    ├── ModelError        3  the model cannot be read, or is not valid ONNX
    ├── EnvironmentFault  4  the machine: no space, no permission, a missing package, no GPU
    └── VerdictError      1  raised by `Result.raise_for_status()` alone: the models differ
                          5  ... or nothing can be said

A `BnfoldError` is always one clear line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import errno
from functools import partial

# What the operating system calls it when there is no room for a file.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BnfoldError(Exception):
    """Base of all errors that bnfold raises on purpose.

    Attributes:
        exit_code: what the command line returns for it.
    """

    exit_code = 4


class UsageError(BnfoldError):
    """An argument, option or configuration that makes no sense."""

    exit_code = 2


class ModelError(BnfoldError):
    """A model that cannot be read or is not valid ONNX."""

    exit_code = 3


class EnvironmentFault(BnfoldError):
    """Something outside the model and the arguments failed: disk, permission, package, device."""

    exit_code = 4


class VerdictError(BnfoldError):
    """A verdict other than the one asked for; `exit_code` is 1 (different) or 5 (inconclusive)."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[partial[VerdictError], tuple[object, ...]]:
        """Pickled by its message alone, as any exception is, it would lose the exit code."""
        return partial(VerdictError, exit_code=self.exit_code), self.args
