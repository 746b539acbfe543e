"""A source of the ring: an image that is copied to an SDRAM, and read there."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.memory.fifo import CreditFifo
from secateur.hw.memory.image_words import image_words
from secateur.hw.memory.pacer import Pacer
from secateur.hw.memory.sdram import SDRAM_PORTS, SdramController
from secateur.hw.sdram import ADDRESS_BITS, BURST, DATA_BITS, DEPTH, SOURCE, Sdram

_HALF_WORD = data.StructLayout({"data": DATA_BITS, "last": 1})
#: Bits of a half-word's number in a burst.
_BITS = ceil_log2(BURST)


class SdramSource(wiring.Component):
    """Copies an image to an SDRAM once, then reads it again and again, a byte in every cycle.

    The copy takes the bytes of one pass of ``input``, as many as the image's header says, and no
    more. Bytes leave behind it as ``ring.Source`` has it, at the rate ``sdram.SOURCE``, also while
    rows are refreshed and changed. A burst is requested when the queue has room for it. After a
    reset the image is copied anew.

    Parameters
    ----------
    geometry : of the engine that takes the image
    sdram : its times

    Members
    -------
    input : In(stream)  bytes of the image
    image : Out(stream)  the bytes of pass after pass
    command, bank, address, mask, drive, value, level : lines, see SdramController
    """

    def __init__(self, *, geometry: spec.Geometry, sdram: Sdram):
        self.geometry, self.sdram = geometry, sdram
        super().__init__(
            {
                "input": In(stream.Signature(8)),
                "image": Out(stream.Signature(8)),
                **SDRAM_PORTS,
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.controller = controller = SdramController(sdram=self.sdram)
        m.submodules.queue = queue = CreditFifo(shape=_HALF_WORD, depth=DEPTH)
        m.submodules.pacer = pacer = Pacer(source=SOURCE)
        for name, port in SDRAM_PORTS.items():
            own, inner = getattr(self, name), getattr(controller, name)
            m.d.comb += inner.eq(own) if port.flow is In else own.eq(inner)
        wiring.connect(m, pacer.output, wiring.flipped(self.image))
        request = controller.request
        final = Signal(ADDRESS_BITS)  # of the image's last half-word
        odd = Signal()  # which is one byte
        copied = Signal()
        m.d.comb += [
            queue.write_en.eq(controller.read_en),
            queue.write_data.data.eq(controller.read_data),
            queue.write_data.last.eq(controller.read_last),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(~copied):
            self._copy(m, request, copied, final, odd)
        self._read(m, request, copied, final, self._unpack(m, queue, pacer.input, odd))
        return m

    def _copy(self, m: Module, request, copied, final, odd) -> None:
        """Two bytes after the other to the SDRAM; the image may end with one."""
        taken, byte = Signal(), self.input.payload
        words, known = image_words(m, self.geometry, taken, byte)
        word = Signal.like(words)
        at_last = Signal()
        lane = Signal(range(self.geometry.word_bytes))
        word_ends = lane == self.geometry.word_bytes - 1
        ends = Signal()
        high = Signal()
        low = Signal(8)
        m.d.comb += [
            self.input.ready.eq(~request.valid),
            taken.eq(self.input.valid & self.input.ready),
            ends.eq(word_ends & at_last),
        ]
        m.d.sync += at_last.eq(known & (word + 1 >= words))
        with m.If(taken):
            m.d.sync += [low.eq(byte), high.eq(~high), lane.eq(lane + 1)]
            with m.If(word_ends):
                m.d.sync += [lane.eq(0), word.eq(word + 1)]
            with m.If(high | ends):
                m.d.sync += [
                    request.valid.eq(1),
                    request.payload.write.eq(1),
                    request.payload.address.eq(final),
                    request.payload.data.eq(Mux(high, Cat(low, byte), byte)),
                    final.eq(final + 1),
                ]
            with m.If(ends):
                m.d.sync += [copied.eq(1), final.eq(final), odd.eq(~high)]

    def _read(self, m: Module, request, copied, final, leaves) -> None:
        """Burst after burst; ``leaves``: a half-word leaves the queue."""
        burst = Signal(ADDRESS_BITS - _BITS)
        reserved = Signal(range(DEPTH + 1))  # half-words in the queue, or on their way to it
        ends = Signal()
        asks = Signal()
        more = Mux(ends, final[:_BITS], BURST - 1)
        m.d.sync += ends.eq(burst == final[_BITS:])
        m.d.comb += asks.eq(copied & ~request.valid & (reserved <= DEPTH - BURST))
        m.d.sync += reserved.eq(reserved + Mux(asks, more + 1, 0) - leaves)
        with m.If(asks):
            m.d.sync += [
                request.valid.eq(1),
                request.payload.write.eq(0),
                request.payload.address.eq(Cat(Const(0, _BITS), burst)),
                request.payload.more.eq(more),
                request.payload.tag.eq(ends),
                burst.eq(Mux(ends, 0, burst + 1)),
            ]

    def _unpack(self, m: Module, queue: CreditFifo, paced, odd) -> Signal:
        """Bytes of half-words. Returns a strobe: a half-word leaves the queue."""
        high = Signal()
        leaves = Signal()
        half = queue.output.payload
        at_end = half.last & (high | odd)
        m.d.comb += [
            paced.valid.eq(queue.output.valid),
            paced.payload.byte.eq(half.data.word_select(high, 8)),
            paced.payload.last.eq(at_end),
            leaves.eq(queue.output.valid & paced.ready & (high | at_end)),
            queue.output.ready.eq(leaves),
        ]
        with m.If(queue.output.valid & paced.ready):
            m.d.sync += high.eq(~(high | at_end))
        return leaves
