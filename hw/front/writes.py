"""Writes that begin in the issue stage: input words, clears, zeros after a reset, table entries."""

from __future__ import annotations

import operator

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.interfaces import REGISTERS, host_layout, table_write_layout
from secateur.hw.pipeline import exceeds
from secateur.hw.spec import Reg

#: More than the reset takes from the first part of the engine to the last.
RESET_WAY = 16


class Wipe(wiring.Component):
    """When zeros go to all banks: after a reset, once it has reached all parts.

    Parameters
    ----------
    geometry : of the engine
    fast : compare with carry chains; else with gates, which are fewer cells

    Members
    -------
    wiping : Out(1)  zeros are written in the next cycle
    wiped : Out(1)  all zeros have landed
    """

    def __init__(self, *, geometry: spec.Geometry, fast: bool):
        self.geometry, self.fast = geometry, fast
        super().__init__({"wiping": Out(1), "wiped": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        banks, landing = self.geometry.bank_words, spec.load_tail(self.geometry.p)
        total = RESET_WAY + banks + landing
        left = Signal(range(total + 1), init=total)
        ends = Signal()
        above = operator.gt if self.fast else exceeds
        m.d.sync += [
            self.wiping.eq(above(left, landing + 1) & ~above(left, landing + 1 + banks)),
            ends.eq(left == 1),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(ends):
            m.d.sync += self.wiped.eq(1)
        return m


class HostWrites(wiring.Component):
    """Input words, or fill bytes, to consecutive words of the map or of the window.

    Parameters
    ----------
    n : bytes of a word
    latency : cycles from ``word`` to ``host``, 0 or 1

    Members
    -------
    registers : In(REGISTERS)  the configuration
    restart : In(1)  the next word is the first
    accepted : In(1)  an input word comes
    word : In(8 * n)  that word
    clearing : In(1)  a fill word is written
    ahead : In(1)  input words are those of the next input
    index : In(16)  their number, with ``ahead``
    host : Out(host_layout(n))  the write
    """

    def __init__(self, *, n: int, latency: int):
        self.n, self.latency = n, latency
        super().__init__(
            {
                "registers": In(REGISTERS),
                "restart": In(1),
                "accepted": In(1),
                "word": In(8 * n),
                "clearing": In(1),
                "ahead": In(1),
                "index": In(16),
                "host": Out(host_layout(n)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, flags = self.host, self.registers[Reg.FLAGS]
        index = Signal(16)
        data = Signal.like(host.data, reset_less=True)  # cleared by one flip-flop, for a short path
        fill = Mux(flags[spec.FLAG_FILL], 0x80, 0).replicate(self.n)
        ahead = self.ahead & ~self.clearing
        domain = m.d.sync if self.latency else m.d.comb
        domain += [
            host.valid.eq(self.accepted | self.clearing),
            host.local.eq(self.clearing),
            host.ahead.eq(ahead),
            host.m.eq(Mux(ahead, self.index, index)),
            data.eq(Mux(self.clearing, fill, self.word)),
        ]
        m.d.comb += host.data.eq(data)
        with m.If(self.restart):
            m.d.sync += index.eq(0)
        with m.Elif(self.accepted | self.clearing):
            m.d.sync += index.eq(index + 1)
        return m


class TableWrites(wiring.Component):
    """The entries of a word, one per cycle, a cycle late.

    By then the configuration word before it has been written to the registers. Every word comes in:
    its kind is known later than the state of the issue stage.

    Parameters
    ----------
    n : entries of a word

    Members
    -------
    registers : In(REGISTERS)  the configuration
    writing : In(1)  the word before is one of entries, for N cycles
    lanes : In(8 * n)  of the word that is fetched
    entry : Out(table_write_layout())  an entry
    """

    def __init__(self, *, n: int):
        self.n = n
        super().__init__(
            {
                "registers": In(REGISTERS),
                "writing": In(1),
                "lanes": In(8 * n),
                "entry": Out(table_write_layout()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        entries = Signal(8 * self.n, reset_less=True)
        late = Signal()
        m.d.sync += late.eq(self.writing)
        m.d.comb += [
            self.entry.valid.eq(late),
            self.entry.address.eq(self.registers[Reg.TABLE]),
            self.entry.data.eq(entries[:8]),
        ]
        with m.If(~self.writing):
            m.d.sync += entries.eq(self.lanes)
        with m.Elif(late):
            m.d.sync += entries.eq(entries >> 8)
        return m
