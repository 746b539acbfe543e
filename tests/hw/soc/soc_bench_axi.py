"""The engine on AXI4-Lite and AXI4-Stream, driven by cocotbext-axi. See ``soc_bench.py``."""

from __future__ import annotations

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiResp,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from secateur.hw.spec import Status
from tests.hw.soc.soc_bench import (
    Bus,
    Case,
    check_damaged,
    check_driver,
    check_map,
    check_mapped,
    check_registers,
    start,
    watch,
)

PATIENCE = 20000  # cycles of all inferences


class Bench:
    """Masters, sinks, monitors; ``results`` collects (data, last) of the result stream."""

    def __init__(self, top: Any, case: Case) -> None:
        self.case, self.clock, self.reset = case, top.aclk, top.aresetn
        sides = {"clock": top.aclk, "reset": top.aresetn, "reset_active_level": False}
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(top, "s_axi"), **sides)
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(top, "s_axis"), **sides)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(top, "m_axis"), **sides)
        write, read = self.master.write_if, self.master.read_if
        channels = {
            "aw": write.aw_channel, "w": write.w_channel, "b": write.b_channel,
            "ar": read.ar_channel, "r": read.r_channel, "source": self.source, "sink": self.sink,
        }  # fmt: skip
        if case.stall:
            for name, channel in channels.items():
                channel.set_pause_generator(case.pauses(name))
        for channel, payload in (("b", ["bresp"]), ("r", ["rdata", "rresp"])):
            valid, ready = (getattr(top, f"s_axi_{channel}{end}") for end in ("valid", "ready"))
            signals = [getattr(top, f"s_axi_{name}") for name in payload]
            watch(self.clock, self.reset, 0, valid, ready, signals)
        self.results = watch(
            self.clock, self.reset, 0, top.m_axis_tvalid, top.m_axis_tready,
            [top.m_axis_tdata, top.m_axis_tlast],
        )  # fmt: skip
        self.bus = Bus(self.read, self.write)

    async def read(self, offset: int) -> tuple[bool, int]:
        done = await self.master.read(offset, 4)
        assert done.resp in (AxiResp.OKAY, AxiResp.SLVERR)
        return done.resp != AxiResp.OKAY, int.from_bytes(done.data, "little")

    async def write(self, offset: int, value: int, strobe: int = 15) -> bool:
        """One write; strobes that cocotbext-axi's master does not make go by its channels."""
        interface = self.master.write_if
        address = interface.aw_channel._transaction_obj(awaddr=offset, awprot=0)
        await interface.aw_channel.send(address)
        data = interface.w_channel._transaction_obj(wdata=value, wstrb=strobe)
        await interface.w_channel.send(data)
        response = AxiResp(int((await self.responses()).bresp))
        assert response in (AxiResp.OKAY, AxiResp.SLVERR)
        return response != AxiResp.OKAY

    async def responses(self) -> Any:
        return await self.master.write_if.b_channel.recv()

    async def infer(self, beats: int) -> None:
        """All inputs in frames of random sizes; ``tlast`` after every ``beats``, 0: never."""
        case, rng = self.case, random.Random(5)
        data = case.inputs.tobytes()
        while data:
            size = rng.randint(1, 9) * case.n
            await self.source.send(AxiStreamFrame(data[:size]))
            data = data[size:]
        want = [
            (int.from_bytes(beat.tobytes(), "little"), int(beats > 0 and number % beats == 0))
            for number, beat in enumerate(np.concatenate(list(case.results)), 1)
        ]
        self.results.clear()
        for _ in range(PATIENCE):
            await RisingEdge(self.clock)
            if len(self.results) >= len(want):
                break
        assert self.results == want


async def begin(top: Any) -> Bench:
    bench = Bench(top, Case())
    await start(top, top.aclk, top.aresetn, 0)
    return bench


@cocotb.test()
async def registers(top: Any) -> None:
    bench = await begin(top)
    await check_map(bench.bus, bench.case)


@cocotb.test()
async def master_of_cocotbext(top: Any) -> None:
    """The map as the package's own master sees it: unaligned, longer than a word."""
    bench = await begin(top)
    done = await bench.master.read(0, 5)
    assert (done.resp, done.data[:4]) == (AxiResp.OKAY, b"SECT")
    assert (await bench.master.write(0x1D, b"\x34\x12")).resp == AxiResp.OKAY
    assert (await bench.master.read(0x1C, 4)).data == b"\x00\x34\x12\x00"
    assert (await bench.master.write(0xF0, bytes(4))).resp == AxiResp.SLVERR


@cocotb.test()
async def streams(top: Any) -> None:
    """Inferences while the registers are read and written, a restart in the middle of one."""
    bench = await begin(top)
    case, bus = bench.case, bench.bus
    await bus.load(case.image, random.Random(0))
    assert await bus.settled() == Status.WAITING
    for beats in (0, case.beats + 1, case.beats):
        await bus.put("RESULT_BEATS", beats)
        await bench.infer(beats)
    await bus.command("RESTART")
    await bus.put("IRQ_PENDING", 1)
    for _ in range(2):
        run = cocotb.start_soon(bench.infer(case.beats))
        for _ in range(20):
            await bus.put("IRQ_ENABLE", 1)
            assert await bus.get("IRQ_ENABLE") == 1
            assert await bus.get("STATUS", "ERROR") == 0
        await run
        await bus.ended(len(case.inputs))
        assert await bus.get("CYCLES") == case.cycles
        await RisingEdge(bench.clock)
        assert top.irq.value == 1
        await bus.put("IRQ_PENDING", 1)
        await RisingEdge(bench.clock)
        assert top.irq.value == 0

        # A beat on the stream outlives a restart, as AXI demands; all else is forgotten.
        bench.sink.pause = True
        bench.sink.clear_pause_generator()
        await bench.source.send(AxiStreamFrame(case.inputs[0].tobytes()))
        while not await bus.get("STATUS", "STREAM_VALID"):
            pass
        await bus.command("RESTART")
        assert await bus.get("INFERENCES") == 0
        assert await bus.get("STATUS", "STATE") == Status.WAITING
        assert await bus.get("STATUS", "STREAM_VALID") == 1
        bench.results.clear()
        bench.sink.pause = False
        await ClockCycles(bench.clock, 30)
        assert bench.results == [
            (int.from_bytes(case.results[0, 0].tobytes(), "little"), int(case.beats == 1))
        ]
        assert await bus.get("STATUS", "STREAM_VALID") == 0
        if case.stall:
            bench.sink.set_pause_generator(case.pauses("sink"))
        await bus.command("RESTART")


@cocotb.test()
async def tensors_by_registers(top: Any) -> None:
    bench = await begin(top)
    await bench.bus.load(bench.case.image, random.Random(0))
    assert await bench.bus.settled() == Status.WAITING
    await check_registers(bench.bus, bench.case)
    assert bench.results == []


@cocotb.test()
async def damaged_image(top: Any) -> None:
    bench = await begin(top)
    await check_damaged(bench.bus, bench.case, top.irq, bench.clock)


@cocotb.test()
async def c_driver(top: Any) -> None:
    bench = await begin(top)
    await check_driver(bench.bus, bench.case)


@cocotb.test()
async def registers_in_memory(top: Any) -> None:
    bench = await begin(top)
    await check_mapped(bench.bus, bench.case)
