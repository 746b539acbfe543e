"""The weight memory of all families but iCE40."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.utils import ceil_log2

from secateur.hw.memory.memory import (
    RAM_LATENCY,
    Ram,
    check_depth,
    check_family,
    memory_ports,
)
from secateur.hw.pipeline import delay

#: Words of the largest slice of a weight memory: 2048 x 9 bits in one block RAM.
SLICE_WORDS = 2048


class WeightMemory(wiring.Component):
    """Slices of at most SLICE_WORDS, and a multiplexer in two registered steps.

    Parameters
    ----------
    width : bits of a word
    depth : words, not necessarily a power of two
    init : words of a ROM; None: a RAM for the loader to write
    family : one of FAMILIES

    Attributes
    ----------
    latency : cycles from ``read_addr`` to ``read_data``: address register, RAM, multiplexer

    Members
    -------
    read_addr, write_en, write_addr, write_data : In  see ``memory_ports``
    read_data : Out  ``latency`` cycles after its address
    """

    def __init__(self, *, width: int, depth: int, init=None, family: str = "generic"):
        check_depth(depth, init)
        self.width, self.depth = width, depth
        self.init = None if init is None else list(init)
        self.family = check_family(family)
        self.slices = -(-depth // SLICE_WORDS)
        self.latency = 1 + RAM_LATENCY + (2 if self.slices > 1 else 0)
        super().__init__(memory_ports(width, depth))

    def elaborate(self, platform) -> Module:
        m = Module()
        writable = self.init is None
        address = delay(m, self.read_addr, 1, "address")
        common = {"width": self.width, "writable": writable, "family": self.family}
        if self.slices == 1 or self.family == "generic":
            ram = Ram(depth=self.depth, init=self.init, **common)
            m.submodules.ram = ram
            m.d.comb += [
                ram.read_addr.eq(address),
                ram.write_en.eq(self.write_en),
                ram.write_addr.eq(self.write_addr),
                ram.write_data.eq(self.write_data),
            ]
            data = delay(m, ram.read_data, self.latency - 1 - RAM_LATENCY, "data")
            m.d.comb += self.read_data.eq(data)
            return m
        outputs = []
        low = ceil_log2(SLICE_WORDS)
        write_en, write_addr, write_data = (
            delay(m, value, 1, f"write_{name}")
            for name, value in (
                ("en", self.write_en),
                ("addr", self.write_addr),
                ("data", self.write_data),
            )
        )
        for index in range(self.slices):
            first = index * SLICE_WORDS
            depth = min(SLICE_WORDS, self.depth - first)
            init = None if writable else self.init[first : first + depth]
            ram = Ram(depth=max(depth, 2), init=init, **common)
            m.submodules[f"slice{index}"] = ram
            m.d.comb += [
                ram.read_addr.eq(address),
                ram.write_en.eq(write_en & (write_addr[low:] == index)),
                ram.write_addr.eq(write_addr),
                ram.write_data.eq(write_data),
            ]
            outputs.append(ram.read_data)
        m.d.comb += self.read_data.eq(self._multiplex(m, outputs, address[low:]))
        return m

    def _multiplex(self, m: Module, outputs: list, select):
        """The outputs' multiplexer, in two registered steps.

        The first step is on the long way from the RAMs. It is a choice of two, as long as the
        second is one of at most four.
        """
        low_bits = max(1, ceil_log2(self.slices) - 2)
        select = delay(m, select, RAM_LATENCY, "select")
        # Two slices make one group: no signal without bits.
        one_group = len(outputs) <= 1 << low_bits
        high = 0 if one_group else delay(m, select[low_bits:], 1, "select_high")
        groups = []
        for first in range(0, len(outputs), 1 << low_bits):
            group = Signal(self.width, name=f"group{first}", reset_less=True)
            choices = outputs[first : first + (1 << low_bits)]
            m.d.sync += group.eq(Array(choices)[select[:low_bits]])
            groups.append(group)
        data = Signal(self.width, reset_less=True)
        m.d.sync += data.eq(Array(groups)[high])
        return data
