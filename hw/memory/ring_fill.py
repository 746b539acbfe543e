"""The writing side of a ring of words."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec


class RingFill(wiring.Component):
    """Gives the words of one pass after the other consecutive slots.

    Slots count modulo twice the ring's words, so that a full ring is not an empty one. Word i of
    the image is in bank i mod S. A pass begins with a group of S words of its own, so the words of
    a group are complete together. The writer offers no word while the ring is full.

    Parameters
    ----------
    geometry : of the engine, with a ring

    Members
    -------
    valid : In(1)  a word comes
    last : In(1)  it is the last of its pass
    first : In  bank of the first word of the next pass; with S > 1
    restart : In(1)  the next word is the first behind the header, and the ring is empty
    free : In  group of the first slot that is in use
    full : Out(1)  all slots are in use; a cycle late
    write_en, write_addr : Out  to the memory, a cycle after ``valid``
    filled : Out(1)  strobe: with this write a group is complete
    """

    def __init__(self, *, geometry: spec.Geometry):
        self.geometry, self.side_bits = geometry, ceil_log2(geometry.s)
        address = ceil_log2(geometry.ring)
        super().__init__(
            {
                "valid": In(1),
                "last": In(1),
                "restart": In(1),
                "free": In(address + 1 - self.side_bits),
                "full": Out(1),
                "write_en": Out(1),
                "write_addr": Out(address),
                "filled": Out(1),
                **({"first": In(self.side_bits)} if self.side_bits else {}),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        shift, begin = self.side_bits, self.geometry.header_words
        slot = Signal(len(self.write_addr) + 1, init=begin)
        used = slot[shift:] - self.free
        group_ends = slot[:shift].all() if shift else 1
        next_pass = Cat(self.first, slot[shift:] + 1) if shift else slot + 1
        m.d.sync += [
            self.full.eq(used[len(self.free) - 1]),
            self.write_en.eq(self.valid),
            self.write_addr.eq(slot),
            self.filled.eq(self.valid & (group_ends | self.last)),
        ]
        with m.If(self.restart):
            m.d.sync += slot.eq(begin)
        with m.Elif(self.valid):
            m.d.sync += slot.eq(Mux(self.last, next_pass, slot + 1))
        return m
