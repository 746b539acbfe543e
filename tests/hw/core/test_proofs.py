"""Proofs of the storage and window blocks against naive models, for all inputs.

Each proof is shown to be able to fail: the same top with a fault in its model must not pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import (
    Array,
    Assert,
    Assume,
    Elaboratable,
    Module,
    Mux,
    Signal,
    signed,
)
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

import secateur.hw.core.bank
from secateur.hw.core.bank import Bank
from secateur.hw.memory.fifo import FIFO_LATENCY, CreditFifo
from tests.hw.proofs import prove


class FifoTop(Elaboratable):
    """A queue of four beside a shift register; the writer respects the credits."""

    DEPTH = 4

    def __init__(self, fault: bool, block: bool) -> None:
        self.fault, self.block = fault, block
        self.write, self.ready = Signal(), Signal()
        self.value = Signal()
        self.inputs = [self.write, self.ready, self.value]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = CreditFifo(shape=1, depth=self.DEPTH, block=self.block)
        words = Array(Signal(name=f"word{i}") for i in range(self.DEPTH + 1))
        count = Signal(range(self.DEPTH + 2))
        pop = fifo.output.valid & self.ready
        m.d.comb += [
            fifo.write_en.eq(self.write),
            fifo.write_data.eq(self.value),
            fifo.output.ready.eq(self.ready),
            Assume(~self.write | (count < self.DEPTH)),
        ]
        m.d.sync += count.eq(count + self.write - pop)
        with m.If(pop):
            m.d.sync += [words[i].eq(words[i + 1]) for i in range(self.DEPTH)]
        with m.If(self.write):
            m.d.sync += words[count - pop].eq(self.value)
        with m.If(fifo.output.valid):
            wrong = words[1] if self.fault else words[0]
            m.d.comb += [Assert(count > 0), Assert(fifo.output.payload == wrong)]
        # A word at the head comes out after FIFO_LATENCY cycles, and stays until it is taken.
        waited = Signal(range(FIFO_LATENCY + 1))
        with m.If((count == 0) | fifo.output.valid):
            m.d.sync += waited.eq(0)
        with m.Else():
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += Assert(waited < FIFO_LATENCY)
        stalled = Signal()
        m.d.sync += stalled.eq(fifo.output.valid & ~self.ready)
        m.d.comb += Assert(~stalled | fifo.output.valid)
        return m


@pytest.mark.parametrize("depth", [12, pytest.param(16, marks=pytest.mark.long)])
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("fault", [False, True])
def test_fifo_keeps_order_and_never_withdraws(
    fault: bool, block: bool, depth: int, tmp_path: Path
) -> None:
    """Bounded: every run of 12 cycles from reset, more than twice round the memory; 16, more than
    three times round it, take six times as long."""
    top = FifoTop(fault, block)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=depth)
    assert passed == (not fault), log[-2000:]


class WriteProbe(wiring.Component):
    """Stands in for the bank's RAM and shows what would be written."""

    def __init__(self, n: int, depth: int) -> None:
        address = depth.bit_length() - 1
        super().__init__(
            {
                "write_en": In(1),
                "write_addr": In(address),
                "write_data": In(8 * n),
                "read_addr": In(address),
                "read_data": Out(data.ArrayLayout(8, n)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        return Module()


class WindowTop(Elaboratable):
    """A bank with its RAM laid bare, and the window test as stream.md words it.

    Window and size may change with every write; they come a cycle later.
    """

    N, DEPTH = 2, 16

    def __init__(self, probe: WriteProbe, fault: str) -> None:
        self.probe, self.fault = probe, fault
        self.bank = Bank(n=self.N, depth=self.DEPTH, ahead=True)
        bank = self.bank
        self.inputs = [
            bank.address,
            bank.write.as_value(),
            bank.window,
            bank.size,
            bank.shift,
            bank.offset_in,
            bank.keep,
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank = bank = self.bank
        offset, kept = Signal(16), Signal(16, reset_less=True)
        with m.If(bank.shift):
            m.d.sync += offset.eq(bank.offset_in)
        with m.If(bank.keep):
            m.d.sync += kept.eq(bank.offset_in if self.fault == "kept" else offset)
        came = Signal()
        distance = Signal(signed(18))
        of_tensor = Mux(bank.write.ahead, kept, offset)
        m.d.sync += [
            came.eq(bank.write.valid),
            distance.eq(bank.write.m - Mux(bank.write.local, 0, of_tensor)),
        ]
        accept = came & (distance < bank.size)
        if self.fault != "below":
            accept = accept & (distance >= 0)
        address, expected = Signal(self.probe.write_addr.shape()), Signal()
        m.d.sync += [address.eq(bank.window + distance), expected.eq(accept)]
        m.d.comb += [
            Assert(self.probe.write_en == expected),
            Assert(~expected | (self.probe.write_addr == address)),
            Assert(self.probe.write_data == bank.write.data.as_value()),
            Assert(bank.offset == offset),
            Assert(bank.kept == kept),
        ]
        return m


@pytest.mark.parametrize("fault", ["", "below", "kept"])
def test_bank_takes_what_falls_into_its_window(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By induction: for any stream of writes, any window, size and offsets, for all time."""
    probe = WriteProbe(WindowTop.N, WindowTop.DEPTH)
    monkeypatch.setattr(secateur.hw.core.bank, "Ram", lambda **_: probe)
    top = WindowTop(probe, fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="prove", depth=6)
    assert passed == (not fault), log[-2000:]
