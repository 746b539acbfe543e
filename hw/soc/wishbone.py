"""Wishbone in front of the register file."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out

from secateur.hw.soc.bridge import REQUEST, Bridge
from secateur.hw.soc.registers import ADDRESS_BITS

#: Directions of a slave, and bits.
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


class Wishbone(Bridge):
    """A slave of Wishbone B4, classic cycles, 32 bits, bytes selectable.

    ``adr`` is a byte address, its two low bits are ignored; ``sel`` matters for writes only. Each
    access ends with ``ack`` or ``err`` in one cycle. A master that gives up, by dropping ``cyc`` or
    ``stb``, gets neither; the access is executed all the same.

    Members
    -------
    cyc ... err : the slave's ports without a prefix
    request : Out(stream of REQUEST)  accesses
    response : In(stream of RESPONSE)  one for each request; always taken
    """

    def __init__(self):
        super().__init__(WISHBONE_PORTS)

    def elaborate(self, platform) -> Module:
        m = Module()
        selected = Signal()
        waited = Signal()  # the master has not given up
        ends = Signal()  # the cycle after the response
        error = Signal()
        payload = Signal(REQUEST)
        # In the cycle in which an access ends, the bus still has that access.
        access = self._exchange(m, selected & ~ends)
        m.d.comb += [
            selected.eq(self.cyc & self.stb),
            self.request.payload.eq(payload),
            self.ack.eq(ends & selected & waited & ~error),
            self.err.eq(ends & selected & waited & error),
        ]
        m.d.sync += [waited.eq(waited & selected), ends.eq(access.answered)]
        with m.If(access.idle):
            m.d.sync += [
                payload.write.eq(self.we),
                payload.address.eq(self.adr >> 2),
                payload.data.eq(self.dat_w),
                payload.strobe.eq(self.sel),
                waited.eq(1),
            ]
        with m.If(access.answered):
            m.d.sync += [
                self.dat_r.eq(self.response.payload.data),
                error.eq(self.response.payload.error),
            ]
        return m
