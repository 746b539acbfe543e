"""Image loader, checker and scrubber."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.front.header import Header
from secateur.hw.pipeline import delay
from secateur.hw.spec import Error

#: Cycles from a byte in the word register to its part in ``crc_good``, and one to spare.
_CRC_LATENCY = 6


class Phase(enum.Enum):
    """States of the loader."""

    LOAD = 0
    CHECK = 1
    ACCEPTED = 2
    REFUSED = 3


class _Bytes:
    """Signals that loading and walking share: the image's bytes, one by one, and their word.

    Only ``valid`` has a reset: after a reset of a single cycle, a byte from before it would be
    judged. The registers that ``restart`` clears have none: ``restart`` is set during a reset.
    """

    def __init__(self, geometry: spec.Geometry, words: int):
        self.restart = Signal(init=1)
        self.byte = Signal(8, reset_less=True)
        self.valid = Signal()
        self.word = Signal(geometry.word_bits, reset_less=True)
        self.seen = Signal(words, reset_less=True)  # words loaded, or walked over


class Loader(wiring.Component):
    """Writes an image into the weight memory, then walks the memory and verifies the image.

    A header that the engine cannot take is refused while it arrives, at its first wrong field.
    Hence nothing is written outside the memory, and a wrong length never keeps the host waiting.
    The walk verifies everything, byte by byte, the CRC last. Once an image is accepted, the walk
    begins again and never ends; it uses cycles in which nothing else reads.

    Parameters
    ----------
    geometry : of the engine
    latency : of the weight memory
    rom : the memory has its contents: begin with the walk
    scrub : walk on once the image is accepted; without, ``upset`` and ``scrubs`` stay 0

    Members
    -------
    image : In(stream)  bytes
    write_en : Out(1)  to the weight memory
    write_addr : Out  to the weight memory
    write_data : Out  to the weight memory
    read_addr : Out  to the weight memory
    read_data : In  of the weight memory
    busy : In(1)  another address is read in this cycle
    loading : Out(1)  takes an image
    checking : Out(1)  walks over an image that is not accepted yet
    accepted : Out(1)  the image is right
    error : Out(Error)  why the image is refused, or NONE
    last : Out  address of the image's last word, once accepted
    limit : Out(32)  the header's cycles, once accepted
    image_crc : Out(32)  the image's CRC, once accepted
    upset : Out(1)  the memory has changed since the image was accepted
    scrubs : Out(16)  walks since then that have ended, modulo 2**16
    """

    def __init__(
        self, *, geometry: spec.Geometry, latency: int, rom: bool = False, scrub: bool = True
    ):
        if latency < 1:
            raise ValueError(f"latency must be at least 1 cycle, not {latency!r}")
        self.geometry, self.latency, self.rom = geometry, latency, rom
        self.scrub = scrub
        address = ceil_log2(geometry.weight_words)
        super().__init__(
            {
                "image": In(stream.Signature(8)),
                "write_en": Out(1),
                "write_addr": Out(address),
                "write_data": Out(geometry.word_bits),
                "read_addr": Out(address),
                "read_data": In(geometry.word_bits),
                "busy": In(1),
                "loading": Out(1),
                "checking": Out(1),
                "accepted": Out(1),
                "error": Out(Error),
                "last": Out(address),
                "limit": Out(32),
                "image_crc": Out(32),
                "upset": Out(1),
                "scrubs": Out(16),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase, init=Phase.CHECK if self.rom else Phase.LOAD)
        part = _Bytes(self.geometry, len(self.last) + 1)
        m.submodules.header = header = Header(geometry=self.geometry, scrub=self.scrub)
        words, crc_good = header.words, header.crc_good
        at_last = Signal()
        at_end = Signal()
        known = Signal()
        m.d.comb += [
            self.loading.eq(phase == Phase.LOAD),
            self.checking.eq(phase == Phase.CHECK),
            self.accepted.eq(phase == Phase.ACCEPTED),
            self.write_data.eq(part.word),
            self.limit.eq(header.limit),
            self.image_crc.eq(header.image_crc),
            header.restart.eq(part.restart),
            header.byte.eq(part.byte),
            header.valid.eq(part.valid),
            header.accepted.eq(self.accepted),
        ]
        m.d.sync += [
            self.last.eq(words - 1),
            known.eq(words != 0),
            at_last.eq((part.seen == self.last) & known),
            at_end.eq(part.seen == words[: len(part.seen)]),
            part.valid.eq(0),
            part.restart.eq(0),
        ]
        full = self._load(m, part, at_last)
        ended = self._walk(m, part, at_end)
        with m.If(part.restart):
            m.d.sync += [part.seen.eq(0), part.valid.eq(0)]
        with m.If(full):
            m.d.sync += phase.eq(Phase.CHECK)
        with m.If(ended & self.checking):
            m.d.sync += phase.eq(Mux(crc_good, Phase.ACCEPTED, Phase.REFUSED))
            with m.If(~crc_good):
                m.d.sync += self.error.eq(Error.CRC)
        if self.scrub:
            with m.If(ended & self.accepted):
                m.d.sync += self.upset.eq(self.upset | ~crc_good)
                m.d.sync += self.scrubs.eq(self.scrubs + 1)
        with m.If(header.error != Error.NONE):
            m.d.sync += [phase.eq(Phase.REFUSED), self.error.eq(header.error)]
        return m

    def _load(self, m: Module, part: _Bytes, at_last) -> Signal:
        """Turn bytes of the host into words of the memory.

        Returns a strobe: the last word is there.
        """
        size = self.geometry.word_bytes
        lane = Signal(range(size))
        full = Signal()
        m.d.sync += self.write_en.eq(0)
        with m.If(self.loading):
            m.d.comb += self.image.ready.eq(~part.restart)
            m.d.sync += [part.byte.eq(self.image.payload), part.valid.eq(self.image.valid)]
            with m.If(self.image.valid & ~part.restart):
                m.d.sync += [
                    part.word.eq(Cat(part.word[8:], self.image.payload)),
                    lane.eq(lane + 1),
                ]
                with m.If(lane == size - 1):
                    m.d.comb += full.eq(at_last)
                    m.d.sync += [
                        lane.eq(0),
                        self.write_en.eq(1),
                        self.write_addr.eq(part.seen),
                        part.seen.eq(part.seen + 1),
                        part.restart.eq(at_last),
                    ]
        return full

    def _walk(self, m: Module, part: _Bytes, at_end) -> Signal:
        """Turn words of the memory into bytes.

        Returns a strobe: a walk ended in the cycle before, and its CRC is still there.
        """
        size = self.geometry.word_bytes
        period = max(size, self.latency) + _CRC_LATENCY + 1
        tick = Signal(range(period))
        last_tick = Signal()
        ended = Signal()
        walked = Signal()  # the word register holds a word of the memory
        arrived = ~delay(m, self.busy, self.latency, "busy")
        walking = Signal()  # a cycle late
        m.d.sync += walking.eq(self.checking | self.accepted if self.scrub else self.checking)
        m.d.sync += ended.eq(0)
        with m.If(walking):
            m.d.sync += [
                part.byte.eq(part.word),
                part.valid.eq(walked & (tick < size)),
                part.word.eq(part.word >> 8),
            ]
            with m.If(~last_tick):
                m.d.sync += [tick.eq(tick + 1), last_tick.eq(tick == period - 2)]
            with m.Elif(arrived):
                m.d.sync += [
                    tick.eq(0),
                    last_tick.eq(0),
                    part.word.eq(self.read_data),
                    walked.eq(1),
                    part.seen.eq(part.seen + 1),
                    self.read_addr.eq(self.read_addr + 1),
                ]
                with m.If(at_end & walked):
                    m.d.sync += [part.restart.eq(1), walked.eq(0), self.read_addr.eq(0)]
                    m.d.sync += ended.eq(1)
        return ended
