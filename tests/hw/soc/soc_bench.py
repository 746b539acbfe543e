"""What the benches of the two buses share: the case, monitors, the C driver through ctypes.

Runs inside the simulator; ``test_soc.py`` starts it, with the folder of the case as its own.
"""

from __future__ import annotations

import ctypes
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, RisingEdge

from secateur.boards.driver.device import Device as PythonDevice
from secateur.boards.driver.device import DeviceError
from secateur.boards.driver.mapped import MappedLink
from secateur.hw.soc.registers import BY_NAME, OF_FLASH, OF_RING, field
from secateur.hw.spec import Error, Status
from tests.support.c_driver import BAD_IMAGE, OK, OTHER_IMAGE, REFUSED, STOPPED, TIMEOUT, Device

AT = {name: register.offset for name, register in BY_NAME.items()}
POLLS = 5000
#: Registers of an engine with a ring, and of one whose image is in flash.
ABSENT = (*OF_RING, *OF_FLASH)


class Case:
    """An image, inputs (batch, bytes), what is expected of them, and the chance of a stall."""

    def __init__(self) -> None:
        with np.load("case.npz") as file:
            self.n = int(file["n"])
            self.image, self.inputs = file["image"].tobytes(), file["inputs"]
            self.results, self.cycles = file["results"], int(file["cycles"])
        self.stall = float(os.environ["SECATEUR_STALL"])
        self.beats = self.results.shape[1]

    def pauses(self, name: str) -> Iterator[bool]:
        """Seeded pauses of the channel ``name``."""
        rng = random.Random(f"{name} {self.stall}")
        while True:
            yield rng.random() < self.stall


@dataclass(frozen=True)
class Bus:
    """Accesses to registers; ``read`` gives (refused, value), ``write`` whether it was refused."""

    read: Callable[[int], Awaitable[tuple[bool, int]]]
    write: Callable[..., Awaitable[bool]]

    async def get(self, name: str, part: str | None = None) -> int:
        """A register that is not refused, or a field of it."""
        refused, value = await self.read(AT[name])
        assert not refused
        if part is None:
            return value
        bits = field(name, part)
        return (value & bits.mask) >> bits.low

    async def put(self, name: str, value: int, strobe: int = 15) -> None:
        """Write a register that is not refused."""
        assert not await self.write(AT[name], value, strobe)

    async def command(self, name: str) -> None:
        await self.put("CONTROL", field("CONTROL", name).mask)

    async def load(self, image: bytes, rng: random.Random) -> None:
        """Load an image by writes of whole words and of parts of words."""
        at = 0
        while at < len(image):
            strobe = rng.choice([15, 15, 15, 1, 2, 8, 3, 12, 5, 14])
            value = 0
            for lane in range(4):
                if strobe >> lane & 1:
                    value |= (image[at] if at < len(image) else 0xA5) << 8 * lane
                    at += 1
                else:
                    value |= rng.randrange(256) << 8 * lane
            await self.put("IMAGE", value, strobe)

    async def settled(self) -> Status:
        """The state after an image was loaded and checked."""
        for _ in range(POLLS):
            state = Status(await self.get("STATUS", "STATE"))
            if state not in (Status.LOADING, Status.CHECKING):
                return state
        raise AssertionError("the image is neither accepted nor refused")

    async def ended(self, count: int) -> None:
        for _ in range(POLLS):
            if await self.get("INFERENCES", "COUNT") == count:
                return
        raise AssertionError(f"{count} inferences have not ended")


async def start(top: Any, clock: Any, reset: Any, active: int) -> None:
    """Clock and reset."""
    Clock(clock, 2, "ns").start()
    reset.value = active
    await ClockCycles(clock, 4)
    reset.value = 1 - active
    await RisingEdge(clock)


def watch(clock: Any, reset: Any, active: int, valid: Any, ready: Any, payload: list[Any]) -> list:
    """Beats of a channel; a beat that waits must not change or be withdrawn."""
    beats: list[tuple[int, ...]] = []

    async def monitor() -> None:
        held = None
        while True:
            await RisingEdge(clock)
            if reset.value == active:
                held = None
                continue
            now = tuple(int(signal.value) for signal in payload) if valid.value == 1 else None
            assert held in (None, now), f"{valid._name}: {held} became {now}"
            held = now if ready.value == 0 else None
            if now is not None and ready.value == 1:
                beats.append(now)

    cocotb.start_soon(monitor())
    return beats


