"""A layer begins while the one before drains: it reads what has landed last, as soon as it may."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from secateur.hw import spec
from secateur.hw.spec import Geometry, Mode, Reg, Status
from secateur.sim.golden import parse, run
from secateur.sim.simulate import compare, simulate
from tests.support.programs import Assembler, assemble

ONES = (Reg.GX, Reg.GY, Reg.GZ, Reg.PR, Reg.RLAST, Reg.OFF_PC)
SIGNED = 1 << spec.FLAG_A_SIGNED | 1 << spec.FLAG_OUT_SIGNED


def overlapping(n: int, p: int, s: int = 1, *, long: bool = False):
    geometry = Geometry(n=n, p=p, s=s, weight_words=4096, bank_words=128)
    return pytest.param(geometry, marks=[pytest.mark.long] if long else [], id=f"{n}x{p}x{s}")


def chain(geometry: Geometry, rng: random.Random, layers: int = 24) -> tuple[bytes, list[bool]]:
    """Layers of one group, whose first word reads the pixel that the layer before writes last.

    Returns the image, and which layers have filter lanes. Bounds, shifts, windows and the way of
    the lanes change from layer to layer.
    """
    n, p, s = geometry.n, geometry.p, geometry.s
    assembler, kinds, start, last = Assembler(geometry, rng), [], 0, p - 1
    registers = dict.fromkeys(Reg, 0) | dict.fromkeys(ONES, 1) | {Reg.OUT_S: p, Reg.D_PC: 1}
    assembler.configure(registers | {Reg.GX: p}, spec.COMMON_LOAD)
    for index in range(layers):
        filters, ends = s > 1 and rng.random() < 0.5, index == layers - 1
        lanes = s if filters else rng.choice([p, p, rng.randint(1, p)])
        low, high = rng.randint(-128, -60), rng.randint(60, 127)
        registers |= {Reg.A_BASE: (start + last) * n + rng.randrange(n)}
        registers[Reg.FLAGS] = Mode.BROADCAST | SIGNED | ends << spec.FLAG_RESULT
        registers[Reg.FLAGS2] = rng.randint(6, 7) | filters << spec.FLAG2_FILTERS
        registers |= {Reg.LANES: lanes, Reg.PC: lanes, Reg.CLAST: lanes if filters else 1}
        registers |= {Reg.CLIP: low & 0xFF | (high & 0xFF) << 8, Reg.OUT_BASE: rng.randint(0, 3)}
        start = (start + rng.randint(p, 2 * p)) % geometry.bank_words
        registers |= {Reg.OUT_W: start, Reg.OUT_S: registers[Reg.OUT_BASE] + lanes}
        assembler.configure(registers, spec.COMMON_START)
        last = registers[Reg.OUT_BASE] + lanes - 1
        while filters and (geometry.header_words + len(assembler.words)) % s:
            assembler.words.append(bytes(geometry.word_bytes))
        begin, rows = len(assembler.words), s if filters else 1
        count = spec.filter_row_words(s) if filters else spec.MIN_ROW_WORDS
        for _ in range(rows):
            first = [rng.randint(-128, 127) for _ in range(n)]
            bias, delta = ([rng.randint(*at) for _ in range(n)] for at in ((-99, 99), (0, 2)))
            body = [(first, 0), *[([0] * n, rng.randint(0, 9)) for _ in range(count - 1)]]
            assembler.row(bias, delta, body, True)
        words = assembler.words[begin:]
        assembler.words[begin:] = [
            words[row * (count + 2) + i] for i in range(count + 2) for row in range(rows)
        ]
        kinds.append(filters)
    return assemble(geometry, assembler.words, cycles=1 << 20), kinds


@pytest.mark.parametrize(
    "geometry",
    [
        overlapping(4, 3, 2),
        overlapping(2, 8, 8),
        *(overlapping(n, p, long=True) for n, p in ((4, 3), (8, 4), (16, 16))),
        *(overlapping(n, p, s, long=True) for n, p, s in ((8, 8, 8), (2, 5, 4), (2, 16, 8))),
    ],
)
def test_what_lands_last_is_read_first(geometry: Geometry) -> None:
    rng, found = random.Random(1), set[tuple[bool, ...]]()
    for seed in range(4):
        image, kinds = chain(geometry, rng)
        found |= {(one, other) for one, other in pairwise(kinds)}
        inputs = np.random.default_rng(seed).integers(
            0, 256, (2, geometry.p * geometry.n), dtype=np.uint8
        )
        golden = run(parse(image, geometry), inputs, sequential=True)
        result = simulate(image, inputs, geometry)
        assert compare(result, golden, inputs).mismatches == []
        assert result.state == Status.WAITING
        assert result.cycles == [golden.cycles] * 2
        assert len({layer.codes.tobytes() for layer in golden.layers}) == len(golden.layers)
    assert len(found) == (4 if geometry.s > 1 else 1)
