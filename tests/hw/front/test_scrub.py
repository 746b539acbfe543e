"""Scrubbing: any bit of the weight memory that flips is found, whoever else reads the memory."""

from __future__ import annotations

import random

import pytest
from amaranth.lib import memory
from amaranth.sim import Simulator

from secateur.hw.engine import Engine
from secateur.hw.front.loader import Loader
from secateur.hw.soc import registers
from secateur.hw.soc.regfile import RegisterFile
from secateur.hw.spec import Error, Geometry, Status, words_of
from secateur.sim.golden import parse, run
from tests.hw.front.test_loader import GEOMETRIES, LATENCY, image_of
from tests.hw.harness import send
from tests.support.programs import random_program

WORDS = 6  # of the program
#: Every field of the header, its padding, and the first and last byte of the program.
BITS = {
    "magic": 0,
    "version": 4,
    "n": 5,
    "p": 6,
    "tables": 7,
    "words": 8,
    "words high": 11,
    "bank_words": 12,
    "cycles": 16,
    "crc": 20,
    "crc high": 23,
    "padding": 26,
    "first lane": 27,
    "first common": 35,
    "last lane": 27 + 9 * WORDS - 9,
    "last common": 27 + 9 * WORDS - 1,
}


def scrub(byte: int | None, *, share: float, walks: int = 2, rom: bool = True) -> dict:
    """Loads an image, flips a bit of ``byte`` in mid-walk, watches for further walks.

    In a ``share`` of the cycles another reads, and the data are those of its address.
    """
    geometry = GEOMETRIES[1]
    image, size = image_of(geometry, WORDS), geometry.word_bytes
    dut = Loader(geometry=geometry, latency=LATENCY, rom=rom)
    contents = dict(enumerate(words_of(image, geometry.word_bytes))) if rom else {}
    rng = random.Random(byte)
    outcome: dict = {"reads": 0}

    async def port(ctx) -> None:
        pipe = [0] * LATENCY
        async for _, _, address, busy, en, where, data, accepted in ctx.tick().sample(
            dut.read_addr, dut.busy, dut.write_en, dut.write_addr, dut.write_data, dut.accepted
        ):
            if en:
                contents[where] = data
            pipe.append(rng.getrandbits(72) if busy else contents.get(address, 0))
            outcome["reads"] += busy
            ctx.set(dut.read_data, pipe[-LATENCY])
            ctx.set(dut.busy, accepted and rng.random() < share)

    async def host(ctx) -> None:
        if not rom:
            await send(ctx, dut.image, image, random.Random(0), 0.2)

    async def until(ctx, scrubs: int) -> None:
        for _ in range(100_000):
            if ctx.get(dut.scrubs) == scrubs:
                return
            await ctx.tick()
        raise AssertionError(f"no {scrubs} walks")

    async def bench(ctx) -> None:
        for _ in range(2000):
            if ctx.get(dut.accepted):
                break
            await ctx.tick()
        await until(ctx, 2)
        outcome["early"] = ctx.get(dut.upset)
        await ctx.tick().repeat(rng.randint(1, 100))
        if byte is not None:
            contents[byte // size] ^= 1 << 8 * (byte % size) + rng.randrange(8)
        await until(ctx, 2 + walks)
        for name in ("upset", "accepted", "error", "last", "limit"):
            outcome[name] = ctx.get(getattr(dut, name))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(port, background=True)
    simulator.add_testbench(host, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert outcome["early"] == 0
    assert outcome["accepted"]
    assert outcome["error"] == Error.NONE
    assert outcome["last"] == geometry.header_words + WORDS - 1
    assert outcome["limit"] == 0xDEADBEEF
    return outcome


@pytest.mark.parametrize("name", BITS)
def test_every_class_of_bits(name: str) -> None:
    """Found in the walk that is under way or the next; what the header said stands."""
    assert scrub(BITS[name], share=0.5)["upset"] == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("rom", [False, True])
def test_nothing_is_found_where_nothing_is(share: float, rom: bool) -> None:
    outcome = scrub(None, share=share, walks=4, rom=rom)
    assert outcome["upset"] == 0
    assert (outcome["reads"] > 0) == (share > 0)


class Recorder(memory.Memory):
    """Notes the memories that a design is made of."""

    made: list[memory.Memory] = []

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        Recorder.made.append(self)


def test_an_engine_finds_upsets_and_recovers(monkeypatch) -> None:
    """While it waits, and without a cycle more for inferences; a restart does not hide it, a reset
    and the image anew do away with it."""
    geometry = Geometry(n=2, p=2, weight_words=1024, bank_words=64)
    monkeypatch.setattr("secateur.hw.memory.memory.memory.Memory", Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    sample = random_program(5, geometry, layers=2)
    inputs = sample.inputs(2)
    want = run(parse(sample.image, geometry), inputs, sequential=True).results
    dut = Engine(geometry)
    rng = random.Random(0)

    async def infer(ctx, row, results) -> None:
        words = [int.from_bytes(bytes(row)[at : at + 2], "little") for at in range(0, len(row), 2)]
        ended = ctx.get(dut.status.inferences)
        await send(ctx, dut.input, words, rng, 0.0)
        got = []
        while ctx.get(dut.status.inferences) == ended or len(got) < len(results):
            ctx.set(dut.result.ready, 1)
            _, _, valid, payload = await ctx.tick().sample(dut.result.valid, dut.result.payload)
            if valid:
                got.append(int(payload).to_bytes(2, "little"))
        assert got == [beat.tobytes() for beat in results]
        assert ctx.get(dut.status.cycles) == parse(sample.image, geometry).cycles

    async def walks(ctx, count: int) -> None:
        begin = ctx.get(dut.status.scrubs)
        for _ in range(50_000):
            if ctx.get(dut.status.scrubs) == (begin + count) % (1 << 16):
                return
            await ctx.tick()
        raise AssertionError("no walk ends")

    async def pulse(ctx, command) -> None:
        ctx.set(command, 1)
        await ctx.tick()
        ctx.set(command, 0)
        await ctx.tick().repeat(100)

    async def bench(ctx) -> None:
        (weights,) = [m for m in Recorder.made if m.depth == geometry.weight_words]
        await send(ctx, dut.image, sample.image, rng, 0.0)
        while ctx.get(dut.status.state) != Status.WAITING:
            await ctx.tick()
        await infer(ctx, inputs[0], want[0])
        await infer(ctx, inputs[1], want[1])
        await walks(ctx, 2)
        assert ctx.get(dut.status.upset) == 0
        where = rng.randrange(len(sample.image) // geometry.word_bytes)
        ctx.set(weights.data[where], ctx.get(weights.data[where]) ^ 1 << rng.randrange(24))
        await walks(ctx, 2)
        assert ctx.get(dut.status.upset) == 1
        await pulse(ctx, dut.control.restart)
        assert ctx.get(dut.status.upset) == 1
        await pulse(ctx, dut.control.reset)
        assert ctx.get(dut.status.upset) == 0
        assert ctx.get(dut.status.scrubs) == 0
        await send(ctx, dut.image, sample.image, rng, 0.0)
        await infer(ctx, inputs[0], want[0])
        await walks(ctx, 2)
        assert ctx.get(dut.status.upset) == 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_registers_tell_of_an_upset() -> None:
    """Its bit of STATUS, the count, and an interrupt once."""
    dut = RegisterFile(geometry=GEOMETRIES[1])

    async def access(ctx, name: str, data: int | None = None) -> int:
        ctx.set(dut.request.payload.address, registers.BY_NAME[name].offset >> 2)
        ctx.set(dut.request.payload.write, data is not None)
        ctx.set(dut.request.payload.data, data or 0)
        ctx.set(dut.request.payload.strobe, 15)
        ctx.set(dut.request.valid, 1)
        await ctx.tick().until(dut.request.ready)
        ctx.set(dut.request.valid, 0)
        ctx.set(dut.response.ready, 1)
        payload = await ctx.tick().sample(dut.response.payload).until(dut.response.valid)
        assert payload[0].error == 0
        return payload[0].data

    async def bench(ctx) -> None:
        bit = registers.field("STATUS", "UPSET").mask
        event = registers.field("IRQ_PENDING", "UPSET").mask
        await access(ctx, "IRQ_ENABLE", event)
        ctx.set(dut.status.scrubs, 0x1234)
        assert await access(ctx, "SCRUBS") == 0x1234
        assert await access(ctx, "STATUS") & bit == 0
        assert ctx.get(dut.irq) == 0
        ctx.set(dut.status.upset, 1)
        await ctx.tick().repeat(2)
        assert await access(ctx, "STATUS") & bit
        assert ctx.get(dut.irq) == 1
        assert await access(ctx, "IRQ_PENDING") == event
        await access(ctx, "IRQ_PENDING", event)
        assert await access(ctx, "IRQ_PENDING") == 0
        assert ctx.get(dut.irq) == 0

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
