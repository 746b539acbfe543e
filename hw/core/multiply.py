"""Multiplier wrapper: registered operands, registered product."""

from __future__ import annotations

from amaranth.hdl import ClockSignal, Instance, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.memory.memory import check_family

OPERAND_BITS = 9  # a byte, signed or unsigned
WEIGHT_BITS = 12  # a signed byte, shifted by WSHIFT or not
PRODUCT_BITS = OPERAND_BITS + WEIGHT_BITS
MULTIPLY_LATENCY = 2


class Multiplier(wiring.Component):
    """``product = operand * weight``, signed, MULTIPLY_LATENCY cycles later.

    Parameters
    ----------
    family : "generic" or "ecp5" (one MULT18X18D with operand and output registers)
    bel : site to which nextpnr pins the MULT18X18D, e.g. "X4/Y13/MULT18_0"

    Members
    -------
    operand : In(signed 9)  a byte, signed or unsigned
    weight : In(signed 12)  a signed byte, shifted or not
    product : Out(signed 21)  MULTIPLY_LATENCY cycles later
    """

    def __init__(self, *, family: str = "generic", bel: str | None = None):
        self.family = check_family(family)
        self.bel = bel
        super().__init__(
            {
                "operand": In(signed(OPERAND_BITS)),
                "weight": In(signed(WEIGHT_BITS)),
                "product": Out(signed(PRODUCT_BITS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.family == "ecp5":
            m.submodules.mult = self._mult18x18d()
            return m
        operand = Signal.like(self.operand, reset_less=True)
        weight = Signal.like(self.weight, reset_less=True)
        product = Signal.like(self.product, reset_less=True)
        m.d.sync += [
            operand.eq(self.operand),
            weight.eq(self.weight),
            product.eq(operand * weight),
        ]
        m.d.comb += self.product.eq(product)
        return m

    def _mult18x18d(self) -> Instance:
        ports = {"p_GSR": "DISABLED", "p_RESETMODE": "SYNC", "p_MULT_BYPASS": "DISABLED"}
        for register in ("INPUTA", "INPUTB", "OUTPUT"):
            ports[f"p_REG_{register}_CLK"] = "CLK0"
            ports[f"p_REG_{register}_CE"] = "CE0"
            ports[f"p_REG_{register}_RST"] = "RST0"
        ports |= {"i_SIGNEDA": 1, "i_SIGNEDB": 1, "i_SOURCEA": 0, "i_SOURCEB": 0}
        ports |= {"i_CLK0": ClockSignal(), "i_CE0": 1, "i_RST0": 0}
        for bit in range(18):
            ports[f"i_A{bit}"] = self.operand[min(bit, OPERAND_BITS - 1)]
            ports[f"i_B{bit}"] = self.weight[min(bit, WEIGHT_BITS - 1)]
            ports[f"i_C{bit}"] = 0
        for bit in range(PRODUCT_BITS):
            ports[f"o_P{bit}"] = self.product[bit]
        if self.bel is not None:
            ports["a_BEL"] = self.bel
        return Instance("MULT18X18D", **ports)
