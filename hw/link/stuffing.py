"""Byte stuffing: no byte of a frame looks like the delimiter, so the next delimiter always counts.

After any damage a receiver is in step again at the next END.

References
----------
RFC 1055, "A nonstandard for transmission of IP datagrams over serial lines".
"""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.link.protocol import END, ESCAPE, ESCAPED_END, ESCAPED_ESCAPE

#: A byte of a frame, or the delimiter.
ITEM = data.StructLayout({"data": 8, "end": 1})


class Stuffer(wiring.Component):
    """Frames to bytes.

    Members
    -------
    items : In(stream of ITEM)  ``data`` of an ``end`` are ignored
    bytes : Out(stream)  one byte per item, two for one that is escaped; no latency
    """

    def __init__(self):
        super().__init__({"items": In(stream.Signature(ITEM)), "bytes": Out(stream.Signature(8))})

    def elaborate(self, platform) -> Module:
        m = Module()
        item = self.items.payload
        second = Signal()  # the escape has been sent
        special = Signal()
        m.d.comb += [
            special.eq(~item.end & ((item.data == END) | (item.data == ESCAPE))),
            self.bytes.valid.eq(self.items.valid),
            self.items.ready.eq(self.bytes.ready & (~special | second)),
        ]
        with m.If(item.end):
            m.d.comb += self.bytes.payload.eq(END)
        with m.Elif(~special):
            m.d.comb += self.bytes.payload.eq(item.data)
        with m.Elif(second):
            escaped = Mux(item.data == END, ESCAPED_END, ESCAPED_ESCAPE)
            m.d.comb += self.bytes.payload.eq(escaped)
        with m.Else():
            m.d.comb += self.bytes.payload.eq(ESCAPE)
        with m.If(self.bytes.valid & self.bytes.ready):
            m.d.sync += second.eq(special & ~second)
        return m


class Unstuffer(wiring.Component):
    """Bytes to frames; there is no back-pressure and no latency.

    Members
    -------
    data : In(8)  of a UartReceiver
    valid : In(1)  there is a byte
    error : In(1)  its stop bit is missing
    byte : Out(8)  ``data`` without stuffing
    byte_valid : Out(1)  ``byte`` is one of the frame
    end : Out(1)  it was a delimiter
    broken : Out(1)  the frame that goes on, or that ends here, is damaged
    """

    def __init__(self):
        super().__init__(
            {
                "data": In(8),
                "valid": In(1),
                "error": In(1),
                "byte": Out(8),
                "byte_valid": Out(1),
                "end": Out(1),
                "broken": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        escaped = Signal()
        sound = Signal()
        known = Signal()
        m.d.comb += [
            sound.eq(self.valid & ~self.error),
            self.end.eq(sound & (self.data == END)),
            known.eq((self.data == ESCAPED_END) | (self.data == ESCAPED_ESCAPE)),
            self.broken.eq(self.valid & (self.error | escaped & ~known)),
            self.byte_valid.eq(sound & ~self.end & (escaped | (self.data != ESCAPE))),
            self.byte.eq(self.data),
        ]
        with m.If(escaped):
            m.d.comb += self.byte.eq(Mux(self.data == ESCAPED_END, END, ESCAPE))
        with m.If(self.valid):
            m.d.sync += escaped.eq(sound & ~escaped & (self.data == ESCAPE))
        return m
