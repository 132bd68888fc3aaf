"""Writing a model with its edits: whole, or not at all.

The result is made under temporary names beside the target and renamed over it. The data file of a model with
external data has a name made from its content, so that a new one never overwrites the one that the present
target needs: the rename of the model file is the single moment at which the target changes, and
killed at any point it is the old model or the new one, each with its own data.

    .NAME.bnfold-tmp.onnx   the model while it is written and verified
    .NAME.bnfold-tmp.data   its data until the model file is complete
    NAME-<digest>.data      its data

A run that was killed leaves some of these behind; the next one for the same target removes them. (Killed in
the instant between the rename and the removal of the previous result's data, it leaves that data: whether
somebody else still needs it cannot be told any more.)
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnfold.errors import NO_SPACE, EnvironmentFault, ModelError, UsageError
from bnfold.model.patch import CHUNK, DataFile, keep, patched, span_chunks
from bnfold.model.store import Span, open_buffer
from bnfold.model.wire import MAX_MESSAGE, Range, Stream, size

try:
    import fcntl
except ImportError:  # Windows, which refuses to remove a file that is open and so needs no lock
    fcntl = None  # type: ignore[assignment]  # the module is absent there

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnfold.model.edits import ModelEdits
    from bnfold.model.patch import Payload
    from bnfold.model.store import ModelFile
    from bnfold.model.wire import Piece

_DIGEST_DIGITS = 12
_SAMPLE, _SAMPLE_EVERY = 4 << 10, 1 << 20
_FLUSH = 32 << 20
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_GATHER_BELOW, _GATHER_TO = 64 << 10, 1 << 20


def to_bytes(model: ModelFile, edits: ModelEdits) -> bytes:
    """The edited model as one message, external data included.

    Raises:
        ModelError: it would be larger than 2 GiB, the limit of protobuf.
    """
    sink = io.BytesIO()
    for chunk in _chunks(model, _small_enough(patched(model, edits, None))):
        sink.write(chunk)
    return sink.getvalue()


def edited(model: ModelFile, edits: ModelEdits) -> ModelFile:
    """The edited model, opened: in memory, its external data where it is.

    Raises:
        ModelError: it would be larger than 2 GiB, the limit of protobuf.
    """
    sink = io.BytesIO()
    for chunk in _chunks(model, _small_enough(patched(model, edits, None, refers=True))):
        sink.write(chunk)
    name = "the given model" if model.path is None else str(model.path)
    return open_buffer(model.path, sink.getvalue(), name)


@contextmanager
def staged(model: ModelFile, edits: ModelEdits, target: Path) -> Iterator[Staged]:
    """Write the edited model beside its target, to be committed or forgotten.

    A model without external data becomes one file. Of one with external data, all external tensors go into
    one new data file beside the target; only a model that no edit changes and that stays in its folder keeps
    referring to its present files. A target that is a symlink is replaced itself; what it points to stays.

    Args:
        model: the opened model.
        edits: what changes.
        target: where the result goes; may be the model's own file. The permissions of an existing one stay.

    Yields:
        The result. Leaving the block without `commit()` removes every trace of it.

    Raises:
        UsageError: the target cannot be a model file.
        ModelError: the result would be larger than 2 GiB without external data, or the source is damaged.
        EnvironmentFault: no space, no permission, or another run is writing the same target.
    """
    target = target.absolute()
    work = None
    try:
        with _faults(target):
            mode = _mode_for(target)
            if Path(os.path.realpath(target.parent), target.name) in model.external_files:
                raise UsageError(f"{target} cannot be written: the model keeps its weights there")
            work = Staged(target)
            work.write(model, edits, mode)
        yield work
    finally:
        if work is not None:
            work.clean()


class Staged:
    """A result that is complete but not yet in its place.

    Attributes:
        path: the model file, beside the target; it can be loaded from there.
        target: the place.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}.bnfold-tmp.onnx")
        self._data_tmp = target.with_name(f".{target.name}.bnfold-tmp.data")
        self._data: Path | None = None
        self._data_is_new = False
        self._file = self._claim()

    def commit(self) -> None:
        """Move the result into its place, and remove the data file of the result that was there before.

        Raises:
            EnvironmentFault: the file system refuses; the target is unchanged then.
        """
        with _faults(self.target):
            outdated = self._data_files_of(self.target) - {self._data}
            if fcntl is None:
                self._file.close()
            os.replace(self.path, self.target)  # noqa: PTH105 - one spelling for all renames here
            _sync(self.target.parent)
        self._remove_data(outdated)

    def write(self, model: ModelFile, edits: ModelEdits, mode: int | None) -> None:
        """Make the files; `mode` is the permission bits of an existing target."""
        if mode is not None:
            self.path.chmod(mode)
        if keep(edits) and (not model.external or _same_folder(model, self.target)):
            self._write_model(model, [Range(0, len(model.buffer))])
        elif not model.external:
            self._write_model(model, patched(model, edits, None))
        else:
            layout = DataFile(self._data_name("0" * _DIGEST_DIGITS))
            patched(model, edits, layout)
            named = DataFile(self._free_name(self._write_data(model, layout, mode)))
            self._write_model(model, patched(model, edits, named))
            # The data takes its name only now, so that a temporary model says which data a killed run left.
            self._data = self.target.with_name(named.name.decode())
            self._data_is_new = not self._data.exists()
            if self._data_is_new:
                os.replace(self._data_tmp, self._data)  # noqa: PTH105 - one spelling for all renames here
                _sync(self.target.parent)
            else:
                self._data_tmp.unlink()

    def clean(self) -> None:
        """Remove what is not committed.

        Whether it is shows in the file system, not in a variable that an interrupt could leave behind.
        """
        # What cannot be removed now costs space, no more, and the next run tries again.
        with suppress(OSError):
            self._data_tmp.unlink(missing_ok=True)
        with suppress(OSError):
            if self.path.exists():
                if self._data is not None and self._data_is_new:
                    self._data.unlink(missing_ok=True)
                if fcntl is None:
                    self._file.close()
                self.path.unlink()
        self._file.close()

    def _claim(self) -> io.FileIO:
        """Create the temporary model file and lock it, after removing one that a killed run left."""
        while True:
            try:
                file = io.FileIO(self.path, "xb")
            except FileExistsError:
                with io.FileIO(self.path, "r+b") as stale:
                    self._lock(stale)
                    if _is_at(stale, self.path):
                        left = self._data_files_of(self.path) - self._data_files_of(self.target)
                        self._remove_data(left)
                        if fcntl is None:
                            stale.close()
                        self.path.unlink()
                    elif self.path.is_symlink():
                        self.path.unlink()
                continue
            try:
                self._lock(file)
                if _is_at(file, self.path):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _lock(self, file: io.FileIO) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(
                f"{self.target} is being written by another run of bnfold; wait for it, "
                f"or choose another name"
            ) from None
        except OSError as error:
            # Some network file systems have no locks; two runs at once are then the user's affair.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise

    def _write_model(self, model: ModelFile, pieces: list[Piece]) -> None:
        for chunk in _gathered(_chunks(model, _small_enough(pieces))):
            _write_all(self._file, chunk)
        os.fsync(self._file.fileno())

    def _write_data(self, model: ModelFile, layout: DataFile, mode: int | None) -> str:
        """Write the data file under its temporary name; returns a digest of samples of its content."""
        sample = _Sample()
        self._data_tmp.unlink(missing_ok=True)
        with io.FileIO(self._data_tmp, "xb") as file:
            if mode is not None:
                self._data_tmp.chmod(mode)
            flushing = 0
            for chunk in _gathered(_data_chunks(model, layout)):
                sample.update(chunk)
                _write_all(file, chunk)
                if sample.position - flushing > _FLUSH:
                    _start_flushing(file, flushing, sample.position)
                    flushing = sample.position
            os.fsync(file.fileno())
        return sample.digest()

    def _free_name(self, sampled: str) -> bytes:
        """A name for the new data file that no other content has.

        The digest of samples is enough to tell files apart nearly always, at a hundredth of the cost of a
        whole one. Where it is not, the digest of everything is.
        """
        name = self._data_name(sampled)
        if self._is_taken(name):
            digest = hashlib.sha256()
            with self._data_tmp.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
            name = self._data_name(digest.hexdigest()[:_DIGEST_DIGITS])
            if self._is_taken(name):
                raise EnvironmentFault(f"{name.decode()} beside {self.target} has another content; remove it")
        return name

    def _is_taken(self, name: bytes) -> bool:
        """Whether there is a file of that name whose content is not that of the new data file."""
        try:
            present = self.target.with_name(name.decode()).open("rb")
        except FileNotFoundError:
            return False
        with present, self._data_tmp.open("rb") as new:
            while True:
                chunk = new.read(CHUNK)
                if present.read(CHUNK) != chunk:
                    return True
                if not chunk:
                    return False

    def _data_name(self, digest: str) -> bytes:
        try:
            return f"{self.target.name}-{digest}.data".encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{str(self.target)!r}: external data needs a file name that is valid Unicode; choose another"
            ) from None

    def _data_files_of(self, model: Path) -> set[Path | None]:
        """The data files, named after the target, that a model file (complete or not) refers to."""
        candidates = [path for path in self.target.parent.iterdir() if self._is_data_name(path.name)]
        return {path for path in candidates if _mentions(model, path.name, unreadable=False)}

    def _is_data_name(self, name: str) -> bool:
        own = f"{re.escape(self.target.name)}-[0-9a-f]{{{_DIGEST_DIGITS}}}\\.data"
        return re.fullmatch(own, name) is not None

    def _remove_data(self, outdated: set[Path | None]) -> None:
        """Remove data files, except those that a copy of their model beside the target still needs."""
        for path in outdated:
            copies = (
                other
                for other in self.target.parent.glob("*.onnx*")
                if other != self.path and not self._is_data_name(other.name)
            )
            if path and not any(_mentions(other, path.name, unreadable=True) for other in copies):
                # The result is complete without this: what cannot be removed costs space, no more.
                with suppress(OSError):
                    path.unlink()


