"""Requantiser: sums to 8-bit codes, N channels side by side."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.pipeline import delay

FRACTION = spec.BIAS_FRACTION
SHIFT_BITS = 6  # 0 .. 31 + 7
#: Shift by 16s, by 4s, by 1s; bias; decide; round or saturate; compare with bounds; clamp.
REQUANTISE_LATENCY = 8
#: A compact requantiser takes two steps in a cycle.
COMPACT_LATENCY = REQUANTISE_LATENCY // 2
#: The bias is added in the fourth step; ``load`` is one cycle ahead of the first.
_BIAS_STEP = 3


class Requantiser(wiring.Component):
    """``code = clamp(round_half_even(sum / 2**shift + bias / 2**BIAS_FRACTION), low, high)``.

    The quotient is kept in units of ``2**-BIAS_FRACTION``, and one sticky bit says whether it
    had more: enough for an exact rounding.

    Parameters
    ----------
    n : channels
    compact : two steps a cycle

    Members
    -------
    sums : In
    codes : Out, REQUANTISE_LATENCY, or COMPACT_LATENCY, cycles later
    load : In, the cycle before the first sums of a row
    bias, delta : In, of this row; delta is taken with ``load``, bias 3 cycles later, compact 1
    shift_base, clip, signed : In, static from N + 3 cycles before the first codes' bounds on
    """

    def __init__(self, *, n: int, compact: bool = False):
        self.n, self.steps = n, 2 if compact else 1  # in a cycle
        super().__init__(
            {
                "sums": In(data.ArrayLayout(signed(spec.ACC_BITS), n)),
                "codes": Out(data.ArrayLayout(8, n)),
                "load": In(1),
                "bias": In(data.ArrayLayout(signed(spec.BIAS_BITS), n)),
                "delta": In(data.ArrayLayout(spec.SHIFT_DELTA_BITS, n)),
                "shift_base": In(spec.SHIFT_BASE_BITS),
                "clip": In(16),
                "signed": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        low = Signal(signed(9))
        high = Signal(signed(9))
        for bound, byte in ((low, self.clip[:8]), (high, self.clip[8:])):
            m.d.sync += bound.eq(Mux(self.signed, byte.as_signed(), byte))
        floor = Signal(8)  # the upper bound wins should the lower one be higher
        m.d.sync += floor.eq(Mux(low > high, high, low))
        load_bias = delay(m, self.load, _BIAS_STEP // self.steps, "load", reset_less=False)
        for channel in range(self.n):
            shift = Signal(SHIFT_BITS, name=f"shift{channel}", reset_less=True)
            bias = Signal(signed(spec.BIAS_BITS), name=f"bias{channel}", reset_less=True)
            with m.If(self.load):
                m.d.sync += shift.eq(self.shift_base + self.delta[channel])
            with m.If(load_bias):
                m.d.sync += bias.eq(self.bias[channel])
            # Channels stand all over the device: each has bounds of its own, from its neighbour.
            low, high, floor = (
                delay(m, bound, int(self.n > 1), f"{name}{channel}")
                for name, bound in (("low", low), ("high", high), ("floor", floor))
            )
            code = self._channel(m, channel, shift, bias, low, high, floor)
            m.d.comb += self.codes[channel].eq(code)
        return m

    def _channel(self, m: Module, channel: int, shift, bias, low, high, floor):
        width = spec.ACC_BITS + FRACTION

        def register(shape, name):
            return Signal(shape, name=f"{name}{channel}", reset_less=True)

        def domain(step):  # what a step assigns: registers, or without one
            return m.d.comb if (step + 1) % self.steps else m.d.sync

        def late(value, step, name):  # what a step needs beside the value
            return delay(m, value, step // self.steps, f"{name}_{channel}")

        # Three steps of the shifter: 0, 16 or everything; 0, 4, 8, 12; 0, 1, 2, 3.
        value = self.sums[channel].as_signed() << FRACTION
        sticky = Const(0)
        for step, (unit, select) in enumerate(
            (
                (16, shift[4:]),
                (4, late(shift[2:4], 1, "shift4")),
                (1, late(shift[:2], 2, "shift1")),
            )
        ):
            shifted = register(signed(width), f"shifted{step}_")
            lost = register(1, f"lost{step}_")
            assign = domain(step)
            with m.Switch(select):
                for amount in range(4):
                    with m.Case(amount):
                        assign += [
                            shifted.eq(value >> (unit * amount)),
                            lost.eq(sticky | value[: min(unit * amount, width)].any()),
                        ]
            value, sticky = shifted, lost

        total = register(signed(width + 1), "total")
        total_sticky = register(1, "total_sticky")
        assign = domain(_BIAS_STEP)
        assign += [total.eq(value + bias), total_sticky.eq(sticky)]

        # Ten bits hold every code and one more on either side.
        quotient = total >> FRACTION
        part = total[:FRACTION]
        fits = quotient[9:].all() | ~quotient[9:].any()
        narrow = register(signed(10), "narrow")
        up, saturated = register(1, "up"), register(1, "saturated")
        limit = register(signed(10), "limit")
        half = 1 << (FRACTION - 1)
        assign = domain(4)
        assign += [
            narrow.eq(quotient),
            saturated.eq(~fits),
            limit.eq(Mux(total[-1], -512, 511)),
            up.eq((part > half) | ((part == half) & (total_sticky | quotient[0]))),
        ]
        rounded = register(signed(11), "rounded")
        compared, below, above = (
            register(8, "compared"),
            register(1, "below"),
            register(1, "above"),
        )
        code = register(8, "code")
        rounding, comparing, clamping = (domain(step) for step in (5, 6, 7))
        rounding += rounded.eq(Mux(saturated, limit, narrow + up))
        comparing += [compared.eq(rounded), below.eq(rounded < low), above.eq(rounded > high)]
        clamping += code.eq(Mux(above, high, Mux(below, floor, compared)))
        return code
