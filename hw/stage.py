"""A register on the way of a stream."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Stage(wiring.Component):
    """Holds one word: ``ready`` and ``valid`` are flip-flops, so that no path leads through.

    A word leaves a cycle or more after it came, and the next one comes a cycle or more after that:
    at most a word in two cycles.

    Parameters
    ----------
    width : bits of a word

    Members
    -------
    input : In, output : Out, streams of ``width`` bits
    clear : In; the word that is held, and one that comes, are dropped
    """

    def __init__(self, *, width: int):
        if width < 1:
            raise ValueError(f"width must be at least 1 bit, not {width!r}")
        self.width = width
        super().__init__(
            {
                "input": In(stream.Signature(width)),
                "output": Out(stream.Signature(width)),
                "clear": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        held = Signal()
        free = Signal(init=1)
        word = Signal(self.width, reset_less=True)
        m.d.comb += [
            self.input.ready.eq(free),
            self.output.valid.eq(held),
            self.output.payload.eq(word),
        ]
        with m.If(free):
            m.d.sync += word.eq(self.input.payload)
        with m.If(self.clear):
            m.d.sync += [held.eq(0), free.eq(1)]
        with m.Elif(free):
            m.d.sync += [held.eq(self.input.valid), free.eq(~self.input.valid)]
        with m.Elif(self.output.ready):
            m.d.sync += [held.eq(0), free.eq(1)]
        return m
