"""An engine with a ring: what a changed word does, and a row that no ring holds."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.engine import Engine
from secateur.hw.spec import Error, Geometry, Reg, Status, words_of
from secateur.sim.golden import parse, run
from tests.hw.harness import send
from tests.support.programs import Assembler, Sample, assemble, random_program

ON_CHIP = Geometry(n=2, p=2, weight_words=1024, bank_words=64)
GEOMETRY = Geometry(n=2, p=2, weight_words=1024, bank_words=64, ring=64)


class Bench:
    """An engine whose source sends ``passes`` one after the other, then the last one for ever.

    Attributes
    ----------
    beats : result words, each with ``status.upset`` when it was taken
    """

    def __init__(self, passes: list[bytes], inputs, *, cycles: int = 12_000, n: int = 2) -> None:
        self.dut = dut = Engine(GEOMETRY)
        self.beats: list[tuple[bytes, int]] = []
        self.ended = self.error = self.state = 0

        async def source(ctx) -> None:
            for image in passes:
                await send(ctx, dut.image, image, random.Random(0), 0.0)
            while True:
                await send(ctx, dut.image, passes[-1], random.Random(0), 0.0)

        async def feed(ctx) -> None:
            words = [word for row in inputs for word in words_of(bytes(row), n)]
            await send(ctx, dut.input, words, random.Random(0), 0.0)

        async def take(ctx) -> None:
            ctx.set(dut.result.ready, 1)
            async for _, _, valid, word, upset in ctx.tick().sample(
                dut.result.valid, dut.result.payload, dut.status.upset
            ):
                if valid:
                    self.beats.append((int(word).to_bytes(n, "little"), upset))

        async def watch(ctx) -> None:
            status = dut.status
            for _ in range(cycles):
                _, _, self.ended, self.error, self.state = await ctx.tick().sample(
                    status.inferences, status.error, status.state
                )
                if self.error or self.ended == len(inputs):
                    break
            self.upset = ctx.get(status.upset)

        simulator = Simulator(dut)
        simulator.add_clock(1e-6)
        for process in (source, feed, take):
            simulator.add_testbench(process, background=True)
        simulator.add_testbench(watch)
        simulator.run()


def sample() -> Sample:
    return random_program(5, ON_CHIP, layers=2)


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_a_changed_word_is_known_before_its_result(at: str) -> None:
    """A weight of the second inference: its last beat comes with ``upset``, the first's do not."""
    found = sample()
    decoded, inputs = parse(found.image, ON_CHIP), found.inputs(3)
    rows = [row for layer in decoded.layers for row in layer.rows]
    row = {"first": rows[0], "middle": rows[len(rows) // 2], "last": rows[-1]}[at]
    word = row.start if at == "first" else row.start + row.count - 1
    wrong = bytearray(found.image)
    wrong[word * ON_CHIP.word_bytes] ^= 0x10
    right = [bytes(found.image)] * 2
    bench = Bench([*right, bytes(wrong), found.image], inputs)
    want = run(decoded, inputs, sequential=True).results
    beats, each = bench.beats, want.shape[1]
    assert (bench.ended, bench.error, bench.upset) == (3, 0, 1)
    assert beats[: each - 1] == [(beat.tobytes(), 0) for beat in want[0]][:-1]
    assert [upset for _, upset in beats[2 * each - 1 :]] == [1] * (each + 1)


def test_nothing_is_reported_where_nothing_is() -> None:
    found = sample()
    inputs = found.inputs(3)
    bench = Bench([bytes(found.image)], inputs)
    want = run(parse(found.image, ON_CHIP), inputs, sequential=True).results
    assert bench.beats == [(beat.tobytes(), 0) for row in want for beat in row]


@pytest.mark.parametrize("passes", [1, 2])
def test_a_row_longer_than_the_ring(passes: int) -> None:
    """Read once it passes through; read again it would wait for ever, and the engine stops."""
    assembler = Assembler(ON_CHIP, random.Random(0))
    registers = dict.fromkeys(Reg, 0) | {Reg.OFF_PC: 1, Reg.OUT_S: 8}
    assembler.configure(registers | {Reg.GX: 8}, spec.COMMON_LOAD)
    ones = (Reg.GY, Reg.GZ, Reg.PC, Reg.PR, Reg.LANES, Reg.CLAST, Reg.RLAST)
    registers |= dict.fromkeys(ones, 1) | {Reg.CLIP: 0x7F00, Reg.OUT_W: 8, Reg.GX: passes}
    registers |= {Reg.FLAGS: 1 << spec.FLAG_RESULT, Reg.CLAST: passes}
    assembler.configure(registers, spec.COMMON_START)
    body = [([1, 0], 0)] * (2 * GEOMETRY.ring)
    assembler.row([8, 8], [0, 0], body, True)
    image = assemble(ON_CHIP, assembler.words, cycles=1 << 20)
    found = Sample(ON_CHIP, image, 8, 0)
    inputs = found.inputs(2)
    bench = Bench([image], inputs)
    if passes == 1:
        want = run(parse(image, ON_CHIP), inputs, sequential=True).results
        assert [word for word, _ in bench.beats] == [beat.tobytes() for row in want for beat in row]
    else:
        assert (bench.state, bench.error) == (Status.ERROR, Error.ROW)


def test_a_rom_has_no_ring() -> None:
    with pytest.raises(ValueError, match="init must be None with a ring"):
        Engine(GEOMETRY, init=[0] * 20)


@pytest.mark.parametrize("words", [32, 96, 1 << 17])
def test_sizes_of_rings(words: int) -> None:
    with pytest.raises(ValueError, match=f"ring must be 0 or a power of two.*, not {words}"):
        Geometry(n=2, p=2, weight_words=1024, bank_words=64, ring=words)
