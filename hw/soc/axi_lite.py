"""AXI4-Lite in front of the register file."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.soc.registers import ADDRESS_BITS

OKAY, SLVERR = 0, 2

#: An access: a word ``address`` (byte address / 4), and what is written to which bytes.
REQUEST = data.StructLayout({"write": 1, "address": ADDRESS_BITS - 2, "data": 32, "strobe": 4})
#: Its end: what was read, or that it was refused.
RESPONSE = data.StructLayout({"data": 32, "error": 1})

#: Direction as the slave sees it, and bits.
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


class Phase(enum.Enum):
    """States of the bridge."""

    IDLE = 0
    REQUEST = 1
    RESPONSE = 2


class AxiLite(wiring.Component):
    """An AXI4-Lite slave that turns reads and writes, one at a time, into requests.

    Address and data of a write come in any order. Writes and reads that both wait take turns. A
    response that the master does not take holds up its own channel only. Each output comes from
    flip-flops alone. ``awprot`` and ``arprot``, and the two low bits of addresses, mean nothing.

    Members
    -------
    awaddr ... rready : the slave's ports without a prefix
    request : Out, stream of REQUEST
    response : In, stream of RESPONSE, one for each request; always taken
    """

    def __init__(self):
        super().__init__(
            {
                **AXI_LITE_PORTS,
                "request": Out(stream.Signature(REQUEST)),
                "response": In(stream.Signature(RESPONSE)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase)
        full = {}
        taken = {}
        for channel, names in (("aw", ["addr"]), ("w", ["data", "strb"]), ("ar", ["addr"])):
            full[channel] = held = Signal(name=f"{channel}_full")
            m.d.comb += getattr(self, f"{channel}ready").eq(~held)
            for name in names:
                port = getattr(self, channel + name)
                register = Signal(len(port), name=f"{channel}_{name}", reset_less=True)
                taken[channel + name] = register
                with m.If(~held):
                    m.d.sync += register.eq(port)
            with m.If(getattr(self, f"{channel}valid")):
                m.d.sync += held.eq(1)
        for channel in "br":
            with m.If(getattr(self, f"{channel}ready")):
                m.d.sync += getattr(self, f"{channel}valid").eq(0)

        write = Signal()
        write_waits = full["aw"] & full["w"] & ~self.bvalid
        read_waits = full["ar"] & ~self.rvalid
        address = Mux(write, taken["awaddr"], taken["araddr"])
        m.d.comb += [
            self.request.valid.eq(phase == Phase.REQUEST),
            self.request.payload.write.eq(write),
            self.request.payload.address.eq(address >> 2),
            self.request.payload.data.eq(Mux(write, taken["wdata"], 0)),
            self.request.payload.strobe.eq(Mux(write, taken["wstrb"], 0)),
            self.response.ready.eq(1),
        ]
        response = self.response.payload
        with m.Switch(phase):
            with m.Case(Phase.IDLE):
                with m.If(write_waits | read_waits):
                    m.d.sync += phase.eq(Phase.REQUEST)
                    m.d.sync += write.eq(write_waits & ~(read_waits & write))
            with m.Case(Phase.REQUEST):
                with m.If(self.request.ready):
                    m.d.sync += phase.eq(Phase.RESPONSE)
                    with m.If(write):
                        m.d.sync += [full["aw"].eq(0), full["w"].eq(0)]
                    with m.Else():
                        m.d.sync += full["ar"].eq(0)
            with m.Case(Phase.RESPONSE):
                with m.If(self.response.valid):
                    m.d.sync += phase.eq(Phase.IDLE)
                    with m.If(write):
                        m.d.sync += self.bvalid.eq(1)
                        m.d.sync += self.bresp.eq(Mux(response.error, SLVERR, OKAY))
                    with m.Else():
                        m.d.sync += self.rvalid.eq(1)
                        m.d.sync += self.rdata.eq(response.data)
                        m.d.sync += self.rresp.eq(Mux(response.error, SLVERR, OKAY))
        return m
