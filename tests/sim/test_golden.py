"""The golden interpreter against the naive reading of stream.md."""

from __future__ import annotations

import random

import numpy as np
import pytest

from secateur.hw import spec
from secateur.hw.spec import Geometry, Reg
from secateur.sim.golden import hazards, parse, result_words, run
from tests.sim.filter_programs import FilterMaker
from tests.sim.naive import Machine
from tests.support.long import long, quick
from tests.support.programs import Assembler, Sample, assemble, random_program


def check(sample: Sample, batch: int, *, sequential: bool) -> int:
    """Compare everything; returns the number of layers with results."""
    inputs = sample.inputs(batch)
    program = parse(sample.image, sample.geometry)
    assert program.input_words == sample.input_words
    got = run(program, inputs, sequential=sequential)
    assert len(got.results) == batch
    machine = Machine(sample.image, sample.geometry)
    for i, data in enumerate(inputs):
        if not sequential:
            machine = Machine(sample.image, sample.geometry)
        layers, counts, total = machine.infer(data.tobytes())
        assert got.cycles == total
        assert [layer.cycles for layer in got.layers] == counts
        for layer, pixels in zip(got.layers, layers, strict=True):
            assert layer.m.tolist() == [m for m, _ in pixels]
            assert layer.codes[i].tolist() == [codes for _, codes in pixels]
        results = [pixels for layer, pixels in zip(got.layers, layers, strict=True) if layer.result]
        assert got.layers[-1].result
        assert got.results[i].tolist() == [codes for pixels in results for _, codes in pixels]
        assert result_words(program).tolist() == [m for pixels in results for m, _ in pixels]
    assert np.array_equal(
        run(program, inputs, sequential=sequential, trace=False).results, got.results
    )
    return sum(layer.result for layer in got.layers)


@pytest.mark.parametrize("part", quick(range(6), (0, 1)))
def test_random_programs_agree(part: int) -> None:
    compared = 0
    for seed in range(part * 50, part * 50 + 50):
        sample = random_program(seed, several=seed % 3 == 0)
        compared += check(sample, 2, sequential=seed % 2 == 0)
    assert compared > 55  # layers with results


FILTERS = [(n, p, s) for n, p in [(2, 3), (4, 8), (8, 5)] for s in (2, 4, 8) if s <= p]
QUICK = [(2, 3, 2), (8, 5, 4)]


@pytest.mark.parametrize(
    ("n", "p", "s"), [sizes if sizes in QUICK else long(*sizes) for sizes in FILTERS]
)
def test_random_programs_with_filter_lanes_agree(n: int, p: int, s: int) -> None:
    geometry, seen = Geometry(n=n, p=p, s=s, weight_words=4096, bank_words=128), 0
    for seed in range(20):
        sample = random_program(seed, geometry, several=seed % 3 == 0, maker=FilterMaker)
        program = parse(sample.image, geometry)
        seen += sum(layer.side == s for layer in program.layers)
        assert hazards(program) == []
        check(sample, 2, sequential=seed % 2 == 0)
    assert seen > 20


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_read_nothing_of_their_own_output(seed: int) -> None:
    sample = random_program(seed)
    assert hazards(parse(sample.image, sample.geometry)) == []


def small(rows: list[list[tuple[list[int], int]]], inputs: int, **registers: int) -> Sample:
    """LOAD ``inputs`` words to local word 0, then one result layer of 2 x 1 with OUT_S = 0."""
    geometry = Geometry(n=2, p=1, weight_words=4096, bank_words=256)
    assembler = Assembler(geometry, random.Random(0))
    zero = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: 1}
    assembler.configure(zero | {Reg.OUT_S: inputs, Reg.GX: inputs}, spec.COMMON_LOAD)
    ones = dict.fromkeys((Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.OFF_PC), 1)
    layer = zero | ones | {Reg.CLAST: 1, Reg.RLAST: 1, Reg.CLIP: 0xFF00}
    layer[Reg.FLAGS] = 1 << spec.FLAG_RESULT
    layer |= {Reg[name]: value for name, value in registers.items()}
    assembler.configure(layer, spec.COMMON_START)
    for i, body in enumerate(rows):
        assembler.row([0, 0], [0, 0], body, i == len(rows) - 1)
    image = assemble(geometry, assembler.words, cycles=1 << 20)
    return Sample(geometry, image, inputs, 0)


