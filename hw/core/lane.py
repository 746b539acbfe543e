"""One pixel lane: byte select, operands, N multiply-accumulators."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from secateur.hw import spec
from secateur.hw.core.multiply import (
    MULTIPLY_LATENCY,
    OPERAND_BITS,
    WEIGHT_BITS,
    Bels,
    Multiplier,
    check_bels,
)
from secateur.hw.memory.memory import RAM_LATENCY, check_family
from secateur.hw.pipeline import delay

#: Cycles from the bank's word to the operand: two for the byte, one for the choice of lane-wise
#: or broadcast, one for the running maximum, which is also the register before the multiplier.
SELECT_LATENCY, CHOICE_LATENCY, MAXIMUM_LATENCY = 2, 1, 1
# Times of the fields of the control, in cycles after the bank's address.
AT_SELECT = RAM_LATENCY
AT_CHOICE = AT_SELECT + SELECT_LATENCY
AT_FIRST = AT_CHOICE + CHOICE_LATENCY
AT_WEIGHTS = AT_FIRST + MAXIMUM_LATENCY
#: ``last`` has a register in every lane.
AT_LAST = AT_WEIGHTS + MULTIPLY_LATENCY - 1
#: Sums are in ``shadow`` two cycles after ``last``.
AT_SHADOW = AT_LAST + 2


def control_layout(n: int) -> data.StructLayout:
    """The control of a lane, each field in its own time (``AT_*``): nothing is stored twice."""
    return data.StructLayout(
        {
            "select": range(n),  # AT_SELECT: byte of the word, for broadcast
            "broadcast": 1,  # AT_CHOICE
            "signed": 1,
            "compare": 1,  # AT_FIRST: a maximum, and not the first word of a pass
            "weights": data.ArrayLayout(signed(WEIGHT_BITS), n),  # AT_WEIGHTS; 0: no word
            "latch": 1,  # AT_WEIGHTS: operands become gates
            "gated": 1,  # AT_WEIGHTS: gates are the weights
            "last": 1,  # AT_LAST: hand over and clear in the cycle after
        }
    )


def own_layout(n: int) -> data.StructLayout:
    """What a filter lane has of its own, in the times of ``control_layout``."""
    return data.StructLayout(
        {
            "filters": 1,  # static; the rest counts
            "select": range(n),
            "broadcast": 1,
            "signed": 1,
            "weights": data.ArrayLayout(signed(WEIGHT_BITS), n),  # 0 if it does not count
        }
    )


class Lane(wiring.Component):
    """N channels of one pixel.

    Parameters
    ----------
    n : channels
    family : "generic", "ecp5" or "asic"
    bels : sites of the hard multipliers, see ``Engine``

    Members
    -------
    word : In(n x 8)  from the lane's bank, AT_SELECT cycles after the address
    control : In(control_layout(n))  each field in its own time
    control_next : Out(control_layout(n))  ``control`` one cycle later, for the next lane
    own : In(own_layout(n))  of a filter lane; the weights of ``control`` are 0 then
    enable : In(1)  static; the lane hands its sums over
    shadow : Out(n x ACC_BITS)  sums for one cycle, AT_SHADOW after the address of a group's last
        word; else zero
    """

    def __init__(self, *, n: int, family: str = "generic", bels: Bels | None = None):
        self.n, self.family, self.bels = n, check_family(family), check_bels(bels, n)
        super().__init__(
            {
                "word": In(data.ArrayLayout(8, n)),
                "control": In(control_layout(n)),
                "control_next": Out(control_layout(n)),
                "own": In(own_layout(n)),
                "enable": In(1),
                "shadow": Out(data.ArrayLayout(signed(spec.ACC_BITS), n)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        control = self.control
        control_next = Signal.like(control, reset_less=True)
        m.d.sync += control_next.eq(control)
        m.d.comb += self.control_next.eq(control_next)
        byte = self._select(m)
        word = data.View(self.word.shape(), delay(m, self.word, SELECT_LATENCY, "word"))
        last = Signal(reset_less=True)
        idle = Signal(reset_less=True)  # nothing is handed over
        m.d.sync += [last.eq(control.last), idle.eq(~(control.last & self.enable))]
        own = self.own
        broadcast = Mux(own.filters, own.broadcast, control.broadcast)
        is_signed = Mux(own.filters, own.signed, control.signed)
        for lane in range(self.n):
            value = Signal(OPERAND_BITS, name=f"value{lane}", reset_less=True)
            chosen = Mux(broadcast, byte, word[lane])
            m.d.sync += value.eq(Cat(chosen, chosen[7] & is_signed))

            operand = Signal(signed(OPERAND_BITS), name=f"operand{lane}", reset_less=True)
            keep = control.compare & (operand > value.as_signed())
            with m.If(~keep):  # a clock enable: no multiplexer behind the comparison
                m.d.sync += operand.eq(value.as_signed())

            gate = Signal(signed(OPERAND_BITS), name=f"gate{lane}", reset_less=True)
            with m.If(control.latch):
                m.d.sync += gate.eq(operand)

            soft = lane >= len(self.bels)
            multiplier = Multiplier(
                family=self.family, soft=soft, bel=None if soft else self.bels[lane]
            )
            m.submodules[f"multiplier{lane}"] = multiplier
            m.d.comb += [
                multiplier.operand.eq(operand),
                multiplier.weight.eq(
                    Mux(control.gated, gate, control.weights[lane] | self.own.weights[lane])
                ),
            ]

            # The clears are the flip-flops' resets: no multiplexer in the loop.
            total = Signal(signed(spec.ACC_BITS), name=f"total{lane}")
            accumulator = Signal(signed(spec.ACC_BITS), name=f"accumulator{lane}", reset_less=True)
            shadow = Signal(signed(spec.ACC_BITS), name=f"shadow{lane}", reset_less=True)
            m.d.comb += [total.eq(accumulator + multiplier.product), self.shadow[lane].eq(shadow)]
            m.d.sync += [accumulator.eq(total), shadow.eq(total)]
            with m.If(last):
                m.d.sync += accumulator.eq(0)
            with m.If(idle):
                m.d.sync += shadow.eq(0)
        return m

    def _select(self, m: Module):
        """One byte of the word, in two steps; the first, behind the RAM, is the smaller."""
        bits = ceil_log2(self.n)
        low_bits = max(bits // 2, 1)
        select = Mux(self.own.filters, self.own.select, self.control.select)
        low = select[:low_bits]
        if bits > low_bits:
            high = delay(m, select[low_bits:], 1, "select_high")
        parts = []
        for first in range(0, self.n, 1 << low_bits):
            part = Signal(8, name=f"part{first}", reset_less=True)
            choices = [self.word[first + index] for index in range(1 << low_bits)]
            m.d.sync += part.eq(Array(choices)[low])
            parts.append(part)
        byte = Signal(8, reset_less=True)
        m.d.sync += byte.eq(Array(parts)[high] if bits > low_bits else parts[0])
        return byte
