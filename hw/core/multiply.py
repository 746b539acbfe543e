"""Multipliers: a hard one of the part, or one from logic, with the same latency."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from secateur.hw.core.carry import sum_of_products
from secateur.hw.memory.memory import check_family
from secateur.hw.pipeline import delay

OPERAND_BITS = 9  # a byte, signed or unsigned
WEIGHT_BITS = 12  # a signed byte, shifted by WSHIFT or not
PRODUCT_BITS = OPERAND_BITS + WEIGHT_BITS
#: Operands, product and a fabric register behind it; from logic: pairs, halves, product.
MULTIPLY_LATENCY = 3
#: Bits of a pair, the product of an operand and two bits of a weight; of half a weight, and of the
#: product of an operand and that half.
PAIR_BITS, HALF_WEIGHT = OPERAND_BITS + 2, WEIGHT_BITS // 2
HALF_BITS, PAIRS_OF_HALF = OPERAND_BITS + HALF_WEIGHT, HALF_WEIGHT // 2

#: Sites of the hard multipliers of an array or a lane, in order; None: anywhere.
Bels = Sequence[str | None]


def check_bels(bels: Bels | None, count: int) -> list[str | None]:
    """Sites of the hard multipliers among ``count``: all if ``bels`` is None.

    Raises
    ------
    ValueError : there are more sites than multipliers
    """
    if bels is None:
        return [None] * count
    if len(bels) > count:
        raise ValueError(f"bels must name at most {count} sites, not {len(bels)!r}")
    return list(bels)


class Multiplier(wiring.Component):
    """``product = operand * weight``, signed, MULTIPLY_LATENCY cycles later.

    From logic, there are sums only, so that no tool takes a hard multiplier: each pair of weight
    bits selects none, one, two or three times the operand; three pairs are a half product of 9 x 6
    bits; two halves are the product.

    Parameters
    ----------
    family : "generic" or "asic"; "gowin": one MULT18X18 with operand and output registers; "ecp5":
        one MULT18X18D with them, or carry chains that also form the products of single bits
    soft : from logic; without, the family decides how ``*`` is built
    bel : site to which nextpnr pins the MULT18X18D, e.g. "X4/Y13/MULT18_0"

    Members
    -------
    operand : In(signed 9)  a byte, signed or unsigned
    weight : In(signed 12)  a signed byte, shifted or not
    product : Out(signed 21)  MULTIPLY_LATENCY cycles later
    """

    def __init__(self, *, family: str = "generic", soft: bool = False, bel: str | None = None):
        if soft and bel is not None:
            raise ValueError(f"bel must be None for a multiplier from logic, not {bel!r}")
        self.family, self.soft, self.bel = check_family(family), soft, bel
        super().__init__(
            {
                "operand": In(signed(OPERAND_BITS)),
                "weight": In(signed(WEIGHT_BITS)),
                "product": Out(signed(PRODUCT_BITS)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        product = Signal.like(self.product, reset_less=True)
        m.d.comb += self.product.eq(product)
        if self.soft:
            m.d.sync += product.eq(self._product(m))
            return m
        if self.family == "ecp5":
            found = Signal.like(self.product)
            m.submodules.mult = self._mult18x18d(found)
        elif self.family == "gowin":
            found = Signal.like(self.product)
            m.submodules.mult = self._mult18x18(found)
        else:
            operand = delay(m, self.operand, 1, "operand")
            weight = delay(m, self.weight, 1, "weight")
            found = Signal.like(self.product, reset_less=True)
            m.d.sync += found.eq(operand * weight)
        m.d.sync += product.eq(found)
        return m

    def _product(self, m: Module):
        """The product, as the sum of the half products, which are in registers."""
        halves = []
        for half in range(2):
            pairs = []
            for index in range(half * PAIRS_OF_HALF, (half + 1) * PAIRS_OF_HALF):
                pair = Signal(signed(PAIR_BITS), name=f"pair{index}", reset_less=True)
                m.d.sync += pair.eq(self._pair(m, index))
                pairs.append(pair)
            value = Signal(signed(HALF_BITS), name=f"half{half}", reset_less=True)
            most = self._join(m, pairs[0], pairs[1], shift=2)
            m.d.sync += value.eq(self._join(m, most, pairs[2], shift=4))
            halves.append(value)
        return self._join(m, *halves, shift=HALF_WEIGHT)

    def _join(self, m: Module, low, high, *, shift: int):
        """``low + (high << shift)``, as long as ``high`` is then."""
        total = self._sum(m, (low >> shift, 1), (high, 1), bits=len(high))
        return Cat(low[:shift], total).as_signed()

    def _pair(self, m: Module, index: int):
        """The operand times two bits of the weight, of which the last one is negative."""
        low, high = self.weight[2 * index], self.weight[2 * index + 1]
        negative = 2 * index + 2 == WEIGHT_BITS
        one, two = (self.operand, low), (self.operand << 1, high)
        return self._sum(m, one, two, bits=PAIR_BITS, subtract=negative)

    def _sum(self, m: Module, first: tuple, second: tuple, *, bits: int, subtract=False) -> Signal:
        """Sum or difference of two values, each multiplied by a bit."""
        total = Signal(signed(bits), name="total")
        if self.family == "ecp5":
            m.submodules += sum_of_products(total, first, second, subtract=subtract)
            return total
        one, two = (Mux(bit, value, 0) for value, bit in (first, second))
        m.d.comb += total.eq(one - two if subtract else one + two)
        return total

    def _mult18x18d(self, product: Signal) -> Instance:
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
            ports[f"o_P{bit}"] = product[bit]
        if self.bel is not None:
            ports["a_BEL"] = self.bel
        return Instance("MULT18X18D", **ports)

    def _mult18x18(self, product: Signal) -> Instance:
        inputs = {"A": self.operand, "B": self.weight}
        rest = Signal(36 - PRODUCT_BITS, name="sign")
        ports = {"p_PIPE_REG": Const(0, 1), "p_OUT_REG": Const(1, 1), "o_DOUT": Cat(product, rest)}
        for name, value in inputs.items():
            ports |= {
                f"p_{name}REG": Const(1, 1), f"p_{name}SIGN_REG": Const(0, 1),
                f"i_{name}": Cat(value, value[-1].replicate(18 - len(value))),
                f"i_{name}SIGN": 1, f"i_{name}SEL": 0, f"i_SI{name}": Const(0, 18),
            }  # fmt: skip
        return Instance("MULT18X18", **ports, i_CE=1, i_CLK=ClockSignal(), i_RESET=0)
