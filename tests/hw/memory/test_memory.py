# amaranth: UnusedElaboratable=no
"""Memories: equal latency in every size, contents, parameters."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from secateur.hw.compact.serial_array import SerialArray
from secateur.hw.compact.serial_drain import SerialDrain
from secateur.hw.core.bank import Bank
from secateur.hw.core.lane import Lane
from secateur.hw.core.requantise import Requantiser
from secateur.hw.engine import Engine
from secateur.hw.front.address import AddressGenerator
from secateur.hw.front.configuration import Configuration
from secateur.hw.front.fetch import Fetcher
from secateur.hw.front.issue import Issue
from secateur.hw.front.loader import Loader
from secateur.hw.memory.ecp5_ram import initval
from secateur.hw.memory.memory import RAM_LATENCY, Ram
from secateur.hw.memory.spram import SpramMemory
from secateur.hw.memory.weight_memory import WeightMemory
from secateur.hw.pipeline import exceeds
from secateur.hw.spec import Geometry

GEOMETRY = Geometry(n=4, p=2, weight_words=64, bank_words=16)
WIDE = Geometry(n=4, p=3, weight_words=64, bank_words=16)


@pytest.mark.parametrize(("depth", "latency"), [(64, 3), (2048, 3), (2049, 5), (10240, 5)])
def test_weight_memory(depth: int, latency: int) -> None:
    """Reads one a cycle, ``latency`` cycles after the address, of a ROM and of a written RAM."""
    rng = random.Random(depth)
    words = [rng.getrandbits(24) for _ in range(depth)]
    addresses = [0, depth - 1, *(rng.randrange(depth) for _ in range(40))]
    for init in (words, None):
        dut = WeightMemory(width=24, depth=depth, init=init)
        assert dut.latency == latency

        async def bench(ctx, dut=dut, init=init) -> None:
            for address in addresses if init is None else []:
                ctx.set(dut.write_addr, address)
                ctx.set(dut.write_data, words[address])
                ctx.set(dut.write_en, 1)
                await ctx.tick()
            ctx.set(dut.write_en, 0)
            ctx.set(dut.write_data, 0)
            await ctx.tick().repeat(2)
            for tick in range(len(addresses) + latency):
                if tick >= latency:
                    assert ctx.get(dut.read_data) == words[addresses[tick - latency]]
                ctx.set(dut.read_addr, addresses[min(tick, len(addresses) - 1)])
                await ctx.tick()

        run(dut, bench)


@pytest.mark.parametrize(("bits", "words"), [(18, 1024), (9, 2048), (4, 4096), (2, 8192)])
def testinitval(bits: int, words: int) -> None:
    """Bit positions of a DP16KD: 16 fields of 20 bits in each parameter, 18 of them used."""
    rng = random.Random(bits)
    values = [rng.getrandbits(40) for _ in range(words)]
    rows = [constant.value for constant in initval(values, bits, 5, (1 << bits) - 1)]
    assert len(rows) == 64
    per_field = words // 1024
    for index, value in enumerate(values):
        row, place = divmod(index // per_field, 16)
        field = rows[row] >> (20 * place) & 0xFFFFF
        assert field < 1 << 18
        inside = index % per_field * bits
        position = inside if bits >= 9 else inside // 8 * 9 + inside % 8
        assert field >> position & ((1 << bits) - 1) == value >> 5 & ((1 << bits) - 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ram(width=8, depth=1), "depth must be at least 2 words, not 1"),
        (lambda: Ram(width=8, depth=4, init=[0] * 5), "init must hold at most 4 words, not 5"),
        (lambda: Ram(width=8, depth=4, family="x"), "generic, ecp5, asic, ice40, gowin, not 'x'"),
        (lambda: Bank(n=4, depth=24), "depth must be a power of two from 16 on, not 24"),
        (lambda: Lane(n=4, bels=[None] * 5), "bels must name at most 4 sites, not 5"),
        (lambda: Loader(geometry=GEOMETRY, latency=0), "latency must be at least 1 cycle, not 0"),
        (lambda: Bank(n=4, depth=16, data_delay=1), "data_delay must be 0 or 2 cycles, not 1"),
        (lambda: Requantiser(n=4, steps=3), "steps must be 1 or 2 per cycle, not 3"),
        (
            lambda: AddressGenerator(geometry=GEOMETRY, latency=5),
            "latency must be 3 or 4 cycles, not 5",
        ),
        (
            lambda: Configuration(geometry=GEOMETRY, latency=0),
            "latency must be 1 or 2 cycles, not 0",
        ),
        (lambda: Fetcher(geometry=GEOMETRY, latency=3, rotate=0), "rotate must be 1 or 2 cycles"),
        (
            lambda: Issue(geometry=GEOMETRY, results=16, latency=2),
            "latency must be 0 or 1 cycles, not 2",
        ),
        (lambda: Engine(GEOMETRY, init=[0] * 5), "init must hold 6 to 64 words, not 5"),
        (lambda: Engine(None), "geometry must be a Geometry, not None"),
        (lambda: Engine(GEOMETRY, family="x"), "not 'x'"),
        (lambda: Ram(width=8, depth=4, family="ecp5", output=False), "output must be True on ecp5"),
        (lambda: SpramMemory(width=65, depth=64), "width must be 1 to 64 bits, not 65"),
        (lambda: SpramMemory(width=8, depth=16385), "depth must be 2 to 16384 words, not 16385"),
        (lambda: Engine(WIDE, compact=True), "8 multipliers and 2 lanes of pixels, not n 4, p 3"),
        (lambda: SerialArray(geometry=WIDE), "not n 4, p 3"),
        (lambda: SerialDrain(geometry=WIDE), "not n 4, p 3"),
        (lambda: Engine(GEOMETRY, family="asic", compact=True), "generic and ice40, not asic"),
        (lambda: Engine(GEOMETRY, bels=["X"] * 8, compact=True), "bels must be None"),
        (lambda: Engine(GEOMETRY, family="ice40", compact=False), "compact must not be False"),
        (lambda: Engine(GEOMETRY, init=[0] * 8, family="ice40"), "init must be None on ice40"),
    ],
)
def test_parameters_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_ram_latency() -> None:
    assert RAM_LATENCY == 2


def run(dut, bench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("limit", [0, 1, 6, 7, 20, 31, 32, 100])
def test_exceeds(limit: int) -> None:
    value = Signal(5)

    async def bench(ctx) -> None:
        for number in range(32):
            ctx.set(value, number)
            assert ctx.get(exceeds(value, limit)) == (number > limit)

    simulator = Simulator(Module())
    simulator.add_testbench(bench)
    simulator.run()
