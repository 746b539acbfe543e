"""The engine's Verilog in Verilator against the golden interpreter: bytes, order, cycles, errors.

Few geometries, since a build takes a while; they are cached (``secateur.sim.verilator``).
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from secateur.hw import spec
from secateur.hw.spec import Error, Geometry, Reg, Status
from secateur.sim.golden import ImageError, parse, run
from secateur.sim.simulate import SimResult, compare, simulate
from tests.sim.filter_programs import FilterMaker
from tests.support.long import quick
from tests.support.programs import (
    Assembler,
    Sample,
    assemble,
    random_program,
    refilled_at_once,
    with_crc,
)

GEOMETRIES = [
    Geometry(n=4, p=3, weight_words=1024, bank_words=128),
    Geometry(n=8, p=4, weight_words=512, bank_words=64),
    Geometry(n=2, p=1, weight_words=8192, bank_words=256),
]
SMALL = GEOMETRIES[0]
SEEDS = range(100, 108)


def check(sample: Sample, result: SimResult, inputs: np.ndarray, *, exact: bool) -> None:
    """No mismatch in any layer; with ``exact`` the cycles are golden's, too."""
    golden = run(parse(sample.image, sample.geometry), inputs, sequential=True)
    comparison = compare(result, golden, inputs)
    assert comparison.mismatches == []
    assert comparison.layers_compared == len(inputs) * len(golden.layers)
    assert result.state == Status.WAITING
    if exact:
        assert result.cycles == [golden.cycles] * len(inputs)


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("seed", quick(SEEDS, SEEDS[:3]))
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"{g.n}x{g.p}")
def test_random_programs(geometry: Geometry, seed: int, stalls: float) -> None:
    sample = random_program(seed, geometry)
    inputs = sample.inputs(3)
    result = simulate(sample.image, inputs, geometry, stalls=stalls, seed=seed)
    check(sample, result, inputs, exact=not stalls)


def with_filters(n: int, p: int, s: int, *, long: bool = False):
    geometry = Geometry(n=n, p=p, s=s, weight_words=4096, bank_words=128)
    return pytest.param(geometry, marks=[pytest.mark.long] if long else [], id=f"{n}x{p}x{s}")


FILTERS = [
    with_filters(4, 3, 2),
    with_filters(2, 8, 8),
    *(
        with_filters(n, p, s, long=True)
        for n, p in ((2, 2), (2, 5), (4, 8), (8, 8), (8, 5), (16, 3), (2, 16))
        for s in (2, 4, 8)
        if s <= p
    ),
]


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("seed", quick(SEEDS, SEEDS[:3]))
@pytest.mark.parametrize("geometry", FILTERS)
def test_random_programs_with_filter_lanes(geometry: Geometry, seed: int, stalls: float) -> None:
    sample = random_program(seed, geometry, several=seed % 3 == 0, maker=FilterMaker)
    inputs = sample.inputs(3)
    result = simulate(sample.image, inputs, geometry, stalls=stalls, seed=seed)
    check(sample, result, inputs, exact=not stalls)


def test_an_image_of_other_filter_lanes_is_refused() -> None:
    sample = random_program(104, SMALL)
    assert parse(sample.image, SMALL).geometry.s == 1
    image = bytearray(sample.image)
    image[7] |= 2 << 4
    inputs = sample.inputs(1)
    result = simulate(with_crc(bytes(image)), inputs, SMALL)
    assert (result.state, result.error) == (Status.ERROR, Error.GEOMETRY)


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("seed", quick(SEEDS[:5], SEEDS[:2]))
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"{g.n}x{g.p}")
def test_layers_with_results_before_the_last(geometry: Geometry, seed: int, stalls: float) -> None:
    sample = random_program(seed, geometry, several=True)
    inputs = sample.inputs(3)
    result = simulate(sample.image, inputs, geometry, stalls=stalls, seed=seed)
    check(sample, result, inputs, exact=not stalls)


@pytest.mark.parametrize("seed", [191, 246])
def test_tables_without_a_mark_take_no_time_of_any_inference(seed: int) -> None:
    """Tables longer than the watchdog's limit, filled again before every inference."""
    sample = random_program(seed, SMALL)
    program = parse(sample.image, SMALL)
    inputs = sample.inputs(3)
    tables = sum(word[-1] == spec.INDEX_TABLE for word in program.words)
    assert tables * spec.table_cycles(SMALL.n) > program.limit
    assert spec.INDEX_LOOP not in program.words[:, -1]
    check(sample, simulate(sample.image, inputs, SMALL), inputs, exact=True)


