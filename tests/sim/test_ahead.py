"""Words of the next input while an inference runs: Verilator = golden, to the byte and the cycle.

``pytest -m long tests/sim/test_ahead.py`` runs more geometries.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from secateur.hw import spec
from secateur.hw.ring import Source
from secateur.hw.spec import Error, Geometry, Reg, Status
from secateur.sim.golden import ImageError, hazards, parse, run
from secateur.sim.program import Load
from secateur.sim.ring import waits
from secateur.sim.simulate import SimResult, compare, simulate
from tests.sim.ahead_programs import ahead_program, opened
from tests.support.long import quick
from tests.support.programs import UNLIMITED, Assembler, Sample, assemble, random_program

INFERENCES = 4


def made_for(n: int, p: int, s: int = 1, *, long: bool = False, ring: int = 0):
    geometry = Geometry(n=n, p=p, s=s, weight_words=4096, bank_words=256, ring=ring)
    return pytest.param(geometry, marks=[pytest.mark.long] if long else [], id=f"{n}x{p}x{s}")


GEOMETRIES = [
    made_for(4, 3, 2),
    made_for(2, 8),
    *(made_for(n, p, s, long=True) for n, p, s in ((8, 8, 8), (16, 3, 1), (2, 16, 4), (4, 5, 4))),
    *(made_for(n, p, long=True) for n, p in ((4, 1), (4, 2))),  # they take them with the LOAD
]


def check(sample: Sample, stalls: float = 0.0, **settings: int) -> SimResult:
    """The run on the engine, which is golden's."""
    program, inputs = parse(sample.image, sample.geometry), sample.inputs(INFERENCES)
    steps = settings.get("steps", 0)
    result = simulate(sample.image, inputs, sample.geometry, stalls=stalls, seed=3, **settings)
    golden = run(program, inputs, steps=steps or INFERENCES)
    assert compare(result, golden, inputs).mismatches == []
    assert (result.state, result.error) == (Status.WAITING, Error.NONE)
    if not stalls:
        assert result.cycles == [golden.cycles] * INFERENCES
    return result


def intervals(result: SimResult) -> list[int]:
    return [after - before for before, after in pairwise(result.ends)]


@pytest.mark.parametrize("seed", quick(range(6), (0, 1)))
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_random_programs(geometry: Geometry, seed: int) -> None:
    sample, _ = ahead_program(seed, geometry)
    program = parse(sample.image, geometry)
    assert intervals(check(sample)) == [program.interval] * (INFERENCES - 1)
    check(sample, stalls=0.4)
    check(sample, stalls=0.9)  # an input that comes late, and results that nobody takes


@pytest.mark.parametrize("geometry", GEOMETRIES[:2])
def test_restarts(geometry: Geometry) -> None:
    """What was taken ahead is forgotten: a sequence does not see the input of the one before."""
    for seed in range(2):
        sample, _ = ahead_program(seed, geometry)
        check(sample, steps=2)
        check(sample, stalls=0.4, steps=2)


def long_input(words: int, clear: int, *, opens: bool, p: int = 3) -> Sample:
    """One short layer that reads nothing of the input, before it one that clears."""
    geometry = Geometry(n=4, p=p, weight_words=256, bank_words=256)
    assembler = Assembler(geometry, random.Random(words))
    registers = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: 1, Reg.OUT_S: words, Reg.GX: words}
    assembler.configure(registers, spec.COMMON_LOAD)
    ones = (Reg.GY, Reg.GZ, Reg.PR, Reg.RLAST, Reg.GX)
    registers |= dict.fromkeys(ones, 1) | {Reg.PC: p, Reg.LANES: p, Reg.D_PC: 1, Reg.CLIP: 0xFF00}
    registers |= {Reg.A_BASE: 4 * 250, Reg.OUT_W: 255 - clear, Reg.OUT_S: clear}
    registers |= {Reg.FLAGS: 1 << spec.FLAG_CLEAR, Reg.CLAST: 1}
    assembler.configure(registers, spec.COMMON_AHEAD if opens else spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 8, True)
    assembler.configure(registers | {Reg.FLAGS: 1 << spec.FLAG_RESULT}, spec.COMMON_START)
    assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 9, True)
    image = assemble(geometry, assembler.words, cycles=UNLIMITED)
    return Sample(geometry, image, words, words)


