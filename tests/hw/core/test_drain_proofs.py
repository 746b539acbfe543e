"""Proofs of the drain against naive models: the rounding and the walk.

Each proof is shown to be able to fail: the same top with a fault in its model must not pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import (
    Assert,
    Assume,
    Elaboratable,
    Module,
    Mux,
    ResetSignal,
    Signal,
    signed,
)

from secateur.hw import spec
from secateur.hw.core.requantise import REQUANTISE_LATENCY, Requantiser
from secateur.hw.core.walk import WALK_LATENCY, Walk
from secateur.hw.pipeline import delay
from secateur.hw.spec import BIAS_FRACTION, Reg
from tests.hw.proofs import prove

#: Cycles after which a requantiser with still inputs gives their code.
SETTLED = REQUANTISE_LATENCY + 6
#: Three whole groups of up to 4 lanes in the walk, from reset.
WALK_CYCLES = 27


class RequantiseTop(Elaboratable):
    """A requantiser with still inputs beside the formula of stream.md, on whole numbers."""

    def __init__(self, fault: bool, most_shift: int) -> None:
        self.fault, self.most_shift = fault, most_shift
        self.unit = unit = Requantiser(n=1)
        self.inputs = [
            unit.sums.as_value(),
            unit.bias.as_value(),
            unit.delta.as_value(),
            unit.shift_base,
            unit.clip,
            unit.signed,
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        time = Signal(range(SETTLED + 1))
        with m.If(time != SETTLED):
            m.d.sync += time.eq(time + 1)
        m.d.comb += unit.load.eq(time == 1)
        for held in self.inputs:
            before = Signal(len(held))
            m.d.sync += before.eq(held)
            m.d.comb += Assume((time == 0) | (held == before))
        shift = Signal(6)
        low, high = Signal(signed(9)), Signal(signed(9))
        for bound, byte in ((low, unit.clip[:8]), (high, unit.clip[8:])):
            m.d.comb += bound.eq(Mux(unit.signed, byte.as_signed(), byte))
        m.d.comb += [Assume(low <= high), Assume(shift <= self.most_shift)]

        bits = Signal(6)
        total = Signal(signed(72))  # the sum in units of 2**-(shift + BIAS_FRACTION)
        quotient, part, half = Signal(signed(72)), Signal(72), Signal(72)
        rounded, code = Signal(signed(72)), Signal(8)
        tie = 0 if self.fault else quotient[0]
        m.d.comb += [
            shift.eq(unit.shift_base + unit.delta[0]),
            bits.eq(shift + BIAS_FRACTION),
            total.eq((unit.sums[0] << BIAS_FRACTION) + (unit.bias[0] << shift)),
            quotient.eq(total >> bits),
            part.eq(total - (quotient << bits)),
            half.eq((1 << bits) >> 1),
            rounded.eq(quotient + ((part > half) | ((part == half) & tie))),
            code.eq(Mux(rounded < low, low, Mux(rounded > high, high, rounded))),
            Assert((time != SETTLED) | (unit.codes[0] == code)),
        ]
        return m


@pytest.mark.parametrize(
    ("fault", "most_shift"),
    [(True, 38), (False, 5), pytest.param(False, 38, marks=pytest.mark.long)],
)
def test_drain_rounds_half_to_even(fault: bool, most_shift: int, tmp_path: Path) -> None:
    """For every sum, bias, pair of bounds, and shift up to one, once the pipeline has settled."""
    top = RequantiseTop(fault, most_shift)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=SETTLED + 2)
    assert passed == (not fault), log[-2000:]


class WalkTop(Elaboratable):
    """The walk, driven as closely as it allows, beside the nest of stream.md.

    The step registers are free; the counts are 1 or 2, linear groups have up to 3 lanes.
    """

    STEPS = (Reg.OUT_BASE, Reg.D_GX, Reg.D_GY, Reg.D_PR, Reg.D_PC)
    COUNTS = (Reg.GX, Reg.GY, Reg.PR, Reg.PC, Reg.CLAST, Reg.RLAST, Reg.LANES)

    def __init__(self, linear: bool, fault: bool) -> None:
        self.linear, self.fault = linear, fault
        self.free = {r: Signal(16, name=r.name) for r in self.STEPS}
        self.free |= {r: Signal(3, name=r.name) for r in self.COUNTS}
        self.inputs = list(self.free.values())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walk = walk = Walk()
        free = self.free
        started = Signal()
        m.d.sync += started.eq(1)
        m.d.comb += Assume(~ResetSignal())
        for reg, value in free.items():
            before = Signal.like(value, name=f"before_{reg.name}")
            m.d.sync += before.eq(value)
            m.d.comb += [Assume(~started | (value == before)), walk.registers[reg].eq(value)]
        m.d.comb += walk.registers[Reg.FLAGS].eq(self.linear << spec.FLAG_LINEAR)
        for reg in (Reg.GX, Reg.GY, Reg.PR, Reg.PC):
            m.d.comb += Assume((free[reg] == 1) | (free[reg] == 2))
        m.d.comb += [Assume(free[reg] <= 2) for reg in (Reg.CLAST, Reg.RLAST)]
        if self.linear:
            m.d.comb += [Assume(free[Reg.GY] == 1), Assume(free[Reg.LANES].any())]
            m.d.comb += Assume(free[Reg.LANES] <= 3)
        else:
            m.d.comb += Assume(free[Reg.LANES] == free[Reg.PR] * free[Reg.PC])

        # Groups MIN_ROW_WORDS cycles apart, the first one 4 cycles after init.
        time, column, line = Signal(8), Signal(3), Signal(3)
        m.d.sync += time.eq(time + 1)
        line_last, bottom = column + 1 == free[Reg.GX], line + 1 == free[Reg.GY]
        m.d.comb += [
            walk.init.eq(time == 1),
            walk.group.valid.eq((time >= 5) & ((time - 5) % spec.MIN_ROW_WORDS == 0)),
            walk.group.line_last.eq(line_last),
            walk.group.row_last.eq(line_last & bottom),
        ]
        with m.If(walk.group.valid):
            m.d.sync += column.eq(Mux(line_last, 0, column + 1))
            with m.If(line_last):
                m.d.sync += line.eq(Mux(bottom, 0, line + 1))

        # LANES steps from WALK_LATENCY cycles after the group on, and no others.
        left, now = Signal(3), Signal()
        arrived = delay(m, walk.group.valid, WALK_LATENCY - 2, "arrived", reset_less=False)
        m.d.sync += now.eq(left != 0)
        m.d.sync += left.eq(Mux(arrived, free[Reg.LANES], Mux(left != 0, left - 1, 0)))
        m.d.comb += Assert(walk.step == now)

        names = ("r", "gy", "gx", "pr", "pc", "lane")
        r, gy, gx, pr, pc, lane = (Signal(4, name=name) for name in names)
        with m.If(now):
            m.d.sync += [lane.eq(lane + 1), pc.eq(pc + 1)]
            with m.If(pc + 1 == free[Reg.PC]):
                m.d.sync += [pc.eq(0), pr.eq(pr + 1)]
            with m.If(lane + 1 == free[Reg.LANES]):
                m.d.sync += [lane.eq(0), gx.eq(gx + 1)]
                if not self.linear:
                    m.d.sync += [pc.eq(0), pr.eq(0)]
                with m.If(gx + 1 == free[Reg.GX]):
                    m.d.sync += [gx.eq(0), gy.eq(gy + 1)]
                    with m.If(gy + 1 == free[Reg.GY]):
                        m.d.sync += [gy.eq(0), r.eq(r + 1), pc.eq(0), pr.eq(0)]
        where = free[Reg.OUT_BASE] + r + pr * free[Reg.D_PR] + pc * free[Reg.D_PC]
        if self.linear:
            low = pr <= free[Reg.PR] if self.fault else pr < free[Reg.PR]
            exists = (pc < free[Reg.CLAST]) & low
        else:
            where += gy * free[Reg.D_GY] + gx * free[Reg.D_GX]
            right = gx > free[Reg.CLAST] if self.fault else gx >= free[Reg.CLAST]
            below = (pr == free[Reg.PR] - 1) & (gy >= free[Reg.RLAST])
            exists = ~((pc == free[Reg.PC] - 1) & right) & ~below
        expected = Signal(16)
        m.d.comb += expected.eq(where)
        with m.If(now):
            m.d.comb += [Assert(walk.m == expected), Assert(walk.exists == exists)]
        return m


@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("linear", [False, True])
def test_walk_follows_the_nest(linear: bool, fault: bool, tmp_path: Path) -> None:
    """Bounded: the first WALK_CYCLES cycles; any map steps, counts of 1 or 2."""
    top = WalkTop(linear, fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=WALK_CYCLES)
    assert passed == (not fault), log[-2000:]
