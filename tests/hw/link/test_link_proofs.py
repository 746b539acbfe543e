"""Proofs of the link's parts, whatever comes over the line and whatever waits behind it.

Each proof is shown to be able to fail: the same top with a fault in its model must not pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.front.header import crc_step
from secateur.hw.link.access import Accesses
from secateur.hw.link.frames import FrameReceiver, FrameTransmitter, SerialCrc
from secateur.hw.link.protocol import MAX_ACCESSES, RESIDUE
from secateur.hw.link.stuffing import Stuffer, Unstuffer
from tests.hw.proofs import prove
from tests.hw.soc.test_soc_proofs import before, stays

pytestmark = pytest.mark.long


def source(m: Module, stream, name: str) -> None:
    """Assume that a stream into a part keeps the rules: what waits stays."""
    waited = Signal(name=f"{name}_source_waited")
    m.d.sync += waited.eq(stream.valid & ~stream.ready)
    payload = stream.payload if isinstance(stream.payload, Signal) else stream.payload.as_value()
    past = before(m, payload, f"{name}_source")
    m.d.comb += Assume(~waited | (stream.valid & (payload == past)))


class StuffingTop(Elaboratable):
    """A stuffer, a sink that takes bytes when it likes, and an unstuffer that sees what it took."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.stuffer, self.unstuffer = Stuffer(), Unstuffer()
        items = self.stuffer.items
        self.inputs = [items.valid, items.payload.as_value(), self.stuffer.bytes.ready]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.stuffer, m.submodules.unstuffer = self.stuffer, self.unstuffer
        items, line, back = self.stuffer.items, self.stuffer.bytes, self.unstuffer
        source(m, items, "items")
        stays(m, line.valid, line.ready, line.payload, "line")
        item = items.payload
        taken = items.valid & items.ready
        m.d.comb += [
            back.data.eq(line.payload),
            back.valid.eq(line.valid & line.ready),
            Assert(~back.broken),
            Assert(back.end == (taken & item.end)),
            Assert(back.byte_valid == (taken & ~item.end)),
            Assert(~back.byte_valid | (back.byte == (item.data ^ self.fault))),
            Assert(~line.valid | (line.payload != 0xC0) | item.end),
        ]
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_stuffing_gives_back_what_it_was_given(fault: bool, tmp_path: Path) -> None:
    """Bounded: every run of 16 cycles from reset."""
    top = StuffingTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=16)
    assert passed == (not fault), log[-2000:]


class CrcTop(Elaboratable):
    """The CRC of a bit a cycle beside that of a byte a cycle."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.crc = SerialCrc()
        self.inputs = [self.crc.clear, self.crc.valid, self.crc.data]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = self.crc
        model = Signal(32, init=0xFFFFFFFF)
        busy_for = Signal(range(10))
        m.d.comb += Assume(~(crc.valid & crc.busy))
        with m.If(crc.valid):
            m.d.sync += model.eq(crc_step(model, crc.data ^ (self.fault << 7)))
        with m.If(crc.clear):
            m.d.sync += model.eq(0xFFFFFFFF)
        m.d.sync += busy_for.eq(Mux(crc.busy, busy_for + 1, 0))
        m.d.comb += Assert(busy_for < 9)
        with m.If(~crc.busy):
            m.d.comb += Assert(crc.crc == model)
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_the_serial_crc_is_the_crc(fault: bool, tmp_path: Path) -> None:
    """Bounded: any two bytes, and a clear at any time, from reset."""
    top = CrcTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=20)
    assert passed == (not fault), log[-2000:]


class FreeCrc(wiring.Component):
    """In the place of the CRC: it is right or wrong in any cycle."""

    def __init__(self) -> None:
        self.right = Signal()
        super().__init__({"clear": In(1), "data": In(8), "valid": In(1), "crc": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.crc.eq(Mux(self.right, RESIDUE, 0))
        return m


#: Cycles from a byte to the next in the proof of the receiver: its counts are compared two later.
GAP = 3


class ReceiverTop(Elaboratable):
    """The receiver of frames, with anything from the line, once in GAP cycles or less often.

    A byte of the line takes BYTE_CYCLES, most of them for the CRC, which is free here.
    """

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.receiver = part = FrameReceiver()
        self.crc = FreeCrc()
        self.inputs = [
            self.crc.right,
            part.byte,
            part.byte_valid,
            part.end,
            part.broken,
            part.frame.ready,
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = part = self.receiver
        frame = part.frame
        stays(m, frame.valid, frame.ready, frame.payload.as_value(), "frame")
        since = Signal(range(GAP), init=GAP - 1)
        come = part.byte_valid | part.end | part.broken
        m.d.sync += since.eq(Mux(come, 0, Mux(since == GAP - 1, since, since + 1)))
        m.d.comb += Assume(~come | (since == GAP - 1))
        ended = before(m, part.end & ~part.broken, "end")
        was_valid = before(m, frame.valid, "valid")
        was_right = before(m, before(m, self.crc.right, "right"), "compared")
        position = Signal(8)
        count = before(m, position, "position")
        with m.If(part.end):
            m.d.sync += position.eq(0)
        with m.Elif(part.byte_valid & (position != 255)):
            m.d.sync += position.eq(position + 1)
        spoilt = Signal(init=1)
        was_spoilt = before(m, spoilt, "spoilt")
        with m.If(part.end):
            m.d.sync += spoilt.eq(0)
        with m.Elif(part.broken | (part.byte_valid & frame.valid)):
            m.d.sync += spoilt.eq(1)
        payload = frame.payload
        length = 7 + Mux(payload.write, payload.count << 2, 0) + self.fault
        with m.If(frame.valid & ~was_valid):
            m.d.comb += [
                Assert(ended),
                Assert(was_right),
                Assert(~was_spoilt),
                Assert(count == length),
                Assert(payload.count <= MAX_ACCESSES),
                Assert(~payload.answer & ~payload.refused),
            ]
        # what a frame that waits has brought stays, too
        m.d.comb += Assert(~(part.write_en & frame.valid))
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_a_frame_that_waits_stays_and_is_whole(
    fault: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded: every run of 15 bytes from reset; whether the CRC is right, which takes its time, is
    free."""
    top = ReceiverTop(fault)
    monkeypatch.setattr("secateur.hw.link.frames.SerialCrc", lambda: top.crc)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=15 * GAP)
    assert passed == (not fault), log[-2000:]


