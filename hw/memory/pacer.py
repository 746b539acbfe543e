"""A stream whose payloads come at constant rate."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.ring import Source


class Pacer(wiring.Component):
    """Passes payloads on as ``ring.Source`` has it, if each of them comes in time.

    A payload is valid ``interval`` cycles after the one before was, or in the cycle after that was
    taken, whichever is later; behind the last one of a pass ``latency`` cycles later than that. One
    that comes later is valid in the cycle after it has come, and those behind it count from there.

    Parameters
    ----------
    shape : of a payload
    source : its rate, with a latency of at least 1

    Members
    -------
    input : In(stream of shape)  the payloads
    last : In(1)  with the input: it is the last one of a pass
    output : Out(stream of shape)  the same
    """

    def __init__(self, *, shape, source: Source):
        if source.latency < 1:
            raise ValueError(f"latency must be at least 1, not {source.latency!r}")
        self.shape, self.source = shape, source
        super().__init__(
            {
                "input": In(stream.Signature(shape)),
                "last": In(1),
                "output": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        interval, latency = self.source.interval, self.source.latency
        left = Signal(range(max(2, interval, latency)))
        turn = Signal()  # behind a last payload
        due, take = Signal(), Signal()
        m.d.comb += [
            due.eq((left == 0) & (~self.output.valid | self.output.ready)),
            self.input.ready.eq(due & ~turn),
            take.eq(self.input.valid & self.input.ready),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(take):
            m.d.sync += [
                self.output.valid.eq(1),
                self.output.payload.eq(self.input.payload),
                turn.eq(self.last),
                left.eq(interval - 1),
            ]
        with m.Elif(self.output.ready):
            m.d.sync += self.output.valid.eq(0)
        with m.If(due & turn):
            m.d.sync += [turn.eq(0), left.eq(latency - 1)]
        return m
