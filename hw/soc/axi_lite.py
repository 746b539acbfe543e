"""AXI4-Lite in front of the register file."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from secateur.hw.soc.bridge import Bridge
from secateur.hw.soc.registers import ADDRESS_BITS

OKAY, SLVERR = 0, 2

#: Directions of a slave, and bits.
AXI_LITE_PORTS = {
    "awaddr": In(ADDRESS_BITS),
    "awprot": In(3),
    "awvalid": In(1),
    "awready": Out(1),
    "wdata": In(32),
    "wstrb": In(4),
    "wvalid": In(1),
    "wready": Out(1),
    "bresp": Out(2),
    "bvalid": Out(1),
    "bready": In(1),
    "araddr": In(ADDRESS_BITS),
    "arprot": In(3),
    "arvalid": In(1),
    "arready": Out(1),
    "rdata": Out(32),
    "rresp": Out(2),
    "rvalid": Out(1),
    "rready": In(1),
}


class AxiLite(Bridge):
    """An AXI4-Lite slave that turns reads and writes, one at a time, into requests.

    Address and data of a write come in any order. If a write and a read wait, they take turns. A
    response that the master does not take holds up its own channel only. Each output comes from
    flip-flops alone. ``awprot``, ``arprot`` and the two low bits of addresses are ignored.

    Members
    -------
    awaddr ... rready : the slave's ports without a prefix
    request : Out(stream of REQUEST)  accesses
    response : In(stream of RESPONSE)  one for each request; always taken
    """

    def __init__(self):
        super().__init__(AXI_LITE_PORTS)

    def elaborate(self, platform) -> Module:
        m = Module()
        held = {}  # by channel: its registers are full
        taken = {}
        for channel, names in (("aw", ["addr"]), ("w", ["data", "strb"]), ("ar", ["addr"])):
            held[channel] = full = Signal(name=f"{channel}_full")
            m.d.comb += getattr(self, f"{channel}ready").eq(~full)
            for name in names:
                port = getattr(self, channel + name)
                register = Signal(len(port), name=f"{channel}_{name}", reset_less=True)
                taken[channel + name] = register
                with m.If(~full):
                    m.d.sync += register.eq(port)
            with m.If(getattr(self, f"{channel}valid")):
                m.d.sync += full.eq(1)
        for channel in "br":
            with m.If(getattr(self, f"{channel}ready")):
                m.d.sync += getattr(self, f"{channel}valid").eq(0)

        write = Signal()
        write_waits = held["aw"] & held["w"] & ~self.bvalid
        read_waits = held["ar"] & ~self.rvalid
        access = self._exchange(m, write_waits | read_waits)
        address = Mux(write, taken["awaddr"], taken["araddr"])
        m.d.comb += [
            self.request.payload.write.eq(write),
            self.request.payload.address.eq(address >> 2),
            self.request.payload.data.eq(Mux(write, taken["wdata"], 0)),
            self.request.payload.strobe.eq(Mux(write, taken["wstrb"], 0)),
        ]
        with m.If(access.begins):
            m.d.sync += write.eq(write_waits & ~(read_waits & write))
        with m.If(access.taken & write):
            m.d.sync += [held["aw"].eq(0), held["w"].eq(0)]
        with m.If(access.taken & ~write):
            m.d.sync += held["ar"].eq(0)
        response = self.response.payload
        answer = Mux(response.error, SLVERR, OKAY)
        with m.If(access.answered & write):
            m.d.sync += [self.bvalid.eq(1), self.bresp.eq(answer)]
        with m.If(access.answered & ~write):
            m.d.sync += [self.rvalid.eq(1), self.rresp.eq(answer), self.rdata.eq(response.data)]
        return m
