"""Requantiser: sums to 8-bit codes, N channels side by side."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from secateur.hw import spec
from secateur.hw.pipeline import delay
from secateur.hw.spec import Reg

FRACTION = spec.BIAS_FRACTION
SHIFT_BITS = 6  # 0 .. 31 + 7
#: Shift by 16s, by 4s, by 1s; bias; decide; round or saturate; compare with bounds; clamp.
REQUANTISE_LATENCY = 8
#: The bias is added in the fourth step; ``load`` is one cycle ahead of the first.
BIAS_DELAY = 3


class Requantiser(wiring.Component):
    """``code = clamp(round_half_even(sum / 2**shift + bias / 2**BIAS_FRACTION), low, high)``.

    The quotient is kept in units of ``2**-BIAS_FRACTION``, and one sticky bit says whether it
    had more: enough for an exact rounding.

    Parameters
    ----------
    n : channels
    steps : steps per cycle, 1 or 2

    Attributes
    ----------
    latency : cycles from ``sums`` to ``codes``: REQUANTISE_LATENCY / ``steps``

    Members
    -------
    sums : In(n x ACC_BITS)  signed
    codes : Out(n x 8)  ``latency`` cycles later
    load : In(1)  the cycle before the first sums of a row
    bias : In(n x BIAS_BITS)  of this row, taken 3 // ``steps`` cycles after ``load``
    delta : In(n x SHIFT_DELTA_BITS)  of this row, taken with ``load``
    shift_base : In(SHIFT_BASE_BITS)  static, as are ``clip`` and ``signed``, from N + 3 cycles
        before the first codes' bounds on
    clip : In(16)  as the register CLIP
    signed : In(1)  the codes and their bounds are signed
    """

    def __init__(self, *, n: int, steps: int = 1):
        if steps not in (1, 2):
            raise ValueError(f"steps must be 1 or 2 per cycle, not {steps!r}")
        self.n, self.steps, self.latency = n, steps, REQUANTISE_LATENCY // steps
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

    def configure(self, registers) -> list:
        """Assignments of the static inputs."""
        return [
            self.shift_base.eq(registers[Reg.FLAGS2][spec.FLAG2_SHIFT_BASE :]),
            self.clip.eq(registers[Reg.CLIP]),
            self.signed.eq(registers[Reg.FLAGS][spec.FLAG_OUT_SIGNED]),
        ]

    def elaborate(self, platform) -> Module:
        m = Module()
        low = Signal(signed(9))
        high = Signal(signed(9))
        for bound, byte in ((low, self.clip[:8]), (high, self.clip[8:])):
            m.d.sync += bound.eq(Mux(self.signed, byte.as_signed(), byte))
        floor = Signal(8)  # the upper bound wins should the lower one be higher
        m.d.sync += floor.eq(Mux(low > high, high, low))
        load_bias = delay(m, self.load, BIAS_DELAY // self.steps, "load", reset_less=False)
        for channel in range(self.n):
            shift = Signal(SHIFT_BITS, name=f"shift{channel}", reset_less=True)
            bias = Signal(signed(spec.BIAS_BITS), name=f"bias{channel}", reset_less=True)
            with m.If(self.load):
                m.d.sync += shift.eq(self.shift_base + self.delta[channel])
            with m.If(load_bias):
                m.d.sync += bias.eq(self.bias[channel])
            # Channels are spread over the device: each copies the bounds of its neighbour.
            low, high, floor = (
                delay(m, bound, int(self.n > 1), f"{name}{channel}")
                for name, bound in (("low", low), ("high", high), ("floor", floor))
            )
            value, sticky = self._shift(m, channel, shift)
            code = self._round(m, channel, value, sticky, bias, (low, floor, high))
            m.d.comb += self.codes[channel].eq(code)
        return m

    def _domain(self, m: Module, step: int):
        """Where a step assigns: to registers, or in the first of two steps to wires."""
        return m.d.comb if (step + 1) % self.steps else m.d.sync

    def _shift(self, m: Module, channel: int, shift):
        """The sum / 2**shift in units of 2**-BIAS_FRACTION, and whether bits were lost."""
        width = spec.ACC_BITS + FRACTION
        # Three steps of the shifter: 0, 16 or everything; 0, 4, 8, 12; 0, 1, 2, 3.
        value = self.sums[channel].as_signed() << FRACTION
        sticky = Const(0)
        for step, (unit, low, high) in enumerate(((16, 4, SHIFT_BITS), (4, 2, 4), (1, 0, 2))):
            select = delay(m, shift[low:high], step // self.steps, f"shift{unit}_{channel}")
            shifted = Signal(signed(width), name=f"shifted{step}_{channel}", reset_less=True)
            lost = Signal(name=f"lost{step}_{channel}", reset_less=True)
            assign = self._domain(m, step)
            with m.Switch(select):
                for amount in range(4):
                    with m.Case(amount):
                        assign += [
                            shifted.eq(value >> (unit * amount)),
                            lost.eq(sticky | value[: min(unit * amount, width)].any()),
                        ]
            value, sticky = shifted, lost
        return value, sticky

    def _round(self, m: Module, channel: int, value, sticky, bias, bounds: tuple):
        """The code: plus bias, rounded half to even, within ``bounds`` (low, floor, high)."""
        low, floor, high = bounds

        def register(shape, name):
            return Signal(shape, name=f"{name}{channel}", reset_less=True)

        width = spec.ACC_BITS + FRACTION
        total = register(signed(width + 1), "total")
        total_sticky = register(1, "total_sticky")
        assign = self._domain(m, BIAS_DELAY)
        assign += [total.eq(value + bias), total_sticky.eq(sticky)]

        # Ten bits hold every code and one more on either side.
        quotient = total >> FRACTION
        part = total[:FRACTION]
        fits = quotient[9:].all() | ~quotient[9:].any()
        narrow = register(signed(10), "narrow")
        up, saturated = register(1, "up"), register(1, "saturated")
        limit = register(signed(10), "limit")
        half = 1 << (FRACTION - 1)
        assign = self._domain(m, 4)
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
        rounding, comparing, clamping = (self._domain(m, step) for step in (5, 6, 7))
        rounding += rounded.eq(Mux(saturated, limit, narrow + up))
        comparing += [compared.eq(rounded), below.eq(rounded < low), above.eq(rounded > high)]
        clamping += code.eq(Mux(above, high, Mux(below, floor, compared)))
        return code
