"""The engine with an image that is copied from a flash to an SDRAM, in Verilator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.hw.flash import Flash
from secateur.hw.sdram import SOURCE, Sdram
from secateur.hw.spec import Error, Geometry
from secateur.sim.golden import parse, run
from secateur.sim.ring import waits
from secateur.sim.simulate import simulate
from tests.hw.memory.flash_top import reported, with_flash
from tests.support.programs import random_program

GEOMETRY = Geometry(n=2, p=2, weight_words=8192, bank_words=128, ring=64)
FLASH = Flash(pause=60, divider=1, delay=0)
SDRAM = Sdram(clock=125_000_000, rows=8, retention=9600, power_up=1000)
#: Data come a cycle late. From the sixth pass on one half-word of 200 is wrong.
MEMORY = {"HOLD": 2, "VALID": 2, "CLEAN": 5, "ERRORS": 84_000}
RIGHT = 4


@pytest.mark.parametrize(
    "seed", [6, *(pytest.param(seed, marks=pytest.mark.long) for seed in (0, 1, 3, 4, 7))]
)
def test_waits_are_predicted_and_bit_errors_are_told(seed: int) -> None:
    """The first input comes when the ring is full, others at once. Results, cycles and waits are
    those of golden, as long as the SDRAM keeps its bits; no wrong result is taken as right."""
    sample = random_program(seed, replace(GEOMETRY, ring=0), several=False)
    inputs, decoded = sample.inputs(12), parse(sample.image, GEOMETRY)
    golden = run(decoded, inputs, sequential=True)
    found = [sum(layers) for layers in waits(decoded, SOURCE, RIGHT)]
    result = simulate(
        sample.image, inputs, GEOMETRY, source=SOURCE, limit=150_000,
        verilog=with_flash(GEOMETRY, FLASH, {}, SDRAM, MEMORY),
    )  # fmt: skip
    assert result.cycles[:RIGHT] == [golden.cycles] * RIGHT
    assert result.memory_waits[:RIGHT] == found
    assert sum(found) > 0 or seed != 6
    taken = golden.results.shape[1] * reported(result)
    assert RIGHT <= reported(result) < len(inputs)
    assert result.upset or result.error != Error.NONE
    expected = golden.results.reshape(-1, GEOMETRY.n)
    assert (result.results[:taken] == expected[:taken]).all()
