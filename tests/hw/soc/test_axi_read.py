"""The reader of an image on AXI4: its bytes from a memory with pauses and errors, and an engine
behind it in Verilator with cocotbext-axi's RAM."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from secateur.hw.soc.axi_read import BURST_BYTES, DEPTH, AxiReader
from secateur.hw.spec import Geometry
from secateur.sim import verilator
from secateur.sim.golden import parse, run
from tests.hw.soc.test_soc import build
from tests.support.c_driver import compile_driver
from tests.support.long import long
from tests.support.programs import random_program

BASE = 0x8000_0FC0  # the first burst ends at 4 KiB


class Memory:
    """A naive memory: answers bursts in order, with pauses; checks that each is one that may be."""

    def __init__(self, dut: AxiReader, data: bytes, pause: float, seed: int = 0) -> None:
        self.dut, self.data, self.pause, self.rng = dut, data, pause, random.Random(seed)
        self.asked: list[tuple[int, int]] = []  # addresses and beats to come
        self.on_the_way = self.most = self.bursts = 0
        self.broken: set[int] = set()  # addresses that are answered with an error

    async def addresses(self, ctx) -> None:
        dut, held = self.dut, None
        while True:
            ctx.set(dut.arready, self.rng.random() >= self.pause)
            _, _, valid, ready, address, length, size, burst = await ctx.tick().sample(
                dut.arvalid, dut.arready, dut.araddr, dut.arlen, dut.arsize, dut.arburst
            )
            assert held is None or (valid and held == (address, length)), "an address has changed"
            held = (address, length) if valid and not ready else None
            if valid and ready:
                assert (size, burst) == (2, 1)
                assert address // 4096 == (address + 4 * length + 3) // 4096
                self.asked.append((address, length + 1))
                self.on_the_way += length + 1
                self.most, self.bursts = max(self.most, self.on_the_way), self.bursts + 1

    async def beats(self, ctx) -> None:
        dut = self.dut
        while True:
            while not self.asked or self.rng.random() < self.pause:
                ctx.set(dut.rvalid, 0)
                await ctx.tick()
            address, left = self.asked[0]
            at = address - BASE
            ctx.set(dut.rdata, int.from_bytes(self.data[at : at + 4], "little"))
            ctx.set(dut.rresp, 2 if address in self.broken else 0)
            ctx.set(dut.rvalid, 1)
            _, _, ready = await ctx.tick().sample(dut.rready)
            assert ready
            self.on_the_way -= 1
            self.asked[0] = (address + 4, left - 1)
            if left == 1:
                self.asked.pop(0)


def read(size: int, count: int, *, pause: float, stall: float, disable: int | None = None):
    """``count`` bytes; ``disable``: after so many bytes the reader is switched off and on."""
    data = random.Random(size).randbytes(-(-size // 4) * 4)
    dut = AxiReader()
    memory, got, rng = Memory(dut, data, pause), bytearray(), random.Random(1)

    async def bench(ctx) -> None:
        ctx.set(dut.base, BASE + 5)  # the low bits do not count
        ctx.set(dut.size, size)
        ctx.set(dut.enable, 1)
        begun = False
        while len(got) < count:
            if disable is not None and len(got) == disable and not begun:
                begun = True
                ctx.set(dut.enable, 0)
                ctx.set(dut.image.ready, 0)
                for _ in range(rng.randint(1, 60)):
                    await ctx.tick()
                ctx.set(dut.enable, 1)
            ctx.set(dut.image.ready, rng.random() >= stall)
            _, _, valid, ready, byte = await ctx.tick().sample(
                dut.image.valid, dut.image.ready, dut.image.payload
            )
            if valid and ready:
                got.append(byte)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (memory.addresses, memory.beats):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    return bytes(got), data[:size], memory


@pytest.mark.parametrize("size", [1, 3, 4, 63, 64, 65, 199])
@pytest.mark.parametrize(("pause", "stall"), [(0.0, 0.0), (0.6, 0.3), (0.2, 0.8)])
def test_bytes_of_pass_after_pass(size: int, pause: float, stall: float) -> None:
    count = 3 * size + 2
    got, data, memory = read(size, count, pause=pause, stall=stall)
    assert got == (data * 6)[:count]
    assert memory.most <= DEPTH
    assert memory.bursts >= 3 * -(-size // BURST_BYTES)


@pytest.mark.parametrize("at", [0, 1, 64, 150])
@pytest.mark.parametrize("pause", [0.0, 0.7])
def test_begins_anew(at: int, pause: float) -> None:
    """What is on its way when it is switched off does not come when it is on again."""
    got, data, _ = read(199, at + 450, pause=pause, stall=0.2, disable=at)
    assert got == (data * 3)[:at] + (data * 3)[:450]


@pytest.mark.parametrize("answer", [False, True])
def test_an_error_is_told(answer: bool) -> None:
    dut = AxiReader()
    memory = Memory(dut, bytes(200), 0.3)
    memory.broken = {BASE + 40} if answer else set()
    seen = []

    async def bench(ctx) -> None:
        ctx.set(dut.base, BASE)
        ctx.set(dut.size, 200)
        ctx.set(dut.enable, 1)
        ctx.set(dut.image.ready, 1)
        for _ in range(400):
            await ctx.tick()
        seen.append(ctx.get(dut.failed))
        ctx.set(dut.enable, 0)
        await ctx.tick().repeat(2)
        seen.append(ctx.get(dut.failed))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for process in (memory.addresses, memory.beats):
        simulator.add_testbench(process, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [answer, False]


@pytest.mark.parametrize("stall", [long(0.0), 0.5])
def test_an_engine_reads_its_image(stall: float, tmp_path: Path) -> None:
    """Inferences, a damaged image, memory errors, a restart: see ``soc_bench_ring.py``."""
    geometry = Geometry(n=4, p=2, weight_words=1024, bank_words=64, ring=64)
    on_chip = Geometry(n=4, p=2, weight_words=1024, bank_words=64)
    sample = random_program(10, on_chip, layers=3, several=True)
    inputs = sample.inputs(3)
    expected = run(parse(sample.image, on_chip), inputs, sequential=True)
    np.savez(
        tmp_path / "case.npz", n=geometry.n, image=np.frombuffer(sample.image, np.uint8),
        inputs=inputs, results=expected.results, cycles=expected.cycles,
    )  # fmt: skip
    compile_driver(tmp_path / "driver.so")
    program = build(geometry, "axi")
    verilator.execute(
        program, tmp_path, "tests.hw.soc.soc_bench_ring", {"SECATEUR_STALL": str(stall)}
    )
