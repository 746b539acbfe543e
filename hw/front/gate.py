"""The gate in front of the last word of a group."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.interfaces import REGISTERS
from secateur.hw.spec import Reg


class Gate(wiring.Component):
    """Whether the last word of a group may issue: the drain is free, and the result queue.

    The last word of the next group comes MIN_ROW_WORDS cycles or more after this one, so that both
    outputs may learn late that it has issued.

    Parameters
    ----------
    p : lanes
    results : results that may be on their way

    Members
    -------
    registers : In(REGISTERS)  the configuration
    group : In(1)  strobe: the last word of a group issues
    frozen : In(1)  this cycle does not count: the issue stage waits for a word from outside
    released : In(2)  results that have left, or were dropped
    free : Out(1)  the drain is free
    room : Out(1)  the result queue has room for the group, or does not get it
    """

    def __init__(self, *, p: int, results: int):
        self.p, self.results = p, results
        super().__init__(
            {
                "registers": In(REGISTERS),
                "group": In(1),
                "frozen": In(1),
                "released": In(2),
                "free": Out(1, init=1),
                "room": Out(1, init=1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        regs = self.registers
        lanes = regs[Reg.LANES][: self.p.bit_length()]
        group = Signal()
        few = Signal()  # so few lanes that the drain is free before any other group ends
        less = Signal.like(lanes)
        left = Signal.like(lanes)
        m.d.sync += [few.eq(lanes <= 2), less.eq(lanes - 2)]
        with m.If(~self.frozen):
            m.d.sync += group.eq(self.group)
            with m.If(group):
                m.d.sync += [self.free.eq(few), left.eq(less)]
            with m.Elif(~self.free):
                m.d.sync += [self.free.eq(left == 1), left.eq(left - 1)]

        is_result = regs[Reg.FLAGS][spec.FLAG_RESULT]
        reserved = Signal(range(self.results + 1))
        most = Signal(range(self.results + 1))
        take = Signal.like(lanes)
        m.d.sync += [
            take.eq(Mux(group & is_result & ~self.frozen, lanes, 0)),
            reserved.eq(reserved + take - self.released),
            most.eq(self.results - lanes),
            self.room.eq(~is_result | (reserved <= most)),
        ]
        return m
