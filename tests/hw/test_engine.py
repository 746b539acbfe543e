"""The whole engine against the golden interpreter: every byte written, every cycle count."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.core.drain import result_depth
from secateur.hw.engine import Engine
from secateur.hw.spec import Error, Geometry, Mode, Reg, Status, words_of
from secateur.sim.golden import ImageError, parse, run
from tests.hw.harness import Outcome, run_engine, send
from tests.sim.filter_programs import FilterMaker
from tests.support.long import long
from tests.support.programs import UNLIMITED, Assembler, Sample, assemble, random_program, with_crc

SMALL = Geometry(n=2, p=2, weight_words=1024, bank_words=64)
GEOMETRIES = [
    SMALL,
    Geometry(n=4, p=3, weight_words=1024, bank_words=64),
    Geometry(n=8, p=1, weight_words=1024, bank_words=128),
    Geometry(n=2, p=5, weight_words=1024, bank_words=128),
]


def compare(sample: Sample, outcome: Outcome, inputs: np.ndarray) -> None:
    """Results and trace of all inferences, input words included."""
    want = run(parse(sample.image, sample.geometry), inputs, sequential=True)
    assert outcome.error == Error.NONE
    assert outcome.results == [beat.tobytes() for row in want.results for beat in row]
    taken = [data for layer, _, data, _ in outcome.trace if layer == 0]
    assert b"".join(taken) == inputs.tobytes()
    for layer in want.layers:
        got = [entry[1:] for entry in outcome.trace if entry[0] == layer.index + 1]
        assert got == [
            (m & 0xFFFF, code.tobytes(), layer.result)
            for image in layer.codes
            for m, code in zip(layer.m.tolist(), image, strict=True)
        ]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("seed", [long(1), 2, 7])
def test_random_programs(geometry: Geometry, seed: int) -> None:
    """Two inferences: the count is the predicted one, whenever the host sends its words."""
    sample = random_program(seed, geometry, layers=3, several=seed == 7)
    inputs = sample.inputs(2)
    outcome = run_engine(geometry, sample.image, inputs, rom=seed == 2, seed=seed)
    compare(sample, outcome, inputs)
    assert outcome.cycles == [parse(sample.image, geometry).cycles] * 2


def test_filter_lanes_from_rom_between_scrubs() -> None:
    """The scrubber waits while lanes use the banks of the weight memory."""
    geometry = Geometry(n=2, p=2, s=2, weight_words=1024, bank_words=64)
    sample = random_program(4, geometry, layers=3, maker=FilterMaker)
    assert {layer.side for layer in parse(sample.image, geometry).layers} == {2}
    inputs = sample.inputs(2)
    outcome = run_engine(geometry, sample.image, inputs, rom=True, seed=4)
    compare(sample, outcome, inputs)
    assert outcome.cycles == [parse(sample.image, geometry).cycles] * 2


@pytest.mark.parametrize("seed", [5, long(7)])
def test_host_stalls(seed: int) -> None:
    sample = random_program(seed, SMALL, layers=2)
    inputs = sample.inputs(2)
    outcome = run_engine(SMALL, sample.image, inputs, stall=0.8, seed=seed, settle=400)
    compare(sample, outcome, inputs)


def simple(geometry: Geometry = SMALL, *, groups: int = 1, count: int = 8, **registers: int):
    """A LOAD of 4 words and one result layer whose rows sum bytes; ``registers`` by name."""
    assembler = Assembler(geometry, random.Random(0))
    assembler.configure(
        {Reg.GX: registers.pop("LOAD_GX", 4), Reg.OUT_S: 64, Reg.OFF_PC: geometry.p},
        spec.COMMON_LOAD,
    )
    values = {Reg.FLAGS: 1 << spec.FLAG_RESULT | 1 << spec.FLAG_LINEAR, Reg.CLIP: 0xFF00}
    values |= {Reg.GX: groups, Reg.GY: 1, Reg.GZ: 1, Reg.LANES: geometry.p, Reg.PC: 1}
    values |= {Reg.PR: 0xFFFF, Reg.CLAST: 1, Reg.FLAGS2: 0, Reg.OUT_S: 0, Reg.OFF_PC: 1}
    values |= {Reg.A_BASE: 0, Reg.D_PR: 1, Reg.A_SX: 1}
    values |= {Reg[name]: value for name, value in registers.items()}
    assembler.configure(values, spec.COMMON_START)
    n = geometry.n
    assembler.row([0] * n, [0] * n, [([1] * n, i > 0) for i in range(count)], last=True)
    return assembler.words


INPUT = np.arange(1, 9, dtype=np.uint8)[None]


def test_full_result_queue() -> None:
    """A host that takes nothing is waited for, without an error, and then gets everything."""
    groups = result_depth(SMALL.p)
    unlimited = assemble(SMALL, simple(groups=groups), cycles=UNLIMITED)
    cycles = parse(unlimited, SMALL).cycles
    image = assemble(SMALL, simple(groups=groups), cycles=cycles)
    outcome = run_engine(SMALL, image, INPUT, stall=0.9, settle=5000, limit=60000)
    want = run(parse(image, SMALL), INPUT).results[0]
    assert outcome.error == Error.NONE
    assert outcome.results == [beat.tobytes() for beat in want]
    assert outcome.cycles == [cycles]


@pytest.mark.parametrize(
    "change",
    [{"GX": 0}, {"GY": 0}, {"GZ": 0}, {"LANES": 0}, {"LANES": 3}, {"LOAD_GX": 0}, {"count": 7}],
    ids=str,
)
def test_row_errors(change: dict) -> None:
    image = assemble(SMALL, simple(**change), cycles=UNLIMITED)
    outcome = run_engine(SMALL, image, INPUT, limit=1500)
    assert (outcome.state, outcome.error) == (Status.ERROR, Error.ROW)
    assert outcome.results == []


def test_watchdog() -> None:
    """One cycle less than needed is an error; what is needed is not."""
    cycles = parse(assemble(SMALL, simple(), cycles=UNLIMITED), SMALL).cycles
    for limit, error in ((cycles, Error.NONE), (cycles - 1, Error.WATCHDOG), (0, Error.WATCHDOG)):
        outcome = run_engine(SMALL, assemble(SMALL, simple(), cycles=limit), INPUT, limit=1500)
        assert outcome.error == error


@pytest.mark.parametrize(
    "words",
    [
        [bytes([0, 0, 0])],  # configuration for ever
        [bytes([0, 0, 0])] * 2 + [bytes([9, 9, 3])],
        simple()[:-3],  # the last row has no end
    ],
    ids=["one word", "no command", "cut"],
)
def test_never_hangs(words: list[bytes]) -> None:
    """Programs that are none end in an error, by the watchdog at the latest."""
    image = assemble(SMALL, words, cycles=300)
    outcome = run_engine(SMALL, image, INPUT, limit=3000)
    assert outcome.state == Status.ERROR
    assert outcome.error in (Error.WATCHDOG, Error.ROW)


def test_waits_for_input_without_a_limit() -> None:
    outcome = run_engine(SMALL, assemble(SMALL, simple(), cycles=60), [], limit=1500)
    assert (outcome.state, outcome.error) == (Status.WAITING, Error.NONE)


def test_reset() -> None:
    """In the middle of a layer: the image is checked anew, an inference begins from the start."""
    groups = 20
    cycles = parse(assemble(SMALL, simple(groups=groups), cycles=UNLIMITED), SMALL).cycles
    image = assemble(SMALL, simple(groups=groups), cycles=cycles)
    want = [beat.tobytes() for beat in run(parse(image, SMALL), INPUT).results[0]]
    dut = Engine(SMALL, init=words_of(image, SMALL.word_bytes))
    words = [int.from_bytes(INPUT.tobytes()[at : at + 2], "little") for at in range(0, 8, 2)]
    results: list[bytes] = []

    async def bench(ctx) -> None:
        ctx.set(dut.result.ready, 1)
        for run_cycles in (cycles - 60, cycles + 60):
            await send(ctx, dut.input, words, random.Random(0), 0.0)
            assert ctx.get(dut.status.state) == Status.RUNNING
            for _ in range(run_cycles):
                _, _, valid, payload = await ctx.tick().sample(dut.result.valid, dut.result.payload)
                if valid:
                    results.append(int(payload).to_bytes(2, "little"))
            if run_cycles < cycles:
                assert 0 < len(results) < len(want)
                results.clear()
                ctx.set(dut.control.reset, 1)
                await ctx.tick()
                ctx.set(dut.control.reset, 0)
                await ctx.tick().repeat(100)
                assert ctx.get(dut.status.state) == Status.CHECKING
        assert ctx.get(dut.status.inferences) == 1
        assert ctx.get(dut.status.cycles) == cycles

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert results == want


def remembering() -> bytes:
    """An image whose every result is the sum of all inputs so far: a tensor that lives on."""
    assembler = Assembler(SMALL, random.Random(1))
    window = {Reg.OUT_W: 0, Reg.OUT_S: 1, Reg.OFF_PC: 1, Reg.OFF_DC: 0, Reg.OFF_DR: 0}
    assembler.configure(window | {Reg.GX: 1}, spec.COMMON_LOAD)
    both = spec.Mode.LANEWISE | spec.Mode.LANEWISE << spec.FLAG_B_MODE
    one = {Reg.GX: 1, Reg.GY: 1, Reg.GZ: 1, Reg.LANES: 1, Reg.PC: 1, Reg.PR: 1, Reg.OUT_BASE: 0}
    one |= {Reg.CLAST: 0xFFFF, Reg.RLAST: 0xFFFF, Reg.CLIP: 0xFF00, Reg.FLAGS2: 0}
    sources = {Reg.A_BASE: 0, Reg.B_BASE: SMALL.n, Reg.B_KR: 0, Reg.A_KR: 0}
    body = [([0, 0], 0)] * 6 + [([1, 1], 0), ([1, 1], spec.STEP_SOURCE)]
    for flags in (both, both | 1 << spec.FLAG_RESULT):
        assembler.configure(
            one | sources | window | {Reg.FLAGS: flags, Reg.OUT_W: 1}, spec.COMMON_START
        )
        assembler.row([0, 0], [0, 0], body, last=True)
        body = [([0, 0], 0)] * 7 + [([1, 1], spec.STEP_SOURCE)]
    unlimited = assemble(SMALL, assembler.words, cycles=UNLIMITED)
    cycles = parse(unlimited, SMALL).cycles
    return assemble(SMALL, assembler.words, cycles=cycles)


@pytest.mark.parametrize("command", ["restart", "reset"])
def test_what_lives_on_is_forgotten(command: str) -> None:
    """Tensors outlive an inference, but neither a restart in the middle of one nor a reset."""
    image = remembering()
    dut = Engine(SMALL, init=None)
    results: list[bytes] = []

    async def infer(ctx, value: int) -> None:
        before = ctx.get(dut.status.inferences)
        await send(ctx, dut.input, [value], random.Random(0), 0.0)
        while ctx.get(dut.status.inferences) == before:
            await ctx.tick()

    async def take(ctx) -> None:
        ctx.set(dut.result.ready, 1)
        while True:
            _, _, valid, payload = await ctx.tick().sample(dut.result.valid, dut.result.payload)
            if valid:
                results.append(int(payload).to_bytes(2, "little"))

    async def bench(ctx) -> None:
        for image_number in range(2):
            if image_number == 0 or command == "reset":
                await send(ctx, dut.image, image, random.Random(0), 0.0)
            for value in (0x0102, 0x0304):
                await infer(ctx, value)
            await send(ctx, dut.input, [0x0506], random.Random(0), 0.0)
            await ctx.tick().repeat(40)
            assert ctx.get(dut.status.state) == Status.RUNNING
            ctx.set(getattr(dut.control, command), 1)
            await ctx.tick()
            ctx.set(getattr(dut.control, command), 0)
            await ctx.tick().repeat(70)
            wanted = Status.LOADING if command == "reset" else Status.WAITING
            assert ctx.get(dut.status.state) == wanted
            assert ctx.get(dut.status.inferences) == 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(take, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert results == [b"\x02\x01", b"\x06\x04"] * 2


@pytest.mark.long
def test_tables_take_no_time_of_the_first_inference() -> None:
    """Nor does the watchdog count them; an entry past the tables is an error."""
    table = [bytes([3 * i & 0xFF, 7 * i & 0xFF, spec.INDEX_TABLE]) for i in range(128)]
    mark = bytes([1, 2, spec.INDEX_LOOP])
    looked_up = simple(FLAGS2=1 << spec.FLAG2_LOOKUP)
    unlimited = assemble(SMALL, [*table, mark, *looked_up], cycles=UNLIMITED)
    cycles = parse(unlimited, SMALL).cycles
    image = assemble(SMALL, [*table, mark, *looked_up], cycles=cycles)
    inputs = np.concatenate([INPUT, INPUT + 9])
    outcome = run_engine(SMALL, image, inputs, settle=100)
    want = run(parse(image, SMALL), inputs, sequential=True)
    assert outcome.error == Error.NONE
    assert outcome.results == [beat.tobytes() for row in want.results for beat in row]
    assert outcome.cycles == [cycles] * 2
    assert cycles < 128

    too_many = assemble(SMALL, [*table, table[0], mark, *looked_up], cycles=cycles)
    outcome = run_engine(replace(SMALL, tables=1), too_many, INPUT, limit=6000)
    assert (outcome.state, outcome.error) == (Status.ERROR, Error.ROW)


def test_more_tables_than_the_engine_has() -> None:
    image = bytearray(assemble(SMALL, simple(), cycles=UNLIMITED))
    image[7] = 9
    outcome = run_engine(SMALL, with_crc(bytes(image)), limit=1500)
    assert (outcome.state, outcome.error) == (Status.ERROR, Error.GEOMETRY)


def test_refused_image() -> None:
    image = bytearray(assemble(SMALL, simple(), cycles=UNLIMITED))
    image[-1] ^= 1
    assert run_engine(SMALL, bytes(image), limit=1500).error == Error.CRC
    outcome = run_engine(SMALL, bytes(image), limit=1500, rom=True)
    assert (outcome.state, outcome.error) == (Status.ERROR, Error.CRC)
    assert run_engine(SMALL, with_crc(bytes(image)), limit=1500).error == Error.NONE


@pytest.mark.parametrize("mode", [Mode.MAXIMUM, Mode.GATE])
@pytest.mark.parametrize("extended", [False, True])
def test_modes_of_a_geometry(mode: Mode, extended: bool) -> None:
    """Lanes without MAXIMUM and GATE stop at a layer that has them, and golden refuses it."""
    sample = next(
        sample
        for sample in (random_program(seed, SMALL, layers=1) for seed in range(100))
        if any(layer.reg[Reg.FLAGS] & 3 == mode for layer in parse(sample.image, SMALL).layers)
    )
    geometry = replace(SMALL, extended=extended)
    outcome = run_engine(geometry, sample.image, sample.inputs(1))
    assert outcome.error == (Error.NONE if extended else Error.ROW)
    if not extended:
        with pytest.raises(ImageError, match="a mode that the lanes do not have") as refused:
            parse(sample.image, geometry)
        assert refused.value.code == Error.ROW
