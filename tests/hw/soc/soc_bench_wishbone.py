"""The engine on Wishbone, with a master of our own. See ``soc_bench.py``."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from secateur.hw.spec import Status
from tests.hw.soc.soc_bench import (
    AT,
    Bus,
    Case,
    check_damaged,
    check_driver,
    check_map,
    check_registers,
    start,
)

LONGEST = 100  # cycles of an access: a command


class Bench:
    """A master of classic cycles, with pauses between them."""

    def __init__(self, top: Any, case: Case) -> None:
        self.top, self.case, self.clock = top, case, top.clk
        self.bus = Bus(self.read, self.write)
        self.rng = random.Random(9)
        top.wb_cyc.value = top.wb_stb.value = 0
        cocotb.start_soon(self.only_on_demand())

    async def only_on_demand(self) -> None:
        """No end without an access, and never both ends."""
        top = self.top
        while True:
            await RisingEdge(self.clock)
            ends = int(top.wb_ack.value) + int(top.wb_err.value)
            assert ends <= int(top.wb_cyc.value) & int(top.wb_stb.value)

    async def access(self, offset: int, value: int | None, strobe: int) -> tuple[bool, int]:
        top = self.top
        if self.rng.random() < self.case.stall:
            # an access that is given up at once: a read of what has no side effects
            top.wb_cyc.value = top.wb_stb.value = 1
            top.wb_we.value, top.wb_adr.value = 0, AT["BANK_WORDS"]
            for _ in range(self.rng.randint(1, 4)):
                await RisingEdge(self.clock)
            top.wb_cyc.value = self.rng.randrange(2)
            top.wb_stb.value = 0
            for _ in range(self.rng.randint(1, 3)):
                await RisingEdge(self.clock)
        top.wb_cyc.value = top.wb_stb.value = 1
        top.wb_we.value, top.wb_adr.value = int(value is not None), offset
        top.wb_dat_w.value = self.rng.getrandbits(32) if value is None else value
        top.wb_sel.value = strobe
        for _ in range(LONGEST):
            await RisingEdge(self.clock)
            if top.wb_ack.value == 1 or top.wb_err.value == 1:
                break
        else:
            raise AssertionError(f"the access to {offset:#x} does not end")
        ended = top.wb_err.value == 1, int(top.wb_dat_r.value)
        # Without a pause the next access takes this back before the clock's edge.
        top.wb_cyc.value = top.wb_stb.value = 0
        if self.rng.random() < 0.5:
            await RisingEdge(self.clock)
        return ended

    async def read(self, offset: int) -> tuple[bool, int]:
        return await self.access(offset, None, 15)

    async def write(self, offset: int, value: int, strobe: int = 15) -> bool:
        return (await self.access(offset, value, strobe))[0]


async def begin(top: Any) -> Bench:
    bench = Bench(top, Case())
    await start(top, top.clk, top.rst, 1)
    return bench


@cocotb.test()
async def registers(top: Any) -> None:
    bench = await begin(top)
    await check_map(bench.bus, bench.case)


@cocotb.test()
async def streams(top: Any) -> None:
    bench = await begin(top)
    case, sides = bench.case, {"clock": top.clk, "reset": top.rst}
    source = AxiStreamSource(AxiStreamBus.from_prefix(top, "s_axis"), **sides)
    sink = AxiStreamSink(AxiStreamBus.from_prefix(top, "m_axis"), **sides)
    for name, side in (("source", source), ("sink", sink)):
        side.set_pause_generator(case.pauses(name))
    await bench.bus.load(case.image, random.Random(0))
    assert await bench.bus.settled() == Status.WAITING
    await bench.bus.put("RESULT_BEATS", case.beats)
    await source.send(AxiStreamFrame(case.inputs.tobytes()))
    for want in case.results:
        assert bytes((await sink.recv()).tdata) == want.tobytes()
    await bench.bus.ended(len(case.inputs))
    assert await bench.bus.get("CYCLES") == case.cycles


@cocotb.test()
async def tensors_by_registers(top: Any) -> None:
    bench = await begin(top)
    await bench.bus.load(bench.case.image, random.Random(0))
    assert await bench.bus.settled() == Status.WAITING
    await check_registers(bench.bus, bench.case)


@cocotb.test()
async def damaged_image(top: Any) -> None:
    bench = await begin(top)
    await check_damaged(bench.bus, bench.case, top.irq, bench.clock)


@cocotb.test()
async def c_driver(top: Any) -> None:
    bench = await begin(top)
    await check_driver(bench.bus, bench.case)
