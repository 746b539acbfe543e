"""The loader of an engine with a ring: checks the image once, then fills the ring in every pass."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import ring, spec
from secateur.hw.front.header import Header
from secateur.hw.front.loader import Phase
from secateur.hw.memory.ring_fill import RingFill
from secateur.hw.spec import Error


class _Pass:
    """Where in the image the next byte is, and what becomes of its word."""

    def __init__(self, geometry: spec.Geometry, address: int):
        self.lane = Signal(range(geometry.word_bytes))
        self.ends = Signal()  # the next byte is the last one of its word
        self.seen = Signal(address)  # number of the word
        self.after = Signal(address)  # of the word behind it; a cycle late
        self.word = Signal(geometry.word_bits, reset_less=True)
        self.begun = Signal()  # a byte of the pass has been taken
        self.kept = Signal()  # the word is of the program that this pass runs
        self.later = Signal()  # this pass does so from the LOOP mark on
        self.dropped = Signal()  # the pass began before a restart: it is only checked
        self.rest = Signal(range(ring.PASS_CYCLES + 1))  # cycles in which a pass is judged
        self.fresh = Signal(init=1)  # set during a reset
        self.waits = Signal(init=1)  # that, or a pass is judged, or all is refused


class RingLoader(wiring.Component):
    """Takes the bytes of an image again and again, and fills the ring with its words.

    The first pass is checked as a whole, and nothing of it is kept. Every later pass is a run
    through the program: its words go to the ring, as soon as the fetcher has freed their slots. In
    the first one these are all behind the header; later ones begin behind the LOOP mark. Word i of
    the image is in bank i mod S; a pass begins with a group of S words of its own. The CRC of a
    pass is known before the fetcher can have read its last word.

    The last byte of a word is taken if the word has a slot. Behind a pass no byte is taken for
    ``ring.PASS_CYCLES``.

    Parameters
    ----------
    geometry : of the engine, with a ring
    scrub : see ``Header``

    Members
    -------
    image : In(stream)  bytes of the image, from its first to its last, and again
    failed : In(1)  the source has failed: refuse, also an image that has been accepted
    flush : In(1)  the fetcher begins again: drop what is left of the pass
    write_en : Out(1)  to the weight memory
    write_addr : Out  to the weight memory
    write_data : Out  to the weight memory
    filled : Out(1)  strobe: with this word, or the pass, a group of S words is complete
    free : In  group of the first slot that is in use
    full : Out(1)  all slots are in use
    loading : Out(1)  the first pass is under way
    accepted : Out(1)  the image is right
    error : Out(Error)  why the image is refused, or NONE
    last : Out  number of the image's last word, once accepted
    first : Out  number of the word behind the LOOP mark, or of the first behind the header
    limit : Out(32)  the header's cycles, once accepted
    image_crc : Out(32)  the image's CRC, once accepted
    upset : Out(1)  a pass since then had another CRC
    scrubs : Out(16)  passes since then that have ended, modulo 2**16
    """

    def __init__(self, *, geometry: spec.Geometry, scrub: bool = True):
        if not geometry.ring:
            raise ValueError(f"geometry must have a ring, not {geometry!r}")
        self.geometry, self.scrub = geometry, scrub
        address = ceil_log2(geometry.weight_words)
        groups = ceil_log2(geometry.ring) + 1 - ceil_log2(geometry.s)
        super().__init__(
            {
                "image": In(stream.Signature(8)),
                "failed": In(1),
                "flush": In(1),
                "write_en": Out(1),
                "write_addr": Out(ceil_log2(geometry.ring)),
                "write_data": Out(geometry.word_bits),
                "filled": Out(1),
                "free": In(groups),
                "full": Out(1),
                "loading": Out(1),
                "accepted": Out(1),
                "error": Out(Error),
                "last": Out(address),
                "first": Out(address, init=geometry.header_words),
                "limit": Out(32),
                "image_crc": Out(32),
                "upset": Out(1),
                "scrubs": Out(16),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase, init=Phase.LOAD)
        part = _Pass(self.geometry, len(self.last) + 1)
        m.submodules.header = header = Header(geometry=self.geometry, scrub=self.scrub)
        m.submodules.fill = fill = RingFill(geometry=self.geometry)
        taken = self.image.valid & self.image.ready
        at_last = Signal()
        known = Signal()
        # What the source waits for comes from flip-flops: the way on through it is long.
        held = part.ends & part.kept & self.full
        m.d.comb += [
            self.loading.eq(phase == Phase.LOAD),
            self.accepted.eq(phase == Phase.ACCEPTED),
            self.limit.eq(header.limit),
            self.image_crc.eq(header.image_crc),
            self.image.ready.eq(~(self.flush | part.waits | held)),
            fill.free.eq(self.free),
            self.full.eq(fill.full),
            self.write_en.eq(fill.write_en),
            self.write_addr.eq(fill.write_addr),
            self.write_data.eq(part.word),
            self.filled.eq(fill.filled),
            header.restart.eq((part.rest == 1) | part.fresh),
            header.accepted.eq(self.accepted),
        ]
        m.d.sync += [
            part.fresh.eq(0),
            header.byte.eq(self.image.payload),
            header.valid.eq(taken),
            known.eq(header.words != 0),
            self.last.eq(header.words - 1),
            at_last.eq((part.seen == self.last) & known),
        ]
        with m.If(part.rest != 0):
            m.d.sync += part.rest.eq(part.rest - 1)
        with m.If((part.rest == 1) | part.fresh):
            m.d.sync += part.waits.eq(0)
        self._take(m, part, fill, taken, part.ends & at_last)
        with m.If(part.rest == 1):
            self._judge(m, phase, part, header.crc_good)
        with m.If(self.flush & self.accepted):
            m.d.sync += [part.dropped.eq(part.begun), part.later.eq(0), part.kept.eq(0)]
            m.d.comb += fill.restart.eq(1)
        with m.If(header.error != Error.NONE):
            m.d.sync += [phase.eq(Phase.REFUSED), part.waits.eq(1), self.error.eq(header.error)]
        with m.Elif(self.failed & (phase != Phase.REFUSED)):
            m.d.sync += [phase.eq(Phase.REFUSED), part.waits.eq(1), self.error.eq(Error.SOURCE)]
        return m

    def _take(self, m: Module, part: _Pass, fill: RingFill, taken, pass_ends) -> None:
        """A byte of the image, and the word that it ends."""
        begin = Signal.like(self.last)
        begins = Signal()
        # Known in time: a word has three bytes or more.
        m.d.sync += [
            begin.eq(Mux(part.later, self.first, self.geometry.header_words)),
            part.after.eq(part.seen + 1),
            begins.eq(part.after == begin),
        ]
        m.d.comb += [
            fill.valid.eq(taken & part.ends & part.kept & self.accepted),
            fill.last.eq(pass_ends),
        ]
        if self.geometry.s > 1:
            m.d.comb += fill.first.eq(self.first)
        with m.If(taken):
            m.d.sync += [
                part.begun.eq(1),
                part.word.eq(Cat(part.word[8:], self.image.payload)),
                part.lane.eq(part.lane + 1),
                part.ends.eq(part.lane == self.geometry.word_bytes - 2),
            ]
            with m.If(part.ends):
                m.d.sync += [part.lane.eq(0), part.seen.eq(part.seen + 1)]
                with m.If(begins & ~part.dropped):
                    m.d.sync += part.kept.eq(1)
                with m.If(pass_ends):
                    m.d.sync += [
                        part.rest.eq(ring.PASS_CYCLES),
                        part.waits.eq(1),
                        part.kept.eq(0),
                    ]
            self._find_mark(m, part)

    def _find_mark(self, m: Module, part: _Pass) -> None:
        """The LOOP mark is before the first LOAD; the first pass finds it."""
        common = self.image.payload
        sought = Signal(init=1)
        with m.If(part.ends & part.kept & sought & self.loading):
            with m.If(common & (spec.COMMON_LOAD | spec.COMMON_START)):
                m.d.sync += sought.eq(0)
            with m.Elif(common == spec.INDEX_LOOP):
                m.d.sync += self.first.eq(part.after)

    def _judge(self, m: Module, phase, part: _Pass, crc_good) -> None:
        """The end of a pass, once its CRC is known."""
        m.d.sync += [part.seen.eq(0), part.begun.eq(0), part.dropped.eq(0)]
        with m.If(self.loading):
            m.d.sync += phase.eq(Mux(crc_good, Phase.ACCEPTED, Phase.REFUSED))
            with m.If(~crc_good):
                m.d.sync += [part.waits.eq(1), self.error.eq(Error.CRC)]
        with m.Elif(self.accepted):
            m.d.sync += self.upset.eq(self.upset | ~crc_good)
            m.d.sync += [self.scrubs.eq(self.scrubs + 1), part.later.eq(~part.dropped)]
