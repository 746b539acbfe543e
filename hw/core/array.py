"""P banks and P lanes, skewed by a cycle from one to the next, and the collection of the sums."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.ahead import takes_ahead
from secateur.hw.core import lane as lane_
from secateur.hw.core.bank import Bank
from secateur.hw.core.filters import WORD_DELAY
from secateur.hw.core.lane import Lane
from secateur.hw.core.multiply import WEIGHT_BITS, check_bels
from secateur.hw.interfaces import ACCESS, FAST, Kind, issued_signature, write_layout
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

TREE_RADIX = 4


def tree_levels(p: int) -> int:
    """Registered levels of the tree that collects P lanes."""
    levels = 0
    while TREE_RADIX**levels < p:
        levels += 1
    return levels


def sum_latency(p: int) -> int:
    """Cycles from the last word of a group to the sums of pixel lane 0; lane p is p later."""
    return FAST.address + lane_.AT_SHADOW + tree_levels(p)


def array_ports(geometry: spec.Geometry, own: dict[str, wiring.Member]) -> dict[str, wiring.Member]:
    """Members of an array: those that all have, and its ``own``."""
    n = geometry.n
    return {
        "issued": In(issued_signature(n)),
        "clear": In(1),
        "address": In(ceil_log2(geometry.bank_words * n)),
        "access": In(ACCESS),
        "write": In(write_layout(n)),
        **own,
    }


class Array(wiring.Component):
    """From word and address to sums, without a stall.

    Parameters
    ----------
    geometry : of the engine
    family : "generic", "ecp5" or "asic"
    bels : sites of the hard multipliers, see ``Engine``

    Members
    -------
    issued : In(issued_signature(n))  of the issue stage
    clear : In(1)  ends groups, and so empties the accumulators; held for RESET_CYCLES
    address : In  byte address, ``FAST.address`` cycles after the word
    access : In(ACCESS)  with ``address``
    write : In(write_layout(n))  write bus
    shift : In(1)  see Bank
    offset : In(16)  into the last bank, see Bank
    sums : Out(n x ACC_BITS)  lane p's come ``sum_latency(P) + p`` cycles after a group's last word,
        with filter lanes WORD_DELAY later
    filter_address : In(S x width)  see FilterLanes; with S > 1, as is
    own : In(S x own_layout(n))  see FilterLanes
    """

    def __init__(self, *, geometry: spec.Geometry, family="generic", bels=None):
        self.geometry, self.family = geometry, family
        self.bels = check_bels(bels, geometry.multipliers)
        sums = data.ArrayLayout(signed(spec.ACC_BITS), geometry.n)
        own = {"shift": In(1), "offset": In(16), "sums": Out(sums)}
        if geometry.s > 1:
            width = ceil_log2(geometry.bank_words * geometry.n)
            own["filter_address"] = In(data.ArrayLayout(width, geometry.s))
            own["own"] = In(data.ArrayLayout(lane_.own_layout(geometry.n), geometry.s))
        super().__init__(array_ports(geometry, own))

    def elaborate(self, platform) -> Module:
        m = Module()
        n, p = self.geometry.n, self.geometry.p
        log_n = ceil_log2(n)
        control = self._control(m, log_n)
        address, write = self.address[log_n:], self.write
        offset, ahead = self.offset, takes_ahead(p)
        window = self._window(m)
        banks, shadows = [], []
        for index in range(p):
            m.submodules[f"bank{index}"] = bank = Bank(
                n=n, depth=self.geometry.bank_words, family=self.family, ahead=ahead
            )
            m.submodules[f"lane{index}"] = lane = Lane(
                n=n, family=self.family, bels=self.bels[index * n : index * n + n]
            )
            enable = Signal(name=f"enable{index}")
            m.d.sync += enable.eq(self._above(index))
            m.d.comb += [
                bank.address.eq(address),
                bank.write.eq(write),
                bank.window.eq(window[:16]),
                bank.size.eq(window[16:]),
                bank.shift.eq(self.shift),
                lane.word.eq(bank.word),
                lane.control.eq(control),
                lane.enable.eq(enable),
            ]
            if index < self.geometry.s > 1:
                m.d.comb += lane.own.eq(self.own[index])
            if ahead:
                m.d.comb += bank.keep.eq(self.issued.keep)
                window = delay(m, window, 1, f"window{index}")
            address = self._next_address(m, index + 1, address, bank.address_next)
            write, control = bank.write_next, lane.control_next
            banks.append(bank)
            shadows.append(lane.shadow.as_value())
        for bank in reversed(banks):
            m.d.comb += bank.offset_in.eq(offset)
            offset = bank.offset
        m.d.comb += self.sums.eq(self._collect(m, shadows))
        return m

    def _window(self, m: Module):
        """OUT_W and OUT_S of what bank 0 was offered in the cycle before: a pixel of the layer, or
        a word of the next input."""
        registers = self.issued.late
        of_layer = Cat(registers[Reg.OUT_W], registers[Reg.OUT_S])
        if not takes_ahead(self.geometry.p):
            return of_layer
        kept = Signal(32, reset_less=True)
        window = Signal(32, reset_less=True)
        with m.If(self.issued.keep):
            m.d.sync += kept.eq(of_layer)
        m.d.sync += window.eq(Mux(self.write.ahead, kept, of_layer))
        return window

    def _next_address(self, m: Module, index: int, address, passed_on):
        """The bank's address of a lane, from that of the lane before or of its own."""
        if index >= self.geometry.s:
            return passed_on
        chosen = Signal(len(address), name=f"address{index}", reset_less=True)
        own = self.filter_address[index][ceil_log2(self.geometry.n) :]
        m.d.sync += chosen.eq(Mux(self._filters, own, address))
        return chosen

    @property
    def _filters(self):
        """Whether the lanes are filters."""
        flags = self.issued.registers[Reg.FLAGS2]
        return flags[spec.FLAG2_FILTERS] if self.geometry.s > 1 else Const(0)

    def _above(self, index: int):
        """Whether LANES, 1 to P, is more than an index: a table; < would be a carry chain."""
        lanes = self.issued.late[Reg.LANES][: self.geometry.p.bit_length()]
        table = Const(-1 << (index + 1), 1 << len(lanes))
        return table.bit_select(lanes, 1)

    def _control(self, m: Module, log_n: int):
        """The control of lane 0, each field in its own time."""
        word, access = self.issued.word, self.access
        control = Signal(lane_.control_layout(self.geometry.n))
        body = self.issued.valid & (word.kind == Kind.BODY)
        # Weights are 0 unless a body word has come: the accumulators then add nothing.
        weights = Signal(8 * self.geometry.n, reset_less=True)
        with m.If(body & ~self._filters):
            m.d.sync += weights.eq(word.lanes)
        with m.Else():
            m.d.sync += weights.eq(0)
        to_weights = FAST.address + lane_.AT_WEIGHTS
        weights = delay(m, weights, to_weights - 2, "weights")
        wshift = delay(m, access.wshift, lane_.AT_WEIGHTS - 1, "wshift")
        for index in range(self.geometry.n):
            weight = weights[8 * index :][:8].as_signed()
            shifted = Signal(signed(WEIGHT_BITS), name=f"weight{index}", reset_less=True)
            m.d.sync += shifted.eq(Mux(wshift, weight << spec.WSHIFT, weight))
            m.d.comb += control.weights[index].eq(shifted)
        ends = word.group_last | self.clear
        if self.geometry.s > 1:
            ends = Mux(self._filters, delay(m, ends, WORD_DELAY, "ends"), ends)
        last = delay(m, ends, FAST.address + lane_.AT_LAST, "last")
        m.d.comb += [
            control.select.eq(delay(m, self.address[:log_n], lane_.AT_SELECT, "select")),
            control.broadcast.eq(delay(m, access.broadcast, lane_.AT_CHOICE, "broadcast")),
            control.signed.eq(delay(m, access.signed, lane_.AT_CHOICE, "signed")),
            control.compare.eq(delay(m, access.maximum & ~access.first, lane_.AT_FIRST, "compare")),
            control.latch.eq(delay(m, access.latch, lane_.AT_WEIGHTS, "latch")),
            control.gated.eq(delay(m, access.gated, lane_.AT_WEIGHTS, "gated")),
            control.last.eq(last),
        ]
        return control

    @staticmethod
    def _collect(m: Module, values: list):
        """Registered tree of ORs: lanes hand over one after the other, all others are zero."""
        level = 0
        while len(values) > 1:
            level += 1
            merged = []
            for first in range(0, len(values), TREE_RADIX):
                node = Signal(len(values[0]), name=f"tree{level}_{first}", reset_less=True)
                total = 0
                for value in values[first : first + TREE_RADIX]:
                    total = total | value
                m.d.sync += node.eq(total)
                merged.append(node)
            values = merged
        return values[0]
