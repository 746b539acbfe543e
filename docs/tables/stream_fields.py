"""Tables of the fields of an image, from `hw/spec.py`.

`python -m docs.tables.stream_fields` writes `docs/reference/stream-fields.md`.
"""

from __future__ import annotations

import inspect
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from secateur.hw import spec
from secateur.hw.spec import Error, Mode, Reg, Status

PAGE = Path(__file__).resolve().parents[1] / "reference" / "stream-fields.md"

INTRODUCTION = """\
# Tables of fields

Generated from `hw/spec.py` by `python -m docs.tables.stream_fields`; do not edit.
[The stream](stream.md) describes what the fields do. All numbers are little-endian.
"""

#: (name, meaning) of the fields of `spec.HEADER`, in order.
HEADER = (
    ("magic", f"`{spec.MAGIC.decode()}`"),
    ("version", f"{spec.VERSION}"),
    ("N", "output-channel lanes of the engine"),
    ("P", "pixel lanes of the engine"),
    ("features", "least number of activation tables (bits 3:0), log2 of S (bits 7:4)"),
    ("words", "stream words of the image, header included"),
    ("bank_words", "least depth of a bank"),
    ("cycles", "of an inference; the limit of the watchdog"),
    ("CRC-32", "of all `words * (N + 1)` bytes, with this field taken as zero"),
)

#: (names, how their values are shown, meaning)
CONSTANTS = (
    (("COMMON_START", "COMMON_LOAD", "COMMON_AHEAD", "COMMON_REGISTER"), "0x{:02x}",
     "common byte of a configuration word: START, LOAD, a START from which on words of the next "
     "input are taken, and the index of its first register"),
    (("INDEX_TABLE", "INDEX_LOOP"), "0x{:02x}",
     "indices past the registers: entries of a table; the mark"),
    (("ROW_LAST",), "0x{:02x}", "in the common byte of header word B: last row of the layer"),
    (("ROW_COUNT_BITS",), "{}", "bits of the count of body words"),
    (
        ("ROW_TABLE_COUNT_BITS", "ROW_TABLE"),
        "{}",
        "where rows name their tables: bits of the count; lowest bit of the table's number in the "
        "common byte of header word B",
    ),
    (("MIN_ROW_WORDS",), "{}", "least number of body words of a row"),
    (("STEP_ROW", "STEP_SOURCE", "STEP_FIELD"), "0x{:02x}",
     "common byte of a body word: first kernel-row step, first step to source B, bits of the step"),
    (("ACC_BITS",), "{}", "bits of an accumulator"),
    (("BIAS_BITS", "BIAS_FRACTION"), "{}", "bits of a bias, and how many are of its fraction"),
    (("SHIFT_BASE_BITS", "SHIFT_DELTA_BITS"), "{}", "bits of SHIFT_BASE, and of delta"),
    (("WSHIFT",), "{}", "shift of the weights of a source with a WSHIFT flag"),
    (("MAP_WORDS",), "{:,}", "words of the largest map"),
    (("TABLE_ENTRIES", "MAX_TABLES"), "{}", "codes of a table; most tables of an engine"),
    (("ALLOWED_N", "MAX_P", "MAX_S"), "{}", "values of N; largest P; largest S"),
)  # fmt: skip

#: (call in `stream.md`, formula, meaning)
LATENCIES = (
    ("load_tail(P)", "P + 2", "last accepted input word to the next configuration word"),
    ("setup_cycles(P)", "4", "START, besides its own word"),
    ("front_cycles(P)", "P + 7 if P > 2 else 2 * P + 24",
     "last word of a layer to the next configuration word; with filter lanes 8 more, if P <= 2 4"),
    ("landing_cycles(P)", "max(P + 22, 2 * P + 13) if P > 2 else 2 * P + 24",
     "last word of a layer to the next header word; with filter lanes 4 more"),
    ("tail_cycles(P)", "2 * P + 24",
     "last word of a layer until all has been written; with filter lanes 4 more"),
    ("clear_cycles(OUT_S)", "OUT_S", "START with FLAG_CLEAR, further cycles"),
    ("table_cycles(N)", "N", "a word of a table, further cycles"),
)  # fmt: skip
LANES = (1, 2, 3, 4, 8, 16)  # the P of the table of latencies


def rows(head: tuple[str, ...], cells: Iterable[tuple[object, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, tuple("---" for _ in head), *cells]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def comments(prefix: str) -> dict[str, str]:
    """The comment of each name that begins with ``prefix`` and has a number in `spec`."""
    found = re.findall(
        rf"^ *({prefix}\w+) = \d+(?:  # (.+))?$", inspect.getsource(spec), re.MULTILINE
    )
    return {name: text.replace("**", "^") for name, text in found}


def flags(prefix: str) -> Iterable[tuple[str, str, str]]:
    """Bits, name and meaning of each flag: it reaches up to the next one."""
    texts = comments(prefix)
    names = list(texts)
    lows = [getattr(spec, name) for name in names]
    for name, low, after in zip(names, lows, [*lows[1:], lows[-1] + 1], strict=True):
        bits = str(low) if after == low + 1 else f"{after - 1}:{low}"
        yield bits, f"`{name}`", re.sub(r"^bits \d+:\d+,? ?", "", texts[name])


def header() -> Iterable[tuple[object, ...]]:
    """Offset, size, name and meaning of each field of the header."""
    offset = 0
    parts = re.findall(r"\d*[a-zA-Z]", spec.HEADER.format)
    for part, (name, text) in zip(parts, HEADER, strict=True):
        size = struct.calcsize(f"<{part}")
        yield offset, size, name, text
        offset += size


def registers() -> Iterable[tuple[object, ...]]:
    """Index, name and meaning of each configuration register."""
    texts = comments("")
    for register in Reg:
        yield f"0x{register:02x}", f"`{register.name}`", texts[register.name]


def constants() -> Iterable[tuple[str, str, str]]:
    """Names, values and meaning of each constant."""
    for names, form, text in CONSTANTS:
        values = ", ".join(form.format(getattr(spec, name)) for name in names)
        yield ", ".join(f"`{name}`" for name in names), values, text


def latencies() -> Iterable[tuple[object, ...]]:
    """Formula of each latency, and its values for some P where it depends on P alone."""
    for call, formula, text in LATENCIES:
        name = call.partition("(")[0]
        values = [getattr(spec, name)(p) if call.endswith("(P)") else "" for p in LANES]
        yield f"`{call}`", f"`{formula}`", *values, text


def page() -> str:
    """The page."""
    texts = comments("")
    enums = [
        rows(("value", "name", "meaning"), ((e.value, f"`{e.name}`", texts[e.name]) for e in kind))
        for kind in (Mode, Status, Error)
    ]
    sections = (
        ("Header of the image", rows(("offset", "bytes", "field", "meaning"), header())),
        ("Configuration registers", rows(("index", "register", "meaning"), registers())),
        ("FLAGS", rows(("bits", "name", "meaning"), flags("FLAG_"))),
        ("FLAGS2", rows(("bits", "name", "meaning"), flags("FLAG2_"))),
        ("Modes of a source", enums[0]),
        ("States of the engine", enums[1]),
        ("Errors", enums[2]),
        ("Constants", rows(("name", "value", "meaning"), constants())),
        (
            "Latencies, in cycles",
            rows(("name", "formula", *(f"P = {p}" for p in LANES), "from, to"), latencies()),
        ),
    )
    return INTRODUCTION + "".join(f"\n## {title}\n\n{table}" for title, table in sections)


if __name__ == "__main__":
    PAGE.write_text(page())
