"""The compact drain: one sum a cycle, through one requantiser, to pixels of N channels."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In

from secateur.hw import spec
from secateur.hw.compact.serial_array import SUM_LATENCY, check_compact
from secateur.hw.core.drain import ROWS_IN_FLIGHT, drain_ports
from secateur.hw.core.requantise import COMPACT_LATENCY, Requantiser
from secateur.hw.core.walk import WALK_LATENCY, Walk
from secateur.hw.interfaces import Kind
from secateur.hw.memory.fifo import CreditFifo
from secateur.hw.memory.memory import Ram, check_family
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

#: Cycles from a sum to its code, behind the table.
CODE_LATENCY = COMPACT_LATENCY + 1
#: Results that may be on their way: a group has two at most in eight cycles, and is gone after 40.
SERIAL_RESULTS = 16


class SerialDrain(wiring.Component):
    """Sums to pixels, as ``Drain``, a channel a cycle.

    Parameters
    ----------
    geometry : of the engine, see ``check_compact``
    family : one of spec.FAMILIES

    Members
    -------
    as ``Drain``, but for
    sum : In, ``SUM_LATENCY`` and more cycles after the last word of a group, one a cycle
    write : Out, write bus; data come with the address
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.geometry, self.family = check_compact(geometry), check_family(family)
        n = geometry.n
        super().__init__(drain_ports(n, {"sum": In(signed(spec.ACC_BITS))}))

    def elaborate(self, platform) -> Module:
        m = Module()
        n, regs = self.geometry.n, self.registers
        m.submodules.requantiser = requantiser = Requantiser(n=1, compact=True)
        m.submodules.walk = walk = Walk(pace=n)

        # `first` comes two cycles before the group's first sum: one for the shift, one to choose.
        group = Signal(data.StructLayout({"valid": 1, "line_last": 1, "row_last": 1}))
        m.d.comb += [
            group.valid.eq(self.word.group_last),
            group.line_last.eq(self.word.line_last),
            group.row_last.eq(self.word.row_last),
        ]
        to_first = SUM_LATENCY - 2
        to_walk = SUM_LATENCY + CODE_LATENCY + n - 1 - WALK_LATENCY
        early = self._later(m, group, to_first, "group")
        late = self._later(m, early, to_walk - to_first, "group_late")

        bias, delta = self._parameters(m, early)
        m.d.comb += [
            requantiser.sums[0].eq(self.sum),
            requantiser.load.eq(1),
            requantiser.bias[0].eq(bias),
            requantiser.delta[0].eq(delta),
            requantiser.shift_base.eq(regs[Reg.FLAGS2][spec.FLAG2_SHIFT_BASE :]),
            requantiser.clip.eq(regs[Reg.CLIP]),
            requantiser.signed.eq(regs[Reg.FLAGS][spec.FLAG_OUT_SIGNED]),
            walk.registers.eq(regs),
            walk.init.eq(self.init),
            walk.group.eq(late.valid),
            walk.line_last.eq(late.line_last),
            walk.row_last.eq(late.row_last),
        ]
        self._deliver(m, walk, self._look_up(m, requantiser.codes[0]))
        return m

    @staticmethod
    def _later(m: Module, group, cycles: int, name: str):
        """``group`` some cycles later, by counting: groups are MIN_ROW_WORDS cycles apart."""
        while cycles > spec.MIN_ROW_WORDS:
            group = data.View(group.shape(), delay(m, group, 1, name, reset_less=False))
            cycles -= 1
        left = Signal(range(cycles + 1), name=f"{name}_left")
        kept = Signal(group.shape(), name=f"{name}_kept")
        later = Signal(group.shape(), name=f"{name}_later")
        with m.If(group.valid):
            m.d.sync += [kept.eq(group), left.eq(cycles - 1)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.d.comb += later.eq(kept)
        m.d.comb += later.valid.eq(kept.valid & (left == 0))
        with m.If(later.valid & ~group.valid):
            m.d.sync += kept.valid.eq(0)
        return later

    def _parameters(self, m: Module, first):
        """Shift and bias as the requantiser takes them: one and no cycles before the sum."""
        n, count = self.geometry.n, self.geometry.multipliers
        head = Signal(range(ROWS_IN_FLIGHT))
        tail = Signal(range(ROWS_IN_FLIGHT))
        reads = []
        for kind in (Kind.HEAD_A, Kind.HEAD_B):
            m.submodules[f"rows_{kind.name.lower()}"] = rows = memory.Memory(
                shape=8 * n, depth=ROWS_IN_FLIGHT, init=[], attrs={"no_rw_check": 1}
            )
            write, read = rows.write_port(), rows.read_port()
            m.d.comb += [
                write.en.eq(self.valid & (self.word.kind == kind)),
                write.addr.eq(head),
                write.data.eq(self.word.lanes),
                read.addr.eq(tail),
            ]
            reads.append(read.data)
        with m.If(self.valid & (self.word.kind == Kind.HEAD_B)):
            m.d.sync += head.eq(head + 1)
        channel = Signal(range(n))
        bias_channel = delay(m, channel, 1, "channel")
        m.d.sync += channel.eq(Mux(first.valid, 0, channel + 1))
        # The row's last channel takes its bias `count` cycles after the choice of its first shift.
        done = self._later(m, first, count, "row_done")
        with m.If(done.valid & done.row_last):
            m.d.sync += tail.eq(tail + 1)
        low, high = reads
        split = spec.BIAS_BITS - 8
        bias = Array(Cat(low[8 * lane :][:8], high[8 * lane :][:split]) for lane in range(n))[
            bias_channel
        ]
        delta = Array(high[8 * lane + split :][: spec.SHIFT_DELTA_BITS] for lane in range(n))
        return bias, delta[channel]

    def _look_up(self, m: Module, code):
        """The code, or its entry in a table, a cycle later."""
        plain = delay(m, code, 1, "code")
        entries = self.geometry.tables * spec.TABLE_ENTRIES
        if not entries:
            return plain
        m.submodules.table = table = Ram(width=8, depth=entries, family=self.family, output=False)
        flags = self.registers[Reg.FLAGS2]
        m.d.comb += [
            table.write_en.eq(self.entry.valid & (self.entry.address < entries)),
            table.write_addr.eq(self.entry.address),
            table.write_data.eq(self.entry.data),
            table.read_addr.eq(Cat(code, flags[spec.FLAG2_TABLE :])),
        ]
        return Mux(flags[spec.FLAG2_LOOKUP], table.read_data, plain)

    def _deliver(self, m: Module, walk: Walk, code) -> None:
        n, host = self.geometry.n, self.host
        is_result = self.registers[Reg.FLAGS][spec.FLAG_RESULT]
        exists = walk.step & walk.exists
        bus = Signal(data.StructLayout({"valid": 1, "traced": 1, "local": 1, "m": 16}))
        push = Signal()
        pixel = Signal(8 * n, reset_less=True)
        m.d.sync += [
            bus.valid.eq((exists & ~is_result) | host.valid),
            bus.traced.eq(exists | (host.valid & ~host.local)),
            bus.local.eq(host.local & host.valid),
            bus.m.eq(Mux(walk.step, walk.m, host.m)),
            push.eq(exists & is_result),
            pixel.eq(Mux(host.valid, host.data, Cat(pixel[8:], code))),
        ]
        m.d.comb += [
            self.write.valid.eq(bus.valid),
            self.write.local.eq(bus.local),
            self.write.m.eq(bus.m),
            self.write.data.eq(pixel),
            self.trace.valid.eq(bus.traced),
            self.trace.result.eq(~bus.valid),
            self.trace.layer.eq(self.layer),
            self.trace.m.eq(bus.m),
            self.trace.data.eq(pixel),
        ]
        m.submodules.fifo = fifo = CreditFifo(shape=8 * n, depth=SERIAL_RESULTS, block=True)
        wiring.connect(m, fifo.output, wiring.flipped(self.results))
        left = Signal()
        dropped = Signal()
        m.d.sync += [
            left.eq(self.results.valid & self.results.ready),
            dropped.eq(walk.step & ~walk.exists & is_result),
        ]
        m.d.comb += [
            fifo.write_en.eq(push),
            fifo.write_data.eq(pixel),
            self.released.eq(left + dropped),
        ]
