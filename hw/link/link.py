"""The host link: frames on a UART in front of the register file."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.link.access import Accesses
from secateur.hw.link.frames import CHUNK, FrameReceiver, FrameTransmitter
from secateur.hw.link.stuffing import Stuffer, Unstuffer
from secateur.hw.link.uart import UartReceiver, UartTransmitter
from secateur.hw.memory.memory import check_family
from secateur.hw.soc.bridge import REQUEST, RESPONSE


class Link(wiring.Component):
    """Turns frames of ``link.md`` into requests, and their responses into answers.

    A frame that is damaged in any way has no effect and no answer. One frame is executed at a time;
    bytes that come before its answer has left are lost.

    Parameters
    ----------
    divisor : cycles of a bit on the line
    family : "ecp5": the words of a frame and of an answer are in LUT RAM; else synthesis chooses

    Members
    -------
    rx : In(1)  the line from the host, high at rest
    tx : Out(1)  the line to the host, high at rest
    request : Out(stream of REQUEST)  accesses to registers
    response : In(stream of RESPONSE)  one for each request
    """

    def __init__(self, *, divisor: int, family: str = "generic"):
        self.receiver = UartReceiver(divisor=divisor)
        self.transmitter = UartTransmitter(divisor=divisor)
        self.family = check_family(family)
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1, init=1),
                "request": Out(stream.Signature(REQUEST)),
                "response": In(stream.Signature(RESPONSE)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.receiver = receiver = self.receiver
        m.submodules.unstuffer = unstuffer = Unstuffer()
        m.submodules.frames_in = frames_in = FrameReceiver()
        m.submodules.accesses = accesses = Accesses()
        m.submodules.frames_out = frames_out = FrameTransmitter()
        m.submodules.stuffer = stuffer = Stuffer()
        m.submodules.transmitter = transmitter = self.transmitter
        m.d.comb += [
            receiver.rx.eq(self.rx),
            unstuffer.data.eq(receiver.data),
            unstuffer.valid.eq(receiver.valid),
            unstuffer.error.eq(receiver.error),
            self.tx.eq(transmitter.tx),
        ]
        # Registers, for a short path; a byte of the line takes many cycles.
        m.d.sync += [
            frames_in.byte.eq(unstuffer.byte),
            frames_in.byte_valid.eq(unstuffer.byte_valid),
            frames_in.end.eq(unstuffer.end),
            frames_in.broken.eq(unstuffer.broken),
        ]
        wiring.connect(m, frames_in.frame, accesses.frame)
        wiring.connect(m, accesses.answer, frames_out.answer)
        wiring.connect(m, frames_out.items, stuffer.items)
        wiring.connect(m, stuffer.bytes, transmitter.bytes)
        wiring.connect(m, accesses.request, wiring.flipped(self.request))
        wiring.connect(m, wiring.flipped(self.response), accesses.response)

        # The words of a frame, and those of its answer. None is read while it is written: a frame
        # is received, executed and answered, one after the other.
        if self.family == "ice40":
            self._one_memory(m, frames_in, accesses, frames_out)
            return m
        attrs = {"no_rw_check": 1} | ({"ram_style": "distributed"} if self.family == "ecp5" else {})
        for name, writer, reader in (
            ("received", frames_in, accesses),
            ("answered", accesses, frames_out),
        ):
            words = memory.Memory(shape=8, depth=CHUNK, init=[], attrs=attrs)
            m.submodules[name] = words
            write, read = words.write_port(), words.read_port()
            m.d.comb += [
                write.en.eq(writer.write_en),
                write.addr.eq(writer.write_addr),
                write.data.eq(writer.write_data),
                read.addr.eq(reader.read_addr),
                reader.read_data.eq(read.data),
            ]
        return m

    @staticmethod
    def _one_memory(m: Module, frames_in, accesses, frames_out) -> None:
        """Both kinds of words in one block RAM: those that come in its lower half."""
        attrs = {"no_rw_check": 1}
        m.submodules.words = words = memory.Memory(shape=8, depth=2 * CHUNK, init=[], attrs=attrs)
        write, read = words.write_port(), words.read_port()
        storing, answering = accesses.write_en, accesses.answer.valid
        m.d.comb += [
            write.en.eq(frames_in.write_en | storing),
            write.addr.eq(Cat(Mux(storing, accesses.write_addr, frames_in.write_addr), storing)),
            write.data.eq(Mux(storing, accesses.write_data, frames_in.write_data)),
            read.addr.eq(Cat(Mux(answering, frames_out.read_addr, accesses.read_addr), answering)),
            accesses.read_data.eq(read.data),
            frames_out.read_data.eq(read.data),
        ]
