"""Opening a model without its weights, and handing them out on demand.

`open_model` maps the file and walks its records, following only those above `THRESHOLD` bytes. What it
then parses is the *skeleton*: the model without its big tensor payloads. A payload left out is presented in
the way ONNX presents external data, with the model file itself (location "") as the file, so that one
mechanism serves weights inside and outside of the model file.

External data is a path that the model's author chose, and models come from strangers. The rules follow the
ONNX document "External Data": a relative path, below the model's folder, of a regular file.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import mmap
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]  # protobuf ships no stubs
    DecodeError,
    EncodeError,
)

from bnfold.errors import EnvironmentFault, ModelError
from bnfold.model import dtypes
from bnfold.model.outline import THRESHOLD, drop_pages, outline
from bnfold.model.wire import MAX_MESSAGE, Range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bnfold.model.wire import Buffer

__all__ = [
    "THRESHOLD",
    "ModelFile",
    "Span",
    "external_locations",
    "node_tensors",
    "open_buffer",
    "open_model",
    "tensors",
]

_OPEN_MAPS = 32
_NUMBER_DIGITS = 19
_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_BLOCK = 1 << 20
_COPIED = 64 << 10
_PREVIEW = 4096


@dataclass(frozen=True, slots=True)
class Span:
    """Where the bytes of a tensor lie.

    Attributes:
        file: the external file; None for the model itself.
        offset: position of the first byte.
        nbytes: how many there are.
    """

    file: Path | None
    offset: int
    nbytes: int


class ModelFile:
    """An open model: its skeleton, and access to its weights.

    Treat it as a value: nothing here changes once it is open, and `proto` is not to be modified.

    Attributes:
        path: where it was read from; None for a model that came from memory.
        base_dir: the folder that external data is relative to; None for a model from memory.
        proto: the model without tensor payloads above `THRESHOLD` bytes (see the module).
        buffer: the whole serialized model.
        external: whether any tensor lies in another file.
    """

    __slots__ = ("_files", "_left_out", "_maps", "base_dir", "buffer", "external", "path", "proto")

    def __init__(
        self, path: Path | None, buffer: Buffer, proto: onnx.ModelProto, left_out: dict[int, int]
    ) -> None:
        self.path = path
        self.base_dir = None if path is None else path.absolute().parent
        self.buffer = buffer
        self.proto = proto
        self._left_out = left_out
        self._files: dict[str, tuple[Path, int]] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        self.external = self._check_data()

    def __repr__(self) -> str:
        return f"ModelFile({str(self.path) if self.path else 'in memory'}, {self.size_bytes:,} bytes)"

    @property
    def size_bytes(self) -> int:
        """Size of the model file and of its external data files."""
        return len(self.buffer) + sum(dict(self._files.values()).values())

    def sha256(self) -> str:
        """Hexadecimal digest of the model file, external data not included."""
        digest = hashlib.sha256()
        for start in range(0, len(self.buffer), _BLOCK):
            digest.update(memoryview(self.buffer)[start : start + _BLOCK])
            drop_pages(self.buffer, start, min(start + _BLOCK, len(self.buffer)))
        return digest.hexdigest()

    @property
    def external_files(self) -> tuple[Path, ...]:
        """The external data files, resolved, each once, in the order of their first use."""
        return tuple(dict.fromkeys(path for path, _ in self._files.values()))

    def span(self, tensor: onnx.TensorProto) -> Span | None:
        """Where the payload of a tensor of this model lies; None if it is in the TensorProto.

        Raises:
            ModelError: external data that is missing, out of bounds, of the wrong length or not allowed.
            EnvironmentFault: external data that may not be read.
        """
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return None
        element = dtypes.element_type(tensor)
        entries = {str(entry.key): str(entry.value) for entry in tensor.external_data}
        location = entries.get("location", "")
        offset = _number(tensor, entries, "offset")
        length = _number(tensor, entries, "length")
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}")
        needed = dtypes.raw_size(element, tensor.dims)
        if location == "" and offset in self._left_out:
            file, available = None, len(self.buffer)
        elif element.bits == 0:
            raise ModelError(f"tensor {tensor.name!r} holds strings, which cannot lie in an external file")
        else:
            file, available = self._file(tensor, location)
        offset = offset or 0
        where = f"tensor {tensor.name!r} in external data {location!r}" if file else f"tensor {tensor.name!r}"
        if length is not None and length != needed:
            raise ModelError(
                f"{where}: {length} bytes are given, but {element.name}{list(tensor.dims)} takes {needed}"
            )
        if offset + needed > available:
            raise ModelError(
                f"{where}: bytes {offset} to {offset + needed} reach past the end of the file "
                f"({available} bytes); it is truncated, or belongs to another version of the model"
            )
        return Span(file, offset, needed)

    def check(self, tensor: onnx.TensorProto) -> None:
        """Check that the payload of a tensor is there and fits its shape and type, without reading it.

        Raises:
            ModelError: it is not, or does not.
            EnvironmentFault: external data that may not be read.
        """
        if tensor.HasField("segment"):
            raise ModelError(f"tensor {tensor.name!r} is one segment of a tensor, which nothing supports")
        span = self.span(tensor)
        fields = [name for name in _TYPED_FIELDS if getattr(tensor, name)]
        if len(fields) + (span is not None or _is_raw(tensor)) > 1:
            raise ModelError(f"tensor {tensor.name!r} holds its values twice, once in {fields[0]}")
        if span is not None:
            return
        element = dtypes.element_type(tensor)
        if _is_raw(tensor):
            dtypes.check_raw(element, tensor, len(tensor.raw_data))
        else:
            dtypes.check_typed(element, tensor)

    def array(self, tensor: onnx.TensorProto) -> np.ndarray:
        """The values of a tensor of this model, read-only.

        Above 64 KiB it is a view of the mapped file wherever elements fill whole bytes and are not in typed
        fields: it costs no memory until it is touched, and `release` gives back what was touched. A small one
        is copied: a view would keep far more than itself in memory.

        Args:
            tensor: a TensorProto of `proto`, or a copy of one.

        Returns:
            Shape and element type of the tensor; strings as Python objects.

        Raises:
            ModelError: the payload does not fit the shape and type, or its external data is not sound.
            EnvironmentFault: external data that may not be read.
        """
        self.check(tensor)
        span = self.span(tensor)
        element = dtypes.element_type(tensor)
        if span is None and not _is_raw(tensor):
            array = dtypes.from_typed(element, tensor)
        else:
            data = np.frombuffer(tensor.raw_data, np.uint8) if span is None else self._bytes(span)
            array = dtypes.from_raw(element, tuple(tensor.dims), data)
        array.setflags(write=False)
        return array

    def blocks(self, tensor: onnx.TensorProto, nbytes: int = _BLOCK) -> Iterator[tuple[slice, np.ndarray]]:
        """The values of a tensor in consecutive runs along axis 0, giving back the memory of each behind it.

        Args:
            tensor: a TensorProto of `proto`, or a copy of one.
            nbytes: about how many bytes a block may have; one index of axis 0 is the least.

        Yields:
            The slice of axis 0 and the values there (do not keep them). A scalar is one block, `slice(None)`.
        """
        array = self.array(tensor)
        span = self.span(tensor)
        mapped = span is not None and array.nbytes == span.nbytes
        if array.ndim == 0 or array.nbytes <= nbytes:
            yield slice(None), array
            if span is not None and mapped:
                self.drop(span)
            return
        row = max(1, array.nbytes // array.shape[0])
        step = max(1, nbytes // row)
        for start in range(0, array.shape[0], step):
            part = array[start : start + step]
            yield slice(start, start + part.shape[0]), part
            if span is not None and mapped:
                self.drop(Span(span.file, span.offset + start * row, part.nbytes))

    def field_of(self, span: Span) -> int:
        """The tag of the TensorProto field that a span of the model itself is the payload of."""
        return self._left_out[span.offset]

    def release(self, tensor: onnx.TensorProto) -> None:
        """Give back the memory that reading a tensor's mapped values took; they stay valid."""
        span = self.span(tensor)
        if span is not None:
            self.drop(span)

    def view(self, span: Span) -> np.ndarray:
        """The bytes of a span, read-only and mapped where the model is on disk."""
        if span.nbytes == 0:
            return np.frombuffer(b"", np.uint8)
        source = self.buffer if span.file is None else self._map(span.file)
        if span.offset + span.nbytes > len(source):
            raise ModelError(f"external data {str(span.file)!r} became shorter while it was in use")
        return np.frombuffer(source, np.uint8, span.nbytes, span.offset)

    def _bytes(self, span: Span) -> np.ndarray:
        data = self.view(span)
        if span.nbytes <= _COPIED:
            data = data.copy()
            self.drop(span)
        return data

    def drop(self, span: Span) -> None:
        """Give back the memory that reading the bytes of a span took."""
        source = self.buffer if span.file is None else self._maps.get(span.file)
        if source is not None:
            drop_pages(source, span.offset, span.offset + span.nbytes)

    def _map(self, file: Path) -> mmap.mmap:
        mapped = self._maps.pop(file, None)
        if mapped is None:
            try:
                mapped = _map_file(file)
            except (OSError, ValueError) as error:  # ValueError: it is empty by now
                raise ModelError(f"external data {str(file)!r} cannot be read any more: {error}") from None
            while len(self._maps) >= _OPEN_MAPS:  # each map holds a file descriptor
                del self._maps[next(iter(self._maps))]
        self._maps[file] = mapped
        return mapped

    def _file(self, tensor: onnx.TensorProto, location: str) -> tuple[Path, int]:
        found = self._files.get(location)
        if found is None:
            found = self._files[location] = self._find(tensor, location)
        return found

    def _find(self, tensor: onnx.TensorProto, location: str) -> tuple[Path, int]:
        where = f"tensor {tensor.name!r}: external data {location!r}"
        if not location or "\0" in location:
            raise ModelError(f"{where} names no file; export the model again")
        if self.base_dir is None or self.path is None:
            raise ModelError(
                f"{where} cannot be found for a model given from memory; pass the path of its file instead"
            )
        # A model that is a symlink (as download caches make them) may have its data beside the real file.
        folders = {Path(os.path.realpath(self.base_dir)), Path(os.path.realpath(self.path)).parent}
        real = Path(os.path.realpath(self.base_dir / location))
        inside = any(real.is_relative_to(folder) for folder in folders)
        if Path(location).is_absolute() or not inside:
            raise ModelError(
                f"{where} leaves the folder of the model, which is not allowed; copy the file into "
                f"{str(self.base_dir)!r} and export the model again"
            )
        try:
            status = real.stat()
            if stat.S_ISREG(status.st_mode):
                real.open("rb").close()
        except PermissionError:
            raise EnvironmentFault(f"{where} may not be read; check its permissions") from None
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            reason = (
                f"is missing in {str(self.base_dir)!r}; put the file there"
                if missing
                else f"cannot be read: {error.strerror}"
            )
            raise ModelError(f"{where} {reason}") from None
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{where} is not a regular file")
        return real, status.st_size

    def _check_data(self) -> bool:
        """Check where every payload lies, without reading any; whether some lie in other files."""
        unclaimed = set(self._left_out)
        for tensor, node in tensors(self.proto):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            try:
                span = self.span(tensor)
                if span is not None and span.file is None:
                    # Each payload that was left out belongs to one tensor; another one is no work of ours.
                    if span.offset not in unclaimed:
                        self._find(tensor, "")
                    unclaimed.discard(span.offset)
            except ModelError as error:
                if node is None:
                    raise
                raise ModelError(f"node {node.name!r} ({node.op_type}): {error}") from None
        return bool(self._files)