@pytest.mark.parametrize("clear", [1, 2, 3, 40])
def test_words_that_come_too_late_come_with_the_load(clear: int) -> None:
    """Of inputs of 1 to 200 words in one geometry, some come as a whole and some in part."""
    saved = set()
    for words in (1, 2, 60, 61, 62, 200):
        sample = long_input(words, clear, opens=True)
        plain = parse(long_input(words, clear, opens=False).image, sample.geometry)
        program = parse(sample.image, sample.geometry)
        assert program.cycles == plain.cycles
        assert intervals(check(sample)) == [program.interval] * (INFERENCES - 1)
        saved.add(plain.interval - program.interval - sample.geometry.p - words)
    assert 0 in saved  # all words, and the wait for their offsets
    assert min(saved) < 0


def test_one_word_goes_to_its_bank_alone() -> None:
    """The offsets of the banks have hardly come when it has: those of the next one are the same."""
    p, geometry = 3, Geometry(n=4, p=3, weight_words=256, bank_words=256)
    assembler = Assembler(geometry, random.Random(0))
    registers = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: p, Reg.OFF_DC: 1, Reg.OUT_S: 1, Reg.GX: 1}
    assembler.configure(registers, spec.COMMON_LOAD)
    ones = (Reg.GX, Reg.GY, Reg.GZ, Reg.PR, Reg.RLAST, Reg.CLAST)
    registers |= dict.fromkeys(ones, 1) | {Reg.PC: p, Reg.LANES: p, Reg.D_PC: 1, Reg.CLIP: 0xFF00}
    for opens in (False, True):
        registers[Reg.FLAGS] = 1 << spec.FLAG_RESULT
        registers |= {Reg.FLAGS2: (not opens) << spec.FLAG2_MORE, Reg.A_BASE: 4 * 100 * opens}
        assembler.configure(registers, spec.COMMON_AHEAD if opens else spec.COMMON_START)
        assembler.row([0] * 4, [0] * 4, [([1] * 4, 0), *[([0] * 4, 0)] * 7], True)
    sample = Sample(geometry, assemble(geometry, assembler.words, cycles=UNLIMITED), 1, 5)
    assert sample.inputs(INFERENCES)[:, 0].any()
    check(sample)


def test_few_lanes_take_them_with_the_load() -> None:
    sample = long_input(20, 1, opens=True, p=2)
    plain = long_input(20, 1, opens=False, p=2)
    found, other = (parse(each.image, each.geometry).interval for each in (sample, plain))
    assert found == other
    assert intervals(check(sample)) == [found] * (INFERENCES - 1)


@pytest.mark.parametrize("seed", range(3))
def test_from_a_ring(seed: int) -> None:
    geometry = Geometry(n=4, p=3, s=2, weight_words=4096, bank_words=256)
    ring, source = replace(geometry, ring=256), Source(interval=1 + seed, latency=5)
    for tried in range(seed * 100, seed * 100 + 50):
        sample, _ = ahead_program(tried, geometry)
        program = parse(sample.image, ring)
        with contextlib.suppress(ValueError):  # part of the input comes with the LOAD
            predicted = waits(program, source, INFERENCES)
            break
    inputs = sample.inputs(INFERENCES)
    result = simulate(sample.image, inputs, ring, source=source)
    golden = run(program, inputs, sequential=True)
    assert compare(result, golden, inputs).mismatches == []
    assert result.cycles == [golden.cycles] * INFERENCES
    assert result.memory_waits == [sum(layers) for layers in predicted]


def test_waits_for_a_ring_are_not_known_if_words_come_late() -> None:
    sample = long_input(200, 1, opens=True)
    ring = replace(sample.geometry, ring=128)
    program = parse(sample.image, ring)
    with pytest.raises(ValueError, match="words of an input taken ahead come with its LOAD"):
        waits(program, Source(), 2)


