"""Delays, comparisons and resets that many blocks use."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Signal


def delay(m: Module, value, cycles: int, name: str, *, reset_less: bool = True):
    """Return ``value`` after some registers.

    Parameters
    ----------
    m : module that the registers become part of
    value : any value with a shape
    cycles : registers, 0 or more
    name : of the registers, before their numbers
    reset_less : the registers have no reset
    """
    for index in range(cycles):
        stage = Signal(value.shape(), name=f"{name}_{index + 1}", reset_less=reset_less)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def exceeds(value, limit: int):
    """Whether ``value`` is more than a constant, in gates.

    The operator ``>`` makes a carry chain as long as ``value``.
    """
    result = Const(0)
    for index in range(len(value)):
        result = value[index] & result if limit >> index & 1 else value[index] | result
    return Const(0) if limit >> len(value) else result


class ResetWay:
    """A reset on its way from part to part, a cycle each.

    A reset that reached all parts in one cycle would be the longest net of the device.

    Parameters
    ----------
    m : module that the registers become part of
    source : the reset where it begins

    Attributes
    ----------
    end : the reset where the next part takes it up
    """

    def __init__(self, m: Module, source):
        self._m, self._parts, self.end = m, 0, source

    def next(self) -> Signal:
        """Reset of the next part, from a flip-flop of its own."""
        passed_on = Signal(name=f"reset_way{self._parts}")
        reset = Signal(name=f"reset{self._parts}")
        self._m.d.sync += [passed_on.eq(self.end), reset.eq(passed_on)]
        self._parts, self.end = self._parts + 1, passed_on
        return reset
