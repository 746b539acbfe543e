"""An engine with a ring that reads its image from cocotbext-axi's memory. See ``soc_bench.py``."""

from __future__ import annotations

import ctypes
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiReadBus, AxiSlaveRead, AxiStreamFrame, MemoryRegion

from secateur.hw.spec import Error, Status
from tests.hw.soc.soc_bench import POLLS, Case, driver_of, start
from tests.hw.soc.soc_bench_axi import Bench
from tests.support.c_driver import BAD_IMAGE, OK, REFUSED, STOPPED, Device

BASE = 0x4000


class Memory(MemoryRegion):
    """A memory whose reads fail from an address on, if there is one."""

    fails: int | None = None

    async def read(self, address: int, length: int, **kwargs: Any) -> bytes:
        if self.fails is not None and address >= self.fails:
            raise ValueError("no memory there")
        return await super().read(address, length, **kwargs)


class RingBench(Bench):
    """With an image in memory at BASE."""

    def __init__(self, top: Any, case: Case) -> None:
        super().__init__(top, case)
        self.memory = Memory(1 << 16)
        sides = {"clock": top.aclk, "reset": top.aresetn, "reset_active_level": False}
        bus = AxiReadBus.from_prefix(top, "m_axi")
        self.ram = AxiSlaveRead(bus, target=self.memory, **sides)
        if case.stall:
            self.ram.ar_channel.set_pause_generator(case.pauses("memory ar"))
            self.ram.r_channel.set_pause_generator(case.pauses("memory r"))

    async def put_image(self, image: bytes) -> None:
        self.memory.mem[BASE : BASE + len(image)] = image

    async def begin(self, image: bytes) -> None:
        await self.put_image(image)
        await self.bus.put("SOURCE_BYTES", 0)
        await self.bus.put("SOURCE_BASE", BASE)
        await self.bus.put("SOURCE_BYTES", len(image))
        await self.bus.command("RESET")


async def ring(top: Any) -> RingBench:
    bench = RingBench(top, Case())
    await start(top, top.aclk, top.aresetn, 0)
    return bench


@cocotb.test()
async def inferences(top: Any) -> None:
    """All results, cycles as on chip, waits apart; also behind a restart in mid-pass."""
    bench = await ring(top)
    case, bus = bench.case, bench.bus
    await bench.begin(case.image)
    assert await bus.settled() == Status.WAITING
    assert await bus.get("RING_WORDS") == 64
    await bus.put("RESULT_BEATS", case.beats)
    for _ in range(2):
        await bench.infer(case.beats)
        assert await bus.get("CYCLES") == case.cycles
        assert await bus.get("MEMORY_WAIT") > 0
        await bus.command("RESTART")
    assert await bus.get("STATUS", "UPSET") == 0
    assert (await bus.read(0x40))[0]


@cocotb.test()
async def a_changed_word(top: Any) -> None:
    """It raises UPSET; a reset and the image anew do away with it."""
    bench = await ring(top)
    case, bus = bench.case, bench.bus
    await bench.begin(case.image)
    assert await bus.settled() == Status.WAITING
    wrong = bytearray(case.image)
    wrong[-1] ^= 1
    await bench.put_image(bytes(wrong))
    await bench.source.send(AxiStreamFrame(case.inputs[0].tobytes()))
    await bus.ended(1)
    while len(bench.results) < case.beats:
        await ClockCycles(bench.clock, 1)
    assert await bus.get("STATUS", "UPSET") == 1
    await bench.begin(case.image)
    assert await bus.settled() == Status.WAITING
    assert await bus.get("STATUS", "UPSET") == 0
    await bus.put("RESULT_BEATS", case.beats)
    await bench.infer(case.beats)


@cocotb.test()
async def memory_errors(top: Any) -> None:
    """While the image is checked, and later: the engine stops; a reset begins again."""
    bench = await ring(top)
    case, bus = bench.case, bench.bus
    for later in (False, True):
        bench.memory.fails = None if later else BASE + len(case.image) // 2
        await bench.begin(case.image)
        if later:
            assert await bus.settled() == Status.WAITING
            bench.memory.fails = BASE
            await bench.source.send(AxiStreamFrame(np.concatenate(list(case.inputs)).tobytes()))
        for _ in range(3000):
            if await bus.get("STATUS", "STATE") == Status.ERROR:
                break
        assert await bus.get("STATUS", "ERROR") == Error.SOURCE
        await ClockCycles(bench.clock, 100)
    bench.memory.fails = None
    await bench.begin(case.image)
    assert await bus.settled() == Status.WAITING


@cocotb.test()
async def c_driver(top: Any) -> None:
    """The compiled driver makes the engine read the image, and refuses what it cannot read."""
    bench = await ring(top)
    case, bus = bench.case, bench.bus
    driver, callbacks = driver_of(bus)

    def program() -> None:
        device = Device()
        this, number, size = ctypes.byref(device), ctypes.c_uint32, ctypes.c_size_t
        image = case.image
        assert driver.secateur_open(this, None, *callbacks, number(POLLS)) == OK
        assert driver.secateur_load(this, image, size(len(image))) == REFUSED

        def source(address: int, length: int) -> int:
            return driver.secateur_read_from(this, number(address), image, size(length))

        assert source(BASE, len(image) - 1) == BAD_IMAGE
        assert source(BASE + 4, len(image)) == BAD_IMAGE
        assert source(BASE + 64, len(image)) == STOPPED
        assert source(BASE, len(image)) == OK
        words = size(case.inputs.shape[1] // case.n)
        assert driver.secateur_use_registers(this, 1) == OK
        output = ctypes.create_string_buffer(case.results[0].size)
        row, beats = case.inputs[0].tobytes(), size(case.beats)
        assert driver.secateur_infer(this, row, words, output, beats) == OK
        assert output.raw == case.results[0].tobytes()

    await bench.put_image(case.image)
    await bridge(program)()
