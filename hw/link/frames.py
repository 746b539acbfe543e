"""Frames of the host link: header, words and CRC-32, in and out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.front.header import CRC_POLYNOMIAL
from secateur.hw.link.protocol import CRC_BYTES, HEADER_BYTES, MAX_ACCESSES, RESIDUE, WORD_BYTES
from secateur.hw.link.stuffing import ITEM

#: Bytes of the words of a frame.
CHUNK = MAX_ACCESSES * WORD_BYTES
#: Cycles that must lie between two bytes of a frame that is received.
BYTE_CYCLES = 10

#: The three bytes in front: ``link.md``.
HEADER = data.StructLayout(
    {"sequence": 8, "address": 6, "open": 1, "write": 1, "count": 6, "refused": 1, "answer": 1}
)


class SerialCrc(wiring.Component):
    """CRC-32, one bit per cycle: small, and a UART's bytes come no faster.

    Members
    -------
    clear : In(1)  begin again
    data : In(8)  the next byte
    valid : In(1)  there is a byte; never while ``busy``
    busy : Out(1)  for eight cycles after a byte
    crc : Out(32)  the register, without the final inversion
    """

    def __init__(self):
        super().__init__(
            {
                "clear": In(1),
                "data": In(8),
                "valid": In(1),
                "busy": Out(1),
                "crc": Out(32, init=0xFFFFFFFF),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        bits = Signal(8, reset_less=True)
        left = Signal(range(9))
        m.d.comb += self.busy.eq(left != 0)
        with m.If(self.busy):
            feedback = Mux(self.crc[0] ^ bits[0], CRC_POLYNOMIAL, 0)
            m.d.sync += [self.crc.eq(self.crc[1:] ^ feedback), bits.eq(bits >> 1)]
            m.d.sync += left.eq(left - 1)
        with m.Elif(self.valid):
            m.d.sync += [bits.eq(self.data), left.eq(8)]
        with m.If(self.clear):
            m.d.sync += [self.crc.eq(self.crc.init), left.eq(0)]
        return m


class FrameReceiver(wiring.Component):
    """Keeps the words of a frame and passes on its header, if all of it is right.

    A frame that is damaged, too short or too long is dropped; so is an answer. A frame that begins
    while another waits on ``frame`` is dropped, too: the words of that one stay until it is taken.

    Members
    -------
    byte : In(8)  of an Unstuffer
    byte_valid : In(1)  there is a byte; at least BYTE_CYCLES lie between two
    end : In(1)  a delimiter
    broken : In(1)  the frame is damaged
    frame : Out(stream of HEADER)  a frame that is right
    write_en : Out(1)  a byte of the words, to a memory of CHUNK bytes
    write_addr : Out  its address
    write_data : Out(8)  the byte
    """

    def __init__(self):
        super().__init__(
            {
                "byte": In(8),
                "byte_valid": In(1),
                "end": In(1),
                "broken": In(1),
                "frame": Out(stream.Signature(HEADER)),
                "write_en": Out(1),
                "write_addr": Out(range(CHUNK)),
                "write_data": Out(8),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.crc = crc = SerialCrc()
        header = Signal(HEADER, reset_less=True)
        longest = HEADER_BYTES + CHUNK + CRC_BYTES
        position = Signal(range(longest + 2))  # bytes of this frame; one more than fit: too long
        bad = Signal(init=1)  # the first frame counts from its first END on
        held = Signal()
        # All of these are a cycle late: bytes come BYTE_CYCLES after each other.
        inside = Signal()
        over = Signal()
        right = Signal()
        fits = Signal()
        expected = Signal(range(longest + 2))
        plain = Signal()
        words = Signal(6)
        m.d.comb += [
            self.frame.valid.eq(held),
            self.frame.payload.eq(header),
            words.eq(Mux(header.write, header.count, 0)),
            crc.data.eq(self.byte),
            crc.valid.eq(self.byte_valid),
            crc.clear.eq(self.end),
            self.write_en.eq(self.byte_valid & ~held & inside),
            self.write_addr.eq(position - HEADER_BYTES),
            self.write_data.eq(self.byte),
        ]
        few = header.count <= MAX_ACCESSES
        m.d.sync += [
            expected.eq(HEADER_BYTES + CRC_BYTES + WORD_BYTES * words),
            plain.eq(~header.answer & ~header.refused & few),
            inside.eq((position >= HEADER_BYTES) & (position < HEADER_BYTES + CHUNK)),
            over.eq(position == longest + 1),
            right.eq(crc.crc == RESIDUE),
            fits.eq(position == expected),
        ]
        with m.If(held & self.frame.ready):
            m.d.sync += held.eq(0)
        with m.If(self.byte_valid & held | self.broken):
            m.d.sync += bad.eq(1)
        with m.If(self.byte_valid & ~held & ~over):
            m.d.sync += position.eq(position + 1)
            with m.If(position < HEADER_BYTES):
                raw = header.as_value()
                m.d.sync += raw.eq(Cat(raw[8:], self.byte))
        with m.If(self.end):
            m.d.sync += [position.eq(0), bad.eq(0)]
            with m.If(right & fits & plain & ~bad & ~self.broken & ~held):
                m.d.sync += held.eq(1)
        return m


class Section(enum.Enum):
    """Parts of a frame on its way out."""

    BEGIN = 0
    HEADER = 1
    WORDS = 2
    CRC = 3
    END = 4


class Step(enum.Enum):
    """States of the transmitter, for an item of a frame."""

    IDLE = 0
    ADDRESS = 1
    FETCH = 2
    SEND = 3
    FEED = 4  # the item to the CRC
    DIGEST = 5


class FrameTransmitter(wiring.Component):
    """Sends a header, the words that were read, and the CRC.

    Members
    -------
    answer : In(stream of HEADER)  taken with the last item: header and memory must stay until then
    read_addr : Out  of a byte in a memory of CHUNK bytes
    read_data : In(8)  that byte, a cycle later
    items : Out(stream of ITEM)  an ``end`` first and last
    """

    def __init__(self):
        super().__init__(
            {
                "answer": In(stream.Signature(HEADER)),
                "read_addr": Out(range(CHUNK)),
                "read_data": In(8),
                "items": Out(stream.Signature(ITEM)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.crc = crc = SerialCrc()
        section = Signal(Section)
        step = Signal(Step)
        index = Signal(range(CHUNK))
        item = Signal(ITEM, reset_less=True)
        header = self.answer.payload
        last = Signal()
        m.d.comb += [
            self.read_addr.eq(index),
            self.items.valid.eq(step == Step.SEND),
            self.items.payload.eq(item),
            self.answer.ready.eq((step == Step.DIGEST) & (section == Section.END)),
            crc.clear.eq(section == Section.BEGIN),
            crc.valid.eq(step == Step.FEED),
            # Fed with its own low byte, the register shifts: its next byte comes to the front.
            crc.data.eq(Mux(section == Section.CRC, crc.crc[:8], item.data)),
        ]
        # Known a cycle after the index, and wanted in DIGEST, three cycles after it or more.
        with m.Switch(section):
            with m.Case(Section.HEADER):
                m.d.sync += last.eq(index == HEADER_BYTES - 1)
            with m.Case(Section.WORDS):
                m.d.sync += last.eq(index + 1 == WORD_BYTES * header.count)
            with m.Case(Section.CRC):
                m.d.sync += last.eq(index == CRC_BYTES - 1)
            with m.Default():
                m.d.sync += last.eq(1)
        self._take_steps(m, crc, section, step, index, item, last)
        return m

    def _take_steps(self, m: Module, crc: SerialCrc, section, step, index, item, last) -> None:
        """Item after item: fetch it, send it, add it to the CRC."""
        header = self.answer.payload
        empty = header.write | (header.count == 0)
        with m.Switch(step):
            with m.Case(Step.IDLE):
                m.d.sync += [section.eq(Section.BEGIN), index.eq(0)]
                with m.If(self.answer.valid):
                    m.d.sync += step.eq(Step.ADDRESS)
            with m.Case(Step.ADDRESS):
                m.d.sync += step.eq(Step.FETCH)
            with m.Case(Step.FETCH):
                m.d.sync += [step.eq(Step.SEND), item.end.eq(0)]
                with m.Switch(section):
                    with m.Case(Section.HEADER):
                        m.d.sync += item.data.eq(header.as_value().word_select(index[:2], 8))
                    with m.Case(Section.WORDS):
                        m.d.sync += item.data.eq(self.read_data)
                    with m.Case(Section.CRC):
                        m.d.sync += item.data.eq(~crc.crc[:8])
                    with m.Default():
                        m.d.sync += item.end.eq(1)
            with m.Case(Step.SEND):
                with m.If(self.items.ready):
                    m.d.sync += step.eq(Step.FEED)
            with m.Case(Step.FEED):
                m.d.sync += step.eq(Step.DIGEST)
            with m.Case(Step.DIGEST):
                with m.If(section == Section.END):
                    m.d.sync += step.eq(Step.IDLE)
                with m.Elif(~crc.busy):
                    m.d.sync += [step.eq(Step.ADDRESS), index.eq(index + 1)]
                    with m.If(last):
                        m.d.sync += [index.eq(0), section.eq(section + 1)]
                        with m.If((section == Section.HEADER) & empty):
                            m.d.sync += section.eq(Section.CRC)