@pytest.mark.parametrize("stalls", [0.0, 0.4])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: f"{g.n}x{g.p}")
def test_a_table_is_filled_anew_behind_its_last_pixel(geometry: Geometry, stalls: float) -> None:
    sample = refilled_at_once(geometry)
    inputs = sample.inputs(3)
    result = simulate(sample.image, inputs, geometry, stalls=stalls)
    check(sample, result, inputs, exact=not stalls)
    tables = {
        row.table.tobytes() for layer in parse(sample.image, geometry).layers for row in layer.rows
    }
    assert len(tables) == 4


@pytest.mark.parametrize("seed", SEEDS[:4])
@pytest.mark.parametrize("stalls", [0.0, 0.4])
def test_sequences(seed: int, stalls: float) -> None:
    """After a restart the engine knows nothing of what was before."""
    sample = random_program(seed, SMALL)
    inputs = sample.inputs(4)
    result = simulate(sample.image, inputs, SMALL, stalls=stalls, seed=seed, steps=2)
    program = parse(sample.image, SMALL)
    for half in (0, 1):
        golden = run(program, inputs[2 * half : 2 * half + 2], sequential=True)
        beats = golden.results.shape[1]
        got = result.results[2 * half * beats :][: 2 * beats]
        assert np.array_equal(got, golden.results.reshape(-1, SMALL.n))
    assert result.state == Status.WAITING
    assert len(result.cycles) == 4


@pytest.mark.parametrize("layers", [255, 256, 257, 513])
def test_many_layers(layers: int) -> None:
    """The trace counts layers modulo 256, and 0 is the input."""
    geometry = GEOMETRIES[2]
    assembler = Assembler(geometry, random.Random(0))
    registers = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: 1, Reg.OUT_S: 8}
    assembler.configure(registers | {Reg.GX: 8}, spec.COMMON_LOAD)
    ones = (Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST)
    registers |= dict.fromkeys(ones, 1) | {Reg.CLIP: 0xFF00}
    for index in range(layers):
        last = index == layers - 1
        changes = {Reg.OUT_W: 8 + index % 8, Reg.FLAGS: last << spec.FLAG_RESULT}
        assembler.configure(registers | changes, spec.COMMON_START)
        assembler.row([8 * (index % 32)] * 2, [0, 0], [([0, 0], 0)] * 8, True)
    image = assemble(geometry, assembler.words, cycles=1 << 20)
    inputs = np.arange(32, dtype=np.uint8).reshape(2, 16)
    golden = run(parse(image, geometry), inputs, sequential=True)
    result = simulate(image, inputs, geometry)
    comparison = compare(result, golden, inputs)
    assert comparison.mismatches == []
    assert comparison.layers_compared == 2 * layers
    assert [bytes(beat) for beat in result.results] == [bytes([(layers - 1) % 32] * 2)] * 2
    # a pixel that is not there is missed
    at = next(i for i, beat in enumerate(result.trace[0]) if beat.layer == 250)
    del result.trace[0][at]
    assert len(compare(result, golden, inputs).mismatches) == 1


def test_stalls_do_stall() -> None:
    sample = random_program(100, SMALL)
    inputs = sample.inputs(1)
    totals = [simulate(sample.image, inputs, SMALL, stalls=s).total for s in (0.0, 0.4)]
    assert totals[1] > totals[0] + 0.3 * len(sample.image)
    other = simulate(sample.image, inputs, SMALL, stalls=0.4, seed=1)
    assert other.total != totals[1]


def test_an_image_in_rom() -> None:
    sample = random_program(107, SMALL)  # fills tables between layers
    inputs = sample.inputs(3)
    result = simulate(sample.image, inputs, SMALL, rom=True)
    check(sample, result, inputs, exact=True)
    assert (result.status[0].now, result.status[0].state) == (0, Status.CHECKING)


def test_metadata_is_not_sent() -> None:
    sample = random_program(100, SMALL)
    inputs = sample.inputs(1)
    result = simulate(sample.image + b'{"name": 1}', inputs, SMALL)
    check(sample, result, inputs, exact=True)


