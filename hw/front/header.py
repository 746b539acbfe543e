"""The image's header, a byte at a time, and the CRC of the whole image."""

from __future__ import annotations

import operator

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.pipeline import exceeds
from secateur.hw.spec import Error

CRC_POLYNOMIAL = 0xEDB88320  # IEEE 802.3, reflected
_CRC_AT = spec.HEADER_CRC_OFFSET
_WORDS_AT, _BANK_AT, _CYCLES_AT = 8, 12, 16  # offsets of the header's 32-bit fields


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


class Header(wiring.Component):
    """Judges the header of an image, and checks the CRC.

    Once an image is accepted, the fields of its header stay and are not judged again: an upset of
    the memory must not change them. The CRC is checked in every walk.

    Parameters
    ----------
    geometry : of the engine
    scrub : the image is walked over again and again; without, a field is judged where it arrives

    Members
    -------
    restart : In(1)  strobe: the next byte is the image's first
    byte : In(8)  of the image
    valid : In(1)  there is a byte
    accepted : In(1)  the image has been accepted
    error : Out(Error)  why the header is refused, or NONE; a byte's verdict comes 2 cycles later
    words : Out  words of the image
    limit : Out(32)  the header's cycles
    image_crc : Out(32)  the header's CRC
    crc_good : Out(1)  the CRC of all bytes until now is that of the header, some cycles late
    """

    def __init__(self, *, geometry: spec.Geometry, scrub: bool = True):
        self.geometry, self.scrub = geometry, scrub
        self.words_bits = 32 if scrub else ceil_log2(geometry.weight_words) + 1
        super().__init__(
            {
                "restart": In(1),
                "byte": In(8),
                "valid": In(1),
                "accepted": In(1),
                "error": Out(Error),
                "words": Out(self.words_bits),
                "limit": Out(32),
                "image_crc": Out(32),
                "crc_good": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        size = spec.HEADER.size
        # The position in the header, one-hot; the last bit: after it.
        at = Signal(size + 1, init=1, reset_less=True)
        field = Signal(32, reset_less=True)
        bank_words = Signal(32)
        # Without scrubbing, the last field, the CRC, stays where it arrives.
        expected = Signal(32, name="expected") if self.scrub else field
        captures = {_WORDS_AT: self.words, _CYCLES_AT: self.limit}
        if self.scrub:
            captures |= {_BANK_AT: bank_words, _CRC_AT: expected}
        m.d.comb += self.image_crc.eq(expected)
        next_field = Cat(field[8:], self.byte)
        with m.If(self.valid):
            m.d.sync += at.eq(Cat(0, at[:-1]) | (at & (1 << size)))
            with m.If(1 if self.scrub else ~at[size]):
                m.d.sync += field.eq(next_field)
            for position, register in captures.items():
                with m.If(at[position + 3] & (~self.accepted | (position == _CRC_AT))):
                    m.d.sync += register.eq(next_field)
        self._judge(m, at, field, bank_words)
        self._check_crc(m, at, expected)
        with m.If(self.restart):
            m.d.sync += at.eq(1)
        return m

    def _judge(self, m: Module, at, field, bank_words) -> None:
        """At most one byte is judged in a cycle; its verdict becomes the error a cycle later."""
        geometry, byte = self.geometry, self.byte
        wrong_length = Signal()
        wrong_bank = Signal()
        wrong = dict(enumerate((byte != value, Error.MAGIC) for value in spec.MAGIC))
        wrong[4] = (byte != spec.VERSION, Error.VERSION)
        wrong[5] = (byte != geometry.n, Error.GEOMETRY)
        wrong[6] = (byte != geometry.p, Error.GEOMETRY)
        sides, side_bits = byte[4:], spec.pack_features(0, geometry.s) >> 4
        needs_others = (sides != 0) & (sides != side_bits)
        wrong[7] = ((byte[:4] > geometry.tables) | needs_others, Error.GEOMETRY)
        # A captured field is judged two bytes later: one cycle to compare, and one more. A field
        # that is judged where it arrives is complete one byte later.
        length, bank, after = (self.words, bank_words, 5) if self.scrub else (field, field, 4)
        domain, above = (m.d.sync, operator.gt) if self.scrub else (m.d.comb, exceeds)
        domain += [
            wrong_length.eq(
                above(length, geometry.weight_words) | ~above(length, geometry.header_words)
            ),
            wrong_bank.eq(above(bank, geometry.bank_words)),
        ]
        wrong[_WORDS_AT + after] = (wrong_length, Error.LENGTH)
        wrong[_BANK_AT + after] = (wrong_bank, Error.BANK)
        for position, (condition, code) in wrong.items():
            found = Signal(name=f"wrong{position}")
            m.d.sync += found.eq(self.valid & at[position] & condition & ~self.accepted)
            with m.If(found):
                m.d.sync += self.error.eq(code)

    def _check_crc(self, m: Module, at, expected) -> None:
        """The CRC covers its own field as zeros."""
        crc = Signal(32, init=0xFFFFFFFF, reset_less=True)
        byte = Signal(8, name="crc_byte", reset_less=True)
        valid = Signal(name="crc_valid", reset_less=True)
        same = Signal(4)
        m.d.sync += [
            self.crc_good.eq(same.all()),
            *(same[i].eq(~crc[8 * i :][:8] == expected[8 * i :][:8]) for i in range(4)),
            valid.eq(self.valid),
            byte.eq(Mux(at[_CRC_AT : spec.HEADER.size].any(), 0, self.byte)),
        ]
        with m.If(valid):
            m.d.sync += crc.eq(crc_step(crc, byte))
        with m.If(self.restart):
            m.d.sync += [crc.eq(crc.init), valid.eq(0)]
