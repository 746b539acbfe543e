"""Block RAM with an explicit output register: the weight memory and the activation banks.

The output register of a block RAM is never inferred and is worth a third of the clock, so the
ECP5 version instantiates ``DP16KD``. The generic version has the same latency in every size; so
has that of an ASIC, where the array is a module of its own (``macro``). Those of iCE40 are inferred
from the generic version.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw.memory import asic_ram
from secateur.hw.pipeline import delay
from secateur.hw.spec import FAMILIES

#: Cycles from the address at a RAM's pins to the data after its output register.
RAM_LATENCY = 2
#: Words of the largest slice of a weight memory: 2048 x 9 bits in one block RAM.
SLICE_WORDS = 2048


def check_family(family: str) -> str:
    """Return ``family``; ValueError if there are no wrappers for it."""
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
    return family


def _check_depth(depth: int, init: Sequence[int] | None) -> None:
    if depth < 2:
        raise ValueError(f"depth must be at least 2 words, not {depth!r}")
    if init is not None and len(init) > depth:
        raise ValueError(f"init must hold at most {depth} words, not {len(init)!r}")


class Ram(wiring.Component):
    """One-writer, one-reader RAM, no larger than one block RAM is deep (16384 words on ECP5).

    A read of the word that is written in the same cycle is undefined.

    Parameters
    ----------
    width, depth : bits and words
    init : contents from word 0 on; zeros after them; none on asic
    writable : build the write port
    family : one of FAMILIES
    output : build the output register; there is one on ecp5 and asic

    Members
    -------
    read_addr : In; ``read_data`` : Out, RAM_LATENCY cycles later, without output register one
    write_en, write_addr, write_data : In
    """

    def __init__(
        self, *, width: int, depth: int, init=None, writable=True, family="generic", output=True
    ):
        _check_depth(depth, init)
        if not output and family in ("ecp5", "asic"):
            raise ValueError(f"output must be True on {family}, not {output!r}")
        self.output = output
        self.width, self.depth, self.writable = width, depth, writable
        self.init = list(init or [])
        self.family = check_family(family)
        if family == "asic" and (self.init or not writable):
            raise ValueError("init must be None on asic: its memories hold nothing at power-up")
        address = ceil_log2(depth)
        super().__init__(
            {
                "read_addr": In(address),
                "read_data": Out(width),
                "write_en": In(1),
                "write_addr": In(address),
                "write_data": In(width),
            }
        )

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
        bits = column_bits(self.depth)
        for column in range(0, self.width, bits):
            used = min(bits, self.width - column)
            bits_in = self.write_data[column : column + used]
            bits_out = self.read_data[column : column + used]
            write_en = self.write_en if self.writable else 0
            init = _initval(self.init, bits, column, (1 << used) - 1)
            a = _port("A", bits, self.write_addr, write_en=write_en, data_in=bits_in)
            b = _port("B", bits, self.read_addr, data_out=bits_out)
            m.submodules[f"ebr{column}"] = Instance("DP16KD", **_shared(init), **a, **b)


class TwoReadRam(wiring.Component):
    """A RAM of one block with two ports that read, of which the first also writes.

    What port A reads in a cycle in which it writes is undefined.

    Parameters
    ----------
    width, depth : bits and words
    family : one of FAMILIES

    Members
    -------
    a_addr, b_addr : In; ``a_data``, ``b_data`` : Out, RAM_LATENCY cycles later
    write_en, write_data : In; to ``a_addr``
    """

    def __init__(self, *, width: int, depth: int, family="generic"):
        _check_depth(depth, None)
        self.width, self.depth, self.family = width, depth, check_family(family)
        if self.family == "ecp5" and width > column_bits(depth):
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
            bits = column_bits(self.depth)
            a = _port(
                "A", bits, self.a_addr, write_en=self.write_en, data_in=self.write_data,
                data_out=self.a_data,
            )  # fmt: skip
            b = _port("B", bits, self.b_addr, data_out=self.b_data)
            m.submodules.ebr = Instance("DP16KD", **_shared([]), **a, **b)
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


def column_bits(depth: int) -> int:
    """Bits of a DP16KD's port in the widest mode that is deep enough."""
    if depth > 16384:
        raise ValueError(f"depth must be at most 16384 words on ecp5, not {depth!r}")
    return {1024: 18, 2048: 9, 4096: 4, 8192: 2}.get(max(1024, 1 << ceil_log2(depth)), 1)


