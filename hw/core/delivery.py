"""The last stage: drained pixels to the write bus, the result stream and the trace."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.walk import Walk
from secateur.hw.interfaces import GROUP, issued_signature, output_signature, write_layout
from secateur.hw.memory.fifo import CreditFifo
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg


class Delivery(wiring.Component):
    """Walks the pixels of groups and delivers them, and the words of the host.

    Parameters
    ----------
    n : bytes of a word
    results : results that may be on their way
    s : lanes that may be filters
    pace : cycles from one pixel of a group to the next
    data_delay : cycles by which ``data`` of the write bus follow the rest
    block : the queue of results is in block RAM, and takes its words from the write bus

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage; ``host`` never together with a pixel
    group : In(GROUP)  LANES pixels follow, see Walk
    codes : In(n x 8)  of a pixel, WALK_LATENCY + ``data_delay`` cycles after ``group``, and on
    write : Out(write_layout(n))  write bus
    output : Out(output_signature(n))  results and trace
    """

    def __init__(
        self, *, n: int, results: int, s: int = 1, pace: int = 1, data_delay: int, block=False
    ):
        self.n, self.s, self.depth, self.pace = n, s, results, pace
        self.data_delay, self.block = data_delay, block
        super().__init__(
            {
                "issued": In(issued_signature(n)),
                "group": In(GROUP),
                "codes": In(data.ArrayLayout(8, n)),
                "write": Out(write_layout(n)),
                "output": Out(output_signature(n)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        n, issued, host = self.n, self.issued, self.issued.host
        is_result = issued.late[Reg.FLAGS][spec.FLAG_RESULT]
        m.submodules.walk = walk = Walk(pace=self.pace, s=self.s)
        m.d.comb += [
            walk.registers.eq(issued.late),
            walk.init.eq(issued.late_init),
            walk.group.eq(self.group),
        ]
        trace, results = self.output.trace, self.output.results
        pixel = walk.step & walk.exists

        def late(value, name: str, *, reset_less: bool = True):
            return delay(m, value, self.data_delay, name, reset_less=reset_less)

        fields = {"valid": 1, "traced": 1, "input": 1, "local": 1, "ahead": 1, "m": 16}
        bus = Signal(data.StructLayout(fields))
        bus_data = Signal(8 * n, reset_less=True)
        from_host, host_data = late(host.valid, "from_host"), late(host.data, "host_data")
        m.d.sync += [
            bus.valid.eq((pixel & ~is_result) | host.valid),
            bus.traced.eq(pixel | (host.valid & ~host.local)),
            bus.input.eq(host.valid),
            bus.local.eq(host.local & host.valid),
            bus.ahead.eq(host.ahead & host.valid),
            bus.m.eq(Mux(walk.step, walk.m, host.m)),
            bus_data.eq(Mux(from_host, host_data, self.codes)),
        ]
        m.d.comb += [
            self.write.valid.eq(bus.valid),
            self.write.local.eq(bus.local),
            self.write.ahead.eq(bus.ahead),
            self.write.m.eq(bus.m),
            self.write.data.eq(bus_data),
            trace.valid.eq(late(bus.traced, "traced", reset_less=False)),
            trace.result.eq(late(~bus.valid, "trace_result")),
            trace.input.eq(late(bus.input, "trace_input")),
            trace.layer.eq(issued.layer),
            trace.m.eq(late(bus.m, "trace_m")),
            trace.data.eq(bus_data),
        ]

        push = late(pixel & is_result, "push", reset_less=False)
        if self.block:
            push = delay(m, push, 1, "push_block", reset_less=False)
        self._queue(m, push, bus_data if self.block else self.codes)
        left = Signal()
        dropped = Signal()
        m.d.sync += [
            left.eq(results.valid & results.ready),
            dropped.eq(walk.step & ~walk.exists & is_result),
        ]
        m.d.comb += [self.output.released.eq(left + dropped), self.output.soon.eq(walk.soon)]
        return m

    def _queue(self, m: Module, push, word) -> None:
        m.submodules.fifo = fifo = CreditFifo(shape=8 * self.n, depth=self.depth, block=self.block)
        m.d.comb += [fifo.write_en.eq(push), fifo.write_data.eq(word)]
        wiring.connect(m, fifo.output, wiring.flipped(self.output.results))
