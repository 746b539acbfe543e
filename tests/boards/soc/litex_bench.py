"""The C code for LiteX's DMA, whose every access goes over the bus of a simulated LiteX SoC.

Runs inside the simulator; ``test_litex.py`` starts it, with the folder of the case as its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge

from secateur.hw.soc.registers import field
from tests.hw.soc.soc_bench import AT, Case
from tests.support.c_driver import OK, STOPPED, TIMEOUT, Device

LONGEST = 2000  # cycles of an access: a DMA may read all of an input before
POISON = 0xA5
MEMORY = 0x4000_0000
POLLS = 2000


class Host:
    """A master of the SoC's bus."""

    def __init__(self, top: Any) -> None:
        self.top = top

    async def access(self, address: int, value: int | None) -> tuple[bool, int]:
        top = self.top
        top.host_cyc.value = top.host_stb.value = 1
        top.host_we.value, top.host_adr.value = int(value is not None), address >> 2
        top.host_dat_w.value, top.host_sel.value = value or 0, 15
        for _ in range(LONGEST):
            await RisingEdge(top.clk)
            if top.host_ack.value == 1:  # processors look at nothing else
                break
        else:
            raise AssertionError(f"the access to {address:#x} does not end")
        ended = top.host_err.value == 1, int(top.host_dat_r.value)
        top.host_cyc.value = top.host_stb.value = 0
        await RisingEdge(top.clk)
        return ended

    async def read(self, address: int) -> int:
        refused, value = await self.access(address, None)
        assert not refused, hex(address)
        return value

    async def write(self, address: int, value: int) -> None:
        assert not (await self.access(address, value))[0], hex(address)


async def begin(top: Any) -> Host:
    """Clock and reset; nobody at the UART."""
    Clock(top.clk, 2, "ns").start()
    top.host_cyc.value = top.host_stb.value = 0
    top.serial_sink_valid.value, top.serial_source_ready.value = 0, 1
    top.rst.value = 1
    await ClockCycles(top.clk, 4)
    top.rst.value = 0
    await RisingEdge(top.clk)
    return Host(top)


class Tensors(ctypes.Structure):
    """``secateur_tensors`` of boards/soc/secateur_litex.h."""

    _fields_ = [
        ("input", ctypes.c_void_p),
        ("words", ctypes.c_size_t),
        ("output", ctypes.c_void_p),
        ("beats", ctypes.c_size_t),
    ]


