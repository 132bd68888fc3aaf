"""The protobuf wire format, as far as ONNX needs it: find records by byte range, put them together again.

Source: https://protobuf.dev/programming-guides/encoding (Message Structure). A message is a run of records;
each starts with a varint `tag = field_number << 3 | wire_type`. Working on byte ranges rather than on parsed
messages is what lets weights stay on disk and untouched records keep their bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from mmap import mmap
from typing import TYPE_CHECKING, TypeAlias

from bnfold.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

Buffer: TypeAlias = bytes | mmap
Record: TypeAlias = tuple[int, int, int, int]
"""(tag, where the record begins, where its payload begins, where it ends)."""

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)
MAX_MESSAGE = 2**31 - 1
"""Protobuf refuses to parse a message of more bytes than this."""

_VARINT_BYTES = 10
_MAX_TAG = (2**29 - 1) << 3 | 7


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of the source, from `start` to `stop`, that go into the result as they are."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Stream:
    """`nbytes` bytes that are made when they are written."""

    nbytes: int
    chunks: Callable[[], Iterator[memoryview | bytes | np.ndarray]]


Piece: TypeAlias = bytes | Range | Stream


def tag_of(field: int, wire_type: int = BYTES) -> int:
    """The tag of a field."""
    return field << 3 | wire_type


def read_varint(buffer: Buffer, start: int, stop: int) -> tuple[int, int]:
    """Decode a varint.

    Returns:
        Its value (unsigned, 64 bits) and the position after it.

    Raises:
        ModelError: it does not end before `stop`, or is longer than ten bytes.
    """
    value = 0
    for position in range(start, min(stop, start + _VARINT_BYTES)):
        byte = buffer[position]
        value |= (byte & 0x7F) << 7 * (position - start)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
    cause = "is cut off" if stop - start < _VARINT_BYTES else "never ends"
    raise ModelError(f"the model file is damaged: a number {cause} at byte {start}")


def records(buffer: Buffer, start: int, stop: int) -> Iterator[Record]:  # noqa: C901 - one branch a wire type
    """The records of the message that lies from `start` to `stop`, in order.

    Raises:
        ModelError: the bytes are no protobuf message; says what is wrong at which byte.
    """
    position = start
    while position < stop:
        begin = position
        tag = buffer[position]
        position += 1
        if tag >= 0x80:  # noqa: PLR2004 - the continuation bit
            tag, position = read_varint(buffer, begin, stop)
        wire_type = tag & 7
        body = position
        if wire_type == BYTES:
            if position < stop and (length := buffer[position]) < 0x80:  # noqa: PLR2004 - the same
                position += 1
            else:
                length, position = read_varint(buffer, position, stop)
            body = position
            position += length
        elif wire_type == VARINT:
            _, position = read_varint(buffer, position, stop)
        elif wire_type == FIXED32:
            position += 4
        elif wire_type == FIXED64:
            position += 8
        elif wire_type == GROUP:
            position = _after_group(buffer, begin, position, stop)
        else:
            raise ModelError(f"the model file is damaged: no record can start like byte {begin}")
        if not 0 < tag >> 3 <= _MAX_TAG >> 3:
            raise ModelError(f"the model file is damaged: field number {tag >> 3} at byte {begin}")
        if position > stop:
            raise ModelError(
                f"the model file is truncated or damaged: a record at byte {begin} ends at byte {position} "
                f"but what holds it ends at byte {stop}"
            )
        yield tag, begin, body, position


def _after_group(buffer: Buffer, begin: int, position: int, stop: int) -> int:
    """The position after a group, the bracketed records that protobuf 1 used; only unknown fields have it."""
    depth = 1
    while depth:
        if position >= stop:
            raise ModelError(f"the model file is damaged: the group at byte {begin} never ends")
        tag, position = read_varint(buffer, position, stop)
        wire_type = tag & 7
        if wire_type == GROUP:
            depth += 1
        elif wire_type == GROUP_END:
            depth -= 1
        elif wire_type == VARINT:
            _, position = read_varint(buffer, position, stop)
        elif wire_type == BYTES:
            length, position = read_varint(buffer, position, stop)
            position += length
        elif wire_type in (FIXED32, FIXED64):
            position += 4 if wire_type == FIXED32 else 8
        else:
            raise ModelError(f"the model file is damaged: no record can start like byte {position - 1}")
    return position


def varint(value: int) -> bytes:
    """Encode a varint; negative numbers as their 64-bit two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - the continuation bit
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A record that holds an integer."""
    return varint(tag_of(field, VARINT)) + varint(value)


def text(field: int, value: str | bytes) -> bytes:
    """A record that holds a string or bytes."""
    data = value.encode() if isinstance(value, str) else value
    return varint(tag_of(field)) + varint(len(data)) + data


def size(pieces: Iterable[Piece]) -> int:
    """How many bytes the pieces make."""
    total = 0
    for piece in pieces:
        if isinstance(piece, bytes):
            total += len(piece)
        elif isinstance(piece, Range):
            total += piece.stop - piece.start
        else:
            total += piece.nbytes
    return total


def message(field: int, pieces: list[Piece]) -> list[Piece]:
    """A record that holds a message made of pieces."""
    return [varint(tag_of(field)) + varint(size(pieces)), *pieces]
