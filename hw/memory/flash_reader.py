"""A source of the ring: an image in a serial flash."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, ClockDomain, ClockSignal, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.flash import ALL, ONE, Flash, Step
from secateur.hw.memory.fifo import FIFO_LATENCY, CreditFifo
from secateur.hw.memory.image_words import image_words
from secateur.hw.memory.pacer import PACED, Pacer
from secateur.hw.pipeline import delay

#: Cycles from the last one of a clock until the bit is here that the flash gave until its end.
WAY_CYCLES = 2
#: The lines that are driven, by a code.
_DRIVES = (0, ONE, ALL)
_STEP = data.StructLayout({"select": 1, "clock": 1, "drive": 2, "value": 4, "pauses": 1, "last": 1})

#: Lines of a serial flash.
FLASH_PORTS = {
    "cs_n": Out(1, init=1),
    "sck": Out(1),
    "drive": Out(4, init=ONE),
    "value": Out(4, init=ONE),
    "level": In(4),
}


def _encode(step: Step, *, last: bool = False) -> Const:
    """A step; ``last``: data follow."""
    fields = {"select": step.select, "clock": step.clock, "drive": _DRIVES.index(step.drive)}
    fields |= {"value": step.value, "pauses": step.pauses, "last": last}
    return Const.cast(_STEP.const(fields))


class FlashReader(wiring.Component):
    """Reads an image from a serial flash again and again, as a stream of bytes at constant rate.

    A pass is one read, from the image's first byte to its last; the header of the first pass says
    how many words that are. The flash gets no clock while bytes wait. They leave as ``ring.Source``
    has it, at the rate ``flash.source``. After a reset it sends ``flash.setup`` and begins with the
    first byte. Where there are two images it reads first which one counts.

    Levels leave from flip-flops, and pass one on their way in. A bit is taken when the flash gives
    the next one, a clock after it has begun to give it, and ``flash.delay`` cycles later. With a
    divider of 1 the flip-flops at the lines are those of the falling edge.

    Parameters
    ----------
    geometry : of the engine that takes the image
    flash : what is sent, and how fast
    block : bytes that wait are in block RAM, not in LUT RAM

    Members
    -------
    image : Out(stream)  the bytes
    cs_n : Out(1)  low: the flash is selected
    sck : Out(1)  its clock, low at rest
    drive : Out(4)  lines that are driven
    value : Out(4)  their levels: IO0 or data in, IO1 or data out, IO2 or WP#, IO3 or HOLD#
    level : In(4)  levels of the lines
    """

    def __init__(self, *, geometry: spec.Geometry, flash: Flash, block: bool = False):
        self.geometry, self.flash, self.block = geometry, flash, block
        # Bytes that have begun: each has a way to the pacer behind its last clock.
        self.way = WAY_CYCLES + (flash.divider == 1) + flash.delay
        way = self.way + FIFO_LATENCY + 4
        self.depth = -(-way // flash.source.interval) + 2
        super().__init__({"image": Out(stream.Signature(8)), **FLASH_PORTS})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.flash.divider == 1:
            m.domains.low = low = ClockDomain(reset_less=True, local=True, clk_edge="neg")
            m.d.comb += low.clk.eq(ClockSignal())
        m.submodules.queue = queue = CreditFifo(shape=PACED, depth=self.depth, block=self.block)
        m.submodules.pacer = pacer = Pacer(source=self.flash.source)
        slots = self.flash.slots is not None
        choosing = Signal(init=slots)  # bytes say which image counts
        chosen, second = Signal(), Signal()  # that is known; it is the second
        byte_ends = Signal()  # strobe: the last cycle of a byte's clocks
        room = Signal()  # a byte may begin
        last = Signal()  # the byte is the last of a pass; not in the first cycle of its clocks
        over = Mux(choosing, chosen, last)  # the byte is the last of a read
        begins, bit_ends = self._clocks(m, room, byte_ends, over, second)
        begun = Signal(range(self.depth + 1))  # bytes that have not left the queue
        leaves = queue.output.valid & queue.output.ready
        m.d.sync += begun.eq(begun + (begins & ~choosing) - leaves)
        m.d.comb += room.eq((begun != self.depth) | choosing)
        with m.If(byte_ends & over):
            m.d.sync += choosing.eq(0)
        ends = Cat(bit_ends, byte_ends & ~choosing, last, byte_ends & choosing)
        words, known, taken, choice = self._take(m, ends, queue)
        with m.If(choice & ~chosen):
            m.d.sync += [chosen.eq(taken == 0xFF), second.eq(second ^ (taken != 0xFF))]
        self._count(m, byte_ends & ~choosing, last, words, known)
        wiring.connect(m, queue.output, pacer.input)
        wiring.connect(m, pacer.output, wiring.flipped(self.image))
        return m

    def _clocks(self, m: Module, room, byte_ends, over, second):
        """The steps, one after the other. Returns strobes: a byte begins; a clock of one ends."""
        flash = self.flash
        steps, again = [*flash.first, *flash.again, *flash.other], len(flash.first)
        other = again + len(flash.again)
        ends = (again - 1, other - 1, len(steps) - 1)
        table = Array(_encode(step, last=index in ends) for index, step in enumerate(steps))
        now = Signal(_STEP, init=_STEP.from_bits(table[0].value))
        following = Signal(range(len(steps) + 1), init=1)
        reads = Signal()  # data are read
        clock = Signal(range(flash.byte_clocks))  # of a byte
        phase = Signal(range(max(2, flash.divider)))  # cycle of a clock
        paused = Signal(range(flash.pause))
        begins, runs, ends_now = Signal(), Signal(), Signal()
        at_rest = (clock == 0) & (phase == 0)
        clock_ends = phase == flash.divider - 1
        m.d.comb += [
            begins.eq(reads & at_rest & room),
            runs.eq(~reads | ~at_rest | room),
            ends_now.eq(Mux(now.pauses, paused == flash.pause - 1, runs & clock_ends)),
            byte_ends.eq(reads & ends_now & (clock == flash.byte_clocks - 1)),
        ]
        m.d.sync += paused.eq(Mux(now.pauses & ~ends_now, paused + 1, 0))
        with m.If(runs):
            m.d.sync += phase.eq(Mux(clock_ends | ends_now, 0, phase + 1))
        with m.If(ends_now & reads):
            m.d.sync += clock.eq(clock + 1)
        with m.Elif(ends_now & now.last):
            m.d.sync += [reads.eq(1), now.eq(_encode(flash.data))]
        with m.Elif(ends_now):
            m.d.sync += [now.eq(table[following]), following.eq(following + 1)]
        with m.If(byte_ends & over):
            m.d.sync += [reads.eq(0), now.eq(table[again]), following.eq(again + 1)]
            if flash.other:
                with m.If(second):
                    m.d.sync += [now.eq(table[other]), following.eq(other + 1)]
        high = now.clock & runs & ((phase >= flash.divider // 2) if flash.divider > 1 else 1)
        self._drive(m, Cat(now.value, Array(_DRIVES)[now.drive], ~now.select), high)
        return begins, reads & ends_now

    def _drive(self, m: Module, lines, high) -> None:
        """The levels of a cycle on the lines; ``high``: of the clock."""
        outputs = Cat(self.value, self.drive, self.cs_n)
        if self.flash.divider > 1:
            m.d.sync += [outputs.eq(lines), self.sck.eq(high)]
            return
        # The clock itself, through a gate that opens and closes while it is low.
        ahead = Signal(len(lines), init=1 << 8 | ONE << 4 | ONE)
        pulse, gate = Signal(), Signal()
        m.d.sync += [ahead.eq(lines), pulse.eq(high)]
        m.d.low += [outputs.eq(ahead), gate.eq(pulse)]
        m.d.comb += self.sck.eq(ClockSignal() & gate)

    def _take(self, m: Module, ends, queue: CreditFifo):
        """Bytes of the levels that come back.

        ``ends`` are that of a clock, that of a byte of the image, whether it is the last, and that
        of a byte of the choice. Returns the words of the image, once known; a byte, and a strobe:
        it is of the choice.
        """
        flash = self.flash
        level, held = Signal(4), Signal(8, reset_less=True)
        way = delay(m, ends, self.way, "way", reset_less=False)
        taken = (Cat(level, held) if flash.quad else Cat(level[1], held))[:8]
        if flash.divider > 1:
            m.d.sync += level.eq(self.level)
        else:
            low = Signal(4, reset_less=True)
            m.d.low += low.eq(self.level)
            m.d.sync += level.eq(low)
        with m.If(way[0]):
            m.d.sync += held.eq(taken)
        m.d.comb += [
            queue.write_en.eq(way[1]),
            queue.write_data.byte.eq(taken),
            queue.write_data.last.eq(way[2]),
        ]
        words, known = image_words(m, self.geometry, queue.write_en, taken)
        return words, known, taken, way[3]

    def _count(self, m: Module, byte_ends, last, words, known) -> None:
        """Where in the image the byte is whose clocks run."""
        lane, word = Signal(range(self.geometry.word_bytes)), Signal.like(words)
        lane_ends = lane == self.geometry.word_bytes - 1
        m.d.sync += last.eq(lane_ends & known & (word + 1 == words))
        with m.If(byte_ends):
            m.d.sync += lane.eq(lane + 1)
            with m.If(lane_ends):
                m.d.sync += [lane.eq(0), word.eq(word + 1)]
            with m.If(last):
                m.d.sync += [lane.eq(0), word.eq(0)]
