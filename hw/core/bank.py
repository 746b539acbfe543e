"""One activation bank: a window on the map being written, local reads."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw.interfaces import write_layout
from secateur.hw.memory.memory import Ram, check_family
from secateur.hw.pipeline import delay

#: Cycles by which the data of a write follow its address: difference, comparison.
DATA_DELAY = 2


class Bank(wiring.Component):
    """N bytes x ``depth``; takes the writes that fall into its window.

    Write word ``m`` of the map goes to local word ``(window + m - offset) mod depth`` if
    ``0 <= m - offset < size``, the difference being a 17-bit signed number. Words of the next input
    have an offset of their own.

    Parameters
    ----------
    n : bytes of a word
    depth : words, a power of two
    family : one of FAMILIES
    data_delay : cycles by which the data of a write follow its address: DATA_DELAY, or 0
    output : build the RAM's output register
    ahead : words of the next input may come

    Members
    -------
    address : In  of a word
    word : Out(n x 8)  RAM_LATENCY cycles later, without output register one cycle
    address_next : Out  ``address`` one cycle later, for the next bank
    write : In(write_layout(n))  write bus
    write_next : Out(write_layout(n))  ``write`` one cycle later, for the next bank
    window : In(16)  first local word of the window; with ``data_delay`` a cycle after ``write``
    size : In(16)  words of the window, at the same time
    shift : In(1)  offsets move from the last bank to the first
    offset_in : In(16)  offset of the bank behind this one
    offset : Out(16)  offset of this bank, for the bank before it
    keep : In(1)  strobe: ``offset`` is that of the next input; with ``ahead``
    """

    def __init__(
        self,
        *,
        n: int,
        depth: int,
        family: str = "generic",
        data_delay: int = DATA_DELAY,
        output: bool = True,
        ahead: bool = False,
    ):
        if depth < 16 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two from 16 on, not {depth!r}")
        self.n, self.depth, self.family = n, depth, check_family(family)
        if data_delay not in (0, DATA_DELAY):
            raise ValueError(f"data_delay must be 0 or {DATA_DELAY} cycles, not {data_delay!r}")
        self.data_delay, self.output, self.ahead = data_delay, output, ahead
        self.kept = Signal(16, reset_less=True)  # offset of the next input
        address = ceil_log2(depth)
        super().__init__(
            {
                "address": In(address),
                "address_next": Out(address),
                "word": Out(data.ArrayLayout(8, n)),
                "write": In(write_layout(n)),
                "write_next": Out(write_layout(n)),
                "window": In(16),
                "size": In(16),
                "shift": In(1),
                "offset_in": In(16),
                "offset": Out(16),
                **({"keep": In(1)} if ahead else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ram = ram = Ram(
            width=8 * self.n, depth=self.depth, family=self.family, output=self.output
        )
        write = self.write
        fields = ("local", "ahead", "m", "data")
        m.d.sync += self.write_next.valid.eq(write.valid)
        for name in fields:
            m.d.comb += self.write_next[name].eq(delay(m, write[name], 1, f"next_{name}"))
        m.d.comb += self.address_next.eq(delay(m, self.address, 1, "next_address"))
        with m.If(self.shift):
            m.d.sync += self.offset.eq(self.offset_in)
        offset = self.offset
        if self.ahead:
            with m.If(self.keep):
                m.d.sync += self.kept.eq(self.offset)
            offset = Mux(write.ahead, self.kept, self.offset)

        valid1 = Signal()
        valid2 = Signal()
        distance = Signal(17, reset_less=True)
        local = Signal(ceil_log2(self.depth), reset_less=True)
        domain = m.d.sync if self.data_delay else m.d.comb
        domain += [
            valid1.eq(write.valid),
            distance.eq(write.m - Mux(write.local, 0, offset)),
            valid2.eq(valid1 & ~distance[16] & (distance[:16] < self.size)),
            local.eq(self.window + distance),
        ]
        m.d.comb += [
            ram.write_en.eq(valid2),
            ram.write_addr.eq(local),
            ram.write_data.eq(write.data),
            ram.read_addr.eq(self.address),
            self.word.eq(ram.read_data),
        ]
        return m


class OffsetGenerator(wiring.Component):
    """``OFF[p]`` of the P banks, one per cycle, from bank 0's on.

    Parameters
    ----------
    p : banks

    Members
    -------
    start : In(1)  strobe; P shifts follow, from the next cycle on
    columns : In(16)  static; OFF_PC
    column_step : In(16)  static; OFF_DC
    row_step : In(16)  static; OFF_DR
    shift : Out(1)  to all banks
    offset : Out(16)  into the last bank
    """

    def __init__(self, *, p: int):
        self.p = p
        super().__init__(
            {
                "start": In(1),
                "columns": In(16),
                "column_step": In(16),
                "row_step": In(16),
                "shift": Out(1),
                "offset": Out(16),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        left = Signal(range(self.p + 1))
        column = Signal(16)
        last_column = Signal()  # column == 1, ahead of time: it enables 32 flip-flops
        next_row = Signal(16)
        m.d.comb += self.shift.eq(left != 0)
        with m.If(self.start):
            m.d.sync += [
                left.eq(self.p),
                self.offset.eq(0),
                next_row.eq(self.row_step),
                column.eq(self.columns),
                last_column.eq(self.columns == 1),
            ]
        with m.Elif(self.shift):
            m.d.sync += left.eq(left - 1)
            with m.If(last_column):
                m.d.sync += [
                    self.offset.eq(next_row),
                    next_row.eq(next_row + self.row_step),
                    column.eq(self.columns),
                    last_column.eq(self.columns == 1),
                ]
            with m.Else():
                m.d.sync += [
                    self.offset.eq(self.offset + self.column_step),
                    column.eq(column - 1),
                    last_column.eq(column == 2),
                ]
        return m