async def check_map(bus: Bus, case: Case) -> None:
    """Constants, refusals, and bytes that are written alone."""
    assert await bus.get("ID") == int.from_bytes(b"SECT", "little")
    assert await bus.get("GEOMETRY", "N") == case.n
    assert await bus.get("VERSION", "MAP") == 2
    for offset in range(0, 256, 4):
        register = next((r for r in BY_NAME.values() if r.offset == offset), None)
        absent = register is None or register.name in ABSENT  # no ring: as if there were none
        access = "" if absent else register.access
        may_read = "r" in access and offset not in (AT["RESULT"], AT["IMAGE_CRC"])
        assert (await bus.read(offset))[0] != may_read, hex(offset)
        may_write = "w" in access and offset != AT["INPUT"]
        assert await bus.write(offset, 0, 15) != may_write, hex(offset)
    await bus.put("RESULT_BEATS", 0xFFAABBCC)
    await bus.put("RESULT_BEATS", 0x11223344, 0b1010)
    assert await bus.get("RESULT_BEATS") == 0x00AA33CC
    await bus.put("CONTROL", 3, 0b1110)  # no command: its byte is not written
    await bus.put("RESULT_BEATS", 0)


async def check_registers(bus: Bus, case: Case) -> None:
    """An inference through INPUT and RESULT; neither is taken when it cannot be."""
    await bus.put("MODE", 1)
    part = min(4, case.n)
    for index, (row, want) in enumerate(zip(case.inputs, case.results, strict=True)):
        assert await bus.write(AT["INPUT"], 0, 0b0001), "a part of a word"
        for at in range(0, len(row), part):
            for _ in range(POLLS):
                if await bus.get("STATUS", "INPUT_READY"):
                    break
            await bus.put("INPUT", int.from_bytes(row[at : at + part].tobytes(), "little"))
        got = b""
        for _ in range(want.size // part):
            for _ in range(POLLS):
                if await bus.get("STATUS", "RESULT_VALID"):
                    break
            got += (await bus.get("RESULT")).to_bytes(4, "little")[:part]
        assert got == want.tobytes()
        await bus.ended(index + 1)
        assert await bus.get("CYCLES") == case.cycles
    assert (await bus.read(AT["RESULT"]))[0]
    assert await bus.get("IRQ_PENDING") == 1
    await bus.put("MODE", 0)


async def check_damaged(bus: Bus, case: Case, irq: Any, clock: Any) -> None:
    """A damaged image is refused, further bytes are dropped, a reset lets a good one in."""
    await bus.put("IRQ_PENDING", 3)
    await bus.put("IRQ_ENABLE", 2)
    await bus.command("RESET")
    assert await bus.get("STATUS", "STATE") == Status.LOADING
    damaged = bytearray(case.image)
    damaged[-3] ^= 0x40
    await bus.load(bytes(damaged), random.Random(1))
    assert await bus.settled() == Status.ERROR
    assert await bus.get("STATUS", "ERROR") == Error.CRC
    await RisingEdge(clock)
    assert irq.value == 1
    await bus.put("IRQ_PENDING", 2)
    await RisingEdge(clock)
    assert irq.value == 0
    await bus.put("IMAGE", 0x12345678)
    await bus.command("RESTART")
    assert await bus.get("STATUS", "STATE") == Status.ERROR
    await bus.command("RESET")
    assert await bus.get("IRQ_PENDING") == 0  # neither command is a new error
    await bus.load(b"SECX", random.Random(2))
    assert await bus.settled() == Status.ERROR
    assert await bus.get("STATUS", "ERROR") == Error.MAGIC
    assert await bus.get("IRQ_PENDING") == 2
    await bus.command("RESET")
    await bus.load(case.image, random.Random(3))
    assert (await bus.read(AT["IMAGE_CRC"]))[0], "no image is accepted"
    assert await bus.settled() == Status.WAITING
    assert await bus.get("IMAGE_CRC") == int.from_bytes(case.image[20:24], "little")


def driver_of(bus: Bus) -> tuple[ctypes.CDLL, tuple[Any, Any]]:
    """The C driver, compiled, and its two accesses: each is one of the simulated bus."""
    read_bus, write_bus = resume(bus.read), resume(bus.write)

    def read(_: Any, offset: int, value: Any) -> int:
        refused, value[0] = read_bus(offset)
        return int(refused)

    def write(_: Any, offset: int, value: int) -> int:
        return int(write_bus(offset, value, 15))

    return ctypes.CDLL(str(Path("driver.so").resolve())), (Device.READ(read), Device.WRITE(write))


async def check_driver(bus: Bus, case: Case) -> None:
    """The C driver on the simulated bus."""
    driver, callbacks = driver_of(bus)

    def program() -> None:
        device = Device()
        this, number = ctypes.byref(device), ctypes.c_uint32
        assert driver.secateur_open(this, None, *callbacks, number(POLLS)) == OK
        assert (device.n, device.rom) == (case.n, 0)
        size = ctypes.c_size_t
        image = case.image + b'{"metadata": "not for the engine"}'
        damaged = image[:-40] + bytes([image[-40] ^ 1]) + image[-39:]
        assert driver.secateur_load(this, image, size(len(case.image) - 1)) == BAD_IMAGE
        nothing = image[:8] + bytes(4) + image[12:]  # of no words
        assert driver.secateur_load(this, nothing, size(len(nothing))) == BAD_IMAGE
        assert driver.secateur_load(this, damaged, size(len(damaged))) == STOPPED
        state, error = number(), number()
        assert driver.secateur_state(this, ctypes.byref(state), ctypes.byref(error)) == OK
        assert (state.value, error.value) == (Status.ERROR, Error.CRC)
        assert driver.secateur_check_holds(this, image, size(24)) == REFUSED
        assert driver.secateur_load(this, image, size(len(image))) == OK
        assert driver.secateur_check_holds(this, image, size(24)) == OK
        assert driver.secateur_check_holds(this, image, size(23)) == BAD_IMAGE
        other = image[:20] + bytes([image[20] ^ 1]) + image[21:]
        assert driver.secateur_check_holds(this, other, size(24)) == OTHER_IMAGE
        words = size(case.inputs.shape[1] // case.n)
        row = case.inputs[0].tobytes()
        assert driver.secateur_use_registers(this, 0) == OK
        device.polls = 3
        assert driver.secateur_send(this, row, words) == TIMEOUT
        device.polls = POLLS
        assert driver.secateur_use_registers(this, 1) == OK
        output = ctypes.create_string_buffer(case.results[0].size)
        for _ in range(2):
            for row, want in zip(case.inputs, case.results, strict=True):
                beats = size(case.beats)
                assert driver.secateur_infer(this, row.tobytes(), words, output, beats) == OK
                assert output.raw == want.tobytes()
            cycles, count = number(), number()
            for _ in range(POLLS):
                assert driver.secateur_inferences(this, ctypes.byref(count)) == OK
                if count.value == len(case.inputs):
                    break
            assert count.value == len(case.inputs)
            assert driver.secateur_cycles(this, ctypes.byref(cycles)) == OK
            assert cycles.value == case.cycles
            assert driver.secateur_restart(this) == OK
        assert driver.secateur_use_registers(this, 0) == OK
        upset, scrubs = ctypes.c_int(-1), number()
        for _ in range(POLLS):
            assert driver.secateur_upset(this, ctypes.byref(upset), ctypes.byref(scrubs)) == OK
            if scrubs.value:
                break
        assert scrubs.value
        assert upset.value == 0

    await bridge(program)()


class Registers:
    """The simulated bus as words in memory; a refused access would end a program."""

    def __init__(self, bus: Bus) -> None:
        self.read_bus, self.write_bus = resume(bus.read), resume(bus.write)
        self.accesses = 0

    def __getitem__(self, index: int) -> int:
        refused, value = self.read_bus(4 * index)
        assert not refused, hex(4 * index)
        self.accesses += 1
        return value

    def __setitem__(self, index: int, value: int) -> None:
        assert not self.write_bus(4 * index, value, 15), hex(4 * index)
        self.accesses += 1


async def check_mapped(bus: Bus, case: Case) -> None:
    """The Python driver on the registers in memory: no access is refused."""

    def program() -> None:
        registers = Registers(bus)
        link = MappedLink(registers)
        for offset in range(0, 0x100, 4):
            register = next((r for r in BY_NAME.values() if r.offset == offset), None)
            if register is None or register.name in ABSENT or "r" not in register.access:
                assert link.read(offset) == [], hex(offset)
            if register is None or register.name in ABSENT or "w" not in register.access:
                assert link.write(offset, [0]) == 0, hex(offset)
        assert registers.accesses == 0
        device = PythonDevice(link)
        assert (device.identity.n, device.identity.rom) == (case.n, False)
        assert set(device.info()) < {*BY_NAME}
        device.link.write(AT["CONTROL"], [1])
        with pytest.raises(DeviceError, match="the device holds no image"):
            device.run(case.inputs[0].tobytes(), case.beats)
        damaged = case.image[:-3] + bytes([case.image[-3] ^ 1]) + case.image[-2:]
        with pytest.raises(DeviceError, match="its CRC-32 is wrong"):
            device.load(damaged)
        assert "IMAGE_CRC" not in device.info()
        device.load(case.image)
        device.restart()
        assert link.read(AT["RESULT"]) == []
        for row, want in zip(case.inputs, case.results, strict=True):
            assert device.run(row.tobytes(), case.beats) == (want.tobytes(), case.cycles)

    await bridge(program)()
