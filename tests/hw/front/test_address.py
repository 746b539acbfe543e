"""The address generator against a naive reading of stream.md, with idle cycles."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.front.address import AddressGenerator
from secateur.hw.interfaces import FAST, Kind
from secateur.hw.spec import Geometry, Mode, Reg


def naive(geometry: Geometry, reg: dict[Reg, int], rows: list[list[int]]):
    """All accesses of a layer: address, mode, signed, wshift, first and the ends of passes."""
    n, flags = geometry.n, reg[Reg.FLAGS]
    size = geometry.bank_words * n
    for r, steps in enumerate(rows):
        for gy in range(reg[Reg.GY]):
            for gx in range(reg[Reg.GX]):
                for z in range(reg[Reg.GZ]):
                    row_a = r * n * (flags >> spec.FLAG_A_ROWSTEP & 1)
                    row_b = r * n * (flags >> spec.FLAG_B_ROWSTEP & 1)
                    origin = reg[Reg.A_BASE] + row_a + gy * reg[Reg.A_SY] + gx * reg[Reg.A_SX]
                    origin += z * reg[Reg.A_SZ]
                    origin_b = reg[Reg.B_BASE] + row_b + gy * reg[Reg.B_SY] + gx * reg[Reg.B_SX]
                    cur = kernel_row = origin
                    source = 0
                    for i, step in enumerate(steps):
                        source = 1 if step >= spec.STEP_SOURCE else source
                        mode = flags >> (2 * source) & 3
                        unit = 1 if mode == Mode.BROADCAST else n
                        if step >= spec.STEP_SOURCE:
                            kernel_row = origin_b
                            cur = kernel_row + unit * (step & 63)
                        elif step >= spec.STEP_ROW:
                            kernel_row += reg[Reg.B_KR if source else Reg.A_KR]
                            cur = kernel_row + unit * (step & 63)
                        else:
                            cur += unit * step
                        end = i == len(steps) - 1
                        group = end and z == reg[Reg.GZ] - 1
                        line = group and gx == reg[Reg.GX] - 1
                        row = line and gy == reg[Reg.GY] - 1
                        access = (
                            cur % size,
                            mode == Mode.BROADCAST,
                            mode == Mode.MAXIMUM,
                            flags >> (spec.FLAG_A_SIGNED + source) & 1,
                            flags >> (spec.FLAG_A_WSHIFT + source) & 1,
                            i == 0,
                        )
                        yield step, (end, group, line, row), access


@pytest.mark.parametrize("n", [2, 8])
def test_naive(n: int) -> None:
    rng = random.Random(n)
    geometry = Geometry(n=n, p=1, weight_words=64, bank_words=64)
    dut = AddressGenerator(geometry=geometry)
    compared = 0

    async def bench(ctx) -> None:
        nonlocal compared
        queue = []
        for _ in range(25):
            reg = {r: rng.choice([0, 1, n, 0xFFFF, rng.getrandbits(16)]) for r in Reg}
            reg |= {r: rng.randint(1, 3) for r in (Reg.GX, Reg.GY, Reg.GZ)}
            mask = ~(3 << spec.FLAG_A_MODE | 3 << spec.FLAG_B_MODE)
            modes = rng.randint(0, 2) | rng.randint(0, 2) << spec.FLAG_B_MODE
            reg[Reg.FLAGS] = rng.getrandbits(16) & mask | modes
            ctx.set(dut.issued.registers, [reg.get(i, 0) for i in range(spec.REGISTERS)])
            await ctx.tick()
            ctx.set(dut.issued.init, 1)
            await ctx.tick()
            ctx.set(dut.issued.init, 0)
            await ctx.tick().repeat(3)
            choices = [0, 1, 0x7F, 0x80, 0xBF, 0xC0, 0xFF]
            steps = [
                [rng.choice([*choices, rng.getrandbits(8)]) for _ in range(rng.randint(8, 10))]
                for _ in range(rng.randint(1, 3))
            ]
            idle = rng.choice([0.0, 0.3])
            words = list(naive(geometry, reg, steps))
            for word in [*words, *[None] * (FAST.address + 1)]:
                while word is not None and rng.random() < idle:
                    await cycle(ctx, queue, None)
                await cycle(ctx, queue, word)
            assert not [item for item in queue if item is not None]

    async def cycle(ctx, queue, word) -> None:
        nonlocal compared
        ctx.set(dut.issued.valid, word is not None)
        if word is not None:
            step, (end, group, line, row), _ = word
            fields = {"common": step, "kind": Kind.BODY, "first": word[2][-1], "pass_last": end}
            fields |= {"group_last": group, "line_last": line, "row_last": row}
            ctx.set(dut.issued.word, fields)
        else:  # anything but the tags
            ctx.set(dut.issued.word, {"common": 0xFF, "kind": Kind.BODY, "first": 1})
        queue.append(None if word is None else word[2])
        if len(queue) > FAST.address:
            want = queue.pop(0)
            if want is not None:
                access = ctx.get(dut.access)
                got = (ctx.get(dut.address), *(access[name] for name in ACCESS_FIELDS))
                assert got == want
                compared += 1
        await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert compared > 1000


ACCESS_FIELDS = ("broadcast", "maximum", "signed", "wshift", "first")
