"""The generated tables of `stream-fields.md`, beside `spec` and the prose of `stream.md`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tables import stream_fields
from secateur.hw import spec

STREAM = Path(__file__).parents[2] / "docs" / "reference" / "stream.md"


def test_the_page_is_generated() -> None:
    assert stream_fields.PAGE.read_text() == stream_fields.page(), (
        "run python -m docs.tables.stream_fields"
    )


def test_header_fields_are_where_the_page_says() -> None:
    given = (b"SECT", 1, 2, 3, 4, 0x50607080, 0x60708090, 0x708090A0, 0x8090A0B0)
    packed = spec.HEADER.pack(*given)
    for value, (offset, size, name, _) in zip(given, stream_fields.header(), strict=True):
        found = packed[offset : offset + size]
        assert found == value if name == "magic" else int.from_bytes(found, "little") == value
    crc = next(row for row in stream_fields.header() if row[2] == "CRC-32")
    assert crc[0] == spec.HEADER_CRC_OFFSET


def test_every_name_of_the_prose_is_in_the_tables() -> None:
    page = stream_fields.PAGE.read_text()
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", STREAM.read_text()))
    prefixes = ("", "FLAG_", "FLAG2_")
    assert {n for n in named if not any(f"`{prefix}{n}`" in page for prefix in prefixes)} == set()
    assert all(f"`{register.name}`" in page for register in spec.Reg)


@pytest.mark.parametrize(("call", "formula"), [row[:2] for row in stream_fields.LATENCIES])
def test_latency_formulas(call: str, formula: str) -> None:
    name, argument = re.fullmatch(r"(\w+)\((\w+)\)", call).groups()  # type: ignore[union-attr]
    for value in (1, 2, 3, 4, 7, 8, 16):
        assert getattr(spec, name)(value) == eval(formula, {argument: value})
