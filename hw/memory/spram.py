"""Weight memory in the single-port RAMs of iCE40 UltraPlus."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.utils import ceil_log2

from secateur.hw.memory.memory import memory_ports

#: Words and bits of one SB_SPRAM256KA, and how many a UP5K has.
SPRAM_WORDS, SPRAM_BITS, SPRAMS = 16384, 16, 4


class SpramMemory(wiring.Component):
    """A weight memory of SB_SPRAM256KA side by side. They hold nothing at power-up, so
    there is no ROM.

    There is one port: a read in a cycle in which a word is written is undefined.

    Parameters
    ----------
    width : bits of a word, at most 64
    depth : words, at most SPRAM_WORDS

    Attributes
    ----------
    latency : cycles from ``read_addr`` to ``read_data``

    Members
    -------
    read_addr, write_en, write_addr, write_data : In  see ``memory_ports``
    read_data : Out  ``latency`` cycles after its address
    """

    def __init__(self, *, width: int, depth: int):
        if not 1 <= width <= SPRAM_BITS * SPRAMS:
            raise ValueError(f"width must be 1 to {SPRAM_BITS * SPRAMS} bits, not {width!r}")
        if not 2 <= depth <= SPRAM_WORDS:
            raise ValueError(f"depth must be 2 to {SPRAM_WORDS} words, not {depth!r}")
        self.width, self.depth, self.latency = width, depth, 1
        super().__init__(memory_ports(width, depth))

    def elaborate(self, platform) -> Module:
        m = Module()
        address = Signal(ceil_log2(SPRAM_WORDS))
        m.d.comb += address.eq(Mux(self.write_en, self.write_addr, self.read_addr))
        for low in range(0, self.width, SPRAM_BITS):
            used = min(SPRAM_BITS, self.width - low)
            read = Signal(SPRAM_BITS, name=f"read{low}")
            m.submodules[f"spram{low}"] = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_ADDRESS=address,
                i_DATAIN=Cat(self.write_data[low : low + used], Const(0, SPRAM_BITS - used)),
                i_WREN=self.write_en,
                i_MASKWREN=Const(15, 4),
                i_CHIPSELECT=1,
                i_STANDBY=0,
                i_SLEEP=0,
                i_POWEROFF=1,  # active low
                o_DATAOUT=read,
            )
            m.d.comb += self.read_data[low : low + used].eq(read)
        return m
