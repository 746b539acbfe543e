"""The weight memory of all families but iCE40."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw.memory.memory import (
    RAM_LATENCY,
    Ram,
    check_depth,
    check_family,
    memory_ports,
)
from secateur.hw.pipeline import delay, gather

#: Words of the largest slice of a weight memory: 2048 x 9 bits in one block RAM.
SLICE_WORDS = 2048
#: Cycles from ``row`` to the word of lane 1: address register, RAM, multiplexer.
SIDE_LATENCY = 1 + RAM_LATENCY + 2


class WeightMemory(wiring.Component):
    """S banks side by side, word i in bank i mod S.

    Banks consist of slices of at most SLICE_WORDS; the choice of one takes two registered steps.
    In layers of filter lanes, ``read_addr`` is that of a word of bank 0; the other banks serve
    their lanes, while ``row`` goes from bank to bank, a cycle each.

    Parameters
    ----------
    width : bits of a word
    depth : words, a multiple of ``s``, not necessarily a power of two
    s : banks, a power of two
    init : words of a ROM; None: a RAM for the loader to write
    family : one of FAMILIES

    Attributes
    ----------
    latency : cycles from ``read_addr`` to ``read_data``: address register, RAM, multiplexer

    Members
    -------
    read_addr, write_en, write_addr, write_data : In  see ``memory_ports``
    read_data : Out  ``latency`` cycles after its address
    aside : In(1)  banks from 1 on serve lanes; with S > 1, as are the next two
    row : In  word of each bank that lanes take
    side : Out((S - 1) x width)  that of bank k SIDE_LATENCY + k - 1 cycles after ``row``
    """

    def __init__(self, *, width: int, depth: int, s: int = 1, init=None, family: str = "generic"):
        check_depth(depth, init)
        if s < 1 or s & (s - 1) or depth % s:
            raise ValueError(f"s must be a power of two that divides {depth} words, not {s!r}")
        self.width, self.depth, self.s = width, depth, s
        self.init = None if init is None else list(init)
        self.family = check_family(family)
        self.bank_words = max(2, depth // s)
        self.slices = 1 if family == "generic" else -(-self.bank_words // SLICE_WORDS)
        many = s > 1 or depth > SLICE_WORDS
        self.latency = 1 + RAM_LATENCY + (2 if many else 0)
        lanes = {
            "aside": In(1),
            "row": In(ceil_log2(self.bank_words)),
            "side": Out(data.ArrayLayout(width, s - 1)),
        }
        super().__init__(memory_ports(width, depth) | (lanes if s > 1 else {}))

    def elaborate(self, platform) -> Module:
        m = Module()
        low = ceil_log2(self.s)
        address = delay(m, self.read_addr, 1, "address")
        rows, outputs = [address[low:]], []
        if self.s > 1:
            # The choice is behind the registers: the way to the address is long enough.
            aside, row = delay(m, self.aside, 1, "aside"), self.row
            for bank in range(1, self.s):
                row = delay(m, row, 1, f"row{bank}")
                rows.append(Mux(aside, row, address[low:]))
        for bank, row in enumerate(rows):
            found = self._bank(m, bank, row)
            outputs.append(found)
            if bank:
                where = row[ceil_log2(SLICE_WORDS) :]
                m.d.comb += self.side[bank - 1].eq(self._multiplex(m, found, where, f"_{bank}"))
        # Slices of all banks, in the order of addresses: the bank in the low bits.
        flat = [outputs[bank][part] for part in range(self.slices) for bank in range(self.s)]
        parts = address[low + ceil_log2(SLICE_WORDS) :] if self.slices > 1 else Const(0, 0)
        select = Cat(address[:low], parts)
        if self.s > 1:
            at = delay(m, select, RAM_LATENCY, "select")
            chosen = [at == index for index in range(len(flat))]
            m.d.comb += self.read_data.eq(gather(m, flat, chosen, "gathered"))
        elif self.latency > 1 + RAM_LATENCY:
            m.d.comb += self.read_data.eq(self._multiplex(m, flat, select, ""))
        else:
            m.d.comb += self.read_data.eq(flat[0])
        return m

    def _bank(self, m: Module, bank: int, row) -> list:
        """The slices of a bank; returns what each holds in word ``row``."""
        low, one = ceil_log2(self.s), self.slices == 1
        mine = self.write_addr[:low] == bank if low else 1
        writes = {
            "en": self.write_en & mine,
            "addr": self.write_addr[low:],
            "data": self.write_data,
        }
        if not one or low:
            writes = {
                name: delay(m, value, 1, f"write_{name}{bank}") for name, value in writes.items()
            }
        found = []
        for part in range(self.slices):
            first = part * SLICE_WORDS
            depth = self.bank_words if one else min(SLICE_WORDS, self.bank_words - first)
            init = None if self.init is None else self.init[bank :: self.s][first : first + depth]
            ram = Ram(
                depth=max(depth, 2),
                init=init,
                width=self.width,
                writable=self.init is None,
                family=self.family,
            )
            m.submodules[f"ram{bank}_{part}"] = ram
            here = 1 if one else writes["addr"][ceil_log2(SLICE_WORDS) :] == part
            m.d.comb += [
                ram.read_addr.eq(row),
                ram.write_en.eq(writes["en"] & here),
                ram.write_addr.eq(writes["addr"]),
                ram.write_data.eq(writes["data"]),
            ]
            found.append(ram.read_data)
        return found

    def _multiplex(self, m: Module, outputs: list, select, name: str):
        """The outputs' multiplexer, in two registered steps.

        The first step is on the long way from the RAMs. It is a choice of two, as long as the
        second is one of at most four.
        """
        if len(outputs) == 1:
            return delay(m, outputs[0], 2, f"data{name}")
        low_bits = max(1, ceil_log2(len(outputs)) - 2)
        select = delay(m, select, RAM_LATENCY, f"select{name}")
        # Two slices make one group: no signal without bits.
        one_group = len(outputs) <= 1 << low_bits
        high = 0 if one_group else delay(m, select[low_bits:], 1, f"select_high{name}")
        groups = []
        for first in range(0, len(outputs), 1 << low_bits):
            group = Signal(self.width, name=f"group{name}_{first}", reset_less=True)
            choices = outputs[first : first + (1 << low_bits)]
            m.d.sync += group.eq(Array(choices)[select[:low_bits]])
            groups.append(group)
        found = Signal(self.width, name=f"found{name}", reset_less=True)
        m.d.sync += found.eq(Array(groups)[high])
        return found
