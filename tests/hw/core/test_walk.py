# amaranth: UnusedElaboratable=no
"""The drain walk against the nest of stream.md."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.core.walk import WALK_LATENCY, Walk
from secateur.hw.spec import Reg

STEPS = (Reg.D_GX, Reg.D_GY, Reg.D_PR, Reg.D_PC)


def naive(reg: dict[Reg, int], rows: int, linear: bool) -> list[tuple[int, bool]]:
    pixels = []
    for r in range(rows):
        i = 0
        for gy in range(reg[Reg.GY]):
            for gx in range(reg[Reg.GX]):
                for lane in range(reg[Reg.LANES]):
                    pr, pc = divmod(i if linear else lane, reg[Reg.PC])
                    m = reg[Reg.OUT_BASE] + r + pr * reg[Reg.D_PR] + pc * reg[Reg.D_PC]
                    if linear:
                        exists = pc < reg[Reg.CLAST] and pr < reg[Reg.PR]
                    else:
                        m += gy * reg[Reg.D_GY] + gx * reg[Reg.D_GX]
                        right = pc == reg[Reg.PC] - 1 and gx >= reg[Reg.CLAST]
                        below = pr == reg[Reg.PR] - 1 and gy >= reg[Reg.RLAST]
                        exists = not right and not below
                    pixels.append((m & 0xFFFF, exists))
                    i += 1
    return pixels


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("pace", [1, 2, 8])
def test_naive(linear: bool, pace: int) -> None:
    rng = random.Random(int(linear))
    dut = Walk(pace=pace)
    got: list[tuple[int, bool]] = []
    starts: list[bool] = []

    async def watch(ctx) -> None:
        async for _, _, step, m, exists in ctx.tick().sample(dut.step, dut.m, dut.exists):
            starts.append(bool(step))
            if step:
                got.append((m, bool(exists)))

    async def bench(ctx) -> None:
        for _ in range(60):
            reg = {r: rng.getrandbits(16) for r in Reg}
            reg |= {step: rng.choice([0, 1, 0xFFFF, rng.getrandbits(16)]) for step in STEPS}
            reg[Reg.GX] = rng.randint(1, 3)
            reg[Reg.PC], reg[Reg.PR] = rng.randint(1, 5), rng.randint(1, 3)
            reg[Reg.CLAST], reg[Reg.RLAST] = rng.randint(0, 4), rng.randint(0, 3)
            if linear:
                reg[Reg.LANES], reg[Reg.GY] = rng.randint(1, 9), 1
            else:
                reg[Reg.LANES], reg[Reg.GY] = reg[Reg.PC] * reg[Reg.PR], rng.randint(1, 3)
            reg[Reg.FLAGS] = linear << spec.FLAG_LINEAR
            ctx.set(dut.registers, [reg.get(i, 0) for i in range(spec.REGISTERS)])
            await ctx.tick()
            ctx.set(dut.init, 1)
            await ctx.tick()
            ctx.set(dut.init, 0)
            await ctx.tick().repeat(4)
            rows = rng.randint(1, 3)
            for _ in range(rows):
                for gy in range(reg[Reg.GY]):
                    for gx in range(reg[Reg.GX]):
                        line = gx == reg[Reg.GX] - 1
                        ctx.set(dut.group.valid, 1)
                        ctx.set(dut.group.line_last, line)
                        ctx.set(dut.group.row_last, line and gy == reg[Reg.GY] - 1)
                        await ctx.tick()
                        ctx.set(dut.group.valid, 0)
                        least = max(spec.MIN_ROW_WORDS, reg[Reg.LANES] * pace)
                        await ctx.tick().repeat(least - 1 + rng.choice([0, 0, 5]))
            await ctx.tick().repeat(10 + 10 * pace)
            assert got == naive(reg, rows, linear)
            got.clear()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(watch, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert WALK_LATENCY == 3
    # 4 idle edges after init, the edge of group, WALK_LATENCY - 1 edges: then the first step.
    first = 2 + 4 + WALK_LATENCY
    assert starts.index(True) == first
    assert not any(starts[first + 1 : first + pace])


def test_pace_is_checked() -> None:
    with pytest.raises(ValueError, match="pace must be at least 1 cycle, not 0"):
        Walk(pace=0)
