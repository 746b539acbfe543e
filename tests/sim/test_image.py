"""Damaged images: every error code, its priority, and fuzz that must be refused or bounded."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Mode, Reg
from secateur.sim.golden import ImageError, parse, run
from tests.sim.naive import Machine
from tests.support.programs import Assembler, assemble, random_program, with_crc

GEOMETRY = Geometry(n=4, p=3, weight_words=1024, bank_words=128)
SAMPLE = random_program(3, GEOMETRY)
IMAGE = SAMPLE.image
# magic at 0, version 4, N 5, P 6, words 8, bank_words 12, cycles 16, CRC 20
WORDS, BANK, CYCLES = 8, 12, 16


def refused(image: bytes, geometry: Geometry = GEOMETRY) -> Error:
    with pytest.raises(ImageError) as caught:
        parse(image, geometry)
    assert caught.value.code.name in str(caught.value)
    return caught.value.code


def patched(at: int, value: int, size: int = 1, image: bytes = IMAGE) -> bytes:
    return with_crc(image[:at] + value.to_bytes(size, "little") + image[at + size :])


def field(at: int, image: bytes = IMAGE) -> int:
    return int.from_bytes(image[at : at + 4], "little")


def test_a_good_image_is_taken_with_and_without_metadata() -> None:
    plain, long = parse(IMAGE, GEOMETRY), parse(IMAGE + b'{"x": 1}', GEOMETRY)
    assert plain.cycles == long.cycles == plain.limit
    inputs = SAMPLE.inputs(2)
    assert np.array_equal(run(plain, inputs).results, run(long, inputs).results)


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", Error.MAGIC),
        (IMAGE[:3], Error.MAGIC),
        (patched(0, ord("s")), Error.MAGIC),
        (IMAGE[:4], Error.LENGTH),
        (IMAGE[: spec.HEADER.size - 1], Error.LENGTH),
        (patched(4, 1), Error.VERSION),
        (patched(5, 8), Error.GEOMETRY),
        (patched(6, 4), Error.GEOMETRY),
        (patched(7, 0x10), Error.GEOMETRY),
        (patched(WORDS, 1025, 4), Error.LENGTH),
        (patched(WORDS, GEOMETRY.header_words - 1, 4), Error.LENGTH),
        (patched(WORDS, 0, 4), Error.LENGTH),
        (patched(WORDS, (1 << 32) - 1, 4), Error.LENGTH),
        (IMAGE[:-1], Error.LENGTH),
        (patched(BANK, 129, 4), Error.BANK),
        (IMAGE[:20] + bytes([IMAGE[20] ^ 1]) + IMAGE[21:], Error.CRC),
        (IMAGE[:-1] + bytes([IMAGE[-1] ^ 0x80]), Error.CRC),
        (IMAGE[:7] + b"\x01" + IMAGE[8:], Error.CRC),
        (patched(CYCLES, field(CYCLES) - 1, 4), Error.WATCHDOG),
    ],
)
def test_every_header_error(image: bytes, code: Error) -> None:
    assert refused(image) == code


def test_the_first_error_in_the_order_of_the_header_is_reported() -> None:
    # all wrong at once (with a wrong CRC too), then mended one after the other
    image, seen = bytearray(IMAGE), []
    wrong = {0: 0, 4: 9, 5: 2, WORDS: 0, BANK: 0xFF, 20: IMAGE[20] ^ 0xFF}
    for at, value in wrong.items():
        image[at] = value
    image[WORDS : WORDS + 4] = bytes(4)
    for at in wrong:
        seen.append(refused(bytes(image)))
        image[at : at + 4] = (
            IMAGE[at : at + 4]
            if at in (WORDS, BANK, 20)
            else IMAGE[at : at + 1] + image[at + 1 : at + 4]
        )
    assert seen == [Error.MAGIC, Error.VERSION, Error.GEOMETRY, Error.LENGTH, Error.BANK, Error.CRC]
    parse(bytes(image), GEOMETRY)


def program_of(count: int = 8, entries: int = 0, rows: int = 1, **registers: int) -> bytes:
    """``entries`` of tables, LOAD of 4 words, a result layer with these registers and rows."""
    assembler = Assembler(GEOMETRY, random.Random(0))
    assembler.tables(entries)
    if entries:
        assembler.loop()
    assembler.configure(
        dict.fromkeys(Reg, 0) | {Reg.GX: registers.pop("LOAD", 4)}, spec.COMMON_LOAD
    )
    one = (Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST)
    layer = dict.fromkeys(one, 1) | {Reg.FLAGS: 1 << spec.FLAG_RESULT}
    layer |= {Reg[name]: value for name, value in registers.items()}
    assembler.configure(layer, spec.COMMON_START)
    for row in range(rows):
        assembler.row([0] * 4, [0] * 4, [([1] * 4, 1)] * count, row == rows - 1)
    return assemble(GEOMETRY, assembler.words, cycles=(1 << 32) - 1)


@pytest.mark.parametrize("count", range(8))
def test_short_rows(count: int) -> None:
    assert refused(program_of(count)) == Error.ROW


@pytest.mark.parametrize(
    "registers",
    [
        *({name: 0} for name in ("LOAD", "GX", "GY", "GZ", "LANES", "PC", "PR")),
        {"LANES": 2},  # tiles of one lane
        {"LANES": 4, "PC": 4},  # of three
        {"GY": 2, "FLAGS": 1 << spec.FLAG_RESULT | 1 << spec.FLAG_LINEAR},
        {"FLAGS": 1 << spec.FLAG_RESULT | Mode.GATE << spec.FLAG_B_MODE},
        {"FLAGS": 0, "OUT_S": 1},  # OFF_PC is 0
        {"FLAGS": 1 << spec.FLAG_RESULT | Mode.MAXIMUM << spec.FLAG_B_MODE},
        {"FLAGS": 1 << spec.FLAG_RESULT | Mode.MAXIMUM << spec.FLAG_B_MODE | Mode.LANEWISE},
        {"FLAGS": 1 << spec.FLAG_RESULT | Mode.MAXIMUM << spec.FLAG_B_MODE | Mode.GATE},
        # no result
        {"CLAST": 0},
        {"RLAST": 0},
        {"CLAST": 0, "FLAGS": 1 << spec.FLAG_RESULT | 1 << spec.FLAG_LINEAR},
        # more groups or pixels than a map has words
        {"GX": 0xFFFF, "GY": 4000, "CLAST": 0xFFFF, "RLAST": 0xFFFF},
        {"GX": 0xFFFF, "GY": 4000},
        {"GX": 0x8000, "CLAST": 0x8000, "rows": 3},
    ],
)
def test_registers_that_make_no_layer(registers: dict[str, int]) -> None:
    parse(program_of(), GEOMETRY)
    parse(program_of(GX=0x8000, CLAST=0x8000, rows=2), GEOMETRY)
    assert refused(program_of(**registers)) == Error.ROW


def test_tables_that_are_not_there() -> None:
    few = replace(GEOMETRY, tables=2)
    for table in range(8):
        flags2 = 1 << spec.FLAG2_LOOKUP | table << spec.FLAG2_TABLE
        image = program_of(entries=(table + 1) * 256, FLAGS2=flags2)
        parse(image, GEOMETRY)
        assert refused(program_of(entries=(table + 1) * 256 - 4, FLAGS2=flags2)) == Error.ROW
        if table < few.tables:
            parse(image, few)
        else:
            assert refused(image, few) == Error.ROW
    header = bytearray(program_of())
    header[7] = 3
    assert refused(with_crc(bytes(header)), few) == Error.GEOMETRY


def test_a_gate_comes_before_what_it_multiplies() -> None:
    gates = 1 << spec.FLAG_RESULT | Mode.GATE | Mode.LANEWISE << spec.FLAG_B_MODE
    for first, code in ((0, Error.NONE), (spec.STEP_SOURCE, Error.ROW)):
        image = bytearray(program_of(FLAGS=gates))
        image[-8 * GEOMETRY.word_bytes + GEOMETRY.n] = first
        if code == Error.NONE:
            parse(with_crc(bytes(image)), GEOMETRY)
        else:
            assert refused(with_crc(bytes(image))) == code


def test_programs_with_a_wrong_end() -> None:
    image, size = program_of(), GEOMETRY.word_bytes
    words = [image[i : i + size] for i in range(0, len(image), size)][GEOMETRY.header_words :]
    start = next(i for i, word in enumerate(words) if word[-1] & spec.COMMON_START)

    def ends(program: list[bytes]) -> Error:
        return refused(assemble(GEOMETRY, program, cycles=100_000))

    assert ends([]) == Error.LENGTH
    for cut in range(1, len(words)):
        assert ends(words[:cut]) == Error.LENGTH
    assert ends([*words, bytes(size)]) == Error.LENGTH
    assert ends(words * 2) == Error.LENGTH
    open_row = [*words]
    open_row[start + 2] = words[start + 2][:-1] + b"\x00"  # no ROW_LAST
    assert ends(open_row) == Error.LENGTH
    parse(assemble(GEOMETRY, open_row + words[start + 1 :], cycles=100_000), GEOMETRY)


LAYER = (Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST, Reg.OFF_PC)


def code_of(order: str, **late: int) -> Error:
    """Of a program of these parts: L LOAD, M mark, l layer, R result layer, T entries of a table,
    G the GX of a LOAD, which then does not write it, S register TABLE.

    Registers ``late`` are written for the result layer only.
    """
    assembler = Assembler(GEOMETRY, random.Random(0))
    assembler.file = [0] * spec.REGISTERS
    assembler.file[Reg.FLAGS] = assembler.file[Reg.OUT_W] = None  # written although 0
    for part in order:
        flags = {Reg.FLAGS: (part == "R") << spec.FLAG_RESULT, Reg.OUT_W: 8 * (part != "L")}
        if part == "L":
            registers = {Reg.GX: 4, Reg.OUT_S: 4, Reg.OFF_PC: 1} | flags
        else:
            registers = dict.fromkeys(LAYER, 1) | {Reg.OUT_S: 100, Reg.CLIP: 0xFF00} | flags
        if part == "M":
            assembler.loop()
        elif part in "GS":
            assembler.configure({Reg.GX: 4} if part == "G" else {Reg.TABLE: 8}, 0)
        elif part == "T":
            assembler.tables(spec.TABLE_ENTRIES)
        else:
            if part == "R":
                registers |= {Reg[name]: value for name, value in late.items()}
            command = spec.COMMON_LOAD if part == "L" else spec.COMMON_START
            assembler.configure(registers, command)
        if part in "lR":
            assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 8, True)
    image = assemble(GEOMETRY, assembler.words, cycles=100_000)
    try:
        parse(image, GEOMETRY)
    except ImageError as error:
        return error.code
    return Error.NONE


@pytest.mark.parametrize("order", ["LR", "LlR", "MLR", "MMLlR", "LLlR", "TMLR", "TMLlSTlSTR"])
def test_programs_as_the_grammar_has_them(order: str) -> None:
    assert code_of(order) == Error.NONE


@pytest.mark.parametrize(
    "order",
    [
        "R", "lR",  # no LOAD
        "lLR", "LlLR", "LlLlR",  # a LOAD behind a layer
        "LMR", "LlMR", "LMlR", "MLMR", "LlMLR",  # a mark behind a LOAD
        "TLR", "LlTR", "TMLTR",  # entries that go on and on
        "TSTLR", "LTlSTR",  # entries that the first inference puts elsewhere
    ],
)  # fmt: skip
def test_programs_that_the_grammar_does_not_have(order: str) -> None:
    assert code_of(order) == Error.ROW


def test_a_mark_that_is_a_command() -> None:
    image = program_of()
    for command in (spec.COMMON_LOAD, spec.COMMON_START):
        words = bytearray(image)
        size = GEOMETRY.word_bytes
        at = next(
            i
            for i in range(GEOMETRY.header_words * size + size - 1, len(words), size)
            if words[i] & command
        )
        words[at] = command | spec.INDEX_LOOP
        assert refused(with_crc(bytes(words))) == Error.ROW


def test_later_inferences_are_fed_and_read_as_the_first() -> None:
    assert code_of("LlR", FLAGS2=5) == Error.NONE
    assert code_of("LlR", D_PC=5) == Error.NONE  # one pixel: never used
    assert code_of("LlR", OUT_BASE=5) == Error.ROW
    assert code_of("GLR") == Error.NONE
    assert code_of("GMLR") == Error.ROW  # later LOADs take the layer's GX


damage = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 8 * len(IMAGE) - 1)),
    st.tuples(st.just("cut"), st.integers(0, len(IMAGE) - 1)),
    st.tuples(st.just("repeat"), st.integers(0, len(IMAGE) - 1), st.integers(1, 64)),
    st.tuples(st.just("drop"), st.integers(0, len(IMAGE) - 1), st.integers(1, 64)),
    st.tuples(st.just("swap"), st.integers(0, len(IMAGE) - 1), st.integers(0, len(IMAGE) - 1)),
)


def harmed(image: bytes, kind: str, at: int, other: int = 0) -> bytes:
    data = bytearray(image)
    if kind == "flip" and at // 8 < len(data):
        data[at // 8] ^= 1 << at % 8
    elif kind == "cut":
        del data[at:]
    elif kind == "repeat":
        data[at:at] = data[at : at + other]
    elif kind == "drop":
        del data[at : at + other]
    elif kind == "swap" and max(at, other) < len(data):
        data[at], data[other] = data[other], data[at]
    return bytes(data)


@settings(max_examples=400, derandomize=True)
@given(damage)
def test_damage_is_refused(how: tuple) -> None:
    image = harmed(IMAGE, *how)
    if image[: len(IMAGE)] != IMAGE:
        refused(image)


@settings(max_examples=400, derandomize=True)
@given(st.lists(damage, min_size=1, max_size=4))
def test_damage_under_a_right_crc_neither_hangs_nor_escapes(hows: list[tuple]) -> None:
    image = IMAGE
    for kind, *where in hows:
        image = harmed(image, kind, *where)
    # the header stays but for the length: the cycle limit bounds the work
    size = GEOMETRY.word_bytes
    body = image[spec.HEADER.size :]
    words = (spec.HEADER.size + len(body)) // size
    image = patched(WORDS, words, 4, IMAGE[: spec.HEADER.size] + body)[: words * size]
    code = None
    try:
        program = parse(with_crc(image), GEOMETRY)
        assert program.cycles <= program.limit
        inputs = np.zeros((1, program.input_words * GEOMETRY.n), np.uint8)
        written = sum(layer.codes.size for layer in run(program, inputs).layers)
        assert written <= program.limit * GEOMETRY.n * GEOMETRY.p
    except ImageError as error:
        code = error.code
    assert code in (None, Error.LENGTH, Error.ROW, Error.WATCHDOG)


def test_registers_live_on_between_inferences() -> None:
    # the shift is written only after the first layer, so that it is 0 in the first inference alone
    assembler = Assembler(GEOMETRY, random.Random(0))
    assembler.file = [0] * spec.REGISTERS
    for register in (Reg.FLAGS, Reg.A_BASE, Reg.OUT_W):
        assembler.file[register] = None  # written although 0 after reset
    assembler.configure({Reg.GX: 4, Reg.OUT_W: 0, Reg.OUT_S: 4, Reg.OFF_PC: 1}, spec.COMMON_LOAD)
    one = (Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST)
    layer = dict.fromkeys(one, 1) | {Reg.OUT_W: 8, Reg.OUT_S: 100, Reg.CLIP: 0xFF00}
    assembler.configure(layer | {Reg.FLAGS: 0, Reg.A_BASE: 0}, spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 8, True)
    late = {Reg.FLAGS2: 1, Reg.FLAGS: 1 << spec.FLAG_RESULT, Reg.A_BASE: 8 * GEOMETRY.n}
    assembler.configure(late, spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] + [([0] * 4, 0)] * 7, True)
    image = assemble(GEOMETRY, assembler.words, cycles=100_000)
    program, inputs = parse(image, GEOMETRY), np.repeat(np.uint8([[1], [2], [3]]), 16, axis=1)
    assert run(program, inputs).results[:, 0, 0].tolist() == [4, 8, 12]
    assert run(program, inputs, sequential=True).results[:, 0, 0].tolist() == [4, 4, 6]
    machine = Machine(image, GEOMETRY)
    naive = [machine.infer(data.tobytes())[0] for data in inputs]
    assert [layers[0][0][1][0] for layers in naive] == [8, 8, 12]
    assert [layers[1][0][1][0] for layers in naive] == [4, 4, 6]
