"""Words of the next input, which the issue stage takes while an inference runs."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Intake(wiring.Component):
    """Which words of the next input have come, and whether another one may.

    A word takes the way of a pixel to the banks, in a cycle in which there is none.

    Members
    -------
    opens : In(1)  strobe: from the next cycle on words are taken
    taken : In(1)  strobe: an inference has all its words; the next one has none
    closed : In(1)  an error: nothing is taken until ``opens``
    words : In(16)  with ``taken``; words of an input
    one : In(1)  with ``taken``; that is 1
    soon : In(1)  the way is not free in the next cycle
    pauses : In(1)  nothing is taken in this cycle
    accepted : In(1)  strobe: a word comes, of ``ready`` or of a LOAD
    ready : Out(1)  a word is taken
    open : Out(1)  words are taken, or those that are missing come with the LOAD
    index : Out(16)  of the next word
    left : Out(16)  words that have not come, if any
    last : Out(1)  one word has not come
    none : Out(1)  all have come
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "opens": In(1),
                "taken": In(1),
                "closed": In(1),
                "words": In(16),
                "one": In(1),
                "soon": In(1),
                "pauses": In(1),
                "accepted": In(1),
                "ready": Out(1),
                "open": Out(1),
                "index": Out(16),
                "left": Out(16),
                "last": Out(1),
                "none": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        busy = Signal()
        m.d.sync += busy.eq(self.soon)
        m.d.comb += self.ready.eq(self.open & ~self.none & ~busy & ~self.pauses)
        with m.If(self.taken | self.closed):
            m.d.sync += self.open.eq(0)
        with m.Elif(self.opens):
            m.d.sync += self.open.eq(1)
        with m.If(self.taken):
            m.d.sync += [
                self.index.eq(0),
                self.left.eq(self.words),
                self.last.eq(self.one),
                self.none.eq(0),
            ]
        with m.Elif(self.accepted):
            m.d.sync += [
                self.index.eq(self.index + 1),
                self.left.eq(self.left - 1),
                self.last.eq(self.left == 2),
                self.none.eq(self.last),
            ]
        return m
