"""Biases and shifts of rows, from their header words to the drain."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.requantise import BIAS_DELAY
from secateur.hw.interfaces import GROUP, Kind, header_layout, word_layout
from secateur.hw.pipeline import delay

#: Rows that wait while words are on their way. Two groups of eight rows are enough: a group takes
#: ``spec.filter_row_words`` cycles: it has left before the header words of the next but one come.
ROWS_IN_FLIGHT = 16


def _split(low, high, bias, delta) -> list:
    """Assignments of the parameters that two header words hold."""
    split = spec.BIAS_BITS - 8  # the bias has these bits of the second header word
    parts = []
    for lane in range(len(low) // 8):
        first, second = low[8 * lane :][:8], high[8 * lane :][:8]
        parts += [
            bias[lane].eq(Cat(first, second[:split])),
            delta[lane].eq(second[split:][: spec.SHIFT_DELTA_BITS]),
        ]
    return parts


class RowParameters(wiring.Component):
    """Keeps the header words of rows until the sums of these rows come.

    Parameters
    ----------
    n : channels
    block : in block RAM: ``bias``, ``delta`` and ``table`` come a cycle after their row's turn
    tables : rows may name tables

    Members
    -------
    valid : In(1)  a word has issued
    word : In(word_layout(n))  that word; only headers count
    next : In(1)  strobe: the next row's turn
    bias : Out(n x BIAS_BITS)  signed, of the row whose turn it is
    delta : Out(n x SHIFT_DELTA_BITS)  of that row
    table : Out(3)  that it names
    """

    def __init__(self, *, n: int, block: bool = False, tables: bool = True):
        self.n, self.block, self.tables = n, block, tables
        super().__init__(
            {
                "valid": In(1),
                "word": In(word_layout(n)),
                "next": In(1),
                "bias": Out(data.ArrayLayout(signed(spec.BIAS_BITS), n)),
                "delta": Out(data.ArrayLayout(spec.SHIFT_DELTA_BITS, n)),
                "table": Out(3),
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
        m.d.comb += _split(low, high[: 8 * self.n], self.bias, self.delta)
        m.d.comb += self.table.eq(high[8 * self.n :])
        return m

    def _headers(self, m: Module, kind: Kind, head, tail):
        """The first or the second header word of the row at ``tail``."""
        named = self.tables and kind is Kind.HEAD_B
        m.submodules[kind.name.lower()] = rows = memory.Memory(
            shape=8 * self.n + (3 if named else 0),
            depth=ROWS_IN_FLIGHT,
            init=[],
            attrs={"no_rw_check": 1} if self.block else {"ram_style": "distributed"},
        )
        write = rows.write_port()
        read = rows.read_port(domain="sync" if self.block else "comb")
        m.d.comb += [
            write.en.eq(self.valid & (self.word.kind == kind)),
            write.addr.eq(head),
            write.data.eq(Cat(self.word.lanes, self.word.common[spec.ROW_TABLE :][:3])),
            read.addr.eq(tail),
        ]
        return read.data


class GroupParameters(wiring.Component):
    """As RowParameters, for rows of which S may be a group: each of its pixels has its own.

    Parameters
    ----------
    n : channels
    s : lanes that may be filters

    Members
    -------
    header : In(header_layout(n))  header words, two for each row
    filters : In(1)  static; S rows are a group
    group : In(GROUP)  the end of a group of pixels
    load : Out(1)  a cycle after ``group``: the parameters of its first pixel; those of other rows
        of the group follow
    bias : Out(n x BIAS_BITS)  signed, BIAS_DELAY cycles after ``delta``
    delta : Out(n x SHIFT_DELTA_BITS)  with ``load``
    table : Out(3)  that the row names, with ``load``
    """

    def __init__(self, *, n: int, s: int):
        self.n, self.s = n, s
        super().__init__(
            {
                "header": In(header_layout(n)),
                "filters": In(1),
                "group": In(GROUP),
                "load": Out(1),
                "bias": Out(data.ArrayLayout(signed(spec.BIAS_BITS), n)),
                "delta": Out(data.ArrayLayout(spec.SHIFT_DELTA_BITS, n)),
                "table": Out(3),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        rows = range(ROWS_IN_FLIGHT)
        head = Signal(rows)
        base = Signal(rows)
        at = Signal(rows)
        left = Signal(range(self.s))
        with m.If(self.header.valid & self.header.second):
            m.d.sync += head.eq(head + 1)
        m.d.sync += self.load.eq(self.group.valid | (left != 0))
        with m.If(self.group.valid):
            m.d.sync += [at.eq(base), left.eq(Mux(self.filters, self.s - 1, 0))]
            with m.If(self.group.row_last):
                m.d.sync += base.eq(base + Mux(self.filters, self.s, 1))
        with m.Elif(left != 0):
            m.d.sync += [at.eq(at + 1), left.eq(left - 1)]
        found = []
        for second, name in enumerate(("first", "second")):
            m.submodules[name] = words = memory.Memory(
                shape=8 * self.n + 3 * second,
                depth=ROWS_IN_FLIGHT,
                init=[],
                attrs={"ram_style": "distributed"},
            )
            write, read = words.write_port(), words.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.header.valid & (self.header.second == second)),
                write.addr.eq(head),
                write.data.eq(Cat(self.header.lanes, self.header.table)),
                read.addr.eq(at),
            ]
            found.append(read.data[: 8 * self.n])
        m.d.comb += self.table.eq(read.data[8 * self.n :])
        bias = Signal.like(self.bias)
        m.d.comb += _split(*found, bias, self.delta)
        m.d.comb += self.bias.eq(delay(m, bias.as_value(), BIAS_DELAY, "bias"))
        return m
