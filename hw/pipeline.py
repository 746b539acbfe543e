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


def gather(m: Module, values: list, chosen: list, name: str):
    """Return, two cycles later, the value that was chosen, or 0 if none was.

    The others are cleared by their flip-flops' resets and all are ORed: fewer gates than a
    multiplexer of many values, and none in front of the first flip-flops.

    Parameters
    ----------
    m : module that the registers become part of
    values : of one shape
    chosen : a bit for each value, at most one of which is set
    name : of the registers, before their numbers
    """
    total = 0
    for index, (value, here) in enumerate(zip(values, chosen, strict=True)):
        kept = Signal(value.shape(), name=f"{name}_{index}", reset_less=True)
        with m.If(here):
            m.d.sync += kept.eq(value)
        with m.Else():
            m.d.sync += kept.eq(0)
        total = total | kept
    found = Signal(values[0].shape(), name=name, reset_less=True)
    m.d.sync += found.eq(total)
    return found


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
