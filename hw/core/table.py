"""Activation tables: codes that look up codes, N channels side by side."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.interfaces import table_write_layout
from secateur.hw.memory.memory import RAM_LATENCY, TwoReadRam, check_family
from secateur.hw.pipeline import delay

#: The memory, and the register behind the choice of code or entry.
TABLE_LATENCY = RAM_LATENCY + 1


class Tables(wiring.Component):
    """``out = entry[256 * table + code]`` if ``lookup``, else ``out = code``.

    Every two channels share a memory with two read ports, one of which also writes. Hence no entry
    may be written while pixels drain.

    Parameters
    ----------
    n : channels, even
    tables : tables of 256 entries, 0 to MAX_TABLES; without any, codes are only delayed
    family : "generic", "ecp5" or "asic"

    Members
    -------
    codes : In(n x 8)  of a pixel
    out : Out(n x 8)  TABLE_LATENCY cycles later
    table : In(3)  number of the table, with ``codes``
    lookup : In(1)  static; look up, or pass the codes on
    write : In(table_write_layout())  one entry per cycle; an address past the tables is ignored
    """

    def __init__(self, *, n: int, tables: int, family: str = "generic"):
        if n < 2 or n % 2:
            raise ValueError(f"n must be even, not {n!r}")
        if not 0 <= tables <= spec.MAX_TABLES:
            raise ValueError(f"tables must be 0 to {spec.MAX_TABLES}, not {tables!r}")
        self.n, self.tables, self.family = n, tables, check_family(family)
        super().__init__(
            {
                "codes": In(data.ArrayLayout(8, n)),
                "out": Out(data.ArrayLayout(8, n)),
                "table": In(3),
                "lookup": In(1),
                "write": In(table_write_layout()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        if not self.tables:
            m.d.comb += self.out.eq(delay(m, self.codes.as_value(), TABLE_LATENCY, "codes"))
            return m
        entries = self.tables * spec.TABLE_ENTRIES
        width = ceil_log2(entries)
        plain = delay(m, self.codes.as_value(), RAM_LATENCY, "codes")
        lookup = delay(m, self.lookup, 1, "lookup")
        enable = Signal()
        m.d.sync += enable.eq(self.write.valid & (self.write.address < entries))
        address = delay(m, self.write.address, 1, "address")
        entry = delay(m, self.write.data, 1, "entry")
        found = []
        for pair in range(0, self.n, 2):
            m.submodules[f"ram{pair}"] = ram = TwoReadRam(
                width=8, depth=entries, family=self.family
            )
            first, second = (Cat(self.codes[pair + side], self.table)[:width] for side in (0, 1))
            m.d.comb += [
                ram.write_en.eq(enable),
                ram.write_data.eq(entry),
                ram.a_addr.eq(Mux(enable, address, first)),
                ram.b_addr.eq(second),
            ]
            found += [ram.a_data, ram.b_data]
        out = Signal(8 * self.n, reset_less=True)
        m.d.sync += out.eq(Mux(lookup, Cat(found), plain))
        m.d.comb += self.out.eq(out)
        return m
