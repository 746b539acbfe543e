"""How many words an image has, by its own header."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.utils import ceil_log2

from secateur.hw import spec

#: Byte of the image from which on its header has the number of its words.
WORDS_AT = 8


def image_words(m: Module, geometry: spec.Geometry, valid, byte) -> tuple[Signal, Signal]:
    """The words of an image as its first bytes pass, and whether they are known.

    Parameters
    ----------
    m : module that the registers become part of
    geometry : of the engine that takes the image
    valid : strobe: a byte passes
    byte : that byte
    """
    words = Signal(ceil_log2(geometry.weight_words) + 1)
    at = Signal(range(WORDS_AT + 4))
    known = Signal()
    wanted = WORDS_AT - 1 + -(-len(words) // 8)
    field = Signal(8 * (wanted + 1 - WORDS_AT))
    m.d.comb += words.eq(field)
    with m.If(valid & ~known):
        m.d.sync += [at.eq(at + 1), field.eq(Cat(field[8:], byte))]
        with m.If(at == wanted):
            m.d.sync += known.eq(1)
    return words, known