class _Sample:
    """A digest of some bytes of a file: the first 4 KiB of each MiB, and how many there are in all."""

    def __init__(self) -> None:
        self.position = 0
        self._hash = hashlib.sha256()

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the file."""
        view = memoryview(chunk)
        start, stop = self.position, self.position + len(view)
        for block in range(start - start % _SAMPLE_EVERY, stop, _SAMPLE_EVERY):
            self._hash.update(view[max(block - start, 0) : max(block + _SAMPLE - start, 0)])
        self.position = stop

    def digest(self) -> str:
        """The digest, as it goes into a name."""
        whole = self._hash.copy()
        whole.update(b"%d" % self.position)
        return whole.hexdigest()[:_DIGEST_DIGITS]


@contextmanager
def _faults(target: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            reason = "no space is left; free some, or write to another disk"
        elif error.errno in _FORBIDDEN:
            reason = f"no permission to write in {str(target.parent)!r}; write to another folder"
        else:
            reason = error.strerror or str(error)
        raise EnvironmentFault(f"{target} cannot be written: {reason}") from error


def _mode_for(target: Path) -> int | None:
    """The permission bits that the result gets; None for those of any new file."""
    if not target.parent.is_dir():
        raise UsageError(f"{target} cannot be written: the folder {str(target.parent)!r} does not exist")
    folder = os.path.realpath(target.parent)
    if folder == "/dev" or Path(folder).is_relative_to("/proc"):
        # Links such as /dev/stdout stand for what is open; a rename over one would take it from everybody.
        raise UsageError(f"{target} cannot be written: it is no place for a file; name one in another folder")
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{target} cannot be written: it is there already and is not a file")
    return status.st_mode & 0o777


def _small_enough(pieces: list[Piece]) -> list[Piece]:
    if size(pieces) > MAX_MESSAGE:
        raise ModelError(
            "the result would be larger than 2 GiB, the limit of a protobuf message; save the model with "
            "external data first"
        )
    return pieces


def _chunks(model: ModelFile, pieces: Iterable[Piece]) -> Iterator[bytes | memoryview]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        elif isinstance(piece, Range):
            yield from span_chunks(model, Span(None, piece.start, piece.stop - piece.start))
        else:
            yield from _checked(piece)


def _data_chunks(model: ModelFile, layout: DataFile) -> Iterator[bytes | memoryview]:
    position = 0
    for offset, payload in layout.parts:
        yield bytes(offset - position)
        yield from _payload_chunks(model, payload)
        position = offset + payload.nbytes


def _payload_chunks(model: ModelFile, payload: Payload) -> Iterator[bytes | memoryview]:
    if isinstance(payload, Span):
        return span_chunks(model, payload)
    return _checked(Stream(payload.nbytes, payload.chunks))


def _checked(stream: Stream) -> Iterator[bytes | memoryview]:
    """The bytes of a stream, which must be as many as it said: offsets and lengths are written already."""
    total = 0
    for chunk in stream.chunks():
        if isinstance(chunk, np.ndarray):
            data = np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data
        else:
            data = memoryview(chunk).cast("B")
        total += len(data)
        yield data
    if total != stream.nbytes:
        raise ValueError(f"a new tensor was to have {stream.nbytes} bytes and has {total}")


def _gathered(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | bytearray | memoryview]:
    """The same bytes with runs of small chunks put together, to save system calls."""
    small = bytearray()
    for chunk in chunks:
        if len(chunk) < _GATHER_BELOW:
            small += chunk
            if len(small) < _GATHER_TO:
                continue
            yield small
        else:
            if small:
                yield small
            yield chunk
        small = bytearray()
    if small:
        yield small


def _write_all(file: io.FileIO, chunk: bytes | bytearray | memoryview) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _mentions(model: Path, name: str, *, unreadable: bool) -> bool:
    """Whether a file contains a name; `unreadable` is the answer for one that cannot be read."""
    needle = name.encode()
    seen = b""
    try:
        if not model.is_file():
            return False
        with model.open("rb") as file:
            while chunk := file.read(CHUNK):
                seen = seen[-len(needle) :] + chunk
                if needle in seen:
                    return True
    except OSError:
        return unreadable
    return False


def _start_flushing(file: io.FileIO, start: int, stop: int) -> None:
    """Have the disk write while the next bytes are made, rather than all at the end in fsync."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)


def _same_folder(model: ModelFile, target: Path) -> bool:
    return model.base_dir is not None and model.base_dir.samefile(target.parent)


def _is_at(file: io.FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    """Make renames in a folder durable."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
