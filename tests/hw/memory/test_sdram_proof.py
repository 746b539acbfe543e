"""The controller of an SDRAM for any accesses: it keeps every rule, and reads what was written.

The memory is one half-word that is watched, any; all others may be anything at any time. Times are
short, and the beginning is two commands. ``pytest -m long tests/hw/memory`` goes deeper.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.hdl import Assert, Assume, Elaboratable, Module, Mux, Signal

from secateur.hw.memory.sdram import SdramController
from secateur.hw.sdram import ADDRESS_BITS, ALL_BANKS, Command, Step
from tests.hw.proofs import prove

#: Cycles of the rules that are checked; from a READ to its data.
RCD, RP, RAS, RC, WR, MRD, DATA = 2, 2, 4, 6, 2, 2, 2
#: The controller's; a REFRESH may be late by an access of four columns.
REFRESH, LATE = 20, 16


def times(**wrong: int) -> SimpleNamespace:
    """What the controller takes from ``Sdram``."""
    given = {"open_cycles": RCD, "close_cycles": 2, "shut_cycles": RP, "trc": RC}
    given |= {"data_cycles": DATA, "refresh_cycles": REFRESH}
    start = (Step(Command.PRECHARGE, ALL_BANKS, RP), Step(Command.MODE, 0x20, MRD))
    return SimpleNamespace(cycles=lambda time: time, start=start, **given | wrong)


class SdramTop(Elaboratable):
    """A controller, whose accesses are any, and the half-word that is watched."""

    def __init__(self, times: SimpleNamespace) -> None:
        self.times = times
        self.watched, self.noise = Signal(ADDRESS_BITS), Signal(16)
        self.valid, self.write, self.tag = Signal(), Signal(), Signal()
        self.more, self.place, self.data = Signal(2), Signal(ADDRESS_BITS), Signal(16)
        self.asked = [self.write, self.tag, self.more, self.place, self.data]
        self.inputs = [self.watched, self.noise, self.valid, *self.asked]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = SdramController(sdram=self.times)
        before, begun = Signal.like(self.watched), Signal()
        m.d.sync += [before.eq(self.watched), begun.eq(1)]
        m.d.comb += Assume(~begun | (self.watched == before))
        self._ask(m, dut)
        m.d.comb += dut.level.eq(self._memory(m, dut))
        self._rules(m, dut)
        self._reads(m, dut)
        return m

    def _ask(self, m: Module, dut: SdramController) -> None:
        """Accesses that stay until they are taken, and whose columns are of one row."""
        request, stalled = dut.request, Signal()
        m.d.sync += stalled.eq(request.valid & ~request.ready)
        m.d.comb += [
            request.valid.eq(self.valid),
            request.payload.write.eq(self.write),
            request.payload.tag.eq(self.tag),
            request.payload.more.eq(self.more),
            request.payload.address.eq(self.place),
            request.payload.data.eq(self.data),
            Assume(~stalled | self.valid),
            Assume(~self.write | (self.more == 0)),
            Assume(self.place[:9] + self.more < 512),
            Assert(~request.ready | request.valid),
        ]
        for given in self.asked:
            before = Signal.like(given, name=f"before_{given.name}")
            m.d.sync += before.eq(given)
            m.d.comb += Assume(~stalled | (given == before))

    def _memory(self, m: Module, dut: SdramController):
        """What is on the lines, ``DATA`` cycles behind a column."""
        kept, row, bank = Signal(16), Signal(13), Signal(2)
        with m.If(dut.command == Command.ACTIVATE):
            m.d.sync += [row.eq(dut.address), bank.eq(dut.bank)]
        here = (row == self.watched[11:]) & (bank == self.watched[9:11])
        here &= dut.address == self.watched[:9]
        with m.If((dut.command == Command.WRITE) & here):
            m.d.sync += kept.eq(dut.value)
        given = Mux(here, kept, self.noise)
        for index in range(DATA):
            stage = Signal(16, name=f"given_{index}")
            m.d.sync += stage.eq(given)
            given = stage
        return given

    def _rules(self, m: Module, dut: SdramController) -> None:
        is_open, begun, since = Signal(), Signal(), {}
        for sent in (Command.ACTIVATE, Command.PRECHARGE, Command.REFRESH, Command.WRITE):
            since[sent] = count = Signal(6, init=63, name=f"since_{sent.name.lower()}")
            with m.If(dut.command == sent):
                m.d.sync += count.eq(1)
            with m.Elif(count != 63):
                m.d.sync += count.eq(count + 1)
        moded = Signal(6)
        with m.If(begun & (moded != 63)):
            m.d.sync += moded.eq(moded + 1)
        m.d.comb += Assert((moded <= REFRESH + LATE) | (since[Command.REFRESH] <= REFRESH + LATE))
        m.d.comb += Assert(~dut.drive | (dut.command == Command.WRITE))
        shut = [
            Assert(~is_open & begun & (moded + 1 >= MRD)),
            Assert(since[Command.PRECHARGE] >= RP),
            Assert((since[Command.ACTIVATE] >= RC) & (since[Command.REFRESH] >= RC)),
        ]
        with m.Switch(dut.command):
            with m.Case(Command.ACTIVATE):
                m.d.comb += shut
                m.d.sync += is_open.eq(1)
            with m.Case(Command.REFRESH):
                m.d.comb += shut
            with m.Case(Command.READ, Command.WRITE):
                m.d.comb += [
                    Assert(is_open & ~dut.mask & (since[Command.ACTIVATE] >= RCD)),
                    Assert(dut.drive == (dut.command == Command.WRITE)),
                    Assert(~dut.address[9:].any()),
                ]
            with m.Case(Command.PRECHARGE):
                m.d.comb += Assert(since[Command.ACTIVATE] >= RAS)
                m.d.comb += [Assert(since[Command.WRITE] >= WR), Assert(dut.address[10])]
                m.d.sync += is_open.eq(0)
            with m.Case(Command.MODE):
                m.d.comb += Assert(~begun & (since[Command.PRECHARGE] >= RP))
                m.d.sync += begun.eq(1)

    def _reads(self, m: Module, dut: SdramController) -> None:
        """Half-words come in the order of the accesses; the watched one is what was written."""
        taken = self.valid & dut.request.ready
        written, value = Signal(), Signal(16)
        with m.If(taken & self.write & (self.place == self.watched)):
            m.d.sync += [written.eq(1), value.eq(self.data)]
        asked, came = Signal(4), Signal(4)  # of reads, modulo 16
        due, at, tagged = Signal(), Signal(4), Signal()  # the watched one, once: which it is
        number = asked + (self.watched - self.place)[:4]
        with m.If(taken & ~self.write):
            m.d.sync += asked.eq(asked + self.more + 1)
            with m.If(~due & (self.watched - self.place <= self.more)):
                with m.If(written & (self.watched - self.place == self.more)):
                    m.d.sync += [due.eq(1), at.eq(number), tagged.eq(self.tag)]
        with m.If(dut.read_en):
            m.d.sync += came.eq(came + 1)
            with m.If(due & (came == at)):
                m.d.sync += due.eq(0)
                m.d.comb += [Assert(dut.read_data == value), Assert(dut.read_last == tagged)]


@pytest.mark.parametrize("depth", [27, pytest.param(50, marks=pytest.mark.long)])
def test_proof(depth: int, tmp_path: Path) -> None:
    """Power-up, a write, a read and a REFRESH, in any order."""
    top = SdramTop(times())
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=depth)
    assert passed, log[-2000:]


@pytest.mark.parametrize(
    "wrong",
    [
        {"open_cycles": 1},
        *(
            pytest.param(wrong, marks=pytest.mark.long)
            for wrong in (
                {"close_cycles": 1},
                {"shut_cycles": 1},
                {"trc": RC - 1},
                {"data_cycles": DATA + 1},
                {"refresh_cycles": REFRESH + LATE},
            )
        ),
    ],
)
def test_the_proof_can_fail(wrong: dict[str, int], tmp_path: Path) -> None:
    """A cycle too early, or too late."""
    top = SdramTop(times(**wrong))
    assert not prove(top, top.inputs, tmp_path, mode="bmc", depth=50)[0]
