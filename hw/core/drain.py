"""The drain: row parameters, requantiser, tables, walk; pixels to the write bus or the results."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.array import sum_latency
from secateur.hw.core.bank import DATA_DELAY
from secateur.hw.core.requantise import REQUANTISE_LATENCY, Requantiser
from secateur.hw.core.table import TABLE_LATENCY, Tables
from secateur.hw.core.walk import WALK_LATENCY, Walk
from secateur.hw.interfaces import (
    REGISTERS,
    Kind,
    host_layout,
    table_write_layout,
    trace_layout,
    word_layout,
    write_layout,
)
from secateur.hw.memory.fifo import FIFO_LATENCY, CreditFifo
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

ROWS_IN_FLIGHT = 16
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
    """The members of a drain, which takes ``sums`` in its own way."""
    return {
        "registers": In(REGISTERS),
        "init": In(1),
        "layer": In(8),
        "entry": In(table_write_layout()),
        "valid": In(1),
        "word": In(word_layout(n)),
        **sums,
        "host": In(host_layout(n)),
        "write": Out(write_layout(n)),
        "results": Out(stream.Signature(8 * n)),
        "released": Out(2),
        "trace": Out(trace_layout(n)),
    }


class Drain(wiring.Component):
    """Sums to pixels. Header words and ends of groups come as they issue and are kept in step here.

    Parameters
    ----------
    geometry : of the engine
    family : "generic", "ecp5" or "asic"

    Members
    -------
    registers : In; init : In, strobe, see Walk; layer : In, for the trace
    entry : In, an entry of a table
    valid, word : In, fetched words
    sums : In, ``sum_latency(P)`` cycles after the last word of a group, and on
    host : In, writes of LOAD and CLEAR, never while pixels drain
    write : Out, write bus
    results : Out, stream of N bytes; the issue stage sees to it that there is room
    released : Out, results that have left or were dropped in this cycle: 0, 1 or 2
    trace : Out
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.geometry, self.family = geometry, family
        n = geometry.n
        super().__init__(drain_ports(n, {"sums": In(data.ArrayLayout(signed(spec.ACC_BITS), n))}))

    def elaborate(self, platform) -> Module:
        m = Module()
        n, regs = self.geometry.n, self.registers
        to_sums = sum_latency(self.geometry.p)
        m.submodules.requantiser = requantiser = Requantiser(n=n)
        m.submodules.tables = tables = Tables(n=n, tables=self.geometry.tables, family=self.family)
        m.submodules.walk = walk = Walk()

        group = Signal(data.StructLayout({"valid": 1, "line_last": 1, "row_last": 1}))
        m.d.comb += [
            group.valid.eq(self.word.group_last),
            group.line_last.eq(self.word.line_last),
            group.row_last.eq(self.word.row_last),
        ]
        to_load = to_sums - 1
        to_walk = to_sums + REQUANTISE_LATENCY + TABLE_LATENCY - DATA_DELAY - WALK_LATENCY
        early = delay(m, group, to_load, "group", reset_less=False)
        late = delay(m, early, to_walk - to_load, "group_late", reset_less=False)
        early, late = (data.View(group.shape(), value) for value in (early, late))

        bias, delta = self._parameters(m, early)
        fresh = Signal()
        with m.If(self.init | early.valid):
            m.d.sync += fresh.eq(self.init | early.row_last)
        m.d.comb += [
            requantiser.sums.eq(self.sums),
            requantiser.load.eq(early.valid & fresh),
            requantiser.bias.eq(bias),
            requantiser.delta.eq(delta),
            requantiser.shift_base.eq(regs[Reg.FLAGS2][spec.FLAG2_SHIFT_BASE :]),
            requantiser.clip.eq(regs[Reg.CLIP]),
            requantiser.signed.eq(regs[Reg.FLAGS][spec.FLAG_OUT_SIGNED]),
            tables.codes.eq(requantiser.codes),
            tables.table.eq(regs[Reg.FLAGS2][spec.FLAG2_TABLE :]),
            tables.lookup.eq(regs[Reg.FLAGS2][spec.FLAG2_LOOKUP]),
            tables.write.eq(self.entry),
            walk.registers.eq(regs),
            walk.init.eq(self.init),
            walk.group.eq(late.valid),
            walk.line_last.eq(late.line_last),
            walk.row_last.eq(late.row_last),
        ]
        self._deliver(m, walk, tables.out)
        return m

    def _parameters(self, m: Module, group):
        """Bias and shift of the row in the drain; rows queue here while words are on the way."""
        n = self.geometry.n
        width = 8 * n
        head = Signal(range(ROWS_IN_FLIGHT))
        tail = Signal(range(ROWS_IN_FLIGHT))
        reads = []
        for kind in (Kind.HEAD_A, Kind.HEAD_B):
            m.submodules[f"rows_{kind.name.lower()}"] = rows = memory.Memory(
                shape=width, depth=ROWS_IN_FLIGHT, init=[], attrs={"ram_style": "distributed"}
            )
            write, read = rows.write_port(), rows.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.valid & (self.word.kind == kind)),
                write.addr.eq(head),
                write.data.eq(self.word.lanes),
                read.addr.eq(tail),
            ]
            reads.append(read.data)
        with m.If(self.valid & (self.word.kind == Kind.HEAD_B)):
            m.d.sync += head.eq(head + 1)
        done = delay(
            m, group.valid & group.row_last, _PARAMETERS_HELD, "row_done", reset_less=False
        )
        with m.If(done):
            m.d.sync += tail.eq(tail + 1)
        low, high = reads
        split = spec.BIAS_BITS - 8
        bias = Cat(Cat(low[8 * lane :][:8], high[8 * lane :][:split]) for lane in range(n))
        delta = Cat(high[8 * lane + split :][: spec.SHIFT_DELTA_BITS] for lane in range(n))
        return bias, delta

    def _deliver(self, m: Module, walk: Walk, codes) -> None:
        n, host = self.geometry.n, self.host
        is_result = self.registers[Reg.FLAGS][spec.FLAG_RESULT]
        pixel = walk.step & walk.exists
        bus = Signal(data.StructLayout({"valid": 1, "traced": 1, "local": 1, "m": 16}))
        bus_data = Signal(8 * n, reset_less=True)
        drains = delay(m, walk.step, DATA_DELAY, "drains")
        host_data = delay(m, host.data, DATA_DELAY, "host_data")
        m.d.sync += [
            bus.valid.eq((pixel & ~is_result) | host.valid),
            bus.traced.eq(pixel | (host.valid & ~host.local)),
            bus.local.eq(host.local & host.valid),
            bus.m.eq(Mux(walk.step, walk.m, host.m)),
            bus_data.eq(Mux(drains, codes, host_data)),
        ]
        m.d.comb += [
            self.write.valid.eq(bus.valid),
            self.write.local.eq(bus.local),
            self.write.m.eq(bus.m),
            self.write.data.eq(bus_data),
            self.trace.valid.eq(delay(m, bus.traced, DATA_DELAY, "traced", reset_less=False)),
            self.trace.result.eq(delay(m, ~bus.valid, DATA_DELAY, "trace_result")),
            self.trace.layer.eq(self.layer),
            self.trace.m.eq(delay(m, bus.m, DATA_DELAY, "trace_m")),
            self.trace.data.eq(bus_data),
        ]

        m.submodules.fifo = fifo = CreditFifo(shape=8 * n, depth=result_depth(self.geometry.p))
        wiring.connect(m, fifo.output, wiring.flipped(self.results))
        left = Signal()
        dropped = Signal()
        m.d.sync += [
            left.eq(self.results.valid & self.results.ready),
            dropped.eq(walk.step & ~walk.exists & is_result),
        ]
        m.d.comb += [
            fifo.write_en.eq(delay(m, pixel & is_result, DATA_DELAY, "push", reset_less=False)),
            fifo.write_data.eq(codes),
            self.released.eq(left + dropped),
        ]