def test_accumulators_wrap_at_24_bits() -> None:
    body = [([127, -128], 0)] * 300
    flags = 1 << spec.FLAG_RESULT | 1 << spec.FLAG_A_WSHIFT
    sample = small([body], 8, FLAGS=flags, FLAGS2=16)
    inputs = np.full((1, 16), 255, np.uint8)
    result = run(parse(sample.image, sample.geometry), inputs).results[0, 0]
    exact = [300 * 16 * 255 * 127, -300 * 16 * 255 * 128]
    wrapped = [(value + (1 << 23)) % (1 << 24) - (1 << 23) for value in exact]
    assert exact != wrapped
    assert result.tolist() == [min(max(round(value / 65536), 0), 255) for value in wrapped]


def test_sums_beyond_float32_stay_exact() -> None:
    # 518 * 127 * 255 + 7 * 255 + 6 * 1 = 2**24 + 5, no float32 number
    body = [([127, 127], 0)] * 518 + [([7, 7], 0), ([6, 6], 1)]
    sample = small([body], 8)
    inputs = np.array([[255, 1] + [0] * 14], np.uint8)
    result = run(parse(sample.image, sample.geometry), inputs).results[0, 0]
    assert result.tolist() == [5, 5]


def test_halves_round_to_even() -> None:
    # 1, 3, 5 ... halves: 2 * k + 1 over 2
    body = [([1, 3], 0)] + [([0, 0], 0)] * 7
    sample = small([body], 8, FLAGS2=1)
    inputs = np.zeros((3, 16), np.uint8)
    inputs[:, 0] = [1, 3, 5]  # 0.5 1.5 2.5 and 1.5 4.5 7.5
    result = run(parse(sample.image, sample.geometry), inputs).results[:, 0]
    assert result.tolist() == [[0, 2], [2, 4], [2, 8]]


@pytest.mark.parametrize(
    ("groups", "window", "pixels", "found"),
    [
        (1, 4, 1, []),  # the group that writes word 4 has read it before
        (2, 4, 2, [0]),  # the second group reads words 1 to 5
        (2, 4, 1, []),  # as before, but for no pixel
        (2, 0, 2, []),  # groups write words 0 and 1 behind them
        (2, 6, 2, []),  # nobody reads the windows' words
    ],
)
def test_hazards_are_found(groups: int, window: int, pixels: int, found: list[int]) -> None:
    """The first group reads bytes 1 to 8, the words 0 to 4; the second one the next ones."""
    body = [([1, 1], 1)] * 8
    sample = small([body], 8)
    assert hazards(parse(sample.image, sample.geometry)) == []
    assembler = Assembler(sample.geometry, random.Random(1))
    base = dict.fromkeys(Reg, 0)
    ones = dict.fromkeys((Reg.GX, Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.OFF_PC), 1)
    layer = base | ones | {Reg.CLAST: pixels, Reg.RLAST: 1, Reg.CLIP: 0xFF00, Reg.GX: groups}
    layer |= {Reg.A_SX: 2, Reg.D_GX: 1}
    assembler.configure(base | {Reg.GX: 1}, spec.COMMON_LOAD)
    assembler.configure(layer | {Reg.OUT_W: window, Reg.OUT_S: 2}, spec.COMMON_START)
    assembler.row([0, 0], [0, 0], body, True)
    assembler.configure({Reg.FLAGS: 1 << spec.FLAG_RESULT, Reg.OUT_W: 0}, spec.COMMON_START)
    assembler.row([0, 0], [0, 0], body, True)
    image = assemble(sample.geometry, assembler.words, cycles=1 << 20)
    assert hazards(parse(image, sample.geometry)) == found


def test_inputs_of_a_wrong_shape_are_refused() -> None:
    sample = small([[([1, 1], 0)] * 8], 8)
    program = parse(sample.image, sample.geometry)
    with pytest.raises(
        ValueError, match=r"inputs must be uint8 \(batch, 16\), not uint8 \(1, 15\)"
    ):
        run(program, np.zeros((1, 15), np.uint8))
    with pytest.raises(ValueError, match="inputs must be uint8"):
        run(program, np.zeros((1, 16), np.int64))


def test_the_batch_does_not_matter() -> None:
    # more images than a chunk holds: 512 columns
    sample = random_program(5)
    program, inputs = parse(sample.image, sample.geometry), sample.inputs(700)
    whole = run(program, inputs)
    single = np.concatenate([run(program, inputs[i : i + 1]).results for i in range(0, 700, 23)])
    assert np.array_equal(whole.results[::23], single)
    assert np.array_equal(run(program, inputs, trace=False).results, whole.results)
