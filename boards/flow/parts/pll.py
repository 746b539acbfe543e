"""Parameters of the ECP5's PLL for exact frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

#: Ranges, Hz. Source: the ECP5 family data sheet.
INPUT = (8_000_000, 400_000_000)
PHASE_DETECTOR = (10_000_000, 400_000_000)
VCO = (400_000_000, 800_000_000)
OUTPUT = (3_125_000, 400_000_000)
DIVIDERS = range(1, 129)


@dataclass(frozen=True, kw_only=True)
class Pll:
    """Dividers of an EHXPLLL whose feedback comes from its output CLKOP.

    The phase detector compares oscillator / ``input_divider`` with CLKOP / ``feedback_divider``;
    CLKOP is VCO / ``output_divider``.
    """

    input_divider: int
    feedback_divider: int
    output_divider: int

    @classmethod
    def reach(cls, oscillator: int, wanted: int) -> Pll:
        """Dividers that make exactly ``wanted`` Hz from ``oscillator`` Hz.

        If there are several, those with the fastest phase detector, then with the VCO nearest to
        the middle of its range.

        Raises
        ------
        ValueError : there are none
        """
        for name, value, (low, high) in (
            ("oscillator", oscillator, INPUT),
            ("wanted", wanted, OUTPUT),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} to {high} Hz, not {value!r}")
        ratio = Fraction(wanted, oscillator)
        middle = sum(VCO) // 2
        outputs = [d for d in DIVIDERS if VCO[0] <= wanted * d <= VCO[1]]
        inputs = [
            d
            for d in DIVIDERS
            if PHASE_DETECTOR[0] <= Fraction(oscillator, d) <= PHASE_DETECTOR[1]
            and (ratio * d).denominator == 1
            and ratio * d in DIVIDERS
        ]
        if not inputs or not outputs:
            near = ", ".join(f"{value / 1e6:g}" for value in nearest(oscillator, wanted))
            raise ValueError(
                f"a PLL cannot make {wanted / 1e6:g} MHz from {oscillator / 1e6:g} MHz exactly; "
                f"the nearest are {near} MHz"
            )
        divider = min(inputs)
        return cls(
            input_divider=divider,
            feedback_divider=int(ratio * divider),
            output_divider=min(outputs, key=lambda d: abs(wanted * d - middle)),
        )

    def frequency(self, oscillator: int) -> Fraction:
        """Hz of the output, for an oscillator in Hz."""
        return Fraction(oscillator * self.feedback_divider, self.input_divider)


def nearest(oscillator: int, wanted: int) -> list[int]:
    """The nearest frequencies in whole Hz below and above ``wanted`` that the PLL can make."""
    reachable = set()
    for divider in DIVIDERS:
        if not PHASE_DETECTOR[0] <= Fraction(oscillator, divider) <= PHASE_DETECTOR[1]:
            continue
        for feedback in DIVIDERS:
            made = Fraction(oscillator * feedback, divider)
            if made.denominator == 1 and OUTPUT[0] <= made <= OUTPUT[1]:
                reachable.add(int(made))
    below = max((value for value in reachable if value < wanted), default=None)
    above = min((value for value in reachable if value > wanted), default=None)
    return [value for value in (below, above) if value is not None]
