"""Image loader, checker and scrubber."""

from __future__ import annotations

import operator

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.pipeline import delay, exceeds
from secateur.hw.spec import Error

CRC_POLYNOMIAL = 0xEDB88320  # IEEE 802.3, reflected
_CRC_AT = spec.HEADER_CRC_OFFSET
#: Cycles from a byte in the word register to its part in ``crc_good``, and one to spare.
_PARSE_LATENCY = 6
_WORDS_AT, _BANK_AT, _CYCLES_AT = 8, 12, 16  # offsets of the header's 32-bit fields


class Phase(enum.Enum):
    """States of the loader."""

    LOAD = 0
    CHECK = 1
    ACCEPTED = 2
    REFUSED = 3


def crc_step(crc, byte):
    """CRC-32 register after one more byte (reflected, without the final inversion)."""
    bits = [crc[index] ^ (byte[index] if index < 8 else 0) for index in range(32)]
    for _ in range(8):
        low = bits[0]
        bits = [
            (bits[index + 1] if index < 31 else 0) ^ (low if CRC_POLYNOMIAL >> index & 1 else 0)
            for index in range(32)
        ]
    return Cat(*bits)


class _Bytes:
    """What loading and walking share: the bytes of the image, one by one, and the word they make.

    Only ``valid`` has a reset: after one of a single cycle, a byte from before it would be judged.
    What ``restart`` clears has none: that is also set while the loader is in reset.
    """

    def __init__(self, geometry: spec.Geometry, words: int):
        self.restart = Signal(init=1)
        self.byte = Signal(8, reset_less=True)
        self.valid = Signal()
        self.word = Signal(geometry.word_bits, reset_less=True)
        self.seen = Signal(words, reset_less=True)  # words loaded, or walked over


