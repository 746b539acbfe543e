# amaranth: UnusedElaboratable=no
"""The UART: bytes, clocks that differ, glitches, missing stop bits, back-pressure."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw.link.uart import MIN_DIVISOR, UartReceiver, UartTransmitter, divisor_for
from tests.hw.link.line import CYCLE, Listener, send_byte

BYTES = bytes([0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80, *random.Random(1).randbytes(20)])


def run(dut, bench, *others) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(CYCLE)
    simulator.add_testbench(bench)
    for other in others:
        simulator.add_testbench(other, background=True)
    simulator.run()


def received(divisor: int, stimulus) -> list[tuple[int, int]]:
    """Bytes, each with its ``error``, that a receiver makes of what ``stimulus`` does to ``rx``."""
    dut = UartReceiver(divisor=divisor)
    got = []

    async def watch(ctx) -> None:
        async for _, _, valid, byte, error in ctx.tick().sample(dut.valid, dut.data, dut.error):
            if valid:
                got.append((byte, error))

    async def bench(ctx) -> None:
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(3)
        await stimulus(ctx, dut)
        await ctx.tick().repeat(12 * divisor)

    run(dut, bench, watch)
    return got


@pytest.mark.parametrize("divisor", [4, 5, 16, 87])
@pytest.mark.parametrize("gap", [0, 1, 7])
def test_bytes_arrive(divisor: int, gap: int) -> None:
    async def stimulus(ctx, dut) -> None:
        for byte in BYTES:
            await send_byte(ctx, dut.rx, byte, divisor)
            if gap:
                await ctx.tick().repeat(gap)

    assert received(divisor, stimulus) == [(byte, 0) for byte in BYTES]


@pytest.mark.parametrize("other", [97.1, 102.9])
def test_the_sender_may_be_three_percent_off(other: float) -> None:
    async def stimulus(ctx, dut) -> None:
        for byte in BYTES:
            await send_byte(ctx, dut.rx, byte, other)

    assert received(100, stimulus) == [(byte, 0) for byte in BYTES]


def test_a_glitch_begins_no_byte() -> None:
    async def stimulus(ctx, dut) -> None:
        for width in (1, 3, 7):
            ctx.set(dut.rx, 0)
            await ctx.tick().repeat(width)
            ctx.set(dut.rx, 1)
            await ctx.tick().repeat(40)
        await send_byte(ctx, dut.rx, 0x5A, 16)

    assert received(16, stimulus) == [(0x5A, 0)]


def test_a_missing_stop_bit_is_told_and_a_line_that_stays_low_tells_it_once() -> None:
    async def stimulus(ctx, dut) -> None:
        await send_byte(ctx, dut.rx, 0x5A, 8, stop=0)
        await ctx.tick().repeat(20)
        ctx.set(dut.rx, 0)
        await ctx.tick().repeat(500)
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(3)
        await send_byte(ctx, dut.rx, 0xA5, 8)

    assert received(8, stimulus) == [(0x5A, 1), (0x00, 1), (0xA5, 0)]


@pytest.mark.parametrize("divisor", [4, 9])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_bytes_leave(divisor: int, stall: float) -> None:
    """Each bit lasts ``divisor`` cycles, by a listener of the test's own; nothing is added."""
    dut = UartTransmitter(divisor=divisor)
    rng = random.Random(2)
    taken = []

    async def bench(ctx) -> None:
        assert ctx.get(dut.tx) == 1
        for byte in BYTES:
            if rng.random() < stall:
                await ctx.tick().repeat(rng.randint(1, 20))
            ctx.set(dut.bytes.payload, byte)
            ctx.set(dut.bytes.valid, 1)
            ready, cycles = 0, 0
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.bytes.ready)
                cycles += 1
            taken.append(cycles)
            ctx.set(dut.bytes.valid, 0)
        await ctx.tick().repeat(15 * divisor)
        assert ctx.get(dut.tx) == 1

    listener = Listener(dut.tx, divisor)
    run(dut, bench, listener.run)
    assert bytes(listener.got) == BYTES
    if not stall:
        assert taken == [1] + [10 * divisor] * (len(BYTES) - 1)


def test_the_divisor_of_a_clock() -> None:
    assert divisor_for(25e6, 115200) == 217
    assert divisor_for(48e6, 1e6) == 48
    with pytest.raises(ValueError, match=r"baud must be at most clock_hz / 4, not 4000000"):
        divisor_for(12e6, 4000000)
    with pytest.raises(ValueError, match=r"within 2% of clock_hz divided by a whole number"):
        divisor_for(12e6, 2_200_000)


@pytest.mark.parametrize("kind", [UartReceiver, UartTransmitter])
def test_the_divisor_is_checked(kind) -> None:
    with pytest.raises(ValueError, match="divisor must be at least 4 cycles, not 3"):
        kind(divisor=MIN_DIVISOR - 1)