class AccessesTop(Elaboratable):
    """Any frames, a register file that answers when it likes, an answer that leaves at any time."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.accesses = part = Accesses()
        self.inputs = [
            part.frame.valid, part.frame.payload.as_value(), part.answer.ready, part.read_data,
            part.request.ready, part.response.payload.as_value(), part.response.valid,
        ]  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accesses = part = self.accesses
        frame, answer, request = part.frame, part.answer, part.request.payload
        source(m, frame, "frame")
        plain = ~frame.payload.answer & ~frame.payload.refused  # as the receiver is proven to give
        m.d.comb += Assume(plain & (frame.payload.count <= 2))
        requested, answered = self.registers(m)
        stays(m, answer.valid, answer.ready, answer.payload.as_value(), "answer")
        taken = frame.valid & frame.ready
        known = Signal()
        number = Signal(8)
        last = Signal(24)
        begun, done, refused = Signal(3), Signal(3), Signal()
        again = known & ~frame.payload.open & (frame.payload.sequence == number)
        accepted = answered & ~part.response.payload.error
        m.d.comb += [
            Assert(taken == (answer.valid & answer.ready)),
            Assert(~requested | (frame.valid & ~again & (begun < frame.payload.count) & ~refused)),
            Assert(~requested | (request.write == frame.payload.write)),
            Assert(~requested | (request.address == frame.payload.address)),
        ]
        with m.If(taken):
            m.d.sync += [known.eq(1), number.eq(frame.payload.sequence)]
            m.d.sync += [last.eq(answer.payload.as_value()), begun.eq(0), done.eq(0), refused.eq(0)]
        with m.Else():
            m.d.sync += [begun.eq(begun + requested), done.eq(done + accepted)]
            m.d.sync += refused.eq(refused | answered & part.response.payload.error)
        with m.If(answer.valid & again):
            m.d.comb += Assert(answer.payload.as_value() == last)
        with m.If(answer.valid & ~again):
            expected = Cat(
                frame.payload.sequence, frame.payload.address, frame.payload.open,
                frame.payload.write, (done + self.fault)[:3], Const(0, 3), refused, Const(1, 1),
            )  # fmt: skip
            m.d.comb += [
                Assert(answer.payload.as_value() == expected),
                Assert(refused | (done == frame.payload.count)),
            ]
        return m

    def registers(self, m: Module):
        """A register file that takes requests, and answers them, whenever it likes."""
        request, response = self.accesses.request, self.accesses.response
        busy = Signal()
        requested, answered = Signal(), Signal()
        m.d.comb += [
            requested.eq(request.valid & request.ready),
            answered.eq(response.valid & response.ready),
            Assume(~response.valid | busy),
            Assume(~request.ready | ~busy),
            Assert(~busy | response.ready),
        ]
        m.d.sync += busy.eq((busy | requested) & ~answered)
        stays(m, request.valid, request.ready, request.payload.as_value(), "request")
        return requested, answered


@pytest.mark.parametrize("fault", [False, True])
def test_a_frame_is_obeyed_once(fault: bool, tmp_path: Path) -> None:
    """Bounded: every run of 26 cycles from reset, two frames of an access and a repetition."""
    top = AccessesTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=26)
    assert passed == (not fault), log[-2000:]


class TransmitterTop(Elaboratable):
    """Any header, any words, a line that takes items when it likes."""

    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.transmitter = part = FrameTransmitter()
        self.inputs = [
            part.answer.valid, part.answer.payload.as_value(), part.read_data, part.items.ready,
        ]  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.transmitter = part = self.transmitter
        answer, items = part.answer, part.items
        source(m, answer, "answer")
        item = items.payload
        stays(m, items.valid, items.ready, Cat(item.end, Mux(item.end, 0, item.data)), "items")
        sent = Signal(4)
        with m.If(items.valid & items.ready & (sent != 15)):
            m.d.sync += sent.eq(sent + 1)
        with m.If(items.valid):
            m.d.comb += [Assert(answer.valid), Assert(item.end == (sent == 0))]
            for index in range(3):
                byte = answer.payload.as_value()[8 * index :][:8] ^ self.fault
                m.d.comb += Assert((sent != 1 + index) | (item.data == byte))
        return m


@pytest.mark.parametrize("fault", [False, True])
def test_an_item_that_waits_stays(fault: bool, tmp_path: Path) -> None:
    """Bounded: every run of 45 cycles from reset: the delimiter and the header."""
    top = TransmitterTop(fault)
    passed, log = prove(top, top.inputs, tmp_path, mode="bmc", depth=45)
    assert passed == (not fault), log[-2000:]
