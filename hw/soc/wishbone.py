"""Wishbone in front of the register file."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.soc.axi_lite import REQUEST, RESPONSE
from secateur.hw.soc.registers import ADDRESS_BITS

#: Direction as the slave sees it, and bits.
WISHBONE_PORTS = {
    "cyc": In(1),
    "stb": In(1),
    "we": In(1),
    "adr": In(ADDRESS_BITS),
    "dat_w": In(32),
    "sel": In(4),
    "dat_r": Out(32),
    "ack": Out(1),
    "err": Out(1),
}


class Phase(enum.Enum):
    """States of the bridge."""

    IDLE = 0
    REQUEST = 1
    RESPONSE = 2
    END = 3


class Wishbone(wiring.Component):
    """A slave of Wishbone B4, classic cycles, 32 bits, bytes selectable.

    ``adr`` is a byte address, its two low bits mean nothing; ``sel`` matters for writes only. Each
    access ends with ``ack`` or ``err`` in one cycle. A master that gives up, by dropping ``cyc`` or
    ``stb``, gets neither; the access is done all the same.

    Members
    -------
    cyc ... err : the slave's ports
    request : Out, stream of REQUEST
    response : In, stream of RESPONSE, one for each request; always taken
    """

    def __init__(self):
        super().__init__(
            {
                **WISHBONE_PORTS,
                "request": Out(stream.Signature(REQUEST)),
                "response": In(stream.Signature(RESPONSE)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase)
        selected = Signal()
        waited = Signal()
        error = Signal()
        payload = Signal(REQUEST)
        m.d.comb += [
            selected.eq(self.cyc & self.stb),
            self.request.valid.eq(phase == Phase.REQUEST),
            self.request.payload.eq(payload),
            self.response.ready.eq(1),
        ]
        m.d.sync += waited.eq(waited & selected)
        with m.Switch(phase):
            with m.Case(Phase.IDLE):
                m.d.sync += [
                    payload.write.eq(self.we),
                    payload.address.eq(self.adr >> 2),
                    payload.data.eq(self.dat_w),
                    payload.strobe.eq(self.sel),
                    waited.eq(1),
                ]
                with m.If(selected):
                    m.d.sync += phase.eq(Phase.REQUEST)
            with m.Case(Phase.REQUEST):
                with m.If(self.request.ready):
                    m.d.sync += phase.eq(Phase.RESPONSE)
            with m.Case(Phase.RESPONSE):
                with m.If(self.response.valid):
                    m.d.sync += [
                        phase.eq(Phase.END),
                        self.dat_r.eq(self.response.payload.data),
                        error.eq(self.response.payload.error),
                    ]
            with m.Case(Phase.END):
                m.d.comb += self.ack.eq(selected & waited & ~error)
                m.d.comb += self.err.eq(selected & waited & error)
                m.d.sync += phase.eq(Phase.IDLE)
        return m
