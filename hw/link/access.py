"""A frame's accesses to registers, one after the other; a repeated frame is executed only once."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.link.frames import CHUNK, HEADER
from secateur.hw.link.protocol import WORD_BYTES
from secateur.hw.soc.bridge import REQUEST, RESPONSE


class Phase(enum.Enum):
    """States of ``Accesses``."""

    IDLE = 0
    NEXT = 1
    GATHER = 2
    REQUEST = 3
    RESPONSE = 4
    TAKEN = 5
    STORE = 6
    ANSWER = 7


class Accesses(wiring.Component):
    """Executes a frame: ``count`` reads of, or writes to, one register, until one is refused.

    A frame with the sequence number of the one before is not executed, but answered as that was:
    its answer was lost. A frame with ``open`` is always executed.

    Members
    -------
    frame : In(stream of HEADER)  taken when its answer has left
    answer : Out(stream of HEADER)  the frame's, with ``refused`` and the ``count`` of accesses done
    request : Out(stream of REQUEST)  accesses
    response : In(stream of RESPONSE)  one for each request
    read_addr : Out  of a byte of the frame's words
    read_data : In(8)  that byte, a cycle later
    write_en : Out(1)  a byte of the answer's words; they stay until the next frame is executed
    write_addr : Out  its address
    write_data : Out(8)  the byte
    """

    def __init__(self):
        super().__init__(
            {
                "frame": In(stream.Signature(HEADER)),
                "answer": Out(stream.Signature(HEADER)),
                "request": Out(stream.Signature(REQUEST)),
                "response": In(stream.Signature(RESPONSE)),
                "read_addr": Out(range(CHUNK)),
                "read_data": In(8),
                "write_en": Out(1),
                "write_addr": Out(range(CHUNK)),
                "write_data": Out(8),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phase = Signal(Phase)
        answer = Signal(HEADER, reset_less=True)
        known = Signal()  # there has been a frame since reset
        data = Signal(32, reset_less=True)
        lane = Signal(range(WORD_BYTES + 1))
        frame = self.frame.payload
        # Compared in one cycle, obeyed in the next: for a short path.
        came = Signal()
        again = Signal()
        m.d.sync += [
            came.eq(self.frame.valid & (phase == Phase.IDLE)),
            again.eq(known & ~frame.open & (frame.sequence == answer.sequence)),
        ]
        address = Cat(lane[:2], answer.count)[: len(self.read_addr)]
        m.d.comb += [
            self.answer.valid.eq(phase == Phase.ANSWER),
            self.answer.payload.eq(answer),
            self.frame.ready.eq(self.answer.valid & self.answer.ready),
            self.request.valid.eq(phase == Phase.REQUEST),
            self.request.payload.write.eq(answer.write),
            self.request.payload.address.eq(answer.address),
            self.request.payload.data.eq(data),
            self.request.payload.strobe.eq(Mux(answer.write, 0b1111, 0)),
            self.response.ready.eq(phase == Phase.RESPONSE),
            self.read_addr.eq(address),
            self.write_addr.eq(address),
            self.write_data.eq(data[:8]),
            self.write_en.eq(phase == Phase.STORE),
        ]
        with m.If(self.frame.valid):
            m.d.sync += known.eq(1)
        self._walk_phases(m, phase, answer, came, again, lane, data)
        return m

    def _walk_phases(self, m: Module, phase, answer, came, again, lane, data) -> None:
        frame, done = self.frame.payload, answer.count
        with m.Switch(phase):
            with m.Case(Phase.IDLE):
                with m.If(came & again):
                    m.d.sync += phase.eq(Phase.ANSWER)
                with m.Elif(came):
                    m.d.sync += [phase.eq(Phase.NEXT), answer.eq(frame)]
                    m.d.sync += [answer.answer.eq(1), answer.count.eq(0)]
            with m.Case(Phase.NEXT):
                m.d.sync += [lane.eq(0), phase.eq(Phase.REQUEST)]
                with m.If(answer.refused | (done == frame.count)):
                    m.d.sync += phase.eq(Phase.ANSWER)
                with m.Elif(answer.write):
                    m.d.sync += phase.eq(Phase.GATHER)
            with m.Case(Phase.GATHER):
                # A byte is there a cycle after its address; the first of five cycles brings none.
                m.d.sync += [lane.eq(lane + 1), data.eq(Cat(data[8:], self.read_data))]
                with m.If(lane == WORD_BYTES):
                    m.d.sync += phase.eq(Phase.REQUEST)
            with m.Case(Phase.REQUEST):
                m.d.sync += lane.eq(0)
                with m.If(self.request.ready):
                    m.d.sync += phase.eq(Phase.RESPONSE)
            with m.Case(Phase.RESPONSE):
                # What comes before the response is overwritten by it: a shorter path.
                m.d.sync += [
                    data.eq(self.response.payload.data),
                    answer.refused.eq(self.response.payload.error),
                ]
                with m.If(self.response.valid):
                    m.d.sync += phase.eq(Phase.TAKEN)
            with m.Case(Phase.TAKEN):
                m.d.sync += phase.eq(Phase.NEXT)
                with m.If(~answer.refused & answer.write):
                    m.d.sync += done.eq(done + 1)
                with m.Elif(~answer.refused):
                    m.d.sync += phase.eq(Phase.STORE)
            with m.Case(Phase.STORE):
                m.d.sync += [lane.eq(lane + 1), data.eq(data >> 8)]
                with m.If(lane == WORD_BYTES - 1):
                    m.d.sync += [done.eq(done + 1), phase.eq(Phase.NEXT)]
            with m.Case(Phase.ANSWER):
                with m.If(self.answer.ready):
                    m.d.sync += phase.eq(Phase.IDLE)
