from __future__ import annotations

import onnx
import pytest
from support.onnxfiles import Builder, split

from bnfold.errors import ModelError
from bnfold.model import wire


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)])
def test_numbers_are_those_of_protobuf(value: int) -> None:
    encoded = onnx.OperatorSetIdProto(version=value).SerializeToString()
    assert wire.number(2, value) == encoded
    assert wire.read_varint(encoded, 1, len(encoded)) == (value & (2**64 - 1), len(encoded))


@pytest.mark.parametrize("value", ["", "x", "é" * 70, "y" * 20_000])
def test_texts_are_those_of_protobuf(value: str) -> None:
    encoded = onnx.OperatorSetIdProto(domain=value).SerializeToString()
    assert wire.text(1, value) == encoded


@pytest.mark.parametrize("seed", range(5))
def test_records_are_found(seed: int) -> None:
    data = Builder(seed).model().SerializeToString()
    found = [(tag >> 3, data[begin:end]) for tag, begin, _, end in wire.records(data, 0, len(data))]
    assert found == [(field, record) for field, record, _ in split(data)]
    tags = [(tag & 7, body, end) for tag, _, body, end in wire.records(data, 0, len(data))]
    bodies = [data[body:end] for kind, body, end in tags if kind == wire.BYTES]
    assert bodies == [body for _, record, body in split(data) if record[0] & 7 == wire.BYTES]


def test_only_the_given_range_is_read() -> None:
    data = b"\xff" + wire.number(1, 5) + b"\xff"
    assert list(wire.records(data, 1, 3)) == [(8, 1, 2, 3)]


@pytest.mark.parametrize(("cut", "at"), [(1, 3), (11, 3), (12, 3), (13, 4), (15, 1), (16, 1)])
def test_truncation_says_where(cut: int, at: int) -> None:
    data = (wire.number(1, 300) + wire.text(2, "twelve bytes"))[:-cut]
    with pytest.raises(ModelError, match=rf"at byte {at}\b"):
        list(wire.records(data, 0, len(data)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x0b", "group at byte 0 never ends"),
        (b"\x0b\x0f", "no record can start like byte 1"),
        (b"\x0c", "no record can start like byte 0"),
        (b"\x0e", "no record can start like byte 0"),
        (b"\x00\x01", "field number 0 at byte 0"),
        (b"\x08" + b"\xff" * 11, "never ends at byte 1"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends at byte"),
        (b"\x0d\x00", "ends at byte 5"),
        (b"\x09\x00", "ends at byte 9"),
    ],
)
def test_what_is_no_message(data: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        list(wire.records(data, 0, len(data)))


def test_unknown_groups_are_one_record() -> None:
    inner = wire.number(5, 1) + wire.text(6, "x") + b"\x0d\0\0\0\0" + b"\x09" + bytes(8)
    group = b"\x0b\x13" + inner + b"\x14" + b"\x0c"
    data = group + wire.number(2, 7)
    assert [(tag >> 3, begin, end) for tag, begin, _, end in wire.records(data, 0, len(data))] == [
        (1, 0, len(group)),
        (2, len(group), len(data)),
    ]


def test_messages_carry_their_length() -> None:
    pieces = wire.message(7, [b"ab", wire.Range(3, 303), wire.Stream(1000, lambda: iter(()))])
    assert pieces[0] == b"\x3a" + wire.varint(1302)
    assert wire.size(pieces) == 3 + 1302
