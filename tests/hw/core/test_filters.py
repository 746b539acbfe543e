# amaranth: UnusedElaboratable=no
"""Filter lanes: addresses, weights and header words against stream.md; proofs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Const, Elaboratable, Module, Mux, Signal
from amaranth.sim import Simulator

from secateur.hw import spec
from secateur.hw.core.filters import (
    ADDRESS_LATENCY,
    AT_BANK,
    WORD_DELAY,
    FilterLane,
    FilterLanes,
)
from secateur.hw.core.lane import AT_WEIGHTS
from secateur.hw.core.rows import BIAS_DELAY, GroupParameters
from secateur.hw.interfaces import Kind
from secateur.hw.spec import Geometry, Mode, Reg
from tests.hw.proofs import prove

GEOMETRY = Geometry(n=2, p=4, s=4, weight_words=64, bank_words=16)


class AddressTop(Elaboratable):
    """A lane beside the rule of stream.md, one word after the other; registers are free."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.lane = FilterLane(geometry=GEOMETRY)
        widths = {"flags": 4, "kr_a": 5, "kr_b": 5, "a": self.lane.width, "b": self.lane.width}
        widths |= {"common": 8, "body": 1, "first": 1}
        self.inputs = [Signal(width, name=name) for name, width in widths.items()]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        n = GEOMETRY.n
        m.submodules.lane = lane = self.lane
        flags, kr_a, kr_b, a, b, common, body, first = self.inputs
        # Static, and settled before the first word.
        age = Signal(2)
        m.d.sync += age.eq(Mux(age == 3, 3, age + 1))
        for value in (flags, kr_a, kr_b, a, b):
            before = Signal.like(value)
            m.d.sync += before.eq(value)
            m.d.comb += Assume((age == 0) | (value == before))
        begun = Signal()
        m.d.comb += [Assume(~body | (age == 3)), Assume(~body | begun | first)]
        with m.If(body):
            m.d.sync += begun.eq(1)
        m.d.comb += [
            lane.registers[Reg.FLAGS].eq(flags),
            lane.registers[Reg.A_KR].eq(kr_a),
            lane.registers[Reg.B_KR].eq(kr_b),
            lane.word.eq(common << 8 * n),
            lane.body.eq(body),
            lane.first.eq(first),
            lane.origins.a.eq(a),
            lane.origins.b.eq(b),
        ]
        current, source = Signal(lane.width), Signal()
        of_b = (common >= spec.STEP_SOURCE) | (source & ~first)
        mode = Mux(of_b, flags[spec.FLAG_B_MODE :][:2], flags[spec.FLAG_A_MODE :][:2])
        unit = Mux(mode == Mode.BROADCAST, 1, n)
        start = Mux(common >= spec.STEP_SOURCE, b, Mux(first, a, current))
        row = (common >= spec.STEP_ROW) & (common < spec.STEP_SOURCE)
        step = Mux(common >= spec.STEP_ADD_LIMIT, common & spec.STEP_FIELD, common)
        moved = start + Mux(row, Mux(of_b, kr_b, kr_a), 0) + unit * step
        with m.If(body):
            m.d.sync += [current.eq(moved), source.eq(of_b)]
        seen, wanted = begun, Const(0, lane.width) if self.fault else current
        for index in range(ADDRESS_LATENCY - 1):
            later, late = Signal(lane.width, name=f"wanted{index}"), Signal(name=f"seen{index}")
            m.d.sync += [later.eq(wanted), late.eq(seen)]
            wanted, seen = later, late
        m.d.comb += Assert(~seen | (lane.address == wanted))
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_the_address_is_that_of_the_stream(fault: bool, tmp_path: Path) -> None:
    """Every sequence of words within 12 cycles, with idle cycles between them."""
    top = AddressTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=12)
    assert passed == (not fault), log[-2000:]


