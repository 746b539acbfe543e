"""Names from files in messages: on one line, printable, cut with a count."""

from __future__ import annotations

import pytest

from secateur.text import ERROR, MESSAGE, NAME, first_line, name, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv.1", "conv.1"),
        ("\u00e9\u4e2d [red]", "\u00e9\u4e2d [red]"),
        ("a\r\n\x1b[31m\x00", "a\\r\\n\\x1b[31m\\x00"),
        ("\ud800\u202e\u2028", "\\ud800\\u202e\\u2028"),
        ("n" * 80, "n" * 80),
        ("a" * 50 + "b" * 50, "a" * 40 + "[... 20 more ...]" + "b" * 40),
        ("\n" * 41, "\\n" * 20 + "[... 1 more ...]" + "\\n" * 20),
        ("\U000e0001" * 9, "\\U000e0001" * 4 + "[... 1 more ...]" + "\\U000e0001" * 4),
    ],
)
def test_names(text: str, shown: str) -> None:
    assert name(text) == shown


def test_all_texts_end() -> None:
    assert printable("") == ""
    assert printable(3.5) == "3.5"
    assert printable("abc", 1) == "[... 3 more ...]"
    for most in (NAME, MESSAGE):
        for character in ("a", "\n", "\ud800", "\U000e0001"):
            assert len(printable(character * 1_000_000, most)) <= most + 30


def test_first_lines_of_errors() -> None:
    assert first_line(ValueError("\n too \x1b long \n for a line")) == "too \\x1b long "
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) < ERROR + 30
