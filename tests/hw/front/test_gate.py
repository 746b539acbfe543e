"""The gate in front of the last word of a group, where cycles pass that do not count."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator

from secateur.hw.front.gate import Gate
from secateur.hw.spec import Reg


@pytest.mark.parametrize("frozen", [0.0, 0.6])
@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 16])
def test_free_as_many_counted_cycles_later(lanes: int, frozen: float) -> None:
    """A group may end LANES cycles behind the one before, of those that count."""
    dut, rng = Gate(p=16, results=64), random.Random(lanes)
    found = []

    async def bench(ctx) -> None:
        ctx.set(dut.registers[Reg.LANES], lanes)
        await ctx.tick().repeat(3)
        since = None
        for _ in range(600):
            stops = rng.random() < frozen
            # The gate is asked MIN_ROW_WORDS cycles or more behind a group.
            ends = not stops and (since is None or since >= 8) and ctx.get(dut.free)
            ctx.set(dut.frozen, stops)
            ctx.set(dut.group, ends)
            if ends and since is not None:
                found.append(since)
            await ctx.tick()
            since = 1 if ends else since if since is None or stops else since + 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(found) > 10
    assert set(found) == {max(lanes, 8)}
