"""The PLL's dividers, by the data sheet's formula and by trying all of them."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from secateur.boards.catalogue.catalogue import BOARDS
from secateur.boards.flow.parts.pll import Pll

MHZ = 1_000_000


def check(pll: Pll, oscillator: int, wanted: int) -> None:
    """fVCO = fIN / CLKI_DIV * CLKFB_DIV * CLKOP_DIV; fOUT = fVCO / CLKOP_DIV; all within limits."""
    detector = Fraction(oscillator) / pll.input_divider
    vco = detector * pll.feedback_divider * pll.output_divider
    assert vco / pll.output_divider == wanted
    assert 400 * MHZ <= vco <= 800 * MHZ
    assert 10 * MHZ <= detector <= 400 * MHZ
    dividers = (pll.input_divider, pll.feedback_divider, pll.output_divider)
    assert all(type(value) is int and 1 <= value <= 128 for value in dividers)


def possible(oscillator: int, wanted: int) -> bool:
    detectors = [i for i in range(1, 129) if 10 * MHZ * i <= oscillator <= 400 * MHZ * i]
    fed_back = any(oscillator * f == wanted * i for i in detectors for f in range(1, 129))
    return fed_back and any(400 * MHZ <= wanted * o <= 800 * MHZ for o in range(1, 129))


def test_what_can_be_made_is_made_and_nothing_else() -> None:
    draw = random.Random(1)
    made = refused = 0
    for _ in range(3000):
        oscillator = draw.choice((12, 16, 25, 27, 48, 50, 100)) * MHZ
        wanted = draw.randrange(4, 400) * MHZ // draw.choice((1, 2, 3, 8))
        wanted = max(wanted, 3_125_000)
        if possible(oscillator, wanted):
            check(Pll.reach(oscillator, wanted), oscillator, wanted)
            made += 1
        else:
            with pytest.raises(ValueError, match="cannot make"):
                Pll.reach(oscillator, wanted)
            refused += 1
    assert made > 100
    assert refused > 100


@pytest.mark.parametrize("name", [name for name, board in BOARDS.items() if board.die])
def test_clocks_of_the_boards(name: str) -> None:
    board = BOARDS[name]
    check(Pll.reach(board.oscillator, board.clock), board.oscillator, board.clock)


def test_the_fastest_phase_detector_is_chosen() -> None:
    pll = Pll.reach(100 * MHZ, 150 * MHZ)
    assert (pll.input_divider, pll.feedback_divider, pll.output_divider) == (2, 3, 4)
    assert pll.frequency(100 * MHZ) == 150 * MHZ


def test_refusals_name_what_is_near() -> None:
    with pytest.raises(ValueError, match=r"120 MHz from 25 MHz .*the nearest are 112\.5, 125 MHz"):
        Pll.reach(25 * MHZ, 120 * MHZ)
    with pytest.raises(ValueError, match="oscillator must be 8000000 to 400000000 Hz, not 1"):
        Pll.reach(1, 100 * MHZ)
    with pytest.raises(ValueError, match="wanted must be 3125000 to 400000000 Hz, not 500000000"):
        Pll.reach(25 * MHZ, 500 * MHZ)
