"""Rows that name tables: a short row is followed by one of another, with all kinds of lanes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Reg, Status
from secateur.hw.verilog import to_verilog
from secateur.sim.golden import ImageError, parse, run
from secateur.sim.simulate import compare, simulate
from tests.sim.naive import Machine
from tests.support.programs import Assembler, Sample, assemble

TABLES = 3
ONES = (Reg.GY, Reg.GZ, Reg.PR, Reg.RLAST, Reg.OFF_PC, Reg.D_GX)


def geometry(n: int, p: int, s: int = 1, *, words: int = 4096, long: bool = False):
    sizes = Geometry(n=n, p=p, s=s, weight_words=words, bank_words=128)
    return pytest.param(sizes, marks=[pytest.mark.long] if long else [], id=f"{n}x{p}x{s}")


def program(sizes: Geometry, seed: int) -> Sample:
    """Tables; then layers that read the input, with pixel lanes and filter lanes in turn.

    The input lies in the first half of the banks; what layers write, in the second.
    """
    rng, n, p = random.Random(seed), sizes.n, sizes.p
    assembler = Assembler(sizes, rng)
    assembler.tables(TABLES * spec.TABLE_ENTRIES)
    assembler.loop()
    assembler.configure({Reg.TABLE: 0}, 0)
    registers = dict.fromkeys(Reg, 0) | dict.fromkeys(ONES, 1) | {Reg.OUT_S: 64, Reg.D_PC: 1}
    assembler.configure(registers | {Reg.GX: 64}, spec.COMMON_LOAD)
    for index in range(4):
        side = sizes.s if index % 2 else 1
        lanes = side if side > 1 else p
        flags = 1 << spec.FLAG_A_SIGNED | (index == 3) << spec.FLAG_RESULT
        flags2 = 1 << spec.FLAG2_LOOKUP | 1 << spec.FLAG2_TABLES | 7
        flags2 |= (side > 1) << spec.FLAG2_FILTERS | rng.randrange(8) << spec.FLAG2_TABLE
        registers |= {Reg.FLAGS: flags, Reg.FLAGS2: flags2, Reg.CLIP: 0xFF00, Reg.A_SX: 1}
        registers |= {Reg.LANES: lanes, Reg.PC: lanes, Reg.GX: rng.randint(1, 2)}
        registers |= {Reg.CLAST: rng.randint(1, lanes) if side > 1 else 9, Reg.OUT_W: 64}
        # The word before the first row says that rows name tables, and the row's table is not 0.
        assembler.configure(registers | {Reg.FLAGS2: 0}, 0)
        assembler.configure({Reg.FLAGS2: flags2}, spec.COMMON_START)
        while (sizes.header_words + len(assembler.words)) % side:
            assembler.words.append(bytes(sizes.word_bytes))
        groups = rng.randint(2, 5)
        for group in range(groups):
            begin = len(assembler.words)
            count = rng.choice([spec.filter_row_words(side), 20])
            for _ in range(side):
                body = [([rng.randint(-9, 9) for _ in range(n)], 1) for _ in range(count)]
                bias, delta = ([rng.randint(0, 7) for _ in range(n)] for _ in range(2))
                assembler.row(bias, delta, body, group == groups - 1, TABLES)
            words = assembler.words[begin:]
            assembler.words[begin:] = [
                words[row * (count + 2) + i] for i in range(count + 2) for row in range(side)
            ]
    limit = parse(assemble(sizes, assembler.words, cycles=1 << 20), sizes).cycles
    return Sample(sizes, assemble(sizes, assembler.words, cycles=limit), 64, seed)


def check(sample: Sample, verilog: str | None, stalls: float) -> None:
    inputs = sample.inputs(2)
    parsed = parse(sample.image, sample.geometry)
    named = [{row.table.tobytes() for row in layer.rows} for layer in parsed.layers]
    assert max(map(len, named)) == TABLES
    golden = run(parsed, inputs, sequential=True)
    result = simulate(
        sample.image, inputs, sample.geometry, verilog=verilog, stalls=stalls, seed=sample.seed
    )
    assert compare(result, golden, inputs).mismatches == []
    assert result.state == Status.WAITING
    if not stalls:
        assert result.cycles == [golden.cycles] * 2


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    # An address of more than 12 bits sees a table in the count of a row.
    "sizes",
    [geometry(4, 3, 2, words=8192), geometry(2, 8, 8), geometry(8, 4, words=8192, long=True)],
)
def test_the_engine(sizes: Geometry, seed: int, stalls: float) -> None:
    check(program(sizes, seed), None, stalls)


@pytest.mark.parametrize("sizes", [geometry(4, 2), geometry(8, 1, long=True)])
def test_the_compact_engine(sizes: Geometry) -> None:
    check(program(sizes, 0), str(to_verilog(sizes, compact=True)), 0.0)


@pytest.mark.parametrize("sizes", [geometry(4, 3, 2), geometry(2, 8, 8), geometry(2, 1)])
def test_the_naive_reading(sizes: Geometry) -> None:
    for seed in range(8):
        sample = program(sizes, seed)
        inputs, machine = sample.inputs(2), Machine(sample.image, sizes)
        golden = run(parse(sample.image, sizes), inputs, sequential=True)
        for i, each in enumerate(inputs):
            layers, _, cycles = machine.infer(each.tobytes())
            assert cycles == golden.cycles
            for trace, pixels in zip(golden.layers, layers, strict=True):
                found = np.array([codes for _, codes in pixels], np.uint8)
                assert np.array_equal(found, trace.codes[i])


def test_an_engine_without_tables_has_no_rows_that_name_them() -> None:
    sizes = Geometry(n=2, p=1, weight_words=4096, bank_words=128)
    sample = program(sizes, 0)
    words = [sample.image[i : i + 3] for i in range(0, len(sample.image), 3)]
    del words[: sizes.header_words + TABLES * spec.TABLE_ENTRIES // 2 + 1]
    bare = Geometry(n=2, p=1, weight_words=4096, bank_words=128, tables=0)
    with pytest.raises(ImageError, match="rows name tables, the engine has none") as caught:
        parse(assemble(bare, words, cycles=1 << 20), bare)
    assert caught.value.code == Error.ROW