def refused(image: bytes, geometry: Geometry) -> str:
    with pytest.raises(ImageError) as caught:
        parse(image, geometry)
    assert caught.value.code == Error.ROW
    return str(caught.value)


def test_programs_that_are_refused() -> None:
    geometry = GEOMETRIES[0].values[0]
    sample, index = ahead_program(0, geometry)
    program = parse(sample.image, geometry)
    other = next(k for k in range(len(program.layers)) if k != index)
    assert "from two layers on" in refused(opened(sample, other).image, geometry)
    for seed in range(100):
        sample = random_program(seed, geometry)
        loads = [x for x in parse(sample.image, geometry).first if isinstance(x, Load)]
        if len(loads) > 1:
            assert "of two LOADs" in refused(opened(sample, 0).image, geometry)
            break
    else:
        pytest.fail("no program has two LOADs")


def test_the_window_of_the_load_stays() -> None:
    """A LOAD that does not write OUT_W takes that of the last layer, but in the first inference."""
    geometry = Geometry(n=2, p=3, weight_words=256, bank_words=256)
    for stays in (True, False):
        assembler = Assembler(geometry, random.Random(0))
        load = {Reg.OUT_W: 0, Reg.OUT_S: 1, Reg.OFF_PC: 1, Reg.OFF_DC: 0, Reg.OFF_DR: 0, Reg.GX: 1}
        if not stays:
            del load[Reg.OUT_W]
        assembler.words += [
            value.to_bytes(2, "little") + bytes([reg]) for reg, value in sorted(load.items())
        ]
        assembler.words[-1] = assembler.words[-1][:-1] + bytes(
            [assembler.words[-1][-1] | spec.COMMON_LOAD]
        )
        ones = (Reg.GX, Reg.GY, Reg.GZ, Reg.PR, Reg.PC, Reg.LANES, Reg.CLAST, Reg.RLAST)
        layer = dict.fromkeys(ones, 1) | {Reg.FLAGS: 1 << spec.FLAG_RESULT, Reg.OUT_W: 9}
        layer |= {Reg.A_BASE: 100, Reg.OUT_S: 0}
        assembler.configure(layer, spec.COMMON_AHEAD)
        assembler.row([0, 0], [0, 0], [([1, 1], 0)] * 8, True)
        image = assemble(geometry, assembler.words, cycles=UNLIMITED)
        if stays:
            assert hazards(parse(image, geometry)) == []
        else:
            assert "the LOAD gets another window later" in refused(image, geometry)


def test_hazards_of_the_next_input() -> None:
    """A layer may neither read nor write nor clear where words of the next input go."""
    sample = long_input(8, 4, opens=True)
    assert hazards(parse(sample.image, sample.geometry)) == []
    for changes in ({Reg.A_BASE: 4 * 7}, {Reg.OUT_W: 255}, {Reg.OUT_W: 7}):
        geometry = sample.geometry
        assembler = Assembler(geometry, random.Random(1))
        registers = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: 1, Reg.OUT_S: 8, Reg.GX: 8}
        assembler.configure(registers, spec.COMMON_LOAD)
        ones = (Reg.GY, Reg.GZ, Reg.PR, Reg.PC, Reg.LANES, Reg.RLAST, Reg.GX, Reg.CLAST)
        registers |= dict.fromkeys(ones, 1)
        registers |= {Reg.A_BASE: 4 * 100, Reg.OUT_W: 200, Reg.OUT_S: 4} | changes
        assembler.configure(registers, spec.COMMON_AHEAD)
        assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 8, True)
        late = {Reg.FLAGS: 1 << spec.FLAG_RESULT, Reg.A_BASE: 4 * 100}
        assembler.configure(registers | late, spec.COMMON_START)
        assembler.row([0] * 4, [0] * 4, [([1] * 4, 0)] * 8, True)
        image = assemble(geometry, assembler.words, cycles=UNLIMITED)
        assert hazards(parse(image, geometry)) == [0]
