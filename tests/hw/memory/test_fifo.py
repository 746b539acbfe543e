# amaranth: UnusedElaboratable=no
"""The credit queue: order, back-pressure, full depth, no bubbles."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw.memory.fifo import FIFO_LATENCY, CreditFifo


@pytest.mark.parametrize("depth", [2, 16, 48])
@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("block", [False, True])
def test_order(depth: int, stall: float, block: bool) -> None:
    rng = random.Random(depth)
    dut = CreditFifo(shape=8, depth=depth, block=block)
    sent, got = [], []

    async def write(ctx) -> None:
        while len(sent) < 300:
            en = rng.random() < 0.7 and len(sent) - len(got) < depth
            payload = rng.getrandbits(8)
            ctx.set(dut.write_en, en)
            ctx.set(dut.write_data, payload)
            if en:
                sent.append(payload)
            await ctx.tick()
        ctx.set(dut.write_en, 0)

    async def read(ctx) -> None:
        stalled = None
        while len(got) < 300:
            ready = rng.random() >= stall
            ctx.set(dut.output.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.output.valid, dut.output.payload)
            if stalled is not None:
                assert valid
                assert payload == stalled
            stalled = payload if valid and not ready else None
            if valid and ready:
                got.append(payload)

    run(dut, write, read)
    assert got == sent


@pytest.mark.parametrize("block", [False, True])
def test_full_depth_and_latency(block: bool) -> None:
    """Everything is held while the reader is away, and leaves without a bubble."""
    dut = CreditFifo(shape=8, depth=16, block=block)

    async def bench(ctx) -> None:
        ctx.set(dut.write_en, 1)
        for value in range(16):
            ctx.set(dut.write_data, value)
            assert ctx.get(dut.output.valid) == (value >= FIFO_LATENCY)
            await ctx.tick()
        ctx.set(dut.write_en, 0)
        await ctx.tick().repeat(3)
        ctx.set(dut.output.ready, 1)
        for value in range(16):
            assert ctx.get(dut.output.valid)
            assert ctx.get(dut.output.payload) == value
            await ctx.tick()
        assert not ctx.get(dut.output.valid)

    run(dut, bench)


def test_depth_is_checked() -> None:
    with pytest.raises(ValueError, match="depth must be at least 2, not 1"):
        CreditFifo(shape=8, depth=1)


def run(dut, *benches) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()
