"""The engine with an image in a flash, in Verilator: waits as golden counts them, and bit errors.

``pytest -m long tests/sim/test_flash.py`` reads in more ways, and makes 200 inferences with errors.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.hw.flash import Flash
from secateur.hw.spec import Error, Geometry, Status
from secateur.sim.golden import parse, run
from secateur.sim.ring import waits
from secateur.sim.simulate import compare, simulate
from tests.hw.memory.flash_top import reported, with_flash
from tests.sim.filter_programs import FilterMaker
from tests.support.long import quick
from tests.support.programs import Sample, random_program

GEOMETRY = Geometry(n=4, p=3, s=2, weight_words=8192, bank_words=128, ring=128)
LATE = {"VALID": 5, "HOLD": 3}
FLASHES = {
    "quad": (Flash(pause=60, address=0x200000), LATE),
    "quad-fast": (Flash(pause=60, divider=1, delay=0, continuous=True), {}),
    "single": (Flash(pause=60, quad=False), LATE),
}


def program(seed: int) -> Sample:
    return random_program(seed, replace(GEOMETRY, ring=0), several=False, maker=FilterMaker)


@pytest.mark.parametrize(
    "name", ["quad", *(pytest.param(name, marks=pytest.mark.long) for name in list(FLASHES)[1:])]
)
@pytest.mark.parametrize("seed", quick(range(3), (1,)))
def test_waits_are_predicted(name: str, seed: int) -> None:
    """The first input comes when the ring is full, three more at once."""
    flash, model = FLASHES[name]
    sample = program(seed)
    inputs, decoded = sample.inputs(4), parse(sample.image, GEOMETRY)
    golden = run(decoded, inputs, sequential=True)
    result = simulate(
        sample.image,
        inputs,
        GEOMETRY,
        verilog=with_flash(GEOMETRY, flash, model),
        source=flash.source,
    )
    assert compare(result, golden, inputs).mismatches == []
    assert (result.state, result.error, result.upset) == (Status.WAITING, Error.NONE, False)
    assert result.cycles == [golden.cycles] * 4
    found = [sum(layers) for layers in waits(decoded, flash.source, 4)]
    assert result.memory_waits == found
    assert found[-1] > 0


@pytest.mark.parametrize("runs", [3, pytest.param(40, marks=pytest.mark.long)])
def test_a_bit_error_is_told_before_its_result(runs: int) -> None:
    """Five inferences a run, of an image that was right when it was checked; then a bit of 16,000
    is wrong. No wrong result is taken as right: it is marked, or the engine stops."""
    flash, model = FLASHES["quad"]
    text = with_flash(GEOMETRY, flash, model | {"ERRORS": 1000, "CLEAN": 1})
    right = marked = wrong = 0
    for seed in range(1, runs + 1):
        sample = program(seed % 5)
        inputs = sample.inputs(5)
        golden = run(parse(sample.image, GEOMETRY), inputs, sequential=True)
        result = simulate(
            sample.image, inputs, GEOMETRY, verilog=text, source=flash.source, power_up=seed
        )
        expected = golden.results.reshape(-1, GEOMETRY.n)
        taken = golden.results.shape[1] * reported(result)
        right += taken
        assert (result.results[:taken] == expected[:taken]).all(), f"seed {seed}"
        differ = result.results[taken:] != expected[taken : len(result.results)]
        wrong += bool(differ.any())
        marked += result.upset
        assert taken == len(expected) or result.upset or result.error != Error.NONE
    assert right
    assert marked
    assert runs < 40 or wrong