def _shared(init: list) -> dict:
    """What both ports of a DP16KD have in common."""
    ports = {"p_GSR": "DISABLED", "p_RESETMODE": "SYNC"}
    return ports | {f"p_INITVAL_{index:02X}": value for index, value in enumerate(init)}


def _port(name: str, bits: int, address, *, write_en=0, data_in=None, data_out=None) -> dict:
    """Parameters and pins of port A or B; one that reads has its output register."""
    low = {18: 4, 9: 3, 4: 2, 2: 1, 1: 0}[bits]
    ports = {
        f"p_DATA_WIDTH_{name}": bits,
        f"p_REGMODE_{name}": "NOREG" if data_out is None else "OUTREG",
        f"p_WRITEMODE_{name}": "NORMAL",
        f"p_CLK{name}MUX": f"CLK{name}",
        f"i_CLK{name}": ClockSignal(),
        f"i_CE{name}": 1,
        f"i_OCE{name}": 1,
        f"i_RST{name}": 0,
        f"i_WE{name}": write_en,
    }
    ports |= {f"p_CSDECODE_{name}": "0b000"} | {f"i_CS{name}{bit}": 0 for bit in range(3)}
    for bit in range(14):
        inside = 0 <= bit - low < len(address)
        enable = bits == 18 and name == "A" and bit < 2  # byte enables
        ports[f"i_AD{name}{bit}"] = address[bit - low] if inside else write_en if enable else 0
    for bit in range(18):
        ports[f"i_DI{name}{bit}"] = 0 if data_in is None or bit >= len(data_in) else data_in[bit]
        if data_out is not None and bit < len(data_out):
            ports[f"o_DO{name}{bit}"] = data_out[bit]
    return ports


def block_fields(init: Sequence[int], bits: int, column: int, mask: int) -> list[int]:
    """The 1024 fields of 18 bits of a DP16KD that holds the words >> ``column`` & ``mask``.

    In widths of 4, 2 and 1 bits the 9th bit of each byte is unused.
    """
    words = [(word >> column) & mask for word in init]
    per_byte = 1 if bits >= 9 else 8 // bits
    fields = [0] * 1024
    for index, word in enumerate(words):
        if bits == 18:
            fields[index] = word
        else:
            byte, part = divmod(index, per_byte)
            fields[byte // 2] |= word << (9 * (byte % 2) + bits * part)
    return fields


def _initval(init: Sequence[int], bits: int, column: int, mask: int) -> list:
    """The 64 INITVAL parameters: each has 16 fields of 20 bits, the low 18 of which are used."""
    fields = block_fields(init, bits, column, mask)
    return [
        Const(sum(f << (20 * i) for i, f in enumerate(fields[row * 16 : row * 16 + 16])), 320)
        for row in range(64)
    ]


class WeightMemory(wiring.Component):
    """The weight memory: slices of at most SLICE_WORDS, and a multiplexer in two registered steps.

    Parameters
    ----------
    width, depth : bits and words; the depth need not be a power of two
    init : words of a ROM; None: a RAM for the loader to write
    family : one of FAMILIES

    Attributes
    ----------
    latency : cycles from ``read_addr`` to ``read_data``: address register, RAM, multiplexer

    Members
    -------
    read_addr : In; ``read_data`` : Out, ``latency`` cycles later
    write_en, write_addr, write_data : In
    """

    def __init__(self, *, width: int, depth: int, init=None, family: str = "generic"):
        _check_depth(depth, init)
        self.width, self.depth = width, depth
        self.init = None if init is None else list(init)
        self.family = check_family(family)
        self.slices = -(-depth // SLICE_WORDS)
        self.latency = 1 + RAM_LATENCY + (2 if self.slices > 1 else 0)
        address = ceil_log2(depth)
        super().__init__(
            {
                "read_addr": In(address),
                "read_data": Out(width),
                "write_en": In(1),
                "write_addr": In(address),
                "write_data": In(width),
            }
        )

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
        """The first step, on the long way from the RAMs, is a choice of two, as long as the second
        is one of at most four."""
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
