"""Biases and shifts of rows, from their header words to the drain."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.interfaces import Kind, word_layout

#: Rows that wait while words are on their way.
ROWS_IN_FLIGHT = 16


class RowParameters(wiring.Component):
    """Keeps the header words of rows until the sums of these rows come.

    Parameters
    ----------
    n : channels
    block : in block RAM: ``bias`` and ``delta`` come a cycle after their row's turn

    Members
    -------
    valid : In(1)  a word has issued
    word : In(word_layout(n))  that word; only headers count
    next : In(1)  strobe: the next row's turn
    bias : Out(n x BIAS_BITS)  signed, of the row whose turn it is
    delta : Out(n x SHIFT_DELTA_BITS)  of that row
    """

    def __init__(self, *, n: int, block: bool = False):
        self.n, self.block = n, block
        super().__init__(
            {
                "valid": In(1),
                "word": In(word_layout(n)),
                "next": In(1),
                "bias": Out(data.ArrayLayout(signed(spec.BIAS_BITS), n)),
                "delta": Out(data.ArrayLayout(spec.SHIFT_DELTA_BITS, n)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        head = Signal(range(ROWS_IN_FLIGHT))
        tail = Signal(range(ROWS_IN_FLIGHT))
        low, high = (self._headers(m, kind, head, tail) for kind in (Kind.HEAD_A, Kind.HEAD_B))
        with m.If(self.valid & (self.word.kind == Kind.HEAD_B)):
            m.d.sync += head.eq(head + 1)
        with m.If(self.next):
            m.d.sync += tail.eq(tail + 1)
        split = spec.BIAS_BITS - 8  # the bias has these bits of the second header word
        for lane in range(self.n):
            first, second = low[8 * lane :][:8], high[8 * lane :][:8]
            m.d.comb += [
                self.bias[lane].eq(Cat(first, second[:split])),
                self.delta[lane].eq(second[split:][: spec.SHIFT_DELTA_BITS]),
            ]
        return m

    def _headers(self, m: Module, kind: Kind, head, tail):
        """The first or the second header word of the row at ``tail``."""
        m.submodules[kind.name.lower()] = rows = memory.Memory(
            shape=8 * self.n,
            depth=ROWS_IN_FLIGHT,
            init=[],
            attrs={"no_rw_check": 1} if self.block else {"ram_style": "distributed"},
        )
        write = rows.write_port()
        read = rows.read_port(domain="sync" if self.block else "comb")
        m.d.comb += [
            write.en.eq(self.valid & (self.word.kind == kind)),
            write.addr.eq(head),
            write.data.eq(self.word.lanes),
            read.addr.eq(tail),
        ]
        return read.data
