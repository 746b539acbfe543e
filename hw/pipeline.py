"""What many blocks need between two registers."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Signal


def delay(m: Module, value, cycles: int, name: str, *, reset_less: bool = True):
    """Return ``value`` after ``cycles`` registers."""
    for index in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{index + 1}", reset_less=reset_less)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def exceeds(value, limit: int):
    """Whether ``value`` is more than a constant, in gates: ``>`` is a carry as long as it is."""
    result = Const(0)
    for index in range(len(value)):
        result = value[index] & result if limit >> index & 1 else value[index] | result
    return Const(0) if limit >> len(value) else result
