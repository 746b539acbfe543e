"""Bank windows and window offsets against the formulas of stream.md."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw.core.bank import DATA_DELAY, Bank, OffsetGenerator
from secateur.hw.memory.memory import RAM_LATENCY


def test_window() -> None:
    """Every word of the bank, after random writes in and out of random windows."""
    rng = random.Random(1)
    n, depth = 2, 16
    dut = Bank(n=n, depth=depth)
    model = [0] * depth

    async def bench(ctx) -> None:
        for _ in range(40):
            offset = rng.choice([0, 1, 0xFFFF, 0x8000, rng.getrandbits(16)])
            window, size = rng.getrandbits(16), rng.choice([0, 1, depth, rng.randint(0, depth)])
            ctx.set(dut.window, window)
            ctx.set(dut.size, size)
            ctx.set(dut.offset_in, offset)
            ctx.set(dut.shift, 1)
            await ctx.tick()
            ctx.set(dut.shift, 0)
            pending = []
            for _ in range(20):
                near = rng.choice([0, -1, size, size - 1, rng.randint(-3, depth + 3)])
                m = rng.choice([(offset + near) & 0xFFFF, rng.getrandbits(16)])
                local, data = rng.random() < 0.2, rng.getrandbits(8 * n)
                if local:
                    m = rng.randint(0, depth)
                distance = m if local else m - offset
                if 0 <= distance < size:
                    model[(window + distance) % depth] = data
                pending.append(data)
                ctx.set(dut.write.valid, 1)
                ctx.set(dut.write.local, local)
                ctx.set(dut.write.m, m)
                ctx.set(dut.write.data.as_value(), pending[max(0, len(pending) - 1 - DATA_DELAY)])
                await ctx.tick()
            ctx.set(dut.write.valid, 0)
            for data in pending[-DATA_DELAY:]:
                ctx.set(dut.write.data.as_value(), data)
                await ctx.tick()
            await ctx.tick()
            for address in range(depth):
                ctx.set(dut.address, address)
                await ctx.tick().repeat(RAM_LATENCY)
                word = ctx.get(dut.word)
                assert int.from_bytes(bytes(word), "little") == model[address]

    run(dut, bench)
    assert len(set(model)) > depth // 2


@pytest.mark.parametrize("p", [1, 5])
def test_offsets(p: int) -> None:
    rng = random.Random(p)
    dut = OffsetGenerator(p=p)

    async def bench(ctx) -> None:
        for _ in range(30):
            columns, dc, dr = rng.randint(1, p + 1), rng.getrandbits(16), rng.getrandbits(16)
            ctx.set(dut.columns, columns)
            ctx.set(dut.column_step, dc)
            ctx.set(dut.row_step, dr)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for lane in range(p):
                assert ctx.get(dut.shift)
                assert ctx.get(dut.offset) == (lane // columns * dr + lane % columns * dc) & 0xFFFF
                await ctx.tick()
            assert not ctx.get(dut.shift)

    run(dut, bench)


def run(dut, bench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
