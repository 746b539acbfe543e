"""Damaged images: every error code, its priority, and fuzz that must be refused or bounded."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import Machine
from programs import Assembler, assemble, random_program, with_crc

from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Mode, Reg
from secateur.sim.golden import ImageError, parse, run

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
        (patched(4, 2), Error.VERSION),
        (patched(5, 8), Error.GEOMETRY),
        (patched(6, 4), Error.GEOMETRY),
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


def program_of(count: int = 8, **registers: int) -> bytes:
    """LOAD of 4 words and one result layer with these registers and one row."""
    assembler = Assembler(GEOMETRY, random.Random(0))
    assembler.configure(
        dict.fromkeys(Reg, 0) | {Reg.GX: registers.pop("LOAD", 4)}, spec.COMMON_LOAD
    )
    one = (Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST)
    layer = dict.fromkeys(one, 1) | {Reg.FLAGS: 1 << spec.FLAG_RESULT}
    layer |= {Reg[name]: value for name, value in registers.items()}
    assembler.configure(layer, spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 1)] * count, True)
    return assemble(GEOMETRY, assembler.words, cycles=100_000)


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
    ],
)
def test_registers_that_make_no_layer(registers: dict[str, int]) -> None:
    parse(program_of(), GEOMETRY)
    assert refused(program_of(**registers)) == Error.ROW


def test_tables_that_are_not_there() -> None:
    few = replace(GEOMETRY, tables=2)
    for table in range(8):
        image = program_of(FLAGS2=1 << spec.FLAG2_LOOKUP | table << spec.FLAG2_TABLE)
        parse(image, GEOMETRY)
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
    both = [*words]
    both[start] = words[start][:-1] + bytes([words[start][-1] | spec.COMMON_LOAD])
    assert ends(both) == Error.ROW


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


@settings(max_examples=400, deadline=None, derandomize=True)
@given(damage)
def test_damage_is_refused(how: tuple) -> None:
    image = harmed(IMAGE, *how)
    if image[: len(IMAGE)] != IMAGE:
        refused(image)


@settings(max_examples=400, deadline=None, derandomize=True)
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
    began = time.monotonic()
    code = None
    try:
        program = parse(with_crc(image), GEOMETRY)
        assert program.cycles <= program.limit
        inputs = np.zeros((1, program.input_words * GEOMETRY.n), np.uint8)
        run(program, inputs)
    except ImageError as error:
        code = error.code
    assert code in (None, Error.LENGTH, Error.ROW, Error.WATCHDOG)
    assert time.monotonic() - began < 5


def test_registers_live_on_between_inferences() -> None:
    # OUT_BASE is written only after the first layer, so that later inferences write elsewhere and
    # the second layer reads what the first inference has left
    assembler = Assembler(GEOMETRY, random.Random(0))
    assembler.file = [0] * spec.REGISTERS
    for register in (Reg.FLAGS, Reg.A_BASE, Reg.OUT_W):
        assembler.file[register] = None  # written although 0 after reset
    assembler.configure({Reg.GX: 4, Reg.OUT_W: 0, Reg.OUT_S: 4, Reg.OFF_PC: 1}, spec.COMMON_LOAD)
    one = (Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST)
    layer = dict.fromkeys(one, 1) | {Reg.OUT_W: 8, Reg.OUT_S: 100, Reg.CLIP: 0xFF00}
    assembler.configure(layer | {Reg.FLAGS: 0, Reg.A_BASE: 0}, spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 8, True)
    late = {Reg.OUT_BASE: 77, Reg.FLAGS: 1 << spec.FLAG_RESULT, Reg.A_BASE: 8 * GEOMETRY.n}
    assembler.configure(late, spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] + [([0] * 4, 0)] * 7, True)
    image = assemble(GEOMETRY, assembler.words, cycles=100_000)
    program, inputs = parse(image, GEOMETRY), np.repeat(np.uint8([[1], [2], [3]]), 16, axis=1)
    assert run(program, inputs).results[:, 0, 0].tolist() == [8, 16, 24]
    assert run(program, inputs, sequential=True).results[:, 0, 0].tolist() == [8, 8, 8]
    machine = Machine(image, GEOMETRY)
    naive = [machine.infer(data.tobytes())[0] for data in inputs]
    assert [layers[0][0][0] for layers in naive] == [0, 77, 77]
    assert [layers[1][0][1][0] for layers in naive] == [8, 8, 8]
