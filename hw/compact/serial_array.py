"""The compact array: one sum leaves it per cycle, and it has few registers.

A group of pixels takes MIN_ROW_WORDS cycles or more. An array of as many multipliers hands its
sums over one by one and is never late. Hence one requantiser serves all; ``Array`` needs N.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.compact.mac import MAC_LATENCY, Mac
from secateur.hw.core.array import array_ports
from secateur.hw.core.bank import Bank
from secateur.hw.core.multiply import OPERAND_BITS, WEIGHT_BITS
from secateur.hw.interfaces import ACCESS, COMPACT, Kind
from secateur.hw.memory.memory import check_family
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

#: From the address to the operand: the RAM; byte, choice and running maximum.
AT_OPERAND = 2
AT_TOTAL = AT_OPERAND + MAC_LATENCY
#: Cycles from the last word of a group to its first sum: the sums are handed over, and the
#: difference is taken. The others follow, one a cycle: lane 0's N channels, then lane 1's.
SUM_LATENCY = COMPACT.address + AT_TOTAL + 2


def check_compact(geometry: spec.Geometry) -> spec.Geometry:
    """Return ``geometry``.

    Raises
    ------
    ValueError : its sums cannot leave one by one in time
    """
    if geometry.s > 1:
        raise ValueError(f"s must be 1 in a compact engine, not {geometry.s!r}")
    if geometry.multipliers > spec.MIN_ROW_WORDS or geometry.p > 2:
        raise ValueError(
            f"a compact engine has at most {spec.MIN_ROW_WORDS} multipliers and 2 lanes of "
            f"pixels, not n {geometry.n!r}, p {geometry.p!r}"
        )
    return geometry


class SerialArray(wiring.Component):
    """From word and address to sums, without a stall.

    All lanes do the same in the same cycle: P is 1 or 2. Totals are never cleared between two
    groups. They are copied into a ring at the end of a group and go round in it. The sum of a group
    is the difference of its total and that of the group before.

    Parameters
    ----------
    geometry : of the engine, see ``check_compact``
    family : "generic", "ice40"

    Members
    -------
    issued : In(issued_signature(n))  groups end MIN_ROW_WORDS cycles apart, or more
    clear : In(1)  held for RESET_CYCLES: forget all sums
    address : In  byte address, ``COMPACT.address`` cycles after the word
    access : In(ACCESS)  with ``address``
    write : In(write_layout(n))  write bus; data come with the address
    sums : Out(ACC_BITS)  one per cycle, SUM_LATENCY and more cycles after a group's last word
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        self.geometry, self.family = check_compact(geometry), check_family(family)
        super().__init__(array_ports(geometry, {"sums": Out(signed(spec.ACC_BITS))}))

    def elaborate(self, platform) -> Module:
        m = Module()
        regs, n = self.issued.late, self.geometry.n
        log_n = ceil_log2(n)
        select = delay(m, self.address[:log_n], 1, "select")
        access = data.View(ACCESS, delay(m, self.access, 1, "access"))
        late_access = data.View(ACCESS, delay(m, access, 1, "late_access"))
        weights = self._weights(m, late_access.wshift)
        # OFF[0] is 0; OFF[1] is a row of lanes on if a row has one lane, else a column.
        step = Mux(regs[Reg.OFF_PC] == 1, regs[Reg.OFF_DR], regs[Reg.OFF_DC])
        totals = []
        for lane in range(self.geometry.p):
            m.submodules[f"bank{lane}"] = bank = Bank(
                n=n,
                depth=self.geometry.bank_words,
                family=self.family,
                data_delay=0,
                output=False,
            )
            m.d.comb += [
                bank.address.eq(self.address[log_n:]),
                bank.write.eq(self.write),
                bank.window.eq(regs[Reg.OUT_W]),
                bank.size.eq(regs[Reg.OUT_S]),
                bank.shift.eq(1),
                bank.offset_in.eq(step if lane else 0),
            ]
            byte = Array(bank.word[index] for index in range(n))[select]
            for channel in range(n):
                value = Mux(access.broadcast, byte, bank.word[channel])
                value = Cat(value, value[7] & access.signed).as_signed()
                total = self._channel(
                    m, f"{lane}_{channel}", value, weights[channel], access, late_access
                )
                totals.append(total)
        to_total = COMPACT.address + AT_TOTAL
        last = delay(m, self.issued.word.group_last, to_total, "last", reset_less=False)
        m.d.comb += self.sums.eq(self._differences(m, totals, last))
        return m

    def _weights(self, m: Module, wshift) -> list:
        """The weights when their operands come; zeros if no body word has come.

        They go round in a block RAM: a word written at ``now`` is read ``age`` cycles later.
        """
        n, age = self.geometry.n, COMPACT.address + AT_OPERAND
        m.submodules.weights = late = memory.Memory(
            shape=8 * n, depth=1 << ceil_log2(age), init=[], attrs={"no_rw_check": 1}
        )
        read, write = late.read_port(), late.write_port()
        now = Signal(ceil_log2(age))
        m.d.sync += now.eq(now + 1)
        m.d.comb += [
            write.en.eq(1),
            write.addr.eq(now),
            write.data.eq(self.issued.word.lanes),
            read.addr.eq(now - (age - 1)),
        ]
        body = delay(
            m,
            self.issued.valid & (self.issued.word.kind == Kind.BODY),
            age,
            "body",
            reset_less=False,
        )
        weights = []
        for channel in range(n):
            weight = Signal(signed(WEIGHT_BITS), name=f"weight{channel}")
            byte = read.data[8 * channel :][:8].as_signed()
            m.d.comb += weight.eq(Mux(body, Mux(wshift, byte << spec.WSHIFT, byte), 0))
            weights.append(weight)
        return weights

    def _channel(self, m: Module, name: str, value, weight, access, late_access):
        """Operand and accumulator of a channel of a lane; returns the total."""
        operand = Signal(signed(OPERAND_BITS), name=f"operand{name}", reset_less=True)
        if self.geometry.extended:
            gate = Signal(signed(OPERAND_BITS), name=f"gate{name}", reset_less=True)
            with m.If(~(access.maximum & ~access.first & (operand > value))):
                m.d.sync += operand.eq(value)
            with m.If(late_access.latch):
                m.d.sync += gate.eq(operand)
            weight = Mux(late_access.gated, gate, weight)
        else:
            m.d.sync += operand.eq(value)
        m.submodules[f"mac{name}"] = mac = Mac(family=self.family)
        m.d.comb += [mac.operand.eq(operand), mac.weight.eq(weight), mac.clear.eq(self.clear)]
        return mac.total

    def _differences(self, m: Module, totals: list, last):
        """One sum per cycle, from two cycles after ``last`` on."""
        count, bits = len(totals), ceil_log2(len(totals))
        ring = [
            Signal(spec.ACC_BITS, name=f"ring{index}", reset_less=True) for index in range(count)
        ]
        with m.If(last | self.clear):
            m.d.sync += [copy.eq(total) for copy, total in zip(ring, totals, strict=True)]
        with m.Else():
            m.d.sync += [copy.eq(ring[(index + 1) % count]) for index, copy in enumerate(ring)]
        # What goes round is written over itself. The place of the head is known a cycle ahead.
        m.submodules.before = before = memory.Memory(
            shape=spec.ACC_BITS, depth=count, init=[], attrs={"no_rw_check": 1}
        )
        read, write = before.read_port(), before.write_port()
        following = Signal(bits)
        place = Signal(bits)
        m.d.comb += read.addr.eq(Mux(last, 0, following))
        m.d.sync += [following.eq(read.addr + 1), place.eq(read.addr)]
        difference = Signal(signed(spec.ACC_BITS), reset_less=True)
        m.d.comb += [write.en.eq(1), write.addr.eq(place), write.data.eq(ring[0])]
        m.d.sync += difference.eq(ring[0] - read.data)
        return difference
