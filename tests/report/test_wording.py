"""Names in one line, whatever an exporter put into them."""

from __future__ import annotations

import unicodedata

import pytest

from bnfold.report.wording import one_line


@pytest.mark.parametrize("name", ["block.0/bn:1", "模块/é", "😀", "a b", "\u00a0", "\\n", "<b>&|`"])
def test_names_stay(name: str) -> None:
    assert one_line(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb\r", r"a\nb\r"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202e", r"\u202e"),
        ("\udcff", r"\udcff"),
        ("\0", r"\x00"),
    ],
)
def test_what_cannot_be_seen_is_shown(name: str, shown: str) -> None:
    assert one_line(name) == shown


def test_no_character_breaks_a_line_or_turns_it() -> None:
    """Controls, formats, separators of lines, surrogates: by the table of Unicode."""
    for number in range(0x110000):
        character = chr(number)
        if unicodedata.category(character) in {"Cc", "Zl", "Zp", "Cs"} or unicodedata.bidirectional(
            character
        ) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}:
            assert one_line(character).isascii(), hex(number)
            assert one_line(character).isprintable(), hex(number)