def simulate(dut: Elaboratable, bench) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("filters", [False, True])
@pytest.mark.parametrize("s", [2, 4, 8])
def test_headers_and_weights(s: int, filters: bool) -> None:
    """Words of lane k come k cycles later; header words leave one after the other."""
    geometry = Geometry(n=2, p=8, s=s, weight_words=64, bank_words=16)
    dut, rng = FilterLanes(geometry=geometry), random.Random(s)
    kinds = [Kind.HEAD_A, Kind.HEAD_B, *[Kind.BODY] * spec.filter_row_words(s)]
    words = [[rng.getrandbits(22) for _ in range(s)] for _ in kinds * 3]
    headers: list[tuple[int, int, int]] = []
    weights: list[list[tuple[int, ...]]] = [[] for _ in range(s)]

    async def bench(ctx) -> None:
        registers = [0] * spec.REGISTERS
        registers[Reg.FLAGS2] = filters << spec.FLAG2_FILTERS
        registers[Reg.FLAGS] = 1 << spec.FLAG_A_WSHIFT
        ctx.set(dut.issued.registers, registers)
        for tick in range(len(words) + WORD_DELAY + AT_BANK + AT_WEIGHTS + s + 1):
            here = tick < len(words)
            ctx.set(dut.issued.valid, here)
            if here:
                first = tick % len(kinds) == 2
                fields = {"lanes": [words[tick][0] & 0xFF, words[tick][0] >> 8 & 0xFF]}
                fields |= {"common": words[tick][0] >> 16 & 0x3F, "first": first}
                ctx.set(dut.issued.word, fields | {"kind": kinds[tick % len(kinds)]})
            for lane in range(1, s):
                at = tick - WORD_DELAY - lane
                ctx.set(dut.side[lane - 1], words[at][lane] if 0 <= at < len(words) else 0)
            await ctx.tick()
            header = ctx.get(dut.header)
            if header.valid:
                headers.append((header.second, header.lanes, header.table))
            for lane in range(s):
                at = tick + 1 - WORD_DELAY - AT_BANK - AT_WEIGHTS - lane
                if 0 <= at < len(words):
                    weights[lane].append(tuple(ctx.get(w) for w in ctx.get(dut.own[lane]).weights))

    simulate(dut, bench)
    rows = s if filters else 1
    at = range(0, len(words), len(kinds))
    kept = [(i, words[t + i][row]) for t in at for row in range(rows) for i in range(2)]
    heads = [(i, word & 0xFFFF, word >> 20) for i, word in kept]
    assert headers == heads
    for lane in range(s):
        for index, got in enumerate(weights[lane]):
            word, body = words[index][lane], kinds[index % len(kinds)] == Kind.BODY
            signed = [(word >> shift & 0xFF ^ 0x80) - 0x80 for shift in (0, 8)]
            want = [16 * w if filters and body else 0 for w in signed]
            assert list(got) == want


@pytest.mark.parametrize("s", [2, 8])
def test_each_pixel_of_a_group_has_its_parameters(s: int) -> None:
    """Row groups of several pixels, then rows of pixel lanes, in one run."""
    dut, rng = GroupParameters(n=2, s=s), random.Random(s)
    want: list[list[int]] = []
    got: list[list[int]] = []
    queue: list[list[int]] = []
    tables: list[int] = []
    found: list[int] = []

    async def bench(ctx) -> None:
        for filters, rows, pixels in ((1, 4, 3), (0, 9, 2), (1, 3, 1)):
            ctx.set(dut.filters, filters)
            for _ in range(rows):
                side = s if filters else 1
                row = [[rng.getrandbits(13) for _ in range(2)] for _ in range(side)]
                named = [rng.getrandbits(3) for _ in row]
                for bias, table in zip(row, named, strict=True):
                    for second in (0, 1):
                        lanes = [b >> 8 & 0x1F if second else b & 0xFF for b in bias]
                        head = {"valid": 1, "second": second, "lanes": lanes[0] | lanes[1] << 8}
                        # What is not the second word names no table.
                        head["table"] = table if second else rng.getrandbits(3)
                        ctx.set(dut.header, head)
                        await cycle(ctx)
                ctx.set(dut.header, {"valid": 0})
                for pixel in range(pixels):
                    want.extend(row)
                    tables.extend(named)
                    ctx.set(dut.group, {"valid": 1, "row_last": pixel == pixels - 1})
                    await cycle(ctx)
                    ctx.set(dut.group, {"valid": 0})
                    for _ in range(7):
                        await cycle(ctx)
            for _ in range(12):
                await cycle(ctx)

    async def cycle(ctx) -> None:
        await ctx.tick()
        queue.append(ctx.get(dut.load))
        if queue[-1]:
            found.append(ctx.get(dut.table))
        if len(queue) > BIAS_DELAY and queue[-1 - BIAS_DELAY]:
            got.append([value & 0x1FFF for value in ctx.get(dut.bias)])

    simulate(dut, bench)
    assert got == want
    assert found == tables