def test_the_comparison_can_fail() -> None:
    # one weight differs between the engine's image and golden's, in a place where it matters
    sample = random_program(100, SMALL)
    program, inputs = parse(sample.image, SMALL), sample.inputs(2)
    right = run(program, inputs, sequential=True)
    result = simulate(sample.image, inputs, SMALL)
    noticed = 0
    for row in (row for layer in program.layers for row in layer.rows):
        data = bytearray(sample.image)
        for lane in range(SMALL.n):
            data[(row.start + 2) * SMALL.word_bytes + lane] ^= 0x7F
        wrong = run(parse(with_crc(bytes(data)), SMALL), inputs, sequential=True)
        pairs = zip(wrong.layers, right.layers, strict=True)
        differ = any(not np.array_equal(one.codes, other.codes) for one, other in pairs)
        assert bool(compare(result, wrong, inputs).mismatches) == differ
        noticed += differ
    assert noticed


def refused(image: bytes, *, limit: int = 60_000) -> SimResult:
    return simulate(image, np.zeros((1, 4 * SMALL.n), np.uint8), SMALL, limit=limit)


def code_of(image: bytes) -> Error:
    try:
        parse(image, SMALL)
    except ImageError as error:
        return error.code
    return Error.NONE


IMAGE = random_program(101, SMALL).image


@pytest.mark.parametrize("seed", range(24))
def test_damaged_images_are_refused_with_golden_s_code(seed: int) -> None:
    rng, data = random.Random(seed), bytearray(IMAGE)
    # two thirds of the damage in the header, at most three bits
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randrange(spec.HEADER.size if seed % 3 else len(data))
        data[at] ^= 1 << rng.randrange(8)
    expected = code_of(bytes(data))
    # what golden calls a cut, the engine still waits for: send on
    result = refused(bytes(data) + bytes(SMALL.weight_words * SMALL.word_bytes - len(data)))
    words = int.from_bytes(data[8:12], "little")
    if expected == Error.LENGTH and SMALL.header_words < words <= SMALL.weight_words:
        expected = Error.CRC
    assert (result.state, result.error) == (Status.ERROR, expected)
    assert len(result.results) == 0


@pytest.mark.parametrize("cut", [0, 3, 8, 23, 24, len(IMAGE) - 1])
def test_a_cut_image_waits_for_more(cut: int) -> None:
    result = refused(IMAGE[:cut], limit=10_000)
    assert (result.state, result.error, result.total) == (Status.LOADING, Error.NONE, 10_000)


@pytest.mark.parametrize("seed", range(16))
def test_damaged_programs_under_a_right_crc_stop(seed: int) -> None:
    rng, data = random.Random(1000 + seed), bytearray(IMAGE)
    for _ in range(rng.choice([1, 2, 8])):
        at = rng.randrange(SMALL.header_words * SMALL.word_bytes, len(data))
        data[at] ^= 1 << rng.randrange(8)
    image = with_crc(bytes(data))
    inputs = random_program(101, SMALL).inputs(64)  # more than it takes
    limit = int.from_bytes(image[16:20], "little")
    result = simulate(image, inputs, SMALL, limit=12 * len(image) + 80 * limit)
    if code_of(image) == Error.WATCHDOG:
        assert result.error == Error.WATCHDOG
    if result.state == Status.ERROR:
        assert result.error in (Error.ROW, Error.WATCHDOG)
    elif result.state != Status.WAITING:  # it does inferences of some kind: all input was taken
        taken = sum(beat.layer == 0 for beats in result.trace for beat in beats)
        assert taken * SMALL.n == inputs.size


@pytest.mark.parametrize(("less", "error"), [(0, Error.NONE), (1, Error.WATCHDOG)])
def test_the_watchdog_fires_one_cycle_after_the_limit(less: int, error: Error) -> None:
    sample = random_program(102, SMALL)
    size, head = SMALL.word_bytes, SMALL.header_words
    words = [sample.image[i : i + size] for i in range(0, len(sample.image), size)][head:]
    cycles = parse(sample.image, SMALL).cycles - less
    image = assemble(SMALL, words, cycles=cycles)
    result = simulate(image, sample.inputs(2), SMALL, limit=100_000)
    assert result.error == error
    assert code_of(image) == error