def tensors(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, onnx.NodeProto | None]]:
    """Every TensorProto of a model, nested graphs and functions included, with the node that holds it."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute, None)
        yield from node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, onnx.NodeProto | None]]:
    for tensor in graph.initializer:
        yield tensor, None
    for sparse in graph.sparse_initializer:
        yield sparse.values, None
        yield sparse.indices, None
    yield from node_tensors(graph.node)


def node_tensors(
    nodes: Iterable[onnx.NodeProto],
) -> Iterator[tuple[onnx.TensorProto, onnx.NodeProto | None]]:
    """Every TensorProto of the attributes of some nodes, with the node that holds it."""
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute, node)


def _attribute_tensors(
    attribute: onnx.AttributeProto, node: onnx.NodeProto | None
) -> Iterator[tuple[onnx.TensorProto, onnx.NodeProto | None]]:
    if attribute.HasField("t"):
        yield attribute.t, node
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor.values, node
        yield attribute.sparse_tensor.indices, node
    for tensor in attribute.tensors:
        yield tensor, node
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)
    for sparse in attribute.sparse_tensors:
        yield sparse.values, node
        yield sparse.indices, node


def open_model(source: Path | str | bytes | onnx.ModelProto) -> ModelFile:
    """Open a model; its weights stay where they are.

    Args:
        source: the path of a model file, a serialized model, or a ModelProto (which is not modified).
            External data is found only for a path.

    Raises:
        ModelError: it cannot be read as an ONNX model, or its external data is missing or not allowed.
        EnvironmentFault: it may not be read.
    """
    if sys.byteorder != "little":
        raise EnvironmentFault("bnfold reads weights in place and so needs a little-endian machine")
    if isinstance(source, onnx.ModelProto):
        try:
            source = source.SerializeToString(deterministic=True)
        except (EncodeError, ValueError):
            raise ModelError(
                "the model is larger than 2 GiB, the limit of a protobuf message; save it with external data "
                "and pass its path"
            ) from None
    if isinstance(source, bytes):
        return open_buffer(None, source, "the given model")
    path = Path(source)
    return open_buffer(path, _read_file(path), str(path))


def open_buffer(path: Path | None, buffer: Buffer, name: str) -> ModelFile:
    """Open a serialized model as if it lay at `path`, where its external data is; errors call it `name`.

    Raises:
        ModelError: it cannot be read as an ONNX model, or its external data is missing or not allowed.
    """
    proto, left_out = _skeleton(buffer, name)
    return ModelFile(path, buffer, proto, left_out)


def _skeleton(buffer: Buffer, name: str) -> tuple[onnx.ModelProto, dict[int, int]]:
    try:
        pieces, left_out = outline(buffer)
        data = b"".join(_pieces_of(buffer, pieces))
        proto = _with_graph(onnx.ModelProto.FromString(data))
    except (ModelError, DecodeError) as error:
        looks_like = _format_of(bytes(buffer[:_PREVIEW]))
        if looks_like is not None:
            raise ModelError(f"{name} is no ONNX model but {looks_like}") from None
        detail = error if isinstance(error, ModelError) else "its bytes are damaged or of another format"
        raise ModelError(f"{name} cannot be read as an ONNX model: {detail}") from None
    return proto, left_out


def external_locations(path: Path) -> tuple[str, ...]:
    """The files that a model wants beside it, by its own account: they may be missing or not allowed.

    Raises:
        ModelError: it cannot be read as an ONNX model.
        EnvironmentFault: it may not be read.
    """
    proto, _ = _skeleton(_read_file(path), str(path))
    external = (t for t, _ in tensors(proto) if t.data_location == onnx.TensorProto.EXTERNAL)
    named = (str(e.value) for t in external for e in t.external_data if e.key == "location")
    # The payloads of the model file itself have no location.
    return tuple(dict.fromkeys(location for location in named if location))


def _pieces_of(buffer: Buffer, pieces: Iterable[bytes | Range]) -> Iterator[bytes]:
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
        else:
            yield buffer[piece.start : piece.stop]
            drop_pages(buffer, piece.start, piece.stop)


def _with_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    if not model.HasField("graph"):
        raise ModelError("it holds no graph")
    return model


def _read_file(path: Path) -> Buffer:
    try:
        status = path.stat()
    except PermissionError:
        _forbidden(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ModelError(f"{str(path)!r} cannot be opened: {reason}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{path} is a folder; pass the .onnx file in it")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise ModelError(f"{path} is empty")
    if status.st_size > MAX_MESSAGE:
        raise ModelError(
            f"{path} is larger than 2 GiB, the limit of a protobuf message; save the model with external data"
        )
    try:
        return _map_file(path)
    except PermissionError:
        _forbidden(path)


def _forbidden(path: Path) -> NoReturn:
    raise EnvironmentFault(f"{path} may not be read; check its permissions") from None


def _map_file(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)


def _is_raw(tensor: onnx.TensorProto) -> bool:
    return tensor.HasField("raw_data") and tensor.data_type != dtypes.STRING


def _number(tensor: onnx.TensorProto, entries: dict[str, str], key: str) -> int | None:
    value = entries.get(key)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > _NUMBER_DIGITS:
        raise ModelError(
            f"tensor {tensor.name!r}: external data has {value!r} as its {key}, which is no number of bytes"
        )
    return int(value)


def _format_of(head: bytes) -> str | None:
    """What a file that is no ONNX model seems to be, from its first bytes."""
    starts = {
        b"version https://git-lfs": "a Git LFS pointer; fetch the model with `git lfs pull`",
        b"PK\x03\x04": "a zip archive, as PyTorch and Keras write them; export it to ONNX first",
        b"\x80\x02": "a Python pickle, as old PyTorch versions write them; export it to ONNX first",
        b"\x89HDF": "an HDF5 file, as Keras writes them; convert it with tf2onnx first",
        b"\x1f\x8b": "compressed with gzip; unpack it first",
        b"ftrt": "a TensorRT engine; start from the ONNX model that it was built from",
    }
    for start, meaning in starts.items():
        if head.startswith(start):
            return meaning
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model; convert it with tf2onnx first"
    if head[4:8] == b"ORTM":
        return "a model in the ORT format; start from the ONNX model that it was made from"
    return _text_format_of(head)


def _text_format_of(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return None
    if not "".join(text.split()).isprintable():
        return None
    text = text.lstrip()
    if text.startswith("<") and "ir_version" in text:
        return "the ONNX text format; convert it with onnx.parser first"
    if text.startswith("<"):
        return "a page of HTML or XML; the download went wrong"
    if text.startswith("{"):
        return "JSON; convert it with onnx.load(..., format='json') first"
    if "ir_version" in text:
        return "a text form of protobuf; convert it with onnx.load(..., format='textproto') first"
    return "text"
