"""The drain: row parameters, requantiser, tables, delivery."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.array import sum_latency
from secateur.hw.core.bank import DATA_DELAY
from secateur.hw.core.delivery import Delivery
from secateur.hw.core.filters import WORD_DELAY
from secateur.hw.core.requantise import REQUANTISE_LATENCY, Requantiser
from secateur.hw.core.rows import GroupParameters, RowParameters
from secateur.hw.core.table import TABLE_LATENCY, Tables
from secateur.hw.core.walk import WALK_LATENCY
from secateur.hw.interfaces import (
    GROUP,
    Kind,
    group_end,
    header_layout,
    issued_signature,
    output_signature,
    write_layout,
)
from secateur.hw.memory.fifo import FIFO_LATENCY
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

#: Cycles that the requantiser needs the parameters of a row.
_PARAMETERS_HELD = 4


def result_latency(p: int) -> int:
    """Cycles from the issue of a group's last word to ``results.valid`` of lane 0's pixel."""
    return 1 + sum_latency(p) + REQUANTISE_LATENCY + TABLE_LATENCY + FIFO_LATENCY


def result_depth(p: int) -> int:
    """Results that may be on their way, so that a host that always takes them is never awaited.

    Credits come back 3 cycles after a result has left.
    """
    return -(-(result_latency(p) + 3 + 3 * p) // 16) * 16


def drain_ports(n: int, sums: dict[str, wiring.Member]) -> dict[str, wiring.Member]:
    """Members of a drain.

    Parameters
    ----------
    n : bytes of a word
    sums : the member through which the sums come; each drain takes them in its own way
    """
    return {
        "issued": In(issued_signature(n)),
        **sums,
        "write": Out(write_layout(n)),
        "output": Out(output_signature(n)),
    }


class Drain(wiring.Component):
    """Sums to pixels, N channels side by side.

    Header words and ends of groups come as they issue and are kept in step here.

    Parameters
    ----------
    geometry : of the engine
    family : "generic", "ecp5" or "asic"

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage
    sums : In(n x ACC_BITS)  ``sum_latency(P)`` cycles after the last word of a group, and on; with
        filter lanes WORD_DELAY later, as all else
    header : In(header_layout(n))  header words; with S > 1
    write : Out(write_layout(n))  write bus; data come DATA_DELAY cycles after the rest
    output : Out(output_signature(n))  results and trace
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.geometry, self.family = geometry, family
        n = geometry.n
        ports = {"sums": In(data.ArrayLayout(signed(spec.ACC_BITS), n))}
        if geometry.s > 1:
            ports["header"] = In(header_layout(n))
        super().__init__(drain_ports(n, ports))

    def elaborate(self, platform) -> Module:
        m = Module()
        n, p, issued = self.geometry.n, self.geometry.p, self.issued
        regs = issued.late
        m.submodules.requantiser = requantiser = Requantiser(n=n)
        m.submodules.tables = tables = Tables(n=n, tables=self.geometry.tables, family=self.family)
        m.submodules.delivery = delivery = Delivery(
            n=n, results=result_depth(p), s=self.geometry.s, data_delay=DATA_DELAY
        )
        to_walk = sum_latency(p) + REQUANTISE_LATENCY + TABLE_LATENCY - DATA_DELAY - WALK_LATENCY
        parameters = self._group_parameters if self.geometry.s > 1 else self._row_parameters
        late, table = parameters(m, requantiser, to_walk)
        flags = regs[Reg.FLAGS2]
        m.d.comb += tables.table.eq(
            Mux(
                flags[spec.FLAG2_TABLES],
                delay(m, table, REQUANTISE_LATENCY, "row_table"),
                flags[spec.FLAG2_TABLE :],
            )
        )
        m.d.comb += [
            requantiser.sums.eq(self.sums),
            requantiser.configure(regs),
            tables.codes.eq(requantiser.codes),
            tables.lookup.eq(regs[Reg.FLAGS2][spec.FLAG2_LOOKUP]),
            tables.write.eq(issued.entry),
            delivery.group.eq(late),
            delivery.codes.eq(tables.out),
            self.write.eq(delivery.write),
        ]
        wiring.connect(m, wiring.flipped(self.issued), delivery.issued)
        wiring.connect(m, delivery.output, wiring.flipped(self.output))
        return m

    def _row_parameters(self, m: Module, requantiser: Requantiser, to_walk: int):
        """The parameters of rows, loaded once for each.

        Returns the GROUP for the walk, and the table of the row, a cycle after ``load``.
        """
        issued, to_load = self.issued, sum_latency(self.geometry.p) - 1
        m.submodules.rows = rows = RowParameters(n=self.geometry.n)
        early = delay(m, group_end(issued.word), to_load, "group", reset_less=False)
        fresh = Signal()  # the next group is the first of its row
        with m.If(issued.late_init | early.valid):
            m.d.sync += fresh.eq(issued.late_init | early.row_last)
        row_ends = early.valid & early.row_last
        m.d.comb += [
            rows.valid.eq(issued.valid),
            rows.word.eq(issued.word),
            rows.next.eq(delay(m, row_ends, _PARAMETERS_HELD, "row_done", reset_less=False)),
            requantiser.load.eq(early.valid & fresh),
            requantiser.bias.eq(rows.bias),
            requantiser.delta.eq(rows.delta),
        ]
        table = Signal(3)
        with m.If(requantiser.load):
            m.d.sync += table.eq(rows.table)
        return delay(m, early, to_walk - to_load, "group_late", reset_less=False), table

    def _group_parameters(self, m: Module, requantiser: Requantiser, to_walk: int):
        """The parameters of each pixel.

        Returns the GROUP for the walk, and the table of the pixel, a cycle after ``load``.
        """
        issued, n, s = self.issued, self.geometry.n, self.geometry.s
        filters, late_filters = (
            registers[Reg.FLAGS2][spec.FLAG2_FILTERS]
            for registers in (issued.registers, issued.late)
        )
        to_group = sum_latency(self.geometry.p) - 2
        m.submodules.rows = rows = GroupParameters(n=n, s=s)
        final = Signal()
        with m.If(issued.valid & (issued.word.kind == Kind.HEAD_B)):
            m.d.sync += final.eq((issued.word.common & spec.ROW_LAST).any())
        ended = group_end(issued.word, final)
        lagging = delay(m, ended, WORD_DELAY, "group_lagging", reset_less=False)
        chosen = data.View(GROUP, Mux(filters, lagging, ended))
        early = delay(m, chosen, to_group, "group", reset_less=False)
        m.d.comb += [
            rows.header.eq(self.header),
            rows.filters.eq(late_filters),
            rows.group.eq(early),
            requantiser.load.eq(rows.load),
            requantiser.bias.eq(rows.bias),
            requantiser.delta.eq(rows.delta),
        ]
        table = delay(m, rows.table, 1, "table")
        return delay(m, early, to_walk - to_group, "group_late", reset_less=False), table