class Firmware:
    """The C driver and the code for the DMA, on the simulated bus; calls block."""

    READ = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_uint32)
    WRITE = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32)

    def __init__(self, host: Host, case: Case) -> None:
        self.c = ctypes.CDLL(str(Path("driver.so").resolve()))
        self.case = case
        self.part = int(os.environ["SECATEUR_DMA_BYTES"])  # that a DMA moves at once
        self.registers = int(Path("registers.txt").read_text())
        self.peek: Callable[[int], int] = resume(host.read)
        self.poke: Callable[[int, int], Any] = resume(host.write)
        self.access = resume(host.access)
        self.kept = (
            self.READ(self.peek), self.WRITE(self.poke), Device.READ(self._read),
            Device.WRITE(self._write),
        )  # fmt: skip
        self.c.connect(*self.kept[:2])
        self.device = Device()
        self.this = ctypes.byref(self.device)
        assert self.c.secateur_open(self.this, None, *self.kept[2:], ctypes.c_uint32(POLLS)) == OK
        assert self.device.n == case.n

    def _read(self, _: Any, offset: int, value: Any) -> int:
        refused, value[0] = self.access(self.registers + offset, None)
        return int(refused)

    def _write(self, _: Any, offset: int, value: int) -> int:
        return int(self.access(self.registers + offset, value)[0])

    def put(self, address: int, data: bytes) -> None:
        """Bytes to the memory; the last word is filled."""
        data += bytes([POISON]) * (-len(data) % 4)
        for at in range(0, len(data), 4):
            self.poke(address + at, int.from_bytes(data[at : at + 4], "little"))

    def get(self, address: int, size: int) -> bytes:
        words = range(address, address + size, 4)
        return b"".join(self.peek(at).to_bytes(4, "little") for at in words)[:size]

    def load(self, image: bytes) -> int:
        return self.c.secateur_load(self.this, image, ctypes.c_size_t(len(image)))

    def restart(self) -> None:
        assert self.c.secateur_restart(self.this) == OK

    def cycles(self) -> int:
        value = ctypes.c_uint32()
        assert self.c.secateur_cycles(self.this, ctypes.byref(value)) == OK
        return value.value

    def tensors(self, rows: np.ndarray, beats: int) -> Tensors:
        """Inputs in the memory, and behind them what the DMA must not read; poisoned results."""
        n = self.case.n
        data = rows.tobytes()
        beside = bytes([POISON]) * 16
        self.put(MEMORY + 0x40, data + beside)
        self.put(MEMORY + 0x2000, beside + bytes([POISON]) * (beats * n) + beside)
        return Tensors(MEMORY + 0x40, len(data) // n, MEMORY + 0x2010, beats)

    def infer(self, tensors: Tensors) -> int:
        flushes = ctypes.c_int.in_dll(self.c, "flushes").value
        result = self.c.secateur_dma_infer(self.this, ctypes.byref(tensors))
        assert ctypes.c_int.in_dll(self.c, "flushes").value > flushes
        return result

    def await_results(self) -> None:
        """Until the event of the results is there."""
        for _ in range(POLLS):
            if self.c.events() & 2:
                break
        assert self.c.secateur_dma_done() == 1

    def await_waiting(self) -> None:
        """Until a result waits for its DMA."""
        waits = field("STATUS", "STREAM_VALID").mask
        for _ in range(POLLS):
            if self.peek(self.registers + AT["STATUS"]) & waits:
                return
        raise AssertionError("there is no result")

    def check(self, rows: np.ndarray, want: np.ndarray) -> None:
        """Inferences in one transfer: all bytes of the results, none beside them."""
        tensors = self.tensors(rows, want.size // self.case.n)
        assert self.infer(tensors) == OK
        self.check_results(tensors, want)

    def check_results(self, tensors: Tensors, want: np.ndarray) -> None:
        beside = bytes([POISON]) * 16
        found = self.get(tensors.output - 16, 16 + want.size + 16)
        assert found == beside + want.tobytes() + beside
        assert self.cycles() == self.case.cycles


async def run(top: Any, program: Callable[[Firmware, Case], None]) -> None:
    host, case = await begin(top), Case()

    def call() -> None:
        firmware = Firmware(host, case)
        assert firmware.load(case.image) == OK
        program(firmware, case)

    await bridge(call)()


@cocotb.test()
async def inferences(top: Any) -> None:
    """One by one, and all in one transfer; both interrupts; an access that is refused."""

    def program(firmware: Firmware, case: Case) -> None:
        for row, want in zip(case.inputs, case.results, strict=True):
            firmware.check(row, want)
        firmware.restart()
        firmware.check(case.inputs, case.results)
        firmware.restart()
        tensors = firmware.tensors(case.inputs, case.results.size // case.n)
        assert firmware.c.events() == 0
        assert firmware.c.secateur_dma_start(firmware.this, ctypes.byref(tensors)) == OK
        firmware.await_results()
        assert firmware.c.sent() == case.inputs.size // firmware.part
        firmware.poke(firmware.registers + AT["IRQ_ENABLE"], 1)
        assert firmware.c.events() == 3
        firmware.c.secateur_dma_stop()
        assert firmware.c.secateur_dma_done() == 0
        assert firmware.c.events() == 1
        firmware.poke(firmware.registers + AT["IRQ_PENDING"], 1)
        assert firmware.c.events() == 0
        refused, _ = firmware.access(firmware.registers + AT["RESULT"], None)
        assert refused == (os.environ["SECATEUR_REFUSALS"] == "seen")
        firmware.check_results(tensors, case.results)

    await run(top, program)


@cocotb.test()
async def results_wait_for_their_dma(top: Any) -> None:
    def program(firmware: Firmware, case: Case) -> None:
        row, want = case.inputs[0], case.results[0]
        tensors = firmware.tensors(row, case.beats)
        firmware.c.send(tensors.input, row.size)
        firmware.await_waiting()
        part = firmware.part
        if part < case.n:  # a transfer that ends within a word: the next begins with that word
            firmware.c.receive(tensors.output, part)
            firmware.await_results()
            firmware.c.secateur_dma_stop()
        firmware.c.receive(tensors.output, want.size)
        firmware.await_results()
        firmware.c.secateur_dma_stop()
        firmware.check_results(tensors, want)

    await run(top, program)


@cocotb.test()
async def what_is_left_of_a_transfer_is_lost(top: Any) -> None:
    """After an engine that stopped; too little of an input; inputs and results that wait."""

    def program(firmware: Firmware, case: Case) -> None:
        row, want = case.inputs[0], case.results[0]
        damaged = case.image[:-3] + bytes([case.image[-3] ^ 1]) + case.image[-2:]
        assert firmware.load(damaged) == STOPPED
        assert firmware.infer(firmware.tensors(row, case.beats)) == STOPPED
        assert firmware.load(case.image) == OK
        firmware.check(row, want)
        firmware.device.polls = 20
        assert firmware.infer(firmware.tensors(row[: 3 * case.n], case.beats)) == TIMEOUT
        firmware.device.polls = POLLS
        firmware.restart()
        firmware.check(row, want)
        firmware.restart()
        assert firmware.infer(firmware.tensors(case.inputs, 1)) == OK
        firmware.await_waiting()
        firmware.restart()
        firmware.check(row, want)

    await run(top, program)
