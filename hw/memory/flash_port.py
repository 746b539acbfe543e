"""A host's way to a serial flash, byte by byte: identify, erase, program, read."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.flash import ONE
from secateur.hw.memory.flash_reader import FLASH_PORTS
from secateur.hw.pipeline import delay

#: Cycles of a clock of the flash, half of them high.
DIVIDER = 4
#: Bytes that a host takes at once.
TAKEN = 4
#: Cycles from the last one of a clock, by the counter, until its level has come in.
TAKE_LATENCY = 2


class FlashPort(wiring.Component):
    """Sends a byte to a flash, or takes four from it, on one line each way.

    SPI mode 0, the most significant bit first. Levels leave from flip-flops, and pass one on their
    way in. A bit is taken when the clock falls, which is when the flash gives the next one.

    Members
    -------
    select : In(1)  the flash is selected
    send : In(1)  strobe, while not ``busy``: sends ``byte``
    byte : In(8)  what is sent
    take : In(1)  strobe, while not ``busy``: takes four bytes, and sends ``byte`` and zeros
    busy : Out(1)  from the cycle behind a strobe until all is done
    word : Out(32)  the last four bytes taken, the first one lowest
    cs_n, sck, drive, value, level : lines of the flash, see FlashReader
    """

    def __init__(self):
        super().__init__(
            {
                "select": In(1),
                "send": In(1),
                "byte": In(8),
                "take": In(1),
                "busy": Out(1),
                "word": Out(8 * TAKEN),
                **FLASH_PORTS,
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        left = Signal(range(8 * TAKEN + 1))  # clocks
        phase = Signal(range(DIVIDER))
        sent, taken = Signal(8), Signal(8 * TAKEN)
        data, level = Signal(), Signal()
        ends = Signal()  # of a clock
        takes = delay(m, ends, TAKE_LATENCY, "takes", reset_less=False)
        comes = delay(m, left != 0, TAKE_LATENCY - 1, "comes", reset_less=False)
        m.d.sync += [
            level.eq(self.level[1]),
            data.eq(sent[-1]),
            self.cs_n.eq(~self.select),
            self.sck.eq((left != 0) & phase[-1]),
            self.busy.eq((left != 0) | comes | self.send | self.take),
        ]
        m.d.comb += [
            ends.eq((left != 0) & (phase == DIVIDER - 1)),
            self.drive.eq(ONE),
            self.value.eq(ONE & ~1 | data),
            # Bytes come with their highest bit first, and the first byte highest.
            self.word.eq(Cat(taken.word_select(i, 8) for i in reversed(range(TAKEN)))),
        ]
        with m.If(left == 0):
            m.d.sync += [phase.eq(0), sent.eq(self.byte)]
            m.d.sync += left.eq(Mux(self.send, 8, Mux(self.take, 8 * TAKEN, 0)))
        with m.Else():
            m.d.sync += phase.eq(phase + 1)
        with m.If(ends):
            m.d.sync += [left.eq(left - 1), sent.eq(sent << 1)]
        with m.If(takes):
            m.d.sync += taken.eq(Cat(level, taken))
        return m