class Loader(wiring.Component):
    """Writes an image into the weight memory, then walks the memory and verifies the image.

    A header that the engine cannot take is refused while it arrives, at its first wrong field, so
    nothing is ever written outside the memory and a wrong length never keeps the host waiting. The
    walk verifies everything, byte by byte, the CRC last. Once an image is accepted the walk begins
    anew and goes on for good, in cycles in which nobody else reads.

    Parameters
    ----------
    geometry : of the engine
    latency : of the weight memory
    rom : the memory has its contents: begin with the walk
    compact : no walks after the first: ``upset`` and ``scrubs`` stay 0

    Members
    -------
    image : In, stream of bytes
    write_en, write_addr, write_data : Out; read_addr : Out; read_data : In, of the weight memory
    busy : In, another address is read in this cycle
    loading, checking, accepted : Out; error : Out, spec.Error, not NONE: refused
    last : Out, address of the last word; limit : Out, the header's cycles; both once accepted
    upset : Out, the memory is no longer what was accepted; scrubs : Out, walks since then that have
        ended, modulo 2**16
    """

    def __init__(
        self, *, geometry: spec.Geometry, latency: int, rom: bool = False, compact: bool = False
    ):
        if latency < 1:
            raise ValueError(f"latency must be at least 1 cycle, not {latency!r}")
        self.geometry, self.latency, self.rom = geometry, latency, rom
        self.compact = compact
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
                "upset": Out(1),
                "scrubs": Out(16),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase, init=Phase.CHECK if self.rom else Phase.LOAD)
        part = _Bytes(self.geometry, len(self.last) + 1)
        error, words, crc_good = self._parse(m, part)
        at_last = Signal()
        at_end = Signal()
        known = Signal()
        m.d.comb += [
            self.loading.eq(phase == Phase.LOAD),
            self.checking.eq(phase == Phase.CHECK),
            self.accepted.eq(phase == Phase.ACCEPTED),
            self.write_data.eq(part.word),
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
        if not self.compact:
            with m.If(ended & self.accepted):
                m.d.sync += self.upset.eq(self.upset | ~crc_good)
                m.d.sync += self.scrubs.eq(self.scrubs + 1)
        with m.If(error != Error.NONE):
            m.d.sync += [phase.eq(Phase.REFUSED), self.error.eq(error)]
        return m

    def _load(self, m: Module, part: _Bytes, at_last) -> Signal:
        """Bytes of the host into words of the memory. Returns a strobe: the last word is there."""
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
        """Words of the memory into bytes. Returns a strobe: a walk ended in the cycle before; its
        CRC is not lost yet."""
        size = self.geometry.word_bytes
        period = max(size, self.latency) + _PARSE_LATENCY + 1
        tick = Signal(range(period))
        last_tick = Signal()
        ended = Signal()
        walked = Signal()  # the word register holds a word of the memory
        arrived = ~delay(m, self.busy, self.latency, "busy")
        walking = Signal()  # a cycle late
        m.d.sync += walking.eq(self.checking if self.compact else self.checking | self.accepted)
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

    def _parse(self, m: Module, part: _Bytes):
        """The header, a byte at a time, and the CRC of everything.

        ``at`` is one-hot: the position in the header; its last bit: after it. Once an image is
        accepted what its header says stands, and is not judged again, but for the CRC: an upset
        must not change it.
        """
        geometry, size = self.geometry, spec.HEADER.size
        byte, valid = part.byte, part.valid
        at = Signal(size + 1, init=1, reset_less=True)
        field = Signal(32, reset_less=True)
        words = Signal(len(self.last) + 1 if self.compact else 32)
        bank_words = Signal(32)
        # A compact loader judges a field where it arrives, and leaves the last one, the CRC, there.
        expected = field if self.compact else Signal(32, name="expected")
        crc = Signal(32, init=0xFFFFFFFF, reset_less=True)
        crc_byte = Signal(8, reset_less=True)
        crc_valid = Signal(reset_less=True)
        crc_good = Signal()
        same = Signal(4)
        error = Signal(Error)
        wrong_length = Signal()
        wrong_bank = Signal()
        next_field = Cat(field[8:], byte)
        m.d.sync += [
            crc_good.eq(same.all()),
            *(same[i].eq(~crc[8 * i :][:8] == expected[8 * i :][:8]) for i in range(4)),
            crc_valid.eq(valid),
            crc_byte.eq(Mux(at[_CRC_AT:size].any(), 0, byte)),
        ]
        with m.If(crc_valid):
            m.d.sync += crc.eq(crc_step(crc, crc_byte))
        wrong = dict(enumerate((byte != value, Error.MAGIC) for value in spec.MAGIC))
        wrong[4] = (byte != spec.VERSION, Error.VERSION)
        wrong[5] = (byte != geometry.n, Error.GEOMETRY)
        wrong[6] = (byte != geometry.p, Error.GEOMETRY)
        wrong[7] = (byte > geometry.tables, Error.GEOMETRY)
        # A captured field is judged two bytes later: one cycle to compare, and one more. A field
        # that is judged where it arrives is complete one byte later.
        length, bank, after = (field, field, 4) if self.compact else (words, bank_words, 5)
        domain, above = (m.d.comb, exceeds) if self.compact else (m.d.sync, operator.gt)
        domain += [
            wrong_length.eq(
                above(length, geometry.weight_words) | ~above(length, geometry.header_words)
            ),
            wrong_bank.eq(above(bank, geometry.bank_words)),
        ]
        wrong[_WORDS_AT + after] = (wrong_length, Error.LENGTH)
        wrong[_BANK_AT + after] = (wrong_bank, Error.BANK)
        captures = {_WORDS_AT: words, _CYCLES_AT: self.limit}
        if not self.compact:
            captures |= {_BANK_AT: bank_words, _CRC_AT: expected}
        with m.If(valid):
            m.d.sync += at.eq(Cat(0, at[:-1]) | (at & (1 << size)))
            with m.If(~at[size] if self.compact else 1):
                m.d.sync += field.eq(next_field)
            for position, register in captures.items():
                with m.If(at[position + 3] & (~self.accepted | (position == _CRC_AT))):
                    m.d.sync += register.eq(next_field)
        # At most one byte is judged in a cycle; its verdict becomes the error a cycle later.
        for position, (condition, code) in wrong.items():
            found = Signal(name=f"wrong{position}")
            m.d.sync += found.eq(valid & at[position] & condition & ~self.accepted)
            with m.If(found):
                m.d.sync += error.eq(code)
        with m.If(part.restart):
            m.d.sync += [at.eq(1), crc.eq(crc.init), crc_valid.eq(0)]
        return error, words, crc_good
