"""Bytes that come at constant rate."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.register_slice import Skid
from secateur.hw.ring import Source

#: A byte of an image, and whether it is the last one of a pass.
PACED = data.StructLayout({"byte": 8, "last": 1})


class Pacer(wiring.Component):
    """Passes bytes on as ``ring.Source`` has it, if each of them comes in time.

    A byte is valid ``interval`` cycles after the one before was, or in the cycle after that was
    taken, whichever is later; behind the last one of a pass ``latency`` cycles later than that. One
    that comes later is valid two cycles after it has come, and those behind it count from there.
    The loader's ``ready`` is a long path and ends here: ``input.ready`` is a flip-flop.

    Parameters
    ----------
    source : the rate, with a latency of at least 1

    Members
    -------
    input : In(stream of PACED)  the bytes
    output : Out(stream)  the same
    """

    def __init__(self, *, source: Source):
        if source.latency < 1:
            raise ValueError(f"latency must be at least 1, not {source.latency!r}")
        self.source = source
        super().__init__({"input": In(stream.Signature(PACED)), "output": Out(stream.Signature(8))})

    def elaborate(self, platform) -> Module:
        m = Module()
        interval, latency = self.source.interval, self.source.latency
        m.submodules.skid = skid = Skid(PACED)
        wiring.connect(m, wiring.flipped(self.input), skid.input)
        given = skid.output
        left = Signal(range(max(2, interval, latency)))
        turn = Signal()  # behind a last payload
        due, take = Signal(), Signal()
        m.d.comb += [
            due.eq((left == 0) & (~self.output.valid | self.output.ready)),
            given.ready.eq(due & ~turn),
            take.eq(given.valid & given.ready),
        ]
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.If(take):
            m.d.sync += [
                self.output.valid.eq(1),
                self.output.payload.eq(given.payload.byte),
                turn.eq(given.payload.last),
                left.eq(interval - 1),
            ]
        with m.Elif(self.output.ready):
            m.d.sync += self.output.valid.eq(0)
        with m.If(due & turn):
            m.d.sync += [turn.eq(0), left.eq(latency - 1)]
        return m
