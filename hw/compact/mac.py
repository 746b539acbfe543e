"""Multiply-accumulator of the compact engine: one SB_MAC16 on iCE40 UltraPlus."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.core.multiply import OPERAND_BITS, PRODUCT_BITS, WEIGHT_BITS
from secateur.hw.memory.memory import check_family

#: Cycles from operand and weight to the total that has their product: operands, partial products,
#: product, total.
MAC_LATENCY = 4


class Mac(wiring.Component):
    """``total`` is the sum of all ``operand * weight`` since it was last cleared.

    Every cycle adds a product; a weight of 0 leaves the total as it is. Nothing clears the total
    between two sums: their difference is the later one.

    Parameters
    ----------
    family : "ice40": one SB_MAC16 with all its registers; any other: no primitive

    Members
    -------
    operand : In(signed 9)  a byte, signed or unsigned
    weight : In(signed 12)  a signed byte, shifted or not
    clear : In(1)  the total is 0 in the next cycle
    total : Out(signed ACC_BITS)  wraps; MAC_LATENCY cycles later
    """

    def __init__(self, *, family: str = "generic"):
        self.family = check_family(family)
        super().__init__(
            {
                "operand": In(signed(OPERAND_BITS)),
                "weight": In(signed(WEIGHT_BITS)),
                "clear": In(1),
                "total": Out(signed(spec.ACC_BITS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.family == "ice40":
            self._sb_mac16(m)
            return m
        operand = Signal.like(self.operand, reset_less=True)
        weight = Signal.like(self.weight, reset_less=True)
        partial = Signal(signed(PRODUCT_BITS), reset_less=True)
        product = Signal(signed(PRODUCT_BITS), reset_less=True)
        total = Signal(signed(spec.ACC_BITS), reset_less=True)
        m.d.sync += [
            operand.eq(self.operand),
            weight.eq(self.weight),
            partial.eq(operand * weight),
            product.eq(partial),
            total.eq(Mux(self.clear, 0, total + product)),
        ]
        m.d.comb += self.total.eq(total)
        return m

    def _sb_mac16(self, m: Module) -> None:
        """A 16 x 16 multiplier and, from its two halves of 16 bits, an accumulator of 32."""
        ports = {"p_NEG_TRIGGER": 0, "p_MODE_8x8": 0, "p_A_SIGNED": 1, "p_B_SIGNED": 1}
        registers = ("A_REG", "B_REG", "TOP_8x8_MULT_REG", "BOT_8x8_MULT_REG")
        registers += ("PIPELINE_16x16_MULT_REG1", "PIPELINE_16x16_MULT_REG2")
        ports |= {f"p_{name}": 1 for name in registers} | {"p_C_REG": 0, "p_D_REG": 0}
        for half, carry in (("TOP", 3), ("BOT", 0)):  # 3: from the other half; 0: none
            ports |= {
                f"p_{half}OUTPUT_SELECT": 1,  # the accumulator's register
                f"p_{half}ADDSUB_LOWERINPUT": 2,  # the 16 x 16 product
                f"p_{half}ADDSUB_UPPERINPUT": 0,  # the accumulator
                f"p_{half}ADDSUB_CARRYSELECT": carry,
                f"i_OLOAD{half}": self.clear,  # loads C and D
            }
        idle = ("AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT")
        idle += ("ADDSUBTOP", "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT", "CI", "ACCUMCI", "SIGNEXTIN")
        ports |= {f"i_{name}": 0 for name in idle} | {"i_C": Const(0, 16), "i_D": Const(0, 16)}
        operand = Signal(signed(16))
        weight = Signal(signed(16))
        total = Signal(signed(32))
        m.d.comb += [operand.eq(self.operand), weight.eq(self.weight), self.total.eq(total)]
        m.submodules.mac = Instance(
            "SB_MAC16", **ports, i_CLK=ClockSignal(), i_CE=1, i_A=operand, i_B=weight, o_O=total
        )
