"""Activation tables: every code through every table, beside codes that go through none."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw.core.table import TABLE_LATENCY, Tables


@pytest.mark.parametrize(("n", "tables"), [(2, 8), (4, 3), (2, 1), (4, 0)])
def test_codes(n: int, tables: int) -> None:
    """One pixel a cycle; entries past the tables change none; without tables, codes are delayed."""
    rng = random.Random(n + tables)
    entries = [rng.randrange(256) for _ in range(256 * tables)]
    dut = Tables(n=n, tables=tables)
    cases = []
    for table in range(max(tables, 1)):
        pixels = [[rng.randrange(256) for _ in range(n)] for _ in range(40)]
        pixels += [[code] * n for code in (0, 127, 128, 255)]
        cases += [(table, lookup, pixels) for lookup in (1, 0)]

    async def bench(ctx) -> None:
        for address, entry in [*enumerate(entries), (256 * tables, 1), (0xFFFF, 2)]:
            ctx.set(dut.write.valid, 1)
            ctx.set(dut.write.address, address)
            ctx.set(dut.write.data, entry)
            await ctx.tick()
        ctx.set(dut.write.valid, 0)
        for table, lookup, pixels in cases:
            ctx.set(dut.table, table)
            ctx.set(dut.lookup, lookup)
            for tick in range(len(pixels) + TABLE_LATENCY):
                if tick >= TABLE_LATENCY:
                    codes = pixels[tick - TABLE_LATENCY]
                    if lookup and tables:
                        codes = [entries[256 * table + code] for code in codes]
                    assert [ctx.get(dut.out[channel]) for channel in range(n)] == codes
                for channel, code in enumerate(pixels[min(tick, len(pixels) - 1)]):
                    ctx.set(dut.codes[channel], code)
                await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 3, "tables": 1}, "n must be even, not 3"),
        ({"n": 2, "tables": 9}, "tables must be 0 to 8, not 9"),
        (
            {"n": 2, "tables": 1, "family": "x"},
            "family must be one of generic, ecp5, asic, ice40, gowin, not 'x'",
        ),
    ],
)
def test_parameters(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tables(**arguments)
