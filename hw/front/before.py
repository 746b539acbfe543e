"""What the issue stage knows of the layer before: it may still be on its way through the array."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal

from secateur.hw import spec


class Before:
    """How far the layer before is, and the registers' way to the drain.

    Parameters
    ----------
    m : module of the issue stage
    p : lanes
    last : strobe: the last word of a layer issues
    filters : whether its lanes are filters
    frozen : this cycle does not count

    Attributes
    ----------
    landed, drained : header words may issue in the next cycle, and clears
    idle : a word of entries may issue
    """

    def __init__(self, m: Module, *, p: int, last, filters, frozen):
        self._m, self._p = m, p
        self.landed, self.drained, self.idle = Const(1), Const(1), Const(1)
        if not spec.overlaps(p):
            return
        tail, more = spec.tail_cycles(p), spec.tail_cycles(p, filters=True) - spec.tail_cycles(p)
        self.landed, self.drained, self.idle = (
            Signal(name=name, init=1) for name in ("landed", "drained", "idle")
        )
        left = Signal(range(tail + more))
        with m.If(last):
            m.d.sync += [
                left.eq(Mux(filters, tail + more - 1, tail - 1)),
                *(flag.eq(0) for flag in (self.landed, self.drained, self.idle)),
            ]
        with m.Elif((left != 0) & ~frozen):
            m.d.sync += left.eq(left - 1)
            for flag, at in ((self.landed, tail - spec.landing_cycles(p)), (self.drained, 0)):
                with m.If(left == at + 2):
                    m.d.sync += flag.eq(1)
            with m.If(left == 1):
                m.d.sync += self.idle.eq(1)

    def hand_over(self, begins, clears, loads) -> Signal:
        """The strobe by which the drain gets its registers.

        It comes when the last pixel of the layer before has been written in the last bank. This is
        no earlier than the first header word needs, see ``spec.landing_cycles``.

        Parameters
        ----------
        begins : strobe: a header word may issue in the next cycle, of a layer without CLEAR
        clears : strobe: the first clear comes in the next cycle
        loads : strobe: the registers of a LOAD are settled
        """
        passed = begins | clears | loads
        if spec.overlaps(self._p):
            most = spec.tail_cycles(self._p) + 1 - spec.landing_cycles(self._p)
            passed = Const(0)
            for left in range(most, -1, -1):
                stage = Signal(name=f"hand_over{left}")
                way = {most: begins, 1: clears, 0: loads}.get(left, 0)
                self._m.d.sync += stage.eq(passed | way)
                passed = stage
        return passed
