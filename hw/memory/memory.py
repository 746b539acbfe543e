"""Block RAM with an explicit output register.

Synthesis never infers the output register of a block RAM, which is worth a third of the clock.
Hence the ECP5 version instantiates ``DP16KD``. The generic version has the same latency in every
size. In that of an ASIC the array is a module of its own (``macro``). RAMs of iCE40 are inferred
from the generic version.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Instance, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw.memory import asic_ram, ecp5_ram
from secateur.hw.pipeline import delay
from secateur.hw.spec import FAMILIES

#: Cycles from the address at a RAM's pins to the data after its output register.
RAM_LATENCY = 2


def check_family(family: str) -> str:
    """Return ``family``.

    Raises
    ------
    ValueError : there are no memories for it
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    return family


def check_depth(depth: int, init: Sequence[int] | None) -> None:
    if depth < 2:
        raise ValueError(f"depth must be at least 2 words, not {depth!r}")
    if init is not None and len(init) > depth:
        raise ValueError(f"init must hold at most {depth} words, not {len(init)!r}")


def memory_ports(width: int, depth: int) -> dict[str, wiring.Member]:
    """Members of a memory of ``depth`` words of ``width`` bits: one port reads, one writes.

    Members
    -------
    read_addr : In  of a word
    read_data : Out(width)  that word, some cycles later
    write_en : In(1)  a word comes
    write_addr : In  its address
    write_data : In(width)  the word
    """
    address = ceil_log2(depth)
    return {
        "read_addr": In(address),
        "read_data": Out(width),
        "write_en": In(1),
        "write_addr": In(address),
        "write_data": In(width),
    }


class Ram(wiring.Component):
    """One-writer, one-reader RAM, no larger than one block RAM is deep (16384 words on ECP5).

    A read of the word that is written in the same cycle is undefined.

    Parameters
    ----------
    width : bits of a word
    depth : words
    init : contents from word 0 on; zeros after them; none on asic
    writable : build the write port
    family : one of FAMILIES
    output : build the output register; always True on ecp5 and asic

    Members
    -------
    read_addr, write_en, write_addr, write_data : In  see ``memory_ports``
    read_data : Out  RAM_LATENCY cycles after its address; one without output register
    """

    def __init__(
        self, *, width: int, depth: int, init=None, writable=True, family="generic", output=True
    ):
        check_depth(depth, init)
        if not output and family in ("ecp5", "asic"):
            raise ValueError(f"output must be True on {family}, not {output!r}")
        self.output = output
        self.width, self.depth, self.writable = width, depth, writable
        self.init = list(init or [])
        self.family = check_family(family)
        if family == "asic" and (self.init or not writable):
            raise ValueError("init must be None on asic: its memories hold nothing at power-up")
        super().__init__(memory_ports(width, depth))

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.family == "ecp5":
            self._ecp5(m)
            return m
        output = Signal(self.width, reset_less=True)
        if self.family == "asic":
            found = Signal(self.width)
            m.submodules.macro = asic_ram.one_read_one_write(
                width=self.width,
                depth=self.depth,
                write=(self.write_en, self.write_addr, self.write_data),
                read=(self.read_addr, found),
            )
            m.d.sync += output.eq(found)
            m.d.comb += self.read_data.eq(output)
            return m
        m.submodules.mem = mem = memory.Memory(
            shape=self.width, depth=self.depth, init=self.init, attrs={"no_rw_check": 1}
        )
        read = mem.read_port()
        m.d.comb += [read.addr.eq(self.read_addr), self.read_data.eq(output)]
        domain = m.d.sync if self.output else m.d.comb
        domain += output.eq(read.data)
        if self.writable:
            write = mem.write_port()
            m.d.comb += [
                write.en.eq(self.write_en),
                write.addr.eq(self.write_addr),
                write.data.eq(self.write_data),
            ]
        return m

    def _ecp5(self, m: Module) -> None:
        """Side by side, as many DP16KD as the width takes; port A writes, port B reads."""
        bits = ecp5_ram.column_bits(self.depth)
        for column in range(0, self.width, bits):
            used = min(bits, self.width - column)
            bits_in = self.write_data[column : column + used]
            bits_out = self.read_data[column : column + used]
            write_en = self.write_en if self.writable else 0
            init = ecp5_ram.initval(self.init, bits, column, (1 << used) - 1)
            a = ecp5_ram.port("A", bits, self.write_addr, write_en=write_en, data_in=bits_in)
            b = ecp5_ram.port("B", bits, self.read_addr, data_out=bits_out)
            m.submodules[f"ebr{column}"] = Instance("DP16KD", **ecp5_ram.shared(init), **a, **b)


class TwoReadRam(wiring.Component):
    """A RAM of one block with two ports that read, of which the first also writes.

    A read of port A in a cycle in which it writes is undefined.

    Parameters
    ----------
    width : bits of a word
    depth : words
    family : one of FAMILIES

    Members
    -------
    a_addr : In  of a word
    b_addr : In  of a word
    a_data : Out(width)  RAM_LATENCY cycles later
    b_data : Out(width)  RAM_LATENCY cycles later
    write_en : In(1)  writes to ``a_addr``
    write_data : In(width)  the word
    """

    def __init__(self, *, width: int, depth: int, family="generic"):
        check_depth(depth, None)
        self.width, self.depth, self.family = width, depth, check_family(family)
        if self.family == "ecp5" and width > ecp5_ram.column_bits(depth):
            raise ValueError(f"{depth} words of {width!r} bits do not fit one block RAM")
        address = ceil_log2(depth)
        super().__init__(
            {
                "a_addr": In(address),
                "b_addr": In(address),
                "a_data": Out(width),
                "b_data": Out(width),
                "write_en": In(1),
                "write_data": In(width),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.family == "ecp5":
            bits = ecp5_ram.column_bits(self.depth)
            a = ecp5_ram.port(
                "A", bits, self.a_addr, write_en=self.write_en, data_in=self.write_data,
                data_out=self.a_data,
            )  # fmt: skip
            b = ecp5_ram.port("B", bits, self.b_addr, data_out=self.b_data)
            m.submodules.ebr = Instance("DP16KD", **ecp5_ram.shared([]), **a, **b)
            return m
        if self.family == "asic":
            read_a = Signal(self.width)
            read_b = Signal(self.width)
            m.submodules.macro = asic_ram.two_read(
                width=self.width,
                depth=self.depth,
                write=(self.write_en, self.write_data),
                a=(self.a_addr, read_a),
                b=(self.b_addr, read_b),
            )
            for found, output in ((read_a, self.a_data), (read_b, self.b_data)):
                m.d.comb += output.eq(delay(m, found, 1, "output"))
            return m
        m.submodules.mem = mem = memory.Memory(
            shape=self.width, depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        write = mem.write_port()
        m.d.comb += [
            write.en.eq(self.write_en),
            write.addr.eq(self.a_addr),
            write.data.eq(self.write_data),
        ]
        for address, found in ((self.a_addr, self.a_data), (self.b_addr, self.b_data)):
            read = mem.read_port()
            output = Signal(self.width, reset_less=True)
            m.d.comb += [read.addr.eq(address), found.eq(output)]
            m.d.sync += output.eq(read.data)
        return m
