"""The outlet of results: to the AXI stream or to a register."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Outlet(wiring.Component):
    """Holds one beat of the results, for the stream or for the register.

    A beat that is valid on the stream stays, unchanged, until it is taken, whatever the engine and
    ``quiet`` do in the meantime. No path leads from ``ready`` to ``valid`` of the stream, nor from
    ``beat.ready`` to the engine: the register takes a beat every other cycle.

    Parameters
    ----------
    width : bits of a beat
    count_bits : bits of ``beats``

    Members
    -------
    result : In(stream)  of the engine, which withdraws its beat at a command
    quiet : In(1)  drop the engine's beats, and the one that waits for the register
    by_register : In(1)  the next beat is for the register
    beats : In  beats of an inference, or 0 if they are not known: ``last`` never comes
    begin : In(1)  strobe: the next beat is the first of an inference
    data : Out(width)  a beat of the stream
    last : Out(1)  it is the last one of an inference
    valid : Out(1)  there is a beat
    ready : In(1)  the stream takes it
    beat : Out(stream)  for the register
    """

    def __init__(self, *, width: int, count_bits: int):
        if width < 1:
            raise ValueError(f"width must be at least 1 bit, not {width!r}")
        self.width = width
        super().__init__(
            {
                "result": In(stream.Signature(width)),
                "quiet": In(1),
                "by_register": In(1),
                "beats": In(count_bits),
                "begin": In(1),
                "data": Out(width),
                "last": Out(1),
                "valid": Out(1),
                "ready": In(1),
                "beat": Out(stream.Signature(width)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        for_register = Signal()
        count, following = Signal.like(self.beats), Signal.like(self.beats)
        m.d.comb += [
            self.beat.valid.eq(for_register & ~self.quiet),
            self.beat.payload.eq(self.data),
            following.eq(count + 1),
        ]
        final = following == self.beats  # never if that is 0: then the count stays 0
        with m.If(self.ready):
            m.d.sync += self.valid.eq(0)
        with m.If(self.beat.ready | self.quiet):
            m.d.sync += for_register.eq(0)
        free = ~(self.valid & ~self.ready) & ~for_register
        m.d.comb += self.result.ready.eq(free & ~self.quiet)
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [
                self.data.eq(self.result.payload),
                self.valid.eq(~self.by_register),
                for_register.eq(self.by_register),
                self.last.eq(final),
                count.eq(Mux(final, 0, following)),
            ]
        with m.If(self.quiet | self.begin | (self.beats == 0)):
            m.d.sync += count.eq(0)
        return m
