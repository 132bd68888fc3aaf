"""The skeleton of a serialized model: the same message without its big tensor payloads."""

from __future__ import annotations

import mmap
from enum import Enum, auto
from typing import TYPE_CHECKING

from bnfold.errors import ModelError
from bnfold.model.wire import (
    VARINT,
    Range,
    message,
    number,
    read_varint,
    records,
    tag_of,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnfold.model.wire import Buffer, Piece, Record

THRESHOLD = 4096
"""Payloads of more bytes than this are left out."""

_HUGE_PAGE = 2 << 20
_BIG = 1 << 20
_DEPTH = 100  # of nested messages, the limit of protobuf's own parsers


class Kind(Enum):
    """The messages of onnx.proto on the way to a tensor."""

    MODEL = auto()
    TRAINING = auto()
    FUNCTION = auto()
    GRAPH = auto()
    NODE = auto()
    ATTRIBUTE = auto()
    SPARSE = auto()
    TENSOR = auto()


CHILDREN: dict[Kind, dict[int, Kind]] = {
    Kind.MODEL: {tag_of(7): Kind.GRAPH, tag_of(20): Kind.TRAINING, tag_of(25): Kind.FUNCTION},
    Kind.TRAINING: {tag_of(1): Kind.GRAPH, tag_of(2): Kind.GRAPH},
    Kind.FUNCTION: {tag_of(7): Kind.NODE, tag_of(11): Kind.ATTRIBUTE},
    Kind.GRAPH: {tag_of(1): Kind.NODE, tag_of(5): Kind.TENSOR, tag_of(15): Kind.SPARSE},
    Kind.NODE: {tag_of(5): Kind.ATTRIBUTE},
    Kind.ATTRIBUTE: {
        tag_of(5): Kind.TENSOR,
        tag_of(6): Kind.GRAPH,
        tag_of(10): Kind.TENSOR,
        tag_of(11): Kind.GRAPH,
        tag_of(22): Kind.SPARSE,
        tag_of(23): Kind.SPARSE,
    },
    Kind.SPARSE: {tag_of(1): Kind.TENSOR, tag_of(2): Kind.TENSOR},
    Kind.TENSOR: {},
}
"""By message, the fields that lead on to tensors (their tags)."""

_SINGULAR: dict[Kind, frozenset[int]] = {
    Kind.MODEL: frozenset({tag_of(7)}),
    Kind.TRAINING: frozenset({tag_of(1), tag_of(2)}),
    Kind.ATTRIBUTE: frozenset({tag_of(5), tag_of(6), tag_of(22)}),
    Kind.SPARSE: frozenset({tag_of(1), tag_of(2)}),
}

RAW_DATA, FLOAT_DATA, DOUBLE_DATA = tag_of(9), tag_of(4), tag_of(10)
DATA_TYPE, EXTERNAL_DATA, DATA_LOCATION = tag_of(2, VARINT), tag_of(13), tag_of(14, VARINT)
PAYLOAD_FIELDS = frozenset({4, 5, 6, 7, 9, 10, 11})
"""The fields of TensorProto that hold elements."""

# Packed float_data and double_data are the very bytes of raw_data, if the elements are of that type.
_SAME_AS_RAW = {FLOAT_DATA: (1, 14), DOUBLE_DATA: (11, 15)}


def children(buffer: Buffer, kind: Kind, start: int, stop: int) -> Iterator[Record]:
    """The records of a message of the model.

    Raises:
        ModelError: not a protobuf message, or a field that can be there once is there twice (protobuf would
            merge the two, and positions in the file would not be those of the parsed model).
    """
    singular = _SINGULAR.get(kind, frozenset())
    seen = set()
    for record in records(buffer, start, stop):
        tag = record[0]
        if tag in singular:
            if tag in seen:
                raise ModelError(
                    f"field {tag >> 3} of a {kind.name.lower()} is there twice, at byte {record[1]}"
                )
            seen.add(tag)
        yield record
        if record[3] - record[2] > _BIG:
            # Without this, half of a big file would be resident in the end, for the few bytes between.
            drop_pages(buffer, record[2], record[3])


def outline(buffer: Buffer) -> tuple[list[bytes | Range], dict[int, int]]:
    """The skeleton of a serialized model.

    Returns:
        The pieces that make the skeleton, and by offset of each payload that is not in it, the tag of the
        field that it was in.

    Raises:
        ModelError: the bytes are no protobuf message.
    """
    left_out: dict[int, int] = {}
    pieces = _message(buffer, (0, 0, 0, len(buffer)), Kind.MODEL, left_out, 0)
    return [piece for piece in pieces if isinstance(piece, bytes | Range)], left_out


def _message(buffer: Buffer, record: Record, kind: Kind, left_out: dict[int, int], depth: int) -> list[Piece]:
    """The payload of a record that holds a message, with what is left out noted in `left_out`."""
    _, _, start, stop = record
    if kind is Kind.TENSOR:
        return _tensor(buffer, start, stop, left_out)
    if depth > _DEPTH:
        raise ModelError(f"graphs are nested more than {_DEPTH} levels deep at byte {start}")
    inner = CHILDREN[kind]
    pieces: list[Piece] = []
    done = start
    for child in children(buffer, kind, start, stop):
        tag, begin, body, end = child
        if end - body > THRESHOLD and tag in inner:
            parts = _message(buffer, child, inner[tag], left_out, depth + 1)
            if parts != [Range(body, end)]:
                pieces += [Range(done, begin), *message(tag >> 3, parts)]
                done = end
    pieces.append(Range(done, stop))
    return pieces


def _tensor(buffer: Buffer, start: int, stop: int, left_out: dict[int, int]) -> list[Piece]:
    """A tensor, presented as external data of the model file if its payload is big and of the plain kind."""
    payload: Record | None = None
    data_type = 0
    for record in records(buffer, start, stop):
        tag, _, body, end = record
        if tag == DATA_TYPE:
            data_type, _ = read_varint(buffer, body, end)
        elif tag == EXTERNAL_DATA or (tag == DATA_LOCATION and read_varint(buffer, body, end)[0]):
            return [Range(start, stop)]
        elif tag >> 3 in PAYLOAD_FIELDS:
            if payload is not None:
                return [Range(start, stop)]
            payload = record
    if payload is None:
        return [Range(start, stop)]
    tag, begin, body, end = payload
    plain = data_type != 8 if tag == RAW_DATA else data_type in _SAME_AS_RAW.get(tag, ())  # noqa: PLR2004 - 8: STRING
    if not plain or end - body <= THRESHOLD:
        return [Range(start, stop)]
    left_out[body] = tag
    return [Range(start, begin), Range(end, stop), location(b"", body, end - body)]


def drop_pages(buffer: Buffer, start: int, stop: int) -> None:
    """Take pages of a mapped file out of the resident memory of the process; they come back when touched."""
    if isinstance(buffer, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") and stop > start:
        # Touching one byte may have mapped all of the huge page that it lies in.
        first = start - start % _HUGE_PAGE
        last = min(-(-stop // _HUGE_PAGE) * _HUGE_PAGE, len(buffer))
        buffer.madvise(mmap.MADV_DONTNEED, first, last - first)


def location(name: bytes, offset: int, nbytes: int) -> bytes:
    """The records of a TensorProto that say where its external data lies."""
    entries = ((b"location", name), (b"offset", b"%d" % offset), (b"length", b"%d" % nbytes))
    return b"".join(text(13, text(1, key) + text(2, value)) for key, value in entries) + number(14, 1)
