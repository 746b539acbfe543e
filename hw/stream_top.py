"""The engine with its streams as ports, silent while it executes a command."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from secateur.hw.engine import SETTLE_CYCLES, Engine


class StreamEngine(wiring.Component):
    """An ``Engine``, with its ports, whose streams pause for SETTLE_CYCLES after a command.

    The parts of the engine are reset one after the other. Words that it took in that time would not
    belong to the next image or inference, and results would be old.

    Parameters
    ----------
    engine : becomes a part of this component

    Members
    -------
    image, input, result, status, control, trace, image_failed : see Engine
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        super().__init__(engine.signature)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        left = Signal(range(SETTLE_CYCLES + 1))
        quiet = Signal()  # left != 0, from a flip-flop
        with m.If(self.control.reset | self.control.restart):
            m.d.sync += [left.eq(SETTLE_CYCLES), quiet.eq(1)]
        with m.Elif(quiet):
            m.d.sync += [left.eq(left - 1), quiet.eq(left != 1)]
        for source, sink in (
            (flipped(self.image), engine.image),
            (flipped(self.input), engine.input),
            (engine.result, flipped(self.result)),
        ):
            m.d.comb += [
                sink.payload.eq(source.payload),
                sink.valid.eq(source.valid & ~quiet),
                source.ready.eq(sink.ready & ~quiet),
            ]
        if engine.geometry.ring:
            m.d.comb += engine.image_failed.eq(self.image_failed)
        connect(m, flipped(self.control), engine.control)
        connect(m, engine.status, flipped(self.status))
        connect(m, engine.trace, flipped(self.trace))
        return m
