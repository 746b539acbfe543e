"""The loader refuses every class of damage with the right code, and never waits for more bytes."""

from __future__ import annotations

import random
import zlib

import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.front.loader import Loader
from secateur.hw.spec import Error, Geometry

LATENCY = 3


def image_of(geometry: Geometry, program_words: int, seed: int = 0, **fields: int) -> bytearray:
    """A header and random words; ``fields`` override the header before the CRC is made."""
    rng = random.Random(seed)
    size = geometry.word_bytes
    words = geometry.header_words + program_words
    values = {"version": spec.VERSION, "n": geometry.n, "p": geometry.p, "words": words}
    values |= {"bank_words": geometry.bank_words, "cycles": 0xDEADBEEF} | fields
    header = spec.HEADER.pack(
        spec.MAGIC,
        values["version"],
        values["n"],
        values["p"],
        0,
        values["words"],
        values["bank_words"],
        values["cycles"],
        0,
    )
    image = bytearray(header.ljust(geometry.header_words * size, b"\0"))
    image += rng.randbytes(program_words * size)
    image[spec.HEADER_CRC_OFFSET : spec.HEADER.size] = zlib.crc32(image).to_bytes(4, "little")
    return image


def load(geometry: Geometry, image: bytes, *, rom=False, scrub=True, damage: int | None = None):
    """Error, bytes taken, contents; ``damage`` inverts a bit of that word after the load."""
    dut = Loader(geometry=geometry, latency=LATENCY, rom=rom, scrub=scrub)
    size = geometry.word_bytes
    contents = {}
    if rom:
        for at in range(0, len(image), size):
            contents[at // size] = int.from_bytes(image[at : at + size], "little")
    outcome = {"taken": 0}

    async def memory(ctx) -> None:
        pipe = [0] * LATENCY
        async for _, _, address, en, where, data in ctx.tick().sample(
            dut.read_addr, dut.write_en, dut.write_addr, dut.write_data
        ):
            if en:
                assert where < geometry.weight_words
                contents[where] = data ^ (where == damage)
            pipe.append(contents.get(address, 0))
            ctx.set(dut.read_data, pipe[-LATENCY])

    async def host(ctx) -> None:
        rng = random.Random(1)
        for byte in image if not rom else b"":
            if rng.random() < 0.2:
                ctx.set(dut.image.valid, 0)
                await ctx.tick()
            ctx.set(dut.image.payload, byte)
            ctx.set(dut.image.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.image.ready)
            outcome["taken"] += 1
        ctx.set(dut.image.valid, 0)

    async def bench(ctx) -> None:
        for _ in range(20000):
            await ctx.tick()
            if ctx.get(dut.accepted) or ctx.get(dut.error) != Error.NONE:
                break
        outcome["error"] = Error(ctx.get(dut.error))
        await ctx.tick().repeat(3)
        outcome["flags"] = [ctx.get(dut.accepted), ctx.get(dut.loading), ctx.get(dut.checking)]
        outcome["last"], outcome["limit"] = ctx.get(dut.last), ctx.get(dut.limit)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory, background=True)
    simulator.add_testbench(host, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    return outcome, contents


GEOMETRIES = [
    Geometry(n=2, p=1, weight_words=64, bank_words=16),
    Geometry(n=8, p=3, weight_words=64, bank_words=16),
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("rom", "scrub"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize("full", [False, True])
def test_accepts(geometry: Geometry, rom: bool, scrub: bool, full: bool) -> None:
    words = geometry.weight_words - geometry.header_words if full else 1
    image = image_of(geometry, words)
    outcome, contents = load(geometry, image, rom=rom, scrub=scrub)
    assert outcome["error"] == Error.NONE
    assert outcome["flags"] == [1, 0, 0]
    assert outcome["taken"] == (0 if rom else len(image))
    assert outcome["last"] == geometry.header_words + words - 1
    assert outcome["limit"] == 0xDEADBEEF
    size = geometry.word_bytes
    data = b"".join(contents[i].to_bytes(size, "little") for i in range(len(image) // size))
    assert data == image


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"version": 1}, Error.VERSION),
        ({"n": 4}, Error.GEOMETRY),
        ({"p": 2}, Error.GEOMETRY),
        ({"words": 65}, Error.LENGTH),
        ({"words": 1 << 31}, Error.LENGTH),
        ({"words": 3}, Error.LENGTH),
        ({"words": 0}, Error.LENGTH),
        ({"bank_words": 32}, Error.BANK),
        ({"bank_words": 1 << 31}, Error.BANK),
        ({"words": 65, "bank_words": 32}, Error.LENGTH),
        ({"p": 2, "words": 65, "bank_words": 32}, Error.GEOMETRY),
    ],
)
@pytest.mark.parametrize(("rom", "scrub"), [(False, True), (True, True), (False, False)])
def test_refuses_header(fields: dict, error: Error, rom: bool, scrub: bool) -> None:
    """Of the field that comes first, after no more bytes than the header has."""
    image = image_of(GEOMETRIES[1], 4, **fields)
    outcome, _ = load(GEOMETRIES[1], image, rom=rom, scrub=scrub)
    assert outcome["error"] == error
    assert outcome["flags"] == [0, 0, 0]
    assert outcome["taken"] <= spec.HEADER.size


@pytest.mark.parametrize("at", range(4))
def test_refuses_magic(at: int) -> None:
    image = image_of(GEOMETRIES[1], 4)
    image[at] ^= 0x20
    assert load(GEOMETRIES[1], image)[0]["error"] == Error.MAGIC


@pytest.mark.parametrize("at", [7, 16, 20, 23, 24, 27, 40, 62])
@pytest.mark.parametrize("scrub", [True, False])
def test_refuses_flipped_bit(at: int, scrub: bool) -> None:
    image = image_of(GEOMETRIES[1], 4)
    assert len(image) == 63
    image[at] ^= 0x01 if at == 7 else 0x10  # 16 tables would be more than there are
    assert load(GEOMETRIES[1], image, scrub=scrub)[0]["error"] == Error.CRC


def test_refuses_what_memory_has_lost() -> None:
    """The walk reads the memory: a word that changed after the load is found."""
    outcome, _ = load(GEOMETRIES[1], image_of(GEOMETRIES[1], 4), damage=5)
    assert outcome["error"] == Error.CRC


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_reset_forgets_the_byte_on_its_way(cycles: int) -> None:
    """``rst`` of one cycle while a byte arrives that would be wrong where it stands."""
    geometry = GEOMETRIES[0]
    m, domain = Module(), ClockDomain("sync")
    m.domains.sync = domain
    m.submodules.dut = dut = Loader(geometry=geometry, latency=LATENCY)
    image = image_of(geometry, 1)

    async def bench(ctx) -> None:
        async def send(byte: int) -> None:
            ctx.set(dut.image.payload, byte)
            ctx.set(dut.image.valid, 1)
            ready = False
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.image.ready)

        for byte in image[:4]:
            await send(byte)
        ctx.set(dut.image.payload, spec.VERSION + 1)
        ctx.set(domain.rst, 1)
        for _ in range(cycles):
            await ctx.tick()
        ctx.set(domain.rst, 0)
        for byte in image:
            await send(byte)
        await ctx.tick().repeat(3)
        assert Error(ctx.get(dut.error)) == Error.NONE
        assert ctx.get(dut.checking)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
