"""Carry chains of ECP5 that add two rows of gated bits: the AND gates take no LUTs of their own."""

from __future__ import annotations

from amaranth.hdl import Const, Instance, Module, Signal, signed

#: LUTs of a CCU2C: A and B propagates where C and D differ from it, and generates otherwise. Bits
#: 3 to 0, for C and D 0, are also the carry that is generated. Sums of A & B and C & D; the same
#: with A & B inverted; a carry of 1, for C and D 1.
_ADD, _SUBTRACT, _CARRY = 0x7888, 0x8777, 0x000F


def sum_of_products(total: Signal, first: tuple, second: tuple, *, subtract: bool) -> Module:
    """``total = first[0] * first[1] + second[0] * second[1]``, in one carry chain.

    Parameters
    ----------
    total : of an odd number of bits
    first, second : a signed value, and a bit
    subtract : subtract the second product instead
    """
    m = Module()
    bits = len(total)
    assert bits % 2 == 1
    rows = []
    for value, bit in (first, second):
        row = Signal(signed(bits))
        m.d.comb += row.eq(value)
        rows.append((row, bit))
    # What is generated is A & B, so that is the product that is inverted.
    (a, b), (c, d) = reversed(rows) if subtract else rows
    halves = [(_SUBTRACT if subtract else _ADD, a[bit], b, c[bit], d) for bit in range(bits)]
    # One half is left: in front it makes the carry of a subtraction, behind it has no use.
    halves.insert(0 if subtract else bits, (_CARRY if subtract else _ADD, 0, 0, 1, 1))
    sums = Signal(bits + 1)
    m.d.comb += total.eq(sums[1:] if subtract else sums)
    carry = Const(0)
    for low in range(0, bits + 1, 2):
        carry_out = Signal(name=f"carry{low}")
        ports = {"i_CIN": carry, "o_COUT": carry_out}
        for half in range(2):
            init, *pins = halves[low + half]
            ports |= {f"p_INIT{half}": Const(init, 16), f"p_INJECT1_{half}": "NO"}
            ports |= {f"i_{name}{half}": pin for name, pin in zip("ABCD", pins, strict=True)}
            ports[f"o_S{half}"] = sums[low + half]
        m.submodules[f"carry{low}"] = Instance("CCU2C", **ports)
        carry = carry_out
    return m
