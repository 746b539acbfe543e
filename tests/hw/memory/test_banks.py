# amaranth: UnusedElaboratable=no
"""The weight memory as banks side by side."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Module, Signal
from amaranth.sim import Simulator

from secateur.hw.memory.weight_memory import SIDE_LATENCY, SLICE_WORDS, WeightMemory
from secateur.hw.pipeline import delay
from tests.hw.proofs import prove


@pytest.mark.parametrize(("s", "depth"), [(2, 66), (4, 40), (8, 4096 + 64), (8, 3 * 8 * 2048)])
@pytest.mark.parametrize("sliced", [False, True])
def test_banks_side_by_side(s: int, depth: int, sliced: bool) -> None:
    """Word by word through ``read_addr``, and bank 0 that way while the others serve lanes."""
    rng = random.Random(depth)
    words = [rng.getrandbits(24) for _ in range(depth)]
    dut = WeightMemory(width=24, depth=depth, s=s, init=words)
    if sliced:  # as other families are
        dut.slices = -(-dut.bank_words // SLICE_WORDS)
    rows = [0, depth // s - 1, *(rng.randrange(depth // s) for _ in range(30))]
    addresses = [rng.randrange(depth) for _ in rows]

    async def bench(ctx) -> None:
        for aside in (0, 1):
            ctx.set(dut.aside, aside)
            for tick in range(len(rows) + SIDE_LATENCY + s):
                at = min(tick, len(rows) - 1)
                ctx.set(dut.read_addr, rows[at] * s if aside else addresses[at])
                ctx.set(dut.row, rows[at])
                await ctx.tick()
                at = tick + 1 - dut.latency
                if 0 <= at < len(rows):
                    address = rows[at] * s if aside else addresses[at]
                    assert ctx.get(dut.read_data) == words[address]
                for bank in range(1, s):
                    at = tick + 1 - SIDE_LATENCY - bank + 1
                    if aside and 0 <= at < len(rows):
                        assert ctx.get(dut.side[bank - 1]) == words[rows[at] * s + bank]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


class BankedTop(Elaboratable):
    """A memory of two banks, written and read at will, beside one word of a plain one."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.dut = WeightMemory(width=1, depth=4, s=2)
        self.inputs = [Signal(2, name="watched")]
        names = ("read_addr", "write_en", "write_addr", "write_data", "aside", "row")
        self.free = {name: Signal.like(getattr(self.dut, name), name=name) for name in names}
        self.inputs += self.free.values()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [getattr(dut, name).eq(free) for name, free in self.free.items()]
        watched, value, written = self.inputs[0], Signal(), Signal()
        before = Signal(2)
        begun = Signal()
        m.d.sync += [before.eq(watched), begun.eq(1)]
        hit = dut.write_en & (dut.write_addr == watched)
        m.d.comb += [Assume(~begun | (watched == before)), Assume(~(hit & written))]
        with m.If(hit):
            m.d.sync += [value.eq(dut.write_data), written.eq(1)]
        # Long after the write, both ways of reading give the word.
        settled = delay(m, written, 8, "settled", reset_less=False)
        lane = watched if self.fault else Cat(1, watched[1:])
        read = delay(m, dut.read_addr == watched, dut.latency, "read", reset_less=False)
        aside = delay(m, dut.aside, dut.latency - 1, "aside_1", reset_less=False)
        aside = delay(m, aside, 1, "aside_2", reset_less=False)
        taken = delay(m, dut.row == watched[1:], SIDE_LATENCY, "taken", reset_less=False)
        plain = read & ~(aside & watched[0])
        m.d.comb += [
            Assert(~(settled & plain) | (dut.read_data == value)),
            Assert(~(settled & taken & aside & (lane == watched)) | (dut.side[0] == value)),
        ]
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_proof_of_banks(fault: bool, tmp_path: Path) -> None:
    """Bounded: a write, then reads of both kinds, in every run of 12 cycles."""
    top = BankedTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=12)
    assert passed == (not fault), log[-2000:]
