"""Which words of the next input have come: proven beside a count."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Elaboratable, Module, Signal

from secateur.hw.front.intake import Intake
from tests.hw.proofs import prove


class IntakeTop(Elaboratable):
    """Beside a count of the words that have come, of an input of any length from 1 on."""

    def __init__(self, fault: str) -> None:
        self.fault, self.dut = fault, Intake()
        dut = self.dut
        self.accepted, self.load = Signal(), Signal()
        strobes = [dut.opens, dut.taken, dut.closed, dut.soon, dut.pauses]
        self.inputs = [*strobes, dut.words, self.accepted, self.load]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = dut = self.dut
        count, words, known, opened, busy = (
            Signal(17), Signal(16), Signal(), Signal(), Signal(),
        )  # fmt: skip
        # A word comes when it is ready, or with the LOAD as long as one is missing.
        ready = dut.ready | (self.load & known & dut.open & ~dut.none)
        m.d.comb += [
            dut.accepted.eq(self.accepted & ready),
            dut.one.eq(dut.words == 1),
            Assume(dut.words != 0),
            Assume(~dut.opens | known),  # a layer comes behind the first LOAD
            Assume(~(dut.opens & dut.taken)),
        ]
        m.d.sync += busy.eq(dut.soon)
        with m.If(dut.taken):
            m.d.sync += [count.eq(0), words.eq(dut.words), known.eq(1), opened.eq(0)]
        with m.Else():
            m.d.sync += count.eq(count + dut.accepted)
            with m.If(dut.closed):
                m.d.sync += opened.eq(0)
            with m.Elif(dut.opens):
                m.d.sync += opened.eq(1)
        free = opened & ~dut.pauses & (count < words)
        if self.fault != "busy":
            free = free & ~busy
        last = words if self.fault == "last" else words - 1
        m.d.comb += [
            Assert(dut.open == opened),
            Assert(~opened | known),
            Assert(dut.ready == free),
            Assert(~known | (count <= words)),
            Assert(~known | (words != 0)),
        ]
        with m.If(known):
            m.d.comb += [
                Assert(dut.index == count[:16]),
                Assert(dut.left == (words - count)[:16]),
                Assert(dut.none == (count == words)),
                Assert(dut.last == (count == last)),
            ]
        return m


@pytest.mark.parametrize("fault", ["", "busy", "last"])
def test_every_word_comes_once(fault: str, tmp_path: Path) -> None:
    """By induction: for all inputs and pauses, for all time."""
    top = IntakeTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="prove", depth=4)
    assert passed == (not fault), log[-2000:]
