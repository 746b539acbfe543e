"""A source of the ring: an image in a memory on AXI4."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.memory.fifo import CreditFifo

#: Bytes of a beat, and beats of a burst: bursts from multiples of their size stay within 4 KiB.
BEAT_BYTES = 4
BURST = 16
BURST_BYTES = BEAT_BYTES * BURST
#: Beats that may be on their way, or wait to be taken.
DEPTH = 4 * BURST

#: Read channels of an AXI4 master with data of 32 bits.
AXI_READ_PORTS = {
    "arid": Out(1),
    "araddr": Out(32),
    "arlen": Out(8),
    "arsize": Out(3),
    "arburst": Out(2),
    "arcache": Out(4),
    "arprot": Out(3),
    "arvalid": Out(1),
    "arready": In(1),
    "rid": In(1),
    "rdata": In(8 * BEAT_BYTES),
    "rresp": In(2),
    "rlast": In(1),
    "rvalid": In(1),
    "rready": Out(1),
}


class AxiReader(wiring.Component):
    """Reads an image from memory again and again, as a stream of bytes.

    Incrementing bursts of BURST beats, of which the last of a pass may be shorter. As many are on
    their way as the queue has room for; ``rready`` is always high. While ``enable`` is low nothing
    is requested, and what still comes is dropped; then the next byte is the image's first.

    Members
    -------
    enable : In(1)  read
    base : In(32)  address of the image's first byte, a multiple of BURST_BYTES; the low bits do not
        count
    size : In(32)  bytes of the image, at least 1
    image : Out(stream)  the bytes; the first one comes some cycles after the memory's answer
    failed : Out(1)  the memory has answered with an error since ``enable`` is high
    arid, araddr, arlen, arsize, arburst, arcache, arprot, arvalid, arready : AXI4 read addresses
    rid, rdata, rresp, rlast, rvalid, rready : AXI4 read data; ``rid`` and ``rlast`` are ignored
    """

    def __init__(self):
        super().__init__(
            {
                "enable": In(1),
                "base": In(32),
                "size": In(32),
                "image": Out(stream.Signature(8)),
                "failed": Out(1),
                **AXI_READ_PORTS,
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.queue = queue = CreditFifo(shape=8 * BEAT_BYTES, depth=DEPTH, block=True)
        runs = Signal()
        due = Signal(range(DEPTH + 1))  # beats that are still to come
        comes = self.rvalid & self.rready
        m.d.comb += [
            self.rready.eq(1),
            queue.write_en.eq(comes & runs),
            queue.write_data.eq(self.rdata),
        ]
        leaves = self._unpack(m, queue, runs)
        asked = self._request(m, runs, leaves)
        m.d.sync += due.eq(due + asked - comes)
        with m.If(comes & self.rresp[1] & runs):
            m.d.sync += self.failed.eq(1)
        with m.If(~self.enable):
            m.d.sync += [runs.eq(0), self.failed.eq(0)]
        with m.Elif((due == 0) & ~self.arvalid & ~queue.output.valid & ~queue.more):
            m.d.sync += runs.eq(1)
        return m

    def _request(self, m: Module, runs, leaves):
        """One burst after the other. Returns the beats that an accepted one asks for, or 0."""
        offset = Signal(32)
        reserved = Signal(range(DEPTH + 1))  # beats in the queue, or on their way to it
        left = Signal(32)  # bytes of the pass from ``offset`` on
        waits = Signal()  # ``left`` is that of the burst before
        ends = left <= BURST_BYTES
        beats = Signal(range(BURST + 1))
        m.d.comb += [
            beats.eq(Mux(ends, (left + BEAT_BYTES - 1) >> 2, BURST)),
            self.arsize.eq(2),
            self.arburst.eq(1),
            self.arcache.eq(0b0011),
        ]
        asks = Signal()
        m.d.comb += asks.eq(runs & ~self.arvalid & ~waits & (reserved <= DEPTH - BURST))
        m.d.sync += [waits.eq(asks), left.eq(self.size - offset)]
        m.d.sync += reserved.eq(reserved + Mux(asks, beats, 0) - leaves)
        with m.If(self.arvalid & self.arready):
            m.d.sync += self.arvalid.eq(0)
        with m.If(asks):
            m.d.sync += [
                self.arvalid.eq(1),
                self.araddr.eq((self.base & -BURST_BYTES) + offset),
                self.arlen.eq(beats - 1),
                offset.eq(Mux(ends, 0, offset + BURST_BYTES)),
                waits.eq(1),
            ]
        with m.If(~runs):
            m.d.sync += [offset.eq(0), reserved.eq(0), waits.eq(1)]
        return Mux(self.arvalid & self.arready, self.arlen + 1, 0)

    def _unpack(self, m: Module, queue: CreditFifo, runs):
        """Bytes of beats, up to the last of a pass. Returns whether a beat leaves the queue."""
        lane = Signal(2)
        seen = Signal(32)
        at_end = seen + 1 == self.size
        taken = self.image.valid & self.image.ready
        leaves = taken & (at_end | (lane == BEAT_BYTES - 1))
        m.d.comb += [
            self.image.valid.eq(queue.output.valid & runs),
            self.image.payload.eq(queue.output.payload.word_select(lane, 8)),
            queue.output.ready.eq(leaves | ~runs),
        ]
        with m.If(taken):
            m.d.sync += [lane.eq(Mux(at_end, 0, lane + 1)), seen.eq(Mux(at_end, 0, seen + 1))]
        with m.If(~runs):
            m.d.sync += [lane.eq(0), seen.eq(0)]
        return leaves
