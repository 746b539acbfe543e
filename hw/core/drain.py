"""The drain: row parameters, requantiser, tables, delivery."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.array import sum_latency
from secateur.hw.core.bank import DATA_DELAY
from secateur.hw.core.delivery import Delivery
from secateur.hw.core.requantise import REQUANTISE_LATENCY, Requantiser
from secateur.hw.core.rows import RowParameters
from secateur.hw.core.table import TABLE_LATENCY, Tables
from secateur.hw.core.walk import WALK_LATENCY
from secateur.hw.interfaces import group_end, issued_signature, output_signature, write_layout
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
    sums : In(n x ACC_BITS)  ``sum_latency(P)`` cycles after the last word of a group, and on
    write : Out(write_layout(n))  write bus; data come DATA_DELAY cycles after the rest
    output : Out(output_signature(n))  results and trace
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.geometry, self.family = geometry, family
        n = geometry.n
        super().__init__(drain_ports(n, {"sums": In(data.ArrayLayout(signed(spec.ACC_BITS), n))}))

    def elaborate(self, platform) -> Module:
        m = Module()
        n, p, issued = self.geometry.n, self.geometry.p, self.issued
        regs = issued.registers
        m.submodules.rows = rows = RowParameters(n=n)
        m.submodules.requantiser = requantiser = Requantiser(n=n)
        m.submodules.tables = tables = Tables(n=n, tables=self.geometry.tables, family=self.family)
        m.submodules.delivery = delivery = Delivery(
            n=n, results=result_depth(p), data_delay=DATA_DELAY
        )

        to_load = sum_latency(p) - 1
        to_walk = sum_latency(p) + REQUANTISE_LATENCY + TABLE_LATENCY - DATA_DELAY - WALK_LATENCY
        early = delay(m, group_end(issued.word), to_load, "group", reset_less=False)
        late = delay(m, early, to_walk - to_load, "group_late", reset_less=False)
        fresh = Signal()  # the next group is the first of its row
        with m.If(issued.init | early.valid):
            m.d.sync += fresh.eq(issued.init | early.row_last)
        row_ends = early.valid & early.row_last
        m.d.comb += [
            rows.valid.eq(issued.valid),
            rows.word.eq(issued.word),
            rows.next.eq(delay(m, row_ends, _PARAMETERS_HELD, "row_done", reset_less=False)),
            requantiser.sums.eq(self.sums),
            requantiser.load.eq(early.valid & fresh),
            requantiser.bias.eq(rows.bias),
            requantiser.delta.eq(rows.delta),
            requantiser.configure(regs),
            tables.codes.eq(requantiser.codes),
            tables.table.eq(regs[Reg.FLAGS2][spec.FLAG2_TABLE :]),
            tables.lookup.eq(regs[Reg.FLAGS2][spec.FLAG2_LOOKUP]),
            tables.write.eq(issued.entry),
            delivery.group.eq(late),
            delivery.codes.eq(tables.out),
            self.write.eq(delivery.write),
        ]
        wiring.connect(m, wiring.flipped(self.issued), delivery.issued)
        wiring.connect(m, delivery.output, wiring.flipped(self.output))
        return m
