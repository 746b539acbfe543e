"""Registers in a stream."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Stage(wiring.Component):
    """Holds one word: ``ready`` and ``valid`` are flip-flops, so that no path leads through.

    A word leaves a cycle or more after it came, and the next one comes a cycle or more after that:
    at most one word per two cycles.

    Parameters
    ----------
    shape : of a word, at least 1 bit

    Members
    -------
    input : In(stream of shape)  words
    output : Out(stream of shape)  the same words
    clear : In(1)  the word that is held, and one that comes, are dropped
    """

    def __init__(self, shape):
        if Shape.cast(shape).width < 1:
            raise ValueError(f"shape must have at least 1 bit, not {shape!r}")
        self.shape = shape
        super().__init__(
            {
                "input": In(stream.Signature(shape)),
                "output": Out(stream.Signature(shape)),
                "clear": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        held = Signal()
        free = Signal(init=1)
        word = Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.input.ready.eq(free),
            self.output.valid.eq(held),
            self.output.payload.eq(word),
        ]
        with m.If(free):
            m.d.sync += word.eq(self.input.payload)
            m.d.sync += [held.eq(self.input.valid), free.eq(~self.input.valid)]
        with m.Elif(self.output.ready):
            m.d.sync += [held.eq(0), free.eq(1)]
        with m.If(self.clear):
            m.d.sync += [held.eq(0), free.eq(1)]
        return m


class Skid(wiring.Component):
    """Holds up to two words: as ``Stage``, but a word passes in every cycle.

    Parameters
    ----------
    shape : of a word

    Members
    -------
    input : In(stream of shape)  words
    output : Out(stream of shape)  the same words, a cycle later or more
    """

    def __init__(self, shape):
        self.shape = shape
        super().__init__(
            {"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape))}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        held = Signal()
        full = Signal()  # a second word waits behind the first
        word = Signal(self.shape, reset_less=True)
        spare = Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.input.ready.eq(~full),
            self.output.valid.eq(held),
            self.output.payload.eq(word),
        ]
        with m.If(~held | self.output.ready):
            m.d.sync += [
                word.eq(Mux(full, spare, self.input.payload)),
                held.eq(full | self.input.valid),
                full.eq(0),
            ]
        with m.Elif(~full):
            m.d.sync += [spare.eq(self.input.payload), full.eq(self.input.valid)]
        return m
