"""The cycle counter of inferences, and the watchdog."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Stopwatch(wiring.Component):
    """Counts the cycles of an inference, without those in which the engine waits for others.

    Parameters
    ----------
    apart : words may come from outside

    Members
    -------
    limit : In(32)  static; cycles that an inference may take
    begin : In(1)  strobe: the last input word was taken in the cycle before, which is the first
    end : In(1)  strobe: the inference is over
    waits : In(1)  this cycle is not counted: the engine waits for the host
    starved : In(1)  this cycle is counted apart: the engine waits for a word from outside
    cycles : Out(32)  of the last inference
    memory_wait : Out(32)  of it, those that are counted apart; with ``apart``
    inferences : Out(16)  that have ended, modulo 2**16
    over : Out(1)  more than ``limit`` cycles, a few cycles late
    """

    def __init__(self, *, apart: bool = False):
        self.apart = apart
        super().__init__(
            {
                "limit": In(32),
                "begin": In(1),
                "end": In(1),
                "waits": In(1),
                "starved": In(1),
                "cycles": Out(32),
                "memory_wait": Out(32),
                "inferences": Out(16),
                "over": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        count = Signal(32)
        waited = Signal(init=1)
        above = [Signal(name=f"above{half}") for half in range(2)]
        equal = Signal()
        m.d.sync += [
            waited.eq(self.waits | self.starved),
            above[0].eq(count[:16] > self.limit[:16]),
            above[1].eq(count[16:] > self.limit[16:]),
            equal.eq(count[16:] == self.limit[16:]),
            self.over.eq(above[1] | (equal & above[0])),
        ]
        with m.If(self.begin):
            m.d.sync += count.eq(2)
        with m.Elif(self.end):
            m.d.sync += [
                self.cycles.eq(count),
                self.inferences.eq(self.inferences + 1),
                count.eq(0),
            ]
        with m.Elif(~waited):
            m.d.sync += count.eq(count + 1)
        if self.apart:
            self._count_apart(m)
        return m

    def _count_apart(self, m: Module) -> None:
        """Count cycles in which words from outside are missing."""
        count = Signal(32, name="starved_count")
        starved = Signal(name="was_starved")
        m.d.sync += starved.eq(self.starved & ~self.waits)
        with m.If(self.end):
            m.d.sync += [self.memory_wait.eq(count), count.eq(0)]
        with m.Elif(self.begin):
            m.d.sync += count.eq(0)
        with m.Elif(starved):
            m.d.sync += count.eq(count + 1)
